"""Waiting for what a server or a process does in its own time."""

from __future__ import annotations

import time
from collections.abc import Callable

# A server that waits for a lock of SQLite does nothing else for 60 s, and on a full machine once more (3.8.8).
PATIENCE_SECONDS = 150.0


def wait_until(
    condition: Callable[[], object], what: str, seconds: float = PATIENCE_SECONDS, *, pause: float = 0.2
) -> None:
    """Ask again and again until the condition holds. Raises TimeoutError if that takes longer than so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f'waited {seconds:g} s for {what}')
        time.sleep(pause)
