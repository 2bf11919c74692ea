"""Many live runs are remembered, and after each change they are those of the server."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from datadog_checks.prefect.api.errors import PrefectApiError, TooMuch
from datadog_checks.prefect.inventory import live_runs
from tests.fake_prefect import FakePrefect
from tests.unit.harness import Bench, Row, at, let_requests_take, run_through

INTERVAL = timedelta(seconds=15)
FLOW_RUNS, TASKS_OF_EACH, BACKGROUND = 60, 3, 30
RUNNING = ('RUNNING', 'Running')
# Checks until each known run was made sure of once.
ROUND = 5


@pytest.fixture(autouse=True)
def sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """All as with thousands of runs."""
    monkeypatch.setattr(live_runs, '_LISTED', 20)
    monkeypatch.setattr(live_runs, '_IDS_PER_COUNT', 40)
    monkeypatch.setattr(live_runs, '_FEW', 5)


class Server:
    """A server with many live runs, and the check that has read them all."""

    def __init__(self, fake: FakePrefect, bench: Bench) -> None:
        self.fake = fake
        self._bench = bench
        fake.default_limit = 20
        for number in range(FLOW_RUNS):
            self.add(RUNNING if number % 3 else ('PENDING', 'Pending'), -3600 + 10 * number)
        for number in range(BACKGROUND):
            fake.add_task_run(task_key='background', state=RUNNING, at=at(-3000 + number))
        self.check()

    def add(self, state: tuple[str, str], seconds: float) -> Row:
        flow_run = self.fake.add_flow_run(state=None, at=at(seconds), expected_start_time=text(seconds))
        self.fake.set_flow_run_state(flow_run, *state, at=at(seconds))
        for number in range(TASKS_OF_EACH):
            self.fake.add_task_run(flow_run=flow_run, task_key=f'task {number}', state=RUNNING, at=at(seconds + 1))
        return flow_run

    def check(self) -> list[str]:
        """A check 15 s later: the paths that it asks, after it has found what is there."""
        found = self.read()
        assert found == self.truth()
        return [request.path.removeprefix('/api') for request in self.fake.requests]

    def read(self) -> tuple[dict[str, str], dict[str, str]]:
        """The states of the live runs by their ids, as the check sees them."""
        self.fake.now += INTERVAL
        self.fake.requests.clear()
        inventory = self._bench.context().inventory
        flow_runs, task_runs = inventory.live_flow_runs(), inventory.live_task_runs()
        return {run.id: str(run.state_type) for run in flow_runs}, {run.id: str(run.state_type) for run in task_runs}

    def truth(self) -> tuple[dict[str, str], dict[str, str]]:
        flow_runs = {
            row['id']: row['state_type']
            for row in self.rows('flow_runs')
            if row['state_type'] in ('PENDING', 'RUNNING', 'PAUSED', 'CANCELLING')
        }
        task_runs = {
            row['id']: row['state_type']
            for row in self.rows('task_runs')
            if (row['state_type'] in ('PENDING', 'RUNNING', 'PAUSED') or row['state_name'] == 'AwaitingRetry')
            and (row['flow_run_id'] is None or flow_runs.get(row['flow_run_id']) == 'RUNNING')
        }
        return flow_runs, task_runs

    def rows(self, table: str) -> list[Row]:
        return self.fake.tables[table].newest()

    def running(self, number: int = 7) -> Row:
        return [row for row in self.rows('flow_runs') if row['state_type'] == 'RUNNING'][number]


def text(seconds: float) -> str:
    return at(seconds).strftime('%Y-%m-%dT%H:%M:%S.%fZ')


@pytest.fixture
def server(fake: FakePrefect, prefect_url: str) -> Server:
    return Server(fake, Bench(fake, prefect_url))


def test_runs_that_do_not_change_are_not_read_again(server: Server) -> None:
    """One count for each of three lists, and one for each forty runs within 45 s."""
    for _ in range(12):
        server.check()
    numbers = []
    for _ in range(12):
        paths = server.check()
        # What started and ended is read by streams anyway: here by nobody else.
        asked = [path for path in paths if path.endswith('/count')]
        assert [path for path in paths if path.endswith('/filter')] == ['/flow_runs/filter'] * 2 + [
            '/task_runs/filter',
            '/task_runs/filter',
        ]
        numbers.append(len(asked))
    # 60 flow runs in two states, 120 task runs of flow runs, 30 others.
    chunks = (1 + 1) + 3 + 1
    assert sum(numbers) / 12 <= 3 + chunks * 15 / 45
    assert max(numbers) <= 3 + chunks * 15 / 45 + 3


CHANGES: dict[str, Callable[[Server], None]] = {
    'a flow run ends': lambda it: it.fake.set_flow_run_state(it.running(), 'COMPLETED'),
    'a flow run is killed': lambda it: it.fake.set_flow_run_state(it.running(), 'CRASHED'),
    'a flow run starts': lambda it: it.fake.set_flow_run_state(
        next(row for row in it.rows('flow_runs') if row['state_type'] == 'PENDING'), 'RUNNING'
    ),
    'a flow run comes': lambda it: it.add(('PENDING', 'Pending'), 5) and None,
    'some flow runs come': lambda it: [it.add(RUNNING, number) for number in range(30)] and None,
    'a flow run is deleted': lambda it: it.fake.tables['flow_runs'].remove(it.running()),
    'a flow run is cancelled': lambda it: it.fake.set_flow_run_state(it.running(), 'CANCELLING'),
    'a task run ends': lambda it: it.fake.set_task_run_state(it.rows('task_runs')[50], 'COMPLETED'),
    'a task run is deleted': lambda it: it.fake.tables['task_runs'].remove(it.rows('task_runs')[90]),
    'a background task run is deleted': lambda it: it.fake.tables['task_runs'].remove(it.rows('task_runs')[3]),
    'nearly all end': lambda it: (
        [it.fake.set_flow_run_state(row, 'FAILED') for row in it.rows('flow_runs')[:-3]] and None
    ),
    'all are deleted': lambda it: [it.fake.tables['flow_runs'].remove(row) for row in it.rows('flow_runs')] and None,
}


@pytest.mark.parametrize('change', CHANGES.values(), ids=list(CHANGES))
def test_change_is_seen_in_the_next_check(server: Server, change: Callable[[Server], None]) -> None:
    server.check()
    change(server)
    for _ in range(3):
        server.check()


def exchange_of_flow_runs(server: Server) -> None:
    """As many as before, but another one."""
    server.fake.tables['flow_runs'].remove(
        next(row for row in server.rows('flow_runs') if row['state_type'] == 'PENDING')
    )
    flow_run = server.fake.add_flow_run(state=('PENDING', 'Pending'), at=at(-1800), expected_start_time=text(-1800))
    assert flow_run['state_type'] == 'PENDING'


def restored_database(server: Server) -> None:
    """As many runs as before, none of them the same."""
    for table in ('flow_runs', 'task_runs'):
        for row in server.rows(table):
            server.fake.tables[table].remove(row)
    for number in range(FLOW_RUNS):
        server.add(RUNNING if number % 3 else ('PENDING', 'Pending'), -7200 + 10 * number)
    for number in range(BACKGROUND):
        server.fake.add_task_run(task_key='background', state=RUNNING, at=at(-7000 + number))


SILENT_CHANGES: dict[str, Callable[[Server], None]] = {
    'a state is forced': lambda it: it.fake.set_flow_run_state(it.running(), 'PENDING'),
    'a flow run is paused': lambda it: it.fake.set_flow_run_state(it.running(), 'PAUSED'),
    'a task run waits for another attempt': lambda it: it.fake.set_task_run_state(
        it.rows('task_runs')[50], 'SCHEDULED', 'AwaitingRetry'
    ),
    'one for another': exchange_of_flow_runs,
    'all for others': restored_database,
}


@pytest.mark.parametrize('change', SILENT_CHANGES.values(), ids=list(SILENT_CHANGES))
def test_change_that_no_count_shows_is_seen_within_a_minute(server: Server, change: Callable[[Server], None]) -> None:
    server.check()
    change(server)
    for _ in range(ROUND - 1):
        server.read()
    server.check()


def test_mismatch_is_found_without_reading_all(server: Server) -> None:
    server.check()
    server.fake.tables['task_runs'].remove(server.rows('task_runs')[100])
    paths = server.check()
    assert paths.count('/task_runs/filter') <= 2 + 2 + 2
    assert len(paths) < 25


def test_few_runs_are_listed_again(server: Server, fake: FakePrefect) -> None:
    for row in server.rows('flow_runs')[5:]:
        fake.set_flow_run_state(row, 'COMPLETED')
    server.check()
    paths = server.check()
    assert paths.count('/flow_runs/count') == 0


@pytest.mark.parametrize(('listed', 'page', 'seconds'), [(20, 20, 5), (100, 10, 5)])
def test_what_is_not_read_in_time_is_read_by_the_next_checks(
    fake: FakePrefect,
    server: Server,
    prefect_url: str,
    monkeypatch: pytest.MonkeyPatch,
    listed: int,
    page: int,
    seconds: int,
) -> None:
    """Numbers that are not complete are not reported, also where no more was read than is listed in each run."""
    monkeypatch.setattr(live_runs, '_LISTED', listed)
    fake.default_limit = page
    bench = Bench(fake, prefect_url)
    let_requests_take(fake, seconds, monkeypatch)
    errors = []
    for _ in range(8):
        fake.now += INTERVAL
        try:
            found = bench.context().inventory.live_flow_runs()
        except PrefectApiError as error:
            errors.append(str(error))
    assert {run.id for run in found} == server.truth()[0].keys()
    assert 0 < len(errors) < 4
    assert 'flow runs that are alive are read by now, the next run goes on' in errors[0]


def test_too_many_are_refused_with_what_helps(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_runs, '_CAPACITY', 40)
    with pytest.raises(PrefectApiError, match=r'60 flow runs are alive, more than 40. .* work_pool_names'):
        server.read()


def test_what_is_too_much_is_not_kept(
    server: Server, fake: FakePrefect, prefect_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('datadog_checks.prefect.api.transport._MAX_KEPT_KB', 100)
    long = [server.add(RUNNING, -100 + number) for number in range(10)]
    for row in long:
        row['name'] = 'x' * 20_000
    with pytest.raises(TooMuch):
        server.read()
    for row in long:
        row['name'] = 'x'
    # All are listed anew: those of the first read are forgotten.
    assert server.check().count('/flow_runs/filter') > (FLOW_RUNS + 10) // 20


def test_filter_on_deployments_keeps_what_is_remembered_apart(fake: FakePrefect, prefect_url: str) -> None:
    fake.default_limit = 20
    deployments = [fake.add_deployment(name=name) for name in ('a', 'b')]
    for number in range(50):
        fake.add_flow_run(deployment=deployments[number % 2], state=RUNNING, at=at(-number))
    bench = Bench(fake, prefect_url, deployment_names={'include': ['^a$']})
    for number in range(3):
        fake.now += INTERVAL
        run_through(fake, deployment=deployments[0], start=fake.now - timedelta(seconds=5), seconds=1)
        fake.add_flow_run(deployment=deployments[0], state=RUNNING)
        fake.add_flow_run(deployment=deployments[1], state=RUNNING)
        assert len(bench.context().inventory.live_flow_runs()) == 26 + number


@pytest.mark.parametrize('number', [29, 30])
def test_as_many_as_are_remembered_are_read(
    fake: FakePrefect, prefect_url: str, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(live_runs, '_CAPACITY', 30)
    fake.default_limit = 20
    for _ in range(number):
        fake.add_flow_run(state=RUNNING)
    assert len(Bench(fake, prefect_url).context().inventory.live_flow_runs()) == number
