"""Platforms that do not speak our events: one TOML file each, no code. Read here, spoken by `uplinks`."""

from gateway.profiles.answers import Decision, Meaning, Rule
from gateway.profiles.mapping import MappingError
from gateway.profiles.profile import NATIVE, Profile
from gateway.profiles.reading import SHIPPED, load_profile

__all__ = ["NATIVE", "SHIPPED", "Decision", "MappingError", "Meaning", "Profile", "Rule", "load_profile"]
