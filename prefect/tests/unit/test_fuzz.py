"""Arbitrary JSON at every endpoint: a collector raises nothing but our own errors, and nothing hangs."""

from __future__ import annotations

import inspect
import json
import re
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datadog_checks.base.stubs import aggregator, datadog_agent
from datadog_checks.prefect import PrefectCheck
from datadog_checks.prefect.api import client, csrf, server_clock
from datadog_checks.prefect.api.errors import CollectionError
from datadog_checks.prefect.api.models import (
    Automation,
    ConcurrencyLimit,
    Deployment,
    EventCount,
    Flow,
    FlowRun,
    FlowRunState,
    TagLimit,
    TaskRun,
    Worker,
    WorkPool,
    WorkQueue,
)
from tests.fake_prefect import FakePrefect, FakeResponse
from tests.fake_prefect.server import FakeRequest
from tests.unit.harness import Row, after_restart, at, read_row, run_task_through, run_through

SECONDS = 5.0
MODELS: dict[str, Any] = {
    '/automations/filter': Automation,
    '/concurrency_limits/filter': TagLimit,
    '/deployments/filter': Deployment,
    '/events/count-by/resource': EventCount,
    '/flow_run_states/': FlowRunState,
    '/flow_runs/filter': FlowRun,
    '/flows/filter': Flow,
    '/task_runs/filter': TaskRun,
    '/v2/concurrency_limits/filter': ConcurrencyLimit,
    '/work_pools/filter': WorkPool,
    '/work_pools/prod/workers/filter': Worker,
    '/work_queues/filter': WorkQueue,
}
LISTS = tuple(MODELS)
ENDPOINTS = (
    *LISTS,
    '/admin/settings',
    '/admin/version',
    '/csrf-token',
    '/deployments/count',
    '/events/filter',
    '/events/filter/next',
    '/flow_runs/count',
    '/flow_runs/paginate',
    '/health',
    '/logs/filter',
    '/ready',
    '/task_runs/count',
    '/task_workers/filter',
)
# What is asked in the first run of a check only, with the keys that are read of the answer.
AT_START: dict[str, tuple[str, ...]] = {
    '/admin/settings': (),
    '/admin/version': (),
    '/csrf-token': ('token', 'expiration'),
    '/flow_runs/paginate': ('limit',),
    '/flows/filter': (),
    '/automations/filter': (),
}
# What is asked when two checks lie within the overlap.
AFTER_TWO = {'/task_runs/count'}

Change = Callable[[FakeRequest, FakeResponse], FakeResponse]

ABSURD: list[Any] = [
    None,
    True,
    -1,
    2**63,
    10**400,
    1e308,
    -1e308,
    float('nan'),
    float('inf'),
    '',
    'x' * 10_000,
    '\x00',
    # Half of a surrogate pair.
    '\ud800',
    '2026-11-23T07:59:59.999999+00:00',
    '0001-01-01T00:00:00+14:00',
    '9999-12-31T23:59:59.999999Z',
    '9999-12-31T23:59:59-14:00',
    '2026-11-23T08:00:00',
    'RUNNING',
    'COMPLETED',
    [],
    {},
    [None],
    {'timestamp': 1},
]
SCALARS = st.one_of(st.integers(), st.floats(), st.text(max_size=8), st.sampled_from(ABSURD))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=5,
)
# The number of a row, that of one of its fields, and the value that it gets. Drawn before the check asks: it takes
# anything that Hypothesis raises for an error of the request.
Edit = tuple[int, int, object]
EDITS = st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99), VALUES), min_size=1, max_size=12)
# An example takes three or four checks.
fewer = settings(max_examples=settings().max_examples // 3)


@contextmanager
def served(fake: FakePrefect) -> Any:
    """The URL of the fake server, whose clock is the check's too."""
    with fake.install() as url, mock.patch.object(server_clock, 'local_now', side_effect=lambda: fake.now):
        yield url


def world() -> FakePrefect:
    """A server on which every endpoint that the check asks has something to tell."""
    fake = FakePrefect()
    queue = fake.add_work_queue(fake.add_work_pool('prod'), 'high', concurrency_limit=3)
    fake.add_worker(fake.tables['work_pools'].get(queue['work_pool_id']))
    deployment = fake.add_deployment(name='hourly', work_queue=queue)
    fake.add_concurrency_limit(f'deployment:{deployment["id"]}', 2, 2)
    fake.add_concurrency_limit('tag:gpu', 2, 2)
    live = fake.add_flow_run(deployment=deployment, state=('RUNNING', 'Running'))
    fake.add_flow_run(deployment=deployment, scheduled_time=at(-30))
    fake.add_flow_run(deployment=deployment, scheduled_time=at(7200), auto_scheduled=True)
    for second in range(6):
        run_through(fake, deployment=deployment, start=at(second), seconds=1, end=('FAILED', None))
        upstream = run_task_through(fake, flow_run=live, start=at(second), seconds=1)
        run_task_through(fake, flow_run=live, start=at(second + 2), seconds=1, upstream=[upstream])
    retried = run_through(fake, deployment=deployment, start=at(1), seconds=1, end=('SCHEDULED', 'AwaitingRetry'))
    fake.set_flow_run_state(retried, 'RUNNING', at=at(6))
    fake.add_tag_limit('gpu', 2, [upstream])
    fake.add_automation()
    fake.add_heartbeat(live, occurred=at(0))
    for index in range(60):
        fake.add_event(('prefect.flow-run.Failed', 'prefect.task-run.Failed')[index % 2], occurred=at(1 + index / 10))
    return fake


def rows_of(endpoint: str) -> list[Row]:
    fake = world()
    run = fake.tables['flow_runs'].newest()[0]['id']
    query = {'flow_run_id': run} if endpoint == '/flow_run_states/' else {}
    method = 'GET' if query else 'POST'
    rows: list[Row] = json.loads(fake.handle(method, f'/api{endpoint}', query, {}, b'').body)
    return rows


def new_check(url: str) -> PrefectCheck:
    """With the state of the one before."""
    return after_restart(url, timeout=SECONDS, collect_events=True, collect_logs=True)


def survive(change: Change, endpoint: str, default_limit: int = 5) -> None:
    """A good run or two, one that gets changed answers, and one that is good again.

    What is asked in the first run of a check only is changed after a restart of the Agent. The test fails if no answer
    of this endpoint was changed.
    """
    is_restarted = endpoint in AT_START
    fake = world()
    fake.default_limit = default_limit
    fake.is_csrf_protected = is_restarted
    datadog_agent.reset()
    changed: set[str] = set()
    with served(fake) as url:
        check = new_check(url)
        for seconds in (0, 15) if endpoint in AFTER_TWO else (0,):
            fake.now = at(seconds)
            assert not check.run()
        if is_restarted:
            check.cancel()
            check = new_check(url)

        def fault(request: FakeRequest) -> FakeResponse:
            fake.fault = None
            answer = fake.handle(request.method, request.path, request.query, request.headers, request.content)
            fake.fault = fault
            outcome = change(request, answer)
            if outcome is not answer:
                changed.add(request.path.removeprefix('/api'))
            return outcome

        fake.fault, fake.now = fault, at(30)
        aggregator.reset()
        started = time.monotonic()
        error = check.run()
        assert time.monotonic() - started < 3 * SECONDS + 2
        if error:
            assert (
                json.loads(error)[0]['traceback']
                .splitlines()[-1]
                .startswith(f'{CollectionError.__module__}.{CollectionError.__name__}')
            )
        fake.fault, fake.now = None, at(45)
        assert not check.run()
        check.cancel()
    assert endpoint in changed


@pytest.fixture
def only_our_errors(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a collector raised that is no PrefectError: the check logs it, with its traceback, and goes on."""
    found: list[str] = []
    report = PrefectCheck._report

    def watch(check: PrefectCheck, collector: str, error: Exception | None, *more: Any) -> None:
        if error is not None and not type(error).__module__.startswith('datadog_checks.prefect'):
            found.append(f'{collector}: {error!r}')
            raise error
        report(check, collector, error, *more)

    monkeypatch.setattr(PrefectCheck, '_report', watch)
    return found


@pytest.mark.parametrize('endpoint', ENDPOINTS)
def test_any_json(endpoint: str, only_our_errors: list[str]) -> None:
    values = VALUES | st.fixed_dictionaries(dict.fromkeys(AT_START.get(endpoint, ()), VALUES))

    @fewer
    @given(value=values, status=st.sampled_from([200, 200, 200, 404, 422, 500]))
    def run(value: object, status: int) -> None:
        survive(at_endpoint(endpoint, FakeResponse(status, json.dumps(value).encode())), endpoint)
        assert not only_our_errors

    run()


@pytest.mark.parametrize('endpoint', ENDPOINTS)
def test_any_bytes_status_and_headers(endpoint: str, only_our_errors: list[str]) -> None:
    text = st.text(st.characters(max_codepoint=255, exclude_characters='\r\n'), max_size=12)
    names = st.sampled_from(['Content-Type', 'Retry-After', 'Location', 'Date', 'X'])

    @fewer
    @given(
        content=st.binary(max_size=40),
        status=st.sampled_from([200, 200, 204, 301, 302, 307, 401, 403, 418, 429, 500, 503, 599]),
        headers=st.dictionaries(names, text, max_size=3),
    )
    def run(content: bytes, status: int, headers: dict[str, str]) -> None:
        survive(at_endpoint(endpoint, FakeResponse(status, content, headers)), endpoint)
        assert not only_our_errors

    run()


@pytest.mark.parametrize('endpoint', LISTS)
def test_models_read_a_row_or_say_that_it_is_malformed(endpoint: str) -> None:
    good = rows_of(endpoint)[0]
    model = MODELS[endpoint]
    assert isinstance(read_row(model, good), model)

    @settings(max_examples=20 * settings().max_examples)
    @given(changes=st.dictionaries(st.sampled_from([*sorted(good), 'surplus']), VALUES, max_size=4), data=st.data())
    def run(changes: dict[str, object], data: st.DataObject) -> None:
        missing = data.draw(st.sets(st.sampled_from(sorted(good)), max_size=2))
        row = {key: value for key, value in (good | changes).items() if key not in missing}
        found = read_row(model, row)
        assert isinstance(found, model) or re.match(r'\S+ is (?!not valid)', found.problem(model))

    run()


def uuid_of(number: int) -> str:
    """A row under another id than a UUID is skipped, with anything else in it."""
    return f'00000000-0000-4000-8000-{number:012}'


@pytest.mark.parametrize('endpoint', LISTS)
def test_every_absurd_value_in_every_field(endpoint: str, only_our_errors: list[str]) -> None:
    """Beside the good rows come copies of the first with one field changed, under ids of their own."""
    for key in sorted(rows_of(endpoint)[0]):

        def change(request: FakeRequest, answer: FakeResponse, key: str = key) -> FakeResponse:
            rows = json.loads(answer.body)
            if not is_at(request, endpoint) or not rows:
                return answer
            copies = [rows[0] | {'id': uuid_of(number), key: value} for number, value in enumerate(ABSURD)]
            return FakeResponse.of([*rows, *copies])

        survive(change, endpoint, default_limit=200)
        assert not only_our_errors


@pytest.mark.parametrize('endpoint', LISTS)
def test_any_value_in_any_field(endpoint: str, only_our_errors: list[str]) -> None:
    @fewer
    @given(edits=EDITS)
    def run(edits: list[Edit]) -> None:
        def change(request: FakeRequest, answer: FakeResponse) -> FakeResponse:
            rows = json.loads(answer.body)
            return edited(rows, rows, edits) if is_at(request, endpoint) and rows else answer

        survive(change, endpoint)
        assert not only_our_errors

    run()


@pytest.mark.parametrize(
    'date', ['', 'never', 'Sat, 01 Jan 0001 00:00:00 GMT', 'Fri, 31 Dec 9999 23:59:59 GMT', 'x' * 99]
)
def test_any_date(date: str, only_our_errors: list[str]) -> None:
    survive(lambda request, answer: FakeResponse(answer.status, answer.body, {'Date': date}), '/health')
    assert not only_our_errors


def test_every_endpoint_is_there() -> None:
    """Those that the client names, whether or not the check asks them on this server."""
    source = inspect.getsource(client) + inspect.getsource(csrf)
    named = re.findall(r"'(?:GET |POST )?(/[a-z0-9_/-]+)'", source.replace('/work_pools/{name}/', '/work_pools/prod/'))
    # Asked only beside another instance with the same ui_url: see TestOneUiUrl in test_check.py.
    assert set(named) - {'/flows/count'} == set(ENDPOINTS)


def is_at(request: FakeRequest, endpoint: str) -> bool:
    return request.path == f'/api{endpoint}'


def edited(document: object, rows: list[Row], edits: list[Edit]) -> FakeResponse:
    """The document as an answer after these edits of the rows that it holds."""
    for row, key, value in edits:
        fields = rows[row % len(rows)] or {'surplus': None}
        fields[sorted(fields)[key % len(fields)]] = value
    return FakeResponse.of(document)


def at_endpoint(endpoint: str, changed: FakeResponse) -> Change:
    return lambda request, answer: changed if is_at(request, endpoint) else answer


@pytest.mark.parametrize('part', ['', 'resource', 'related', 'payload'])
def test_any_value_in_any_field_of_an_event(part: str, only_our_errors: list[str]) -> None:
    @fewer
    @given(edits=EDITS)
    def run(edits: list[Edit]) -> None:
        def change(request: FakeRequest, answer: FakeResponse) -> FakeResponse:
            page = json.loads(answer.body)
            if not is_at(request, '/events/filter') or not page['events']:
                return answer
            parts = [event[part] if part else event for event in page['events']]
            rows = [row for one in parts for row in (one if isinstance(one, list) else [one])]
            return edited(page, rows, edits)

        survive(change, '/events/filter')
        assert not only_our_errors

    run()
