"""Fixtures for all tests: the fake server, the check in front of it, and a real server for the integration tests."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from datadog_checks.base.stubs import aggregator as stub_aggregator
from datadog_checks.base.stubs.aggregator import AggregatorStub
from datadog_checks.prefect import PrefectCheck
from datadog_checks.prefect import check as check_module
from datadog_checks.prefect.api import server_clock
from datadog_checks.prefect.streams.registry import Registry
from lab import postgres
from lab.prefect_server import PrefectServer
from tests.fake_prefect import FakePrefect

TESTS = Path(__file__).parent
INTEGRATION = TESTS / 'integration'
# Modules with nothing to gain from another Python or another version of datadog-checks-base: they read files of this
# repository, or prove over many runs of the check what the other modules touch on each Python.
ONE_PYTHON = {
    'test_exactly_once',
    'unit/inventory/test_future_runs',
    'unit/test_dashboards',
    'unit/test_datadog_evaluation',
    'unit/test_datadog_queries',
    'unit/test_deploying',
    'unit/test_environments',
    'unit/test_import',
    'unit/test_layers',
    'unit/test_lint',
    'unit/test_log_file',
    'unit/test_log_pipeline',
    'unit/test_logs',
    'unit/test_metadata',
    'unit/test_monitors',
    'unit/test_monitors_alert',
    'unit/test_packaging',
    'unit/test_pages',
    'unit/test_preview',
    'unit/test_scale',
    'unit/test_verdicts',
}
# Modules that wait for minutes, or make hundreds of attacks: `make test` leaves them to `.ci/run`.
SLOW = {
    'integration/test_background_services',
    'integration/test_event_services',
    'integration/test_heartbeats',
    'integration/test_hostile_server',
}
# Modules to begin with, so that at the end nobody waits for one of them.
LONGEST = (
    'integration/test_full_run',
    'integration/test_exactly_once_live',
    'integration/test_event_services',
    'integration/test_background_services',
    'integration/test_hostile_server',
    'integration/test_expectations',
    'integration/test_failures',
    'integration/test_state',
    'integration/test_ways_in',
    'integration/test_events',
)

# The same few examples each time, and none that was kept from another run. A test of which an example is cheap takes
# a multiple of their number. `pytest --hypothesis-profile=deep` takes more, different ones each time.
settings.register_profile(
    'bounded',
    max_examples=12,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile('deep', settings.get_profile('bounded'), max_examples=200, derandomize=False, print_blob=True)
settings.load_profile('bounded')


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker('integration' if INTEGRATION in item.path.parents else 'unit')
        if _module(item) in ONE_PYTHON:
            item.add_marker('one_python')
        if _module(item) in SLOW:
            item.add_marker('slow')
    items.sort(key=lambda item: LONGEST.index(_module(item)) if _module(item) in LONGEST else len(LONGEST))


def _module(item: pytest.Item) -> str:
    """Its path below this folder: there are modules of the same name in several folders."""
    return item.path.relative_to(TESTS).with_suffix('').as_posix()


def pytest_collection_finish() -> None:
    """What is imported stays: the check looks for garbage when it is made anew, and is not to look through that."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    """The instances of this process: each test is a process of its own."""
    registry = Registry()
    monkeypatch.setattr(check_module, 'REGISTRY', registry)
    return registry


class AgentClock:
    """The Agent's own clock in tests with the fake server: that of the server plus `skew`."""

    def __init__(self, fake: FakePrefect) -> None:
        self._fake = fake
        self.skew = timedelta()

    def now(self) -> datetime:
        return self._fake.now + self.skew


@pytest.fixture
def fake() -> Iterator[FakePrefect]:
    """A fake server; the test fails if it was asked for anything that a real one would not know."""
    server = FakePrefect()
    yield server
    server.assert_all_known()


@pytest.fixture
def agent_clock(fake: FakePrefect, monkeypatch: pytest.MonkeyPatch) -> AgentClock:
    agent_clock = AgentClock(fake)
    monkeypatch.setattr(server_clock, 'local_now', agent_clock.now)
    return agent_clock


@pytest.fixture
def prefect_url(fake: FakePrefect, agent_clock: AgentClock) -> Iterator[str]:
    """The URL of the fake server, which answers every request of this process while the test runs."""
    with fake.install() as url:
        yield url


@pytest.fixture
def instance(prefect_url: str) -> dict[str, Any]:
    return {'prefect_url': prefect_url}


@pytest.fixture
def new_check(instance: dict[str, Any], datadog_agent: Any) -> Callable[..., PrefectCheck]:
    """Make a check with these options, after a restart: the one that was made before is cancelled."""
    made: list[PrefectCheck] = []

    def make(**options: Any) -> PrefectCheck:
        while made:
            made.pop().cancel()
        check = PrefectCheck('prefect', {}, [instance | options])
        check.check_id = 'prefect:test'
        made.append(check)
        return check

    return make


@pytest.fixture
def run_check() -> Callable[[PrefectCheck], AggregatorStub]:
    """Run a check once and return what it submitted; an error of the run fails the test."""

    def run(check: PrefectCheck) -> AggregatorStub:
        stub_aggregator.reset()
        answer = check.run()
        assert not answer, json.loads(answer)[0]['traceback']
        return stub_aggregator

    return run


@pytest.fixture(scope='session')
def prefect_server() -> Iterator[PrefectServer]:
    """A real Prefect server, started by the first test that asks for it and stopped at the end."""
    with PrefectServer() as server:
        yield server


@pytest.fixture(scope='module', params=['SQLite', pytest.param('PostgreSQL', marks=pytest.mark.postgresql)])
def database_url(request: pytest.FixtureRequest) -> Iterator[str | None]:
    """The database of a Prefect server; None stands for SQLite. PostgreSQL is started if this machine has it."""
    if request.param == 'SQLite':
        yield None
        return
    with started_postgres() as server:
        yield server.url


@pytest.fixture
def cluster() -> Iterator[postgres.PostgresServer]:
    """A PostgreSQL of the test's own. A test that asks for it is marked `postgresql`."""
    with started_postgres() as server:
        yield server


@contextmanager
def started_postgres() -> Iterator[postgres.PostgresServer]:
    """PostgreSQL, if this machine has it; otherwise the test is skipped, and says why."""
    if problem := postgres.missing():
        pytest.skip(problem)
    with postgres.PostgresServer() as server:
        yield server


@pytest.fixture(scope='session')
def dd_environment(prefect_server: PrefectServer) -> dict[str, Any]:
    """The instance that `ddev env` would give to the Agent."""
    return {'prefect_url': prefect_server.api_url}
