"""The world outside, pretended: the air, the serial bus, the district platform, and their faults."""
