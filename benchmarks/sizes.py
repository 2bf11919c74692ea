"""The servers that are measured, and what happens on each of them."""

from __future__ import annotations

from dataclasses import dataclass

# Seconds between two checks, the default of the Agent, and what happens meanwhile.
INTERVAL_SECONDS = 15.0
FLOW_RUNS_PER_INTERVAL = 50
TASK_RUNS_PER_FLOW_RUN = 10


@dataclass(frozen=True)
class Size:
    """How much there is on a server: `history` are flow runs that ended long ago, each with a task run.

    A million of these take 4 GB of the temporary folder.
    """

    work_pools: int
    deployments: int
    future_runs: int
    history: int = 1_000


SIZES = {
    'tiny': Size(2, 10, 1_000),
    'medium': Size(10, 100, 10_000),
    'large': Size(50, 1_000, 100_000),
    'unscheduled': Size(50, 1_000, 0),
    'historic': Size(50, 1_000, 0, 1_000_000),
}
# The size whose scheduled runs are added to and deleted from.
CHANGING = 'large'


@dataclass(frozen=True)
class Sweep:
    """Sizes among which one number grows: a field of `Size`, and what it is called."""

    field: str
    title: str
    sizes: tuple[str, ...]


SWEEPS = (
    Sweep('future_runs', 'future scheduled runs', ('unscheduled', 'large')),
    Sweep('deployments', 'deployments, 100 future runs each', ('tiny', 'medium', 'large')),
    Sweep('history', 'finished runs in the history', ('unscheduled', 'historic')),
)
