"""What the unit tests share: collectors over the fake server without the Agent, and what rows should give as tags."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any

import pytest

from datadog_checks.prefect import PrefectCheck
from datadog_checks.prefect import check as check_module
from datadog_checks.prefect.api.client import PrefectClient
from datadog_checks.prefect.api.rows import read_rows
from datadog_checks.prefect.api.server_clock import ServerClock
from datadog_checks.prefect.api.session import BoundedHttp
from datadog_checks.prefect.api.transport import Transport
from datadog_checks.prefect.collectors.base import (
    AnySnapshotCollector,
    AnyStreamCollector,
    MemorylessCollector,
    RunContext,
    WithoutMemory,
)
from datadog_checks.prefect.config_models.instance import InstanceConfig
from datadog_checks.prefect.inventory.inventory import Inventory
from datadog_checks.prefect.inventory.memory import InventoryMemory
from datadog_checks.prefect.sample import AgentEvent, AgentLog, Sample
from datadog_checks.prefect.settings import Settings
from datadog_checks.prefect.streams.cursor import Batch, CheckState
from datadog_checks.prefect.streams.registry import Registry
from datadog_checks.prefect.tags import Tags
from tests.fake_prefect import FakePrefect, FakeResponse
from tests.fake_prefect.server import FakeExchange, FakeRequest, Fault

Row = dict[str, Any]
# (series without the namespace, tags) -> value
Values = dict[tuple[str, Tags], float]

# The time of a new fake server.
START = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)
LOG = logging.getLogger('prefect.test')


def after_restart(url: str, **options: Any) -> PrefectCheck:
    """A check of the server at `url`, the only instance of its process, with the state that is persisted."""
    # The fixture `registry` puts it back.
    check_module.REGISTRY = Registry()
    check = PrefectCheck('prefect', {}, [{'prefect_url': url, **options}])
    check.check_id = 'prefect:test'
    return check


def at(seconds: float) -> datetime:
    """The moment so long after the start of the fake server."""
    return START + timedelta(seconds=seconds)


def options(url: str = 'http://prefect.test:4200/api', **changes: Any) -> InstanceConfig:
    """The options of an instance after validation, as the check gets them."""
    instance = {'prefect_url': url, **changes}
    context = {'configured_fields': frozenset(instance), 'security_config': None, 'logger': LOG, 'warning': LOG.warning}
    return InstanceConfig.model_validate(instance, context=context)


def new_transport(url: str, instance: dict[str, Any] | None = None, clock: ServerClock | None = None) -> Transport:
    """A transport as the check makes it."""
    return Transport(BoundedHttp(instance or {}, {}), url, clock or ServerClock(), LOG)


def new_client(url: str) -> PrefectClient:
    return PrefectClient(new_transport(url), LOG)


def let_requests_take(fake: FakePrefect, seconds: float, monkeypatch: pytest.MonkeyPatch, path: str = '') -> None:
    """Let so many seconds pass, on the clock that bounds a run, with each request to a path that ends so; no others."""
    passed = 0.0

    def answer_late(request: FakeRequest) -> None:
        nonlocal passed
        passed += seconds if request.path.endswith(path) else 0.0

    fake.fault = answer_late
    monkeypatch.setattr(time, 'monotonic', lambda: passed)


def read_row(model: type, row: Row) -> Any:
    """An object of an answer as that model, or as a MalformedRow."""
    (found,) = read_rows(model, json.dumps([row]).encode())
    return found


class Bench:
    """Runs collectors over a fake server as the check does: what the check keeps between its runs is kept here."""

    def __init__(self, fake: FakePrefect, url: str, **changes: Any) -> None:
        self.fake = fake
        self.settings = Settings.from_options(options(url, **changes))
        self._transport = new_transport(url)
        self.client = PrefectClient(self._transport, LOG)
        self._memory = InventoryMemory()
        self._state = CheckState()
        self._memories: dict[str, Any] = {}

    def context(self) -> RunContext:
        """A new run, now."""
        self._transport.start_run()
        settings = self.settings
        inventory = Inventory(
            self.client,
            settings.filters,
            self._memory,
            self.fake.now,
            LOG,
            settings.prefect_tags,
            settings.worker_retention,
            settings.counted_event_names,
        )
        return RunContext(self.fake.now, inventory, settings, LOG)

    def read(self, collector: AnySnapshotCollector | MemorylessCollector, run: RunContext | None = None) -> Values:
        """What a snapshot collector gives now, or in that run; takes over its memory."""
        remembering = collector if hasattr(collector, 'initial_memory') else WithoutMemory(collector)
        memory = self._memories.get(collector.name, remembering.initial_memory)
        samples, self._memories[collector.name] = remembering.collect(run or self.context(), memory)
        return values(samples)

    def follow(self, collector: AnyStreamCollector, run: RunContext | None = None) -> Values:
        """What a stream collector gives now, or in that run; takes over its cursor and memory."""
        return self.follow_events(collector, run)[1]

    def follow_events(
        self, collector: AnyStreamCollector, run: RunContext | None = None
    ) -> tuple[list[AgentEvent], Values]:
        """The same for a collector that gives events."""
        batch = self.batch(collector, run)
        self.commit(collector, batch)
        return list(batch.events), values(batch.samples)

    def follow_logs(self, collector: AnyStreamCollector) -> tuple[list[AgentLog], Values]:
        """The same for one that gives log records, by the batch."""
        batches = list(self.batches(collector))
        return [log for item in batches for log in item.logs], values(x for item in batches for x in item.samples)

    def batches(self, collector: AnyStreamCollector, *, commit: bool = True) -> Iterator[Batch[Any]]:
        """Each batch of a run, taken over before the next one is read."""
        first = self.batch(collector)
        for batch in chain([first], first.rest):
            if commit:
                self.commit(collector, batch)
            yield batch

    def commit(self, collector: AnyStreamCollector, batch: Batch[Any]) -> None:
        """Take over cursor and memory."""
        self._state = self._state.advanced(collector.name, batch.cursor)
        self._memories[collector.name] = batch.memory

    def restart(self) -> None:
        """What is not persisted is forgotten."""
        self._memory = InventoryMemory()
        self._memories = {}
        self._state = CheckState.loads(self._state.dumps())

    def batch(self, collector: AnyStreamCollector, run: RunContext | None = None) -> Batch[Any]:
        """What a stream collector returns now, as if what it returned were lost."""
        memory = self._memories.get(collector.name, collector.initial_memory)
        return collector.collect(run or self.context(), self._state.cursor(collector.name), memory)


def values(samples: Iterable[Sample]) -> Values:
    """Samples by series and tags; each may come once only."""
    found: Values = {}
    for sample in samples:
        key = (sample.spec.name, sample.tags)
        assert key not in found, f'{key} is reported twice in one run'
        found[key] = sample.value
    return found


def nonzero(found: Values) -> Values:
    return {key: value for key, value in found.items() if value}


def series(found: Values, *names: str) -> Values:
    """The part of `found` that belongs to these series."""
    return {key: value for key, value in found.items() if key[0] in names}


def five(name: str, tags: Tags, *durations: float) -> Values:
    """The five gauges of one or two durations."""
    low, high = min(durations), max(durations)
    summary = {'avg': (low + high) / 2, 'median': low, '95percentile': high, 'max': high, 'count': len(durations)}
    return {(f'{name}.{key}', tags): value for key, value in summary.items()}


def tags_of(
    *,
    work_pool: Row | None = None,
    work_queue: Row | None = None,
    deployment: Row | None = None,
    flow: Row | None = None,
    **more: object,
) -> Tags:
    """The tags that name these objects, in order. A work queue also names its work pool, a task key its task."""
    found: dict[str, object] = dict(more)
    if 'task_key' in more:
        found['task_name'] = more['task_key']
    if work_queue is not None:
        found |= {key: work_queue[key] for key in ('work_pool_id', 'work_pool_name')}
    objects = {'work_pool': work_pool, 'work_queue': work_queue, 'deployment': deployment, 'flow': flow}
    for kind, row in objects.items():
        if row is not None:
            found |= {f'{kind}_id': row['id'], f'{kind}_name': row['name']}
    return tuple(sorted(f'{key}:{value}' for key, value in found.items()))


def run_through(
    fake: FakePrefect,
    *,
    start: datetime | None = None,
    seconds: float = 10,
    end: tuple[str, str | None] = ('COMPLETED', None),
    **run: Any,
) -> Row:
    """A flow run that starts at `start` (now), runs for so many seconds and ends; `run` as for `add_flow_run`."""
    start = start or fake.now
    flow_run = fake.add_flow_run(state=None, at=start, **run)
    fake.set_flow_run_state(flow_run, 'RUNNING', at=start)
    fake.set_flow_run_state(flow_run, *end, at=start + timedelta(seconds=seconds))
    return flow_run


def run_task_through(
    fake: FakePrefect,
    *,
    start: datetime | None = None,
    seconds: float = 10,
    end: tuple[str, str | None] = ('COMPLETED', None),
    **run: Any,
) -> Row:
    """The same for a task run; `run` as for `add_task_run`."""
    start = start or fake.now
    task_run = fake.add_task_run(state=None, at=start, **run)
    fake.set_task_run_state(task_run, 'RUNNING', at=start)
    fake.set_task_run_state(task_run, *end, at=start + timedelta(seconds=seconds))
    return task_run


def bodies(fake: FakePrefect, path: str) -> list[Any]:
    """The bodies that were sent to an endpoint ('/flow_runs/filter'), in their order."""
    return [exchange.body for exchange in sent(fake, path)]


def sent(fake: FakePrefect, path: str) -> list[FakeExchange]:
    return [exchange for exchange in fake.requests if exchange.path == f'/api{path}']


def rows_sent(fake: FakePrefect, path: str) -> list[Row]:
    """The rows that a listing endpoint sends for what it was asked for up to now."""
    posted = [json.dumps(body).encode() for body in bodies(fake, path)]
    return [row for body in posted for row in json.loads(fake.handle('POST', f'/api{path}', {}, {}, body).body)]


def failing(path: str, outcome: FakeResponse | Exception | int = 500) -> Fault:
    """A fault of one endpoint: an answer, an exception, or an HTTP status."""
    answer = FakeResponse.of({}, outcome) if isinstance(outcome, int) else outcome

    def fault(request: FakeRequest) -> FakeResponse | Exception | None:
        return answer if request.path == f'/api{path}' else None

    return fault
