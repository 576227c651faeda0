"""From a configured broker to the link that listens to it, with its credentials."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gateway.app.transports import said, tls_of
from gateway.clock import Stamp, SystemClock
from gateway.config import Mqtt
from gateway.events import Origin
from gateway.links.mqtt_source import Acknowledge, MqttSource
from gateway.links.state import StateCallback
from gateway.mqtt_session import Delivery, Endpoint


def source_of(
    broker: Mqtt, origin: Origin, *, topics: Sequence[str], on_message: Callable[[Delivery, Stamp, Acknowledge], None],
    on_state: StateCallback, on_anew: Callable[[], None], clock: SystemClock,
) -> MqttSource:  # fmt: skip
    """Return the link. Its client id is the gateway's for this broker: the broker keeps what it has for us under that."""
    endpoint = Endpoint(
        broker.host, broker.port, client_id_of(broker, origin), broker.username,
        tls=tls_of(broker, clock), version=broker.mqtt_version,
    )  # fmt: skip
    return MqttSource(
        link_id=broker.id, endpoint=endpoint, password=lambda: said(broker.password), topics=topics,
        bridge=broker.bridge, on_message=on_message, on_state=on_state, on_anew=on_anew, clock=clock,
    )  # fmt: skip


def client_id_of(broker: Mqtt, origin: Origin) -> str:
    """Return the client id. No id has a point in it, so no path to a platform has it: two of one throw each other out."""
    return f"{origin.org}-{origin.site}-{origin.gateway}.{broker.id}"
