"""How events reach a platform: one module a transport. A deliverer knows only `Uplink`."""

from gateway.uplinks.uplink import Ack, AckStatus, Uplink, UplinkEvents

__all__ = ["Ack", "AckStatus", "Uplink", "UplinkEvents"]
