"""Device knowledge and nothing else: bytes in, observations out. No IO, no clock, no logging."""
