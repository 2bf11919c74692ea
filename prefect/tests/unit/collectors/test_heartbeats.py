from __future__ import annotations

from collections.abc import Iterable

import pytest

from datadog_checks.prefect.api.errors import PrefectApiError
from datadog_checks.prefect.collectors.heartbeats import Heartbeats
from tests.fake_prefect import FakePrefect, FakeResponse
from tests.unit.harness import Bench, Row, at, bodies, failing, sent, series

LOST = 'flow_runs.heartbeat_lost'
MAX_AGE = 'flow_runs.heartbeat.max_age'
COUNTS = '/events/count-by/resource'


class Checks:
    """Runs of the collector; runs beat each 30 s unless they are told otherwise."""

    def __init__(self, fake: FakePrefect, bench: Bench) -> None:
        self.fake = fake
        self.bench = bench

    def at(self, second: float) -> tuple[float | None, float | None]:
        """The number of lost runs, and the age of the oldest last beat, of the only tag set."""
        self.fake.now = at(second)
        found = self.bench.read(Heartbeats())
        values = [list(series(found, name).values()) for name in (LOST, MAX_AGE)]
        assert all(len(item) <= 1 for item in values)
        lost, age = (item[0] if item else None for item in values)
        return lost, age

    def lost(self, seconds: Iterable[int]) -> dict[float | None, int]:
        """The first second of each number of lost runs."""
        first: dict[float | None, int] = {}
        for second in seconds:
            first.setdefault(self.at(second)[0], second)
        return first

    def run(self, started: float = 0) -> Row:
        return self.fake.add_flow_run(flow=self.flow, state=('RUNNING', 'Running'), at=at(started))

    def beat(self, flow_run: Row, seconds: Iterable[float], clock: float = 0) -> None:
        for second in seconds:
            self.fake.add_event(
                'prefect.flow-run.heartbeat',
                occurred=at(second + clock),
                visible_from=at(second + 5),
                resource={'prefect.resource.id': f'prefect.flow-run.{flow_run["id"]}'},
            )

    @property
    def flow(self) -> Row:
        flows = self.fake.tables['flows'].newest()
        return flows[0] if flows else self.fake.add_flow('beating')


@pytest.fixture
def checks(fake: FakePrefect, bench: Bench) -> Checks:
    return Checks(fake, bench)


def test_run_that_is_silent_for_three_intervals_is_lost_until_it_leaves_running(
    fake: FakePrefect, checks: Checks
) -> None:
    run = checks.run()
    checks.beat(run, range(0, 200, 30))
    assert checks.lost(range(0, 1800, 15)) == {None: 0, 0: 15, 1: 285}
    assert checks.at(1800) == (1, 1620)
    fake.set_flow_run_state(run, 'CRASHED')
    assert checks.at(1815) == (0, 0)
    assert checks.at(2130) == (0, 0)
    assert checks.at(2145) == (None, None)


def test_run_that_beats_again_is_not_lost_any_more(checks: Checks) -> None:
    """A machine that slept, or a process that was stopped and goes on. Its interval is still what it was."""
    run = checks.run()
    checks.beat(run, [*range(0, 100, 30), *range(600, 800, 30)])
    assert checks.lost(range(0, 600, 15)) == {None: 0, 0: 15, 1: 195}
    assert checks.lost(range(600, 860, 15)) == {1: 600, 0: 615}
    assert checks.lost(range(870, 1200, 15)) == {0: 870, 1: 885}


def test_interval_is_that_of_the_run(checks: Checks) -> None:
    run = checks.run()
    checks.beat(run, range(0, 1000, 180))
    assert checks.lost(range(0, 2000, 15)) == {None: 0, 0: 15, 1: 1455}


@pytest.mark.parametrize('beats', [0, 1, 2])
def test_run_is_not_judged_before_three_beats(checks: Checks, beats: int) -> None:
    checks.beat(checks.run(), [30 * number for number in range(beats)])
    assert 1 not in checks.lost(range(0, 3600, 30))


def test_runs_that_never_beat_say_nothing(checks: Checks) -> None:
    checks.run()
    assert checks.lost(range(0, 600, 60)) == {None: 0}


def test_regular_beats_however_late_they_show_are_no_loss(checks: Checks) -> None:
    checks.beat(checks.run(), range(0, 3600, 30))
    for step in (7, 15, 60):
        assert checks.lost(range(step, 1000, step)).keys() <= {None, 0}


@pytest.mark.parametrize('clock', [-3000, -300, 90, 3000])
def test_clock_of_a_process_that_is_wrong_is_no_loss(checks: Checks, clock: float) -> None:
    checks.beat(checks.run(), range(0, 1200, 30), clock)
    assert 1 not in checks.lost(range(0, 1200, 15))


def test_only_the_beats_since_the_last_check_are_read(fake: FakePrefect, checks: Checks) -> None:
    checks.beat(checks.run(), range(0, 600, 30))
    checks.lost(range(0, 300, 15))
    before = len(sent(fake, COUNTS))
    checks.at(300)
    assert len(sent(fake, COUNTS)) == before + 1
    assert bodies(fake, COUNTS)[-1]['filter']['occurred']['since'] == '2026-11-23T08:04:35.000000Z'


def test_without_running_runs_nothing_is_asked(fake: FakePrefect, checks: Checks) -> None:
    fake.add_flow_run(state=('PENDING', 'Pending'))
    checks.lost(range(0, 60, 15))
    assert [exchange for exchange in fake.requests if '/events/' in exchange.path] == []


def test_after_a_start_earlier_beats_count_and_the_run_is_lost_three_intervals_later(checks: Checks) -> None:
    checks.beat(checks.run(), range(0, 200, 30))
    assert checks.lost(range(1000, 1300, 15)) == {0: 1000, 1: 1105}


def test_outage_of_the_server_is_no_loss(fake: FakePrefect, checks: Checks) -> None:
    """Beats that were sent meanwhile are gone."""
    run = checks.run()
    checks.beat(run, [*range(0, 300, 30), *range(620, 2000, 30)])
    assert checks.lost(range(0, 300, 15)) == {None: 0, 0: 15}
    fake.fault = failing('/flow_runs/filter')
    for second in range(300, 600, 15):
        with pytest.raises(PrefectApiError):
            checks.at(second)
    fake.fault = None
    assert checks.lost(range(600, 2000, 15)) == {0: 600}


def test_nothing_is_lost_while_the_server_writes_no_events_down(fake: FakePrefect, checks: Checks) -> None:
    run = checks.run()
    checks.beat(run, range(0, 200, 30))
    checks.lost(range(0, 200, 15))
    other = fake.add_flow_run(state=('PENDING', 'Pending'), at=at(205))
    assert 1 not in checks.lost(range(210, 700, 15))
    assert checks.at(700) == (0, None)
    # It does again.
    state = fake.set_flow_run_state(other, 'RUNNING', at=at(705))
    fake.add_event('prefect.flow-run.Running', occurred=at(705), id=state['id'])
    assert checks.lost(range(715, 800, 15)) == {0: 715, 1: 730}


def test_persister_that_is_switched_off_is_believed_unless_there_are_events(fake: FakePrefect, checks: Checks) -> None:
    off = {'server': {'services': {'event_persister': {'enabled': False}}}}
    fake.fault = failing('/admin/settings', FakeResponse.of(off))
    checks.beat(checks.run(), range(0, 200, 30))
    assert 1 not in checks.lost(range(0, 800, 15))
    fake.add_event('prefect.work-pool.ready', occurred=at(790))
    assert checks.at(800)[0] == 1


def test_what_is_lost_stays_lost_while_events_are_missing(fake: FakePrefect, checks: Checks) -> None:
    checks.beat(checks.run(), range(0, 200, 30))
    assert checks.lost(range(0, 400, 15))[1] == 285
    fake.add_flow_run(state=('PENDING', 'Pending'), at=at(405))
    assert checks.lost(range(410, 1000, 15)) == {1: 410}
