"""Background tasks (`task.delay()`): those that wait for a task worker, and the task workers that listen.

Nobody else tells that none listens: the caller of `.delay()` goes on, and the task run stays SCHEDULED forever.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache

from datadog_checks.prefect.aggregation import LingeringSeries, Maxima, Tally
from datadog_checks.prefect.api.errors import NotFound
from datadog_checks.prefect.api.times import age_seconds
from datadog_checks.prefect.collectors.base import RunContext
from datadog_checks.prefect.inventory.tagging import task_tags
from datadog_checks.prefect.metrics import TASK_RUNS_SCHEDULED, TASK_RUNS_SCHEDULED_MAX_AGE, TASK_WORKERS_ONLINE
from datadog_checks.prefect.sample import Sample
from datadog_checks.prefect.tags import TASK_KEY, Tags, make_tags

# A replica of the server knows only the task workers that are connected to it, and any of them may answer the check.
_ONLINE = timedelta(seconds=60)
# What is remembered of task workers whose names a server makes up.
_MOST_TASK_WORKERS = 10_000


# The task keys of each task worker, and when it listened last, by the name that it gave itself.
Workers = Mapping[str, tuple[frozenset[str], datetime]]


@dataclass(frozen=True)
class BackgroundTasksMemory:
    """`asked_since` is since when task workers have been asked for."""

    workers: Workers = field(default_factory=dict)
    asked_since: datetime | None = None
    reported: LingeringSeries = field(default_factory=LingeringSeries)


class BackgroundTasks:
    """Those that a flow run asked for pass with it. The others, and task workers, belong to no work pool, deployment or
    flow: filters that include some leave them out.
    """

    name = 'background_tasks'
    initial_memory = BackgroundTasksMemory()

    def collect(self, run: RunContext, memory: BackgroundTasksMemory) -> tuple[list[Sample], BackgroundTasksMemory]:
        inventory = run.inventory
        waiting, ages = Tally(TASK_RUNS_SCHEDULED), Maxima(TASK_RUNS_SCHEDULED_MAX_AGE)
        waiting_keys: set[Tags] = set()
        for task_run, _ in inventory.tag_task_runs(inventory.waiting_background_task_runs()):
            tags = task_tags(task_run.task_key)
            since = task_run.expected_start_time or task_run.state_time or run.now
            waiting.add(TASK_RUNS_SCHEDULED, tags)
            ages.add(TASK_RUNS_SCHEDULED_MAX_AGE, tags, age_seconds(since, run.now))
            waiting_keys.add(_key_tags(task_run.task_key))
        workers = _workers(run, memory.workers) if inventory.keep_parentless else None
        if workers is None:
            samples, reported = memory.reported.samples(run.now, waiting, ages)
            return samples, BackgroundTasksMemory(reported=reported)
        asked_since = memory.asked_since or run.now
        online = Tally(TASK_WORKERS_ONLINE)
        for task_keys, _ in workers.values():
            for task_key in task_keys:
                online.add(TASK_WORKERS_ONLINE, _key_tags(task_key))
        if run.now - asked_since >= _ONLINE:
            # Before that another replica may know one.
            for tags in waiting_keys:
                online.add(TASK_WORKERS_ONLINE, tags, 0)
        samples, reported = memory.reported.samples(run.now, waiting, ages, online)
        return samples, BackgroundTasksMemory(workers, asked_since, reported)


def _workers(run: RunContext, known: Workers) -> Workers | None:
    """The task workers that were seen within `_ONLINE`; None from a server that does not tell."""
    try:
        answer = run.inventory.task_workers()
    except NotFound as error:
        run.log.debug('No task workers: %s', error)
        return None
    seen = {worker.id: (frozenset(worker.task_keys), worker.seen_at) for worker in answer}
    both = {**known, **seen}
    newest = sorted(both.items(), key=lambda item: item[1][1], reverse=True)[:_MOST_TASK_WORKERS]
    return {identifier: found for identifier, found in newest if run.now - found[1] < _ONLINE}


@lru_cache(maxsize=4096)
def _key_tags(task_key: str | None) -> Tags:
    return make_tags({TASK_KEY: task_key})
