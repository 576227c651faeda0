"""The loop out: outbox -> uplink -> acknowledgement; one deliverer for each destination."""

from gateway.deliver.deliverer import Deliverer, DeliveryCallbacks

__all__ = ["Deliverer", "DeliveryCallbacks"]
