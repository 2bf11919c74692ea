"""Arbitrary JSON at every endpoint: a collector raises nothing but our own errors, and nothing hangs."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datadog_checks.base.stubs import aggregator, datadog_agent
from datadog_checks.prefect import PrefectCheck, clock
from datadog_checks.prefect.errors import CollectionError
from tests.fake_prefect import FakePrefect, FakeResponse
from tests.fake_prefect.server import FakeRequest
from tests.unit.harness import START, at, run_task_through, run_through

SECONDS = 5.0
LISTS = (
    '/concurrency_limits/filter',
    '/deployments/filter',
    '/flow_run_states/',
    '/flow_runs/filter',
    '/flows/filter',
    '/task_runs/filter',
    '/v2/concurrency_limits/filter',
    '/work_pools/filter',
    '/work_pools/prod/workers/filter',
    '/work_queues/filter',
)
ENDPOINTS = (
    *LISTS,
    '/admin/version',
    '/admin/settings',
    '/events/filter',
    '/events/filter/next',
    '/flow_runs/count',
    '/flow_runs/paginate',
    '/health',
    '/ready',
    '/task_runs/count',
)
EXAMPLES = settings(
    # FUZZ_EXAMPLES=1000 looks further.
    max_examples=int(os.environ.get('FUZZ_EXAMPLES', '12')),
    deadline=None,
    derandomize='FUZZ_EXAMPLES' not in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
    database=None,
)

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


@contextmanager
def served(fake: FakePrefect) -> Any:
    """The URL of the fake server, whose clock is the check's too."""
    with fake.install() as url, mock.patch.object(clock, 'local_now', side_effect=lambda: fake.now):
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
    for index in range(60):
        fake.add_event(('prefect.flow-run.Failed', 'prefect.task-run.Failed')[index % 2], occurred=at(1 + index / 10))
    return fake


def keys_of(endpoint: str) -> list[str]:
    """The fields of the rows of an endpoint."""
    fake = world()
    run = fake.tables['flow_runs'].newest()[0]['id']
    query = {'flow_run_id': run} if endpoint == '/flow_run_states/' else {}
    method = 'GET' if query else 'POST'
    return sorted(json.loads(fake.handle(method, f'/api{endpoint}', query, {}, b'').body)[0])


def new_check(url: str) -> PrefectCheck:
    datadog_agent.reset()
    check = PrefectCheck('prefect', {}, [{'prefect_url': url, 'timeout': SECONDS, 'collect_events': True}])
    check.check_id = 'prefect:fuzz'
    return check


def survive(change: Callable[[FakeRequest, FakeResponse], FakeResponse], default_limit: int = 5) -> None:
    """Two runs, the second of which gets changed answers, and a third that is good again."""
    fake = world()
    fake.default_limit = default_limit
    with served(fake) as url:
        check = new_check(url)
        fake.now = START
        assert not check.run()

        def fault(request: FakeRequest) -> FakeResponse:
            fake.fault = None
            answer = fake.handle(request.method, request.path, request.query, request.headers, request.content)
            fake.fault = fault
            return change(request, answer)

        fake.fault, fake.now = fault, at(15)
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
        fake.fault, fake.now = None, at(30)
        assert not check.run()


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
    @EXAMPLES
    @given(value=VALUES, status=st.sampled_from([200, 200, 200, 404, 422, 500]))
    def run(value: object, status: int) -> None:
        content = json.dumps(value).encode()
        survive(lambda request, answer: FakeResponse(status, content) if is_at(request, endpoint) else answer)
        assert not only_our_errors

    run()


@pytest.mark.parametrize('endpoint', LISTS)
def test_every_absurd_value_in_every_field(endpoint: str, only_our_errors: list[str]) -> None:
    """Beside the good rows come copies of the first with one field changed, under ids of their own."""
    for key in keys_of(endpoint):

        def change(request: FakeRequest, answer: FakeResponse, key: str = key) -> FakeResponse:
            rows = json.loads(answer.body)
            if not is_at(request, endpoint) or not rows:
                return answer
            copies = [rows[0] | {'id': f'copy-{number}', key: value} for number, value in enumerate(ABSURD)]
            return FakeResponse.of([*rows, *copies])

        survive(change, default_limit=200)
        assert not only_our_errors


@pytest.mark.parametrize('endpoint', LISTS)
def test_any_value_in_any_field(endpoint: str, only_our_errors: list[str]) -> None:
    @EXAMPLES
    @given(data=st.data())
    def run(data: st.DataObject) -> None:
        def change(request: FakeRequest, answer: FakeResponse) -> FakeResponse:
            document = json.loads(answer.body)
            if not is_at(request, endpoint):
                return answer
            for row in document:
                for key in data.draw(st.lists(st.sampled_from(sorted(row)), max_size=3)):
                    row[key] = data.draw(VALUES)
            return FakeResponse.of(document)

        survive(change)
        assert not only_our_errors

    run()


@pytest.mark.parametrize(
    'date', ['', 'never', 'Sat, 01 Jan 0001 00:00:00 GMT', 'Fri, 31 Dec 9999 23:59:59 GMT', 'x' * 99]
)
def test_any_date(date: str, only_our_errors: list[str]) -> None:
    survive(lambda request, answer: FakeResponse(answer.status, answer.body, {'Date': date}))
    assert not only_our_errors


def test_every_endpoint_is_there() -> None:
    """Those that the check asks on this server, less what it asks while it learns what changed."""
    fake = world()
    with served(fake) as url:
        check = new_check(url)
        for seconds in (0, 15):
            fake.now = at(seconds)
            check.run()
    assert {request.path.removeprefix('/api') for request in fake.requests} <= {*ENDPOINTS, '/deployments/count'}


def is_at(request: FakeRequest, endpoint: str) -> bool:
    return request.path == f'/api{endpoint}'


@pytest.mark.parametrize('part', ['', 'resource', 'related', 'payload'])
def test_any_value_in_any_field_of_an_event(part: str, only_our_errors: list[str]) -> None:
    @EXAMPLES
    @given(data=st.data())
    def run(data: st.DataObject) -> None:
        def change(request: FakeRequest, answer: FakeResponse) -> FakeResponse:
            if not is_at(request, '/events/filter'):
                return answer
            page = json.loads(answer.body)
            for event in page['events']:
                parts = event[part] if part else event
                for row in parts if isinstance(parts, list) else [parts]:
                    for key in data.draw(st.lists(st.sampled_from(sorted(row)), max_size=3)):
                        row[key] = data.draw(VALUES)
            return FakeResponse.of(page)

        survive(change)
        assert not only_our_errors

    run()
