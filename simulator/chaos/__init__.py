"""Breaks everything around a running gateway, and judges by the ledgers: the chaos of many faults, the storm of many kills."""
