"""Waiting for what a server or a process does in its own time."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_until(condition: Callable[[], object], what: str, seconds: float = 60.0, *, pause: float = 0.2) -> None:
    """Ask again and again until the condition holds. Fails if that takes longer than so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f'waited {seconds:g} s for {what}'
        time.sleep(pause)
