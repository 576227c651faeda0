"""The limits: the same work done raw, on the same machine, in the same minute. Paced as the work itself is paced.

A machine that has gone to sleep between two presses is slower than one that runs flat out, so a raw commit that is to be
compared with a press comes as often as a press does. Limits: 200 raw operations a kind, 10,000 raw rows.
"""

from __future__ import annotations

import http.client
import sqlite3
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from simulator.bench.figures import Spread

PACE_S: Final = 0.05
RAW: Final = 200
ROWS: Final = 10_000
ROWS_A_COMMIT: Final = 250
BODY: Final = "x" * 600
_TICKS_PER_S: Final = 100  # USER_HZ of Linux on every architecture that we run on
_LIBRARIES: Final = (
    "import asyncio, bleak, cryptography.hazmat.primitives.ciphers.aead, httpx, paho.mqtt.client, pydantic, serial, "
    "serialx, sqlite3, structlog, uuid_utils"
)


def commits(folder: Path) -> Spread:
    """Return how long one row a commit takes, with the outbox's pragmas."""
    spread = Spread()
    connection = _database(folder / "raw-one.db")
    for number in range(RAW):
        time.sleep(PACE_S)
        began = time.perf_counter()
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO event VALUES (?, ?)", (number, BODY))
        connection.execute("COMMIT")
        spread.values.append(time.perf_counter() - began)
    connection.close()
    return spread


def rows_per_s(folder: Path) -> float:
    """Return how many rows a second SQLite stores durably, 250 a commit: nothing but the insert."""
    connection = _database(folder / "raw-many.db")
    began = time.perf_counter()
    for first in range(0, ROWS, ROWS_A_COMMIT):
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(
            "INSERT INTO event VALUES (?, ?)", [(number, BODY) for number in range(first, first + ROWS_A_COMMIT)]
        )
        connection.execute("COMMIT")
    took = time.perf_counter() - began
    connection.close()
    return ROWS / took


def _database(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE event (seq INTEGER PRIMARY KEY, body TEXT)")
    return connection


def mqtt_round_trips(port: int) -> Spread:
    """Return how long one QoS 1 publish of 700 bytes takes until its PUBACK, with plain paho."""
    spread = Spread()
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id="raw", protocol=paho.MQTTv5)
    client.connect("127.0.0.1", port)
    client.loop_start()
    for _ in range(RAW):
        time.sleep(PACE_S)
        began = time.perf_counter()
        client.publish("bench/raw", b"x" * 700, qos=1).wait_for_publish(5)
        spread.values.append(time.perf_counter() - began)
    client.disconnect()
    client.loop_stop()
    return spread


def https_round_trips(port: int, authority: Path) -> Spread:
    """Return how long one request of the standard library takes on a warm TLS connection to the same server."""
    spread = Spread()
    context = ssl.create_default_context(cafile=str(authority))
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=5, context=context)
    for _ in range(RAW):
        time.sleep(PACE_S)
        began = time.perf_counter()
        connection.request("GET", "/v1/time")
        connection.getresponse().read()
        spread.values.append(time.perf_counter() - began)
    connection.close()
    return spread


def imports_only() -> tuple[float, float]:
    """Return resident megabytes of a process that only imports what the gateway uses, and the seconds that it takes."""
    code = f"{_LIBRARIES}; print(open('/proc/self/status').read())"
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    return resident_mb(done.stdout), time.perf_counter() - began


def resident_mb(status: str) -> float:
    """Return the resident memory in a /proc/PID/status, in MiB."""
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS:"))


def cpu_s(pid: int) -> float:
    """Return the CPU time that a process has used, in seconds (proc(5), fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def peak_mb(pid: int) -> float:
    """Return the largest resident memory that a process has had, in MiB."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) / 1024 for line in text.splitlines() if line.startswith("VmHWM:"))
