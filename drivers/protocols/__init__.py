"""One wire protocol a file: bytes in, values out. What a value means for a device stands in `drivers.devices`."""
