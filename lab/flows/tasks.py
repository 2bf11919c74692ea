"""Tasks that several flows of the lab use."""

from __future__ import annotations

import time

from prefect import task


@task
def work(seconds: float) -> float:
    """Take some time."""
    time.sleep(seconds)
    return seconds
