"""What a drain is measured against: the same events over the same line to the same server, with nothing else to do.

Plain paho publishes them one by one with QoS 1, to a topic that nobody reads; plain httpx posts them in batches over one warm
connection. Limits: `EVENTS` events, `SMALL_RUN` for each window that is tried.
"""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

import httpx
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

EVENTS: Final = 5_000
SMALL_RUN: Final = 3_000
WINDOWS: Final = (20, 50, 100)
BATCH_EVENTS: Final = 100
BATCH_BYTES: Final = 63 * 1024
ROUND_TRIPS: Final = 20
ANSWER_S: Final = 30.0
_TOPIC: Final = "bench/raw"


def paho_per_s(port: int, events: Sequence[str]) -> tuple[float, int]:
    """Return the best rate in events a second, and the window that it took."""
    payloads = [one.encode() for one in events[:SMALL_RUN]]
    return max((_published(port, payloads, window=window), window) for window in WINDOWS)


def _published(port: int, payloads: Sequence[bytes], *, window: int) -> float:
    """Publish all of them with at most `window` unconfirmed; paho's own queue stays empty."""
    free = threading.Semaphore(window)
    client = _connected(port, f"raw-{window}", window=window)

    def confirmed(*_: Any) -> None:
        free.release()

    client.on_publish = confirmed
    began = time.perf_counter()
    for payload in payloads:
        if not free.acquire(timeout=ANSWER_S):
            raise OSError("the broker does not confirm")
        client.publish(_TOPIC, payload, qos=1)
    for _ in range(window):
        if not free.acquire(timeout=ANSWER_S):
            raise OSError("the broker does not confirm")
    took = time.perf_counter() - began
    client.disconnect()
    client.loop_stop()
    return len(payloads) / took


def round_trip_s(port: int, *, size: int) -> float:
    """Return how long a message of `size` bytes takes until it is confirmed: the median."""
    client = _connected(port, "raw-far", window=20)
    client.publish(_TOPIC, b"", qos=1).wait_for_publish(ANSWER_S)
    taken = []
    for _ in range(ROUND_TRIPS):
        began = time.perf_counter()
        client.publish(_TOPIC, b"x" * size, qos=1).wait_for_publish(ANSWER_S)
        taken.append(time.perf_counter() - began)
    client.disconnect()
    client.loop_stop()
    return median(taken)


def _connected(port: int, name: str, *, window: int) -> paho.Client:
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=paho.MQTTv5)
    client.max_inflight_messages_set(window)
    client.connect("127.0.0.1", port)
    client.loop_start()
    deadline = time.perf_counter() + ANSWER_S
    while not client.is_connected():
        if time.perf_counter() > deadline:
            raise OSError("the broker does not answer")
        time.sleep(0.005)
    return client


def httpx_per_s(port: int, authority: Path, events: Sequence[str]) -> float:
    """Return how many events a second one client posts, one batch after the other."""
    bodies = batches(events)
    headers = {"Content-Type": "application/cloudevents-batch+json"}
    context = ssl.create_default_context(cafile=str(authority))
    with httpx.Client(verify=context, base_url=f"https://127.0.0.1:{port}", timeout=ANSWER_S) as client:
        client.get("/v1/time").raise_for_status()
        began = time.perf_counter()
        for body in bodies:
            answer = client.post("/v1/events:batch", content=body, headers=headers)
            answer.raise_for_status()
            json.loads(answer.content)
        took = time.perf_counter() - began
    return len(events) / took


def batches(events: Sequence[str]) -> list[bytes]:
    """Fill batches as a gateway does: up to 100 events, up to 63 KiB."""
    batches: list[list[bytes]] = [[]]
    size = 0
    for event in events:
        one = event.encode()
        if len(batches[-1]) == BATCH_EVENTS or (batches[-1] and size + len(one) + 1 > BATCH_BYTES):
            batches.append([])
            size = 0
        batches[-1].append(one)
        size += len(one) + 1
    return [b"[" + b",".join(batch) + b"]" for batch in batches]
