"""What holds for every test."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """Let SIGINT be heard: a shell ignores it for what it runs in the background, and so would every process of a test."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
