"""Flows with tasks, dependencies and retries, run one after the other by calling them, for some time.

EXERCISE_SECONDS is how long a new round may begin; EXERCISE_PREFIX comes before the name of each flow, so that runs of
different observers can be told apart on one server.
"""

from __future__ import annotations

import contextlib
import os
import time

from prefect import flow, task
from prefect.runtime import flow_run, task_run
from tasks import work

PREFIX = os.environ.get('EXERCISE_PREFIX', '')


@task
def extract(number: int) -> list[int]:
    time.sleep(0.1)
    return [number, number + 1]


@task
def transform(rows: list[int], factor: int) -> int:
    time.sleep(0.05 * factor)
    return factor * sum(rows)


@task(retries=1, retry_delay_seconds=0.3)
def flaky(total: int) -> int:
    if task_run.run_count == 1:
        raise ConnectionError('the first attempt fails')
    return total


@task
def broken() -> None:
    raise ValueError('this task always fails')


@flow(name=f'{PREFIX}regional')
def regional(number: int) -> int:
    return transform(extract(number), 1)


@flow(name=f'{PREFIX}pipeline')
def pipeline(number: int) -> int:
    """A chain with a fan-out; a task that is retried, one that fails, one that waits for it; a subflow."""
    extracted = extract.submit(number)
    transformed = [transform.submit(extracted, factor) for factor in (1, 2, 3)]
    checked = [flaky.submit(part) for part in transformed]
    failed = broken.submit()
    never_ready = work.submit(0.01, wait_for=[failed])
    archived = work.submit(0.05, wait_for=checked)
    for future in (failed, never_ready, archived):
        future.wait()
    return regional(number)


@flow(name=f'{PREFIX}stubborn', retries=2, retry_delay_seconds=1)
def stubborn(number: int) -> int:
    """COMPLETED at the third attempt; each attempt has task runs of its own."""
    extracted = extract(number)
    if flow_run.run_count < 3:
        raise ConnectionError(f'attempt {flow_run.run_count} fails')
    return sum(extracted)


@flow(name=f'{PREFIX}hopeless')
def hopeless(number: int) -> None:
    broken()


if __name__ == '__main__':
    end = time.monotonic() + float(os.environ.get('EXERCISE_SECONDS', '0'))
    number = 0
    while number == 0 or time.monotonic() < end:
        for exercise in (pipeline, stubborn, hopeless):
            # Also those that are not meant to fail do so when a server with SQLite is too busy to take their states.
            with contextlib.suppress(Exception):
                exercise(number)
        number += 1
