"""A small pipeline: a chain of tasks with a fan-out in the middle, all submitted at once.

Every task but the first has upstream task runs, by data or by `wait_for`: they are PENDING until these have ended.
"""

from __future__ import annotations

import time

from prefect import flow, task
from tasks import work


@task
def extract(seconds: float) -> list[int]:
    time.sleep(seconds)
    return [1, 2, 3]


@task
def transform(orders: list[int], factor: int) -> int:
    time.sleep(0.3 * factor)
    return factor * sum(orders)


@task
def load(totals: list[int]) -> int:
    return sum(totals)


@flow(name='orders')
def orders(seconds: float = 3.0) -> int:
    extracted = extract.submit(seconds)
    transformed = [transform.submit(extracted, factor) for factor in (1, 2, 3)]
    loaded = load.submit(transformed)
    archived = work.submit(0.2, wait_for=[loaded])
    archived.wait()
    return loaded.result()
