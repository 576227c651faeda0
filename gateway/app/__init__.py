"""Builds everything, wires it in one TaskGroup, and ends it in order: the only place that constructs the rooms."""

from gateway.app.daemon import run

__all__ = ["run"]
