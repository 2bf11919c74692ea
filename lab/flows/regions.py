"""A parent with two subflows: flow runs that have neither deployment nor work pool."""

from __future__ import annotations

from prefect import flow
from tasks import work


@flow(name='region')
def region(name: str) -> float:
    return work(0.3)


@flow(name='regions')
def regions() -> None:
    for name in ('north', 'south'):
        region(name)
