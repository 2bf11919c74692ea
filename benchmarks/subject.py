"""A process that is measured: the check, or the naive plan.

    python -m benchmarks.subject check|naive API_URL

For each line `run` on standard input it runs once and answers with one line of JSON, a `Run`; it ends when the input
does. After `delay 0.3` each request takes 0.3 s more. For `age` see `Check.age`.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from benchmarks.activity import LIVE
from benchmarks.naive import NaivePlan
from benchmarks.traffic import Request, counted_traffic
from datadog_checks.base.stubs import aggregator, datadog_agent
from datadog_checks.prefect import PrefectCheck
from datadog_checks.prefect.metrics import COLLECTOR_SUCCESS, FLOW_RUNS_SCHEDULED, NAMESPACE
from datadog_checks.prefect.tags import COLLECTOR, DEPLOYMENT_ID

_SCHEDULED = f'{NAMESPACE}.{FLOW_RUNS_SCHEDULED.name}'
_SUCCESS = f'{NAMESPACE}.{COLLECTOR_SUCCESS.name}'
_LIVE = {f'{NAMESPACE}.{name}': name for name in LIVE}
_ENDS = {
    f'{NAMESPACE}.{kind}.{state}.count': kind
    for kind in ('flow_runs', 'task_runs')
    for state in ('completed', 'failed', 'crashed', 'cancelled')
}


@dataclass
class Run:
    """One run of a subject: seconds, bytes, numbers of things.

    `scheduled`: `flow_runs.scheduled` by deployment. `live`: the sums of the series in `activity.LIVE`. `ended`: the
    flow runs and task runs that were counted so far. `failed`: the collectors that failed.
    """

    seconds: float = 0.0
    own_cpu_seconds: float = 0.0
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    wire_bytes: int = 0
    peak_bytes: int = 0
    resident_bytes: int = 0
    state_bytes: int = 0
    samples: int = 0
    scheduled: dict[str, int] = field(default_factory=dict)
    live: dict[str, int] = field(default_factory=dict)
    ended: dict[str, int] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    error: str = ''


class Check:
    """The check, with an aggregator that only counts: neither the Agent's nor that of tests is a part of the check."""

    def __init__(self, api_url: str) -> None:
        self._check = PrefectCheck('prefect', {}, [{'prefect_url': api_url}])
        self._check.check_id = 'prefect:benchmark'
        self._samples = 0
        self._scheduled: Counter[str] = Counter()
        self._live: Counter[str] = Counter()
        self._ended: Counter[str] = Counter()
        self._failed: list[str] = []
        self._cache: dict[str, str] = {}
        self._state_bytes = 0
        aggregator.submit_metric = self._submit_metric  # type: ignore[method-assign]
        datadog_agent.read_persistent_cache = lambda key: self._cache.get(key, '')  # type: ignore[method-assign]
        datadog_agent.write_persistent_cache = self._persist  # type: ignore[method-assign]

    def run(self, run: Run) -> None:
        self._samples = 0
        self._scheduled.clear()
        self._live.clear()
        self._failed.clear()
        answer = self._check.run()
        run.error = json.loads(answer)[0]['message'] if answer else ''
        run.samples = self._samples
        run.scheduled = {key: number for key, number in self._scheduled.items() if number}
        run.live = {name: number for name, number in self._live.items() if number}
        run.ended = dict(self._ended)
        run.failed = sorted(self._failed)
        run.state_bytes = self._state_bytes

    def age(self) -> None:
        """Let the check have run for a long time: what it reads of the past reaches back as far as it ever does."""
        streams = self._check._state.streams
        hour = timedelta(hours=1)
        self._check._state = replace(
            self._check._state, streams={key: replace(one, floor=one.floor - hour) for key, one in streams.items()}
        )

    def _submit_metric(
        self, check: object, check_id: str, type_code: int, name: str, value: float, tags: list[str], *more: Any
    ) -> None:
        self._samples += 1
        if name == _SCHEDULED:
            self._scheduled[_value_of(DEPLOYMENT_ID, tags)] += int(value)
        elif name == _SUCCESS and not value:
            self._failed.append(_value_of(COLLECTOR, tags))
        elif name in _LIVE:
            self._live[_LIVE[name]] += int(value)
        elif name in _ENDS:
            self._ended[_ENDS[name]] += int(value)

    def _persist(self, key: str, document: str) -> None:
        self._cache[key] = document
        self._state_bytes = len(document)


def _value_of(key: str, tags: list[str]) -> str:
    return next((tag.partition(':')[2] for tag in tags if tag.startswith(f'{key}:')), '')


def memory(line_name: str) -> int:
    """The memory of this process in bytes, by Linux: VmHWM is the most that it ever had, VmRSS what it has."""
    lines = Path('/proc/self/status').read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(line_name))


def measured(call: Callable[[Run], None], delay_seconds: float) -> Run:
    run = Run()
    with counted_traffic(delay_seconds) as traffic:
        began, cpu = time.perf_counter(), time.process_time()
        call(run)
        run.seconds, run.own_cpu_seconds = time.perf_counter() - began, time.process_time() - cpu
    run.requests = traffic.requests
    run.connections, run.wire_bytes = traffic.connections, traffic.bytes
    run.peak_bytes, run.resident_bytes = memory('VmHWM:'), memory('VmRSS:')
    return run


def main(arguments: list[str]) -> int:
    name, api_url = arguments
    check = Check(api_url) if name == 'check' else None
    naive = NaivePlan(api_url)
    delay_seconds = 0.0

    def read_everything(run: Run) -> None:
        try:
            run.samples = naive.run()
        except TimeoutError as error:
            run.error = str(error)

    for line in sys.stdin:
        word, *numbers = line.split()
        if word == 'delay':
            delay_seconds = float(numbers[0])
        elif word == 'age' and check is not None:
            check.age()
        else:
            run = measured(check.run if check else read_everything, delay_seconds)
            print(json.dumps(asdict(run)), flush=True)
    return 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
