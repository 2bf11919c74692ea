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

    Each work pool has `queues_per_pool` work queues. `live_flow_runs` are RUNNING for long, and share the task runs.

    A million of these take 4 GB of the temporary folder.
    """

    work_pools: int
    deployments: int
    future_runs: int
    history: int = 1_000
    queues_per_pool: int = 1
    live_flow_runs: int = 0
    live_task_runs: int = 0

    @property
    def schedule_seconds(self) -> float:
        """The time between two runs of a deployment: half of what starts is planned, also where checks take long."""
        return max(300.0, 2 * self.deployments * INTERVAL_SECONDS / FLOW_RUNS_PER_INTERVAL)


SIZES = {
    'tiny': Size(2, 10, 1_000),
    'medium': Size(10, 100, 10_000),
    'large': Size(50, 1_000, 100_000),
    'unscheduled': Size(50, 1_000, 0),
    'historic': Size(50, 1_000, 0, 1_000_000),
    'pools': Size(500, 1_000, 0, queues_per_pool=3),
    'live': Size(50, 1_000, 0, live_flow_runs=5_000, live_task_runs=20_000),
    'huge': Size(500, 10_000, 300_000, queues_per_pool=3, live_flow_runs=5_000, live_task_runs=20_000),
}
# The size whose scheduled runs are changed, the one whose live runs are, and the one with most of all.
CHANGING, LIVING, MOST = 'large', 'live', 'huge'
# Those that are measured as far ones, too.
FAR = (CHANGING, MOST)


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
    Sweep('work_pools', 'work pools', ('unscheduled', 'pools')),
    Sweep('live_task_runs', 'live task runs', ('unscheduled', 'live')),
)
