"""The naive plan: what a monitor reads that pages through everything, as exporters and the check on the market do.

It reads what a check needs for the same series: all pools, workers, queues, deployments, flows, all runs that have not
ended, and what started or ended in the last interval. It does no work with them: its cost is the least that such a plan
has.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

from benchmarks.sizes import INTERVAL_SECONDS
from lab.api import PrefectApiDriver

_PAGE_SIZE = 200
# What takes longer is not measured to its end.
LIMIT_SECONDS = 300.0
# With the server's default sort, by id, it takes three times as long (3.8.8 on SQLite).
_SORT = 'EXPECTED_START_TIME_ASC'
_OPEN = ['SCHEDULED', 'PENDING', 'RUNNING', 'PAUSED', 'CANCELLING']
_ENDED = ['COMPLETED', 'FAILED', 'CRASHED', 'CANCELLED']


class NaivePlan:
    """One reader with a connection of its own; `run` is one check."""

    def __init__(self, api_url: str) -> None:
        self._api = PrefectApiDriver(api_url)
        self._deadline = 0.0

    def run(self) -> int:
        """Read everything; return how many objects that were. Raises TimeoutError after LIMIT_SECONDS."""
        self._deadline = time.monotonic() + LIMIT_SECONDS
        since = (datetime.now(UTC) - timedelta(seconds=INTERVAL_SECONDS)).isoformat()
        pools = self._all('work_pools/filter', {})
        lists = [
            pools,
            *(self._all(f'work_pools/{pool["name"]}/workers/filter', {}) for pool in pools),
            self._all('work_queues/filter', {}),
            self._all('deployments/filter', {}),
            self._all('flows/filter', {}),
        ]
        for path, key in (('flow_runs/filter', 'flow_runs'), ('task_runs/filter', 'task_runs')):
            for criteria in (
                {'state': {'type': {'any_': _OPEN}}},
                {'state': {'type': {'any_': _ENDED}}, 'end_time': {'after_': since}},
                {'state': {'type': {'any_': _ENDED}}, 'start_time': {'after_': since}},
            ):
                lists.append(self._all(path, {key: criteria, 'sort': _SORT}))
        return sum(map(len, lists))

    def _all(self, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while True:
            if time.monotonic() > self._deadline:
                raise TimeoutError(f'paging through everything takes more than {LIMIT_SECONDS:.0f} s')
            page = {'limit': _PAGE_SIZE, 'offset': len(found)}
            rows = self._api.request('POST', path, body | page)
            found += rows
            if len(rows) < _PAGE_SIZE:
                return found
