"""One MQTT connection and its life: the only room that knows paho. Uplinks publish through it, links listen through it."""

from gateway.mqtt_session.endpoint import Endpoint, Version, Will
from gateway.mqtt_session.inbox import Delivery, Inbox
from gateway.mqtt_session.refusals import TAKEN_OVER, NotSpoken
from gateway.mqtt_session.session import MqttSession

__all__ = ["TAKEN_OVER", "Delivery", "Endpoint", "Inbox", "MqttSession", "NotSpoken", "Version", "Will"]
