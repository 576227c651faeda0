"""The daemon of an elder day-care centre: hears calls and falls, keeps every event safe, delivers it, explains itself."""

__version__ = "0.1.0"
