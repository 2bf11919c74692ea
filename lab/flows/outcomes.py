"""Flows that end in each of the ways in which a flow run can end."""

from __future__ import annotations

import os
import signal
import time

from prefect import flow
from prefect.runtime import flow_run
from tasks import work


@flow(name='report')
def succeeds(seconds: float = 2.0) -> float:
    return work(seconds)


@flow(name='invoices')
def fails_at_first(seconds: float = 0.5) -> float:
    """FAILED the first time, COMPLETED when somebody retries the run."""
    if flow_run.run_count == 1:
        raise ValueError('the invoices of May are missing')
    return work(seconds)


@flow(name='image-import')
def crashes(seconds: float = 2.0) -> None:
    """CRASHED: the process dies as under the kernel's out-of-memory killer, and cannot tell the server."""
    time.sleep(seconds)
    os.kill(os.getpid(), signal.SIGKILL)


@flow(name='backfill')
def runs_long(seconds: float = 600.0) -> float:
    """RUNNING until somebody cancels the run; its task run ends CRASHED then, for the process is terminated."""
    return work(seconds)


@flow(name='inventory', timeout_seconds=2)
def times_out() -> None:
    """FAILED, with the state name TimedOut."""
    for _ in range(100):
        time.sleep(0.1)
