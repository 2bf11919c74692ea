"""A flow that stands PAUSED until somebody resumes it."""

from __future__ import annotations

from prefect import flow
from prefect.flow_runs import pause_flow_run
from tasks import work


@flow(name='payout')
def waits_for_approval() -> float:
    work(0.2)
    pause_flow_run(timeout=300, poll_interval=2)
    return work(0.2)
