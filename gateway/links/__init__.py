"""The only rooms that know radios and ports."""
