"""The only room that speaks to radios and ports. Drivers and everything above see what came, not how.

serialx loads the library of ESPHome where it is installed, for serial ports behind such devices: 0.2 s of a fast core and
8 MB for something that no configuration can name. Marked as missing, that part of it is left out.
"""

import sys

sys.modules.setdefault("serialx.platforms.serial_esphome", None)  # type: ignore[arg-type]  # None: "not to be found"
