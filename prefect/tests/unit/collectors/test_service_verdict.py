from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from itertools import cycle, islice
from random import Random

import pytest

from datadog_checks.prefect.collectors.service_verdict import EARLIEST, RHYTHM, Overdue, ServiceRecord, Work
from tests.unit.harness import at

INTERVAL = timedelta(seconds=15)
MINUTE = timedelta(minutes=1)


class Service:
    """The runs of a check with what each sees of a service."""

    def __init__(self, *, is_enabled: bool | None = True, interval: timedelta = INTERVAL) -> None:
        self.is_enabled = is_enabled
        self._interval = interval
        self._record = ServiceRecord()

    def look(
        self, second: float, *works: Work, due: float | None = None, kind: str = 'late', slack: float = 0
    ) -> bool | None:
        """The verdict of a run in which a piece of work is undone that was due at a second."""
        overdue = {}
        if due is not None:
            overdue['piece'] = Overdue(kind, at(second) - at(due), timedelta(seconds=slack))
        enabled = self.is_enabled
        self._record = self._record.after(at(second), overdue, works, self._interval, is_enabled=enabled)
        return self._record.is_healthy(at(second), overdue, self._interval, is_enabled=enabled)

    def looks(self, seconds: Iterable[float], due: float) -> dict[bool | None, float]:
        """The first second of each verdict."""
        found: dict[bool | None, float] = {}
        for second in seconds:
            found.setdefault(self.look(second, due=due), second)
        return found


def work(second: float, delay: float | None = 0, kind: str = 'late') -> Work:
    return Work(kind, at(second), None if delay is None else timedelta(seconds=delay))


def rhythm(last: float, *delays: float) -> list[Work]:
    """As many loops as tell a rhythm, the last at a second, with these delays in turn; none by default."""
    turns = islice(cycle(delays or [0]), RHYTHM)
    return [work(last - 5 * (RHYTHM - 1 - index), delay) for index, delay in enumerate(turns)]


@pytest.mark.parametrize('is_enabled', [True, False, None])
def test_nothing_is_said_without_a_trace_of_the_service(is_enabled: bool | None) -> None:
    assert Service(is_enabled=is_enabled).look(0) is None


@pytest.mark.parametrize('is_enabled', [True, None])
def test_work_that_was_seen_shows_that_it_lives(is_enabled: bool | None) -> None:
    service = Service(is_enabled=is_enabled)
    assert service.look(0, work(-1000)) is True
    assert service.look(100_000) is True


def test_work_undone_for_longer_than_it_ever_took_is_a_symptom() -> None:
    service = Service()
    assert service.look(0, *rhythm(-100, 300)) is True
    assert service.looks(range(15, 600, 15), due=0) == {True: 15, False: 375}
    assert service.look(600) is True


def test_it_may_pause_for_as_long_as_it_did_before() -> None:
    service = Service()
    service.look(0, *(work(second) for second in (-500, -250, -10)))
    assert service.looks(range(15, 600, 15), due=0) == {True: 15, False: 270}


def test_one_that_falls_behind_lives_between_its_loops() -> None:
    """Seen with services apart from the API, and no broker in common: one run in a loop (3.8.8)."""
    service = Service()
    for second in range(0, 7200, 15):
        works = [work(second, delay=second // 4)] if second % 240 == 0 else []
        assert service.look(second, *works, due=0) is not False


@pytest.mark.parametrize('seed', range(8))
def test_longer_interval_than_the_settings_tell_is_not_accused(seed: int) -> None:
    """The services, which run apart from the API, work every 240 s; a piece of work comes at any time."""
    chance, service = Random(seed), Service(interval=timedelta(seconds=5))
    due = 230.0
    for second in range(15, 4 * 3600, 15):
        if second % 240 == 0 and due < second:
            assert service.look(second, work(second, second - due)) is True
            due = second + chance.uniform(0, 1200)
        else:
            assert service.look(second, due=due if due < second else None) is not False


def test_few_loops_tell_no_rhythm() -> None:
    service = Service()
    service.look(0, *(work(-100 + number / 10, delay=2) for number in range(40)))
    assert service.looks(range(15, 1200, 15), due=0) == {True: 15, False: 915}


def test_it_has_four_of_its_intervals_when_those_are_long() -> None:
    service = Service(interval=MINUTE)
    service.look(0, *rhythm(-100))
    assert service.looks(range(15, 600, 15), due=0) == {True: 15, False: 255}


def test_what_lives_does_not_take_it_for_its_work() -> None:
    service = Service()
    service.look(0, work(-100))
    assert all(service.look(second, work(second), due=0) for second in range(15, 1000, 15))
    assert service.looks(range(1005, 1200, 15), due=0) == {True: 1005, False: 1050}


def test_work_without_proof_has_a_quarter_of_an_hour() -> None:
    assert Service().looks(range(0, 1200, 15), due=0) == {None: 0, False: 915}


def test_delay_of_another_kind_of_work_tells_nothing() -> None:
    service = Service()
    service.look(0, work(-100, kind='other'))
    assert service.looks(range(15, 1200, 15), due=0) == {True: 15, False: 915}


def test_unknown_delay_is_no_short_one() -> None:
    service = Service()
    service.look(0, Work('late', EARLIEST, None))
    assert service.looks(range(15, 1200, 15), due=0) == {True: 15, False: 915}


def test_what_settings_allow_is_no_symptom_without_proof() -> None:
    service = Service()
    for second in range(0, 3600, 15):
        assert service.look(second, due=0, slack=3600) is None
    assert service.look(3600 + 915, due=0, slack=3600) is None
    for second in range(3600 + 930, 3600 + 1860, 15):
        found = service.look(second, due=0, slack=3600)
    assert found is False


def test_service_whose_settings_are_hidden_is_accused_with_proof_only() -> None:
    service = Service(is_enabled=None)
    assert service.looks(range(0, 3600, 15), due=0) == {None: 0}
    assert service.look(3600, *rhythm(3590), due=3550) is True
    assert service.looks(range(3615, 4000, 15), due=3550) == {True: 3615, False: 3660}


def test_service_that_is_switched_off_is_never_accused_by_what_it_did_before() -> None:
    service = Service(is_enabled=True)
    assert service.look(0, work(-100)) is True
    service.is_enabled = False
    assert service.looks(range(15, 7200, 15), due=0) == {None: 15}


def test_service_that_works_though_the_api_is_told_not_to_runs_elsewhere() -> None:
    service = Service(is_enabled=False)
    assert service.look(0, work(-5)) is None
    assert service.look(60, *rhythm(60)) is True
    assert service.looks(range(75, 600, 15), due=75) == {True: 75, False: 150}


def test_service_that_is_switched_on_again_counts_by_its_work() -> None:
    service = Service(is_enabled=False)
    service.look(0, work(-5))
    service.is_enabled = True
    assert service.look(15) is True


def test_work_left_from_an_outage_is_no_symptom_at_once() -> None:
    service = Service()
    service.look(0, *rhythm(-100))
    service.look(15, due=10)
    # Nothing was looked at meanwhile.
    assert service.looks(range(3600, 4000, 15), due=10) == {True: 3600, False: 3660}


def test_check_that_runs_seldom_finds_it_too() -> None:
    service = Service()
    service.look(0, *rhythm(-100))
    assert service.looks(range(600, 6000, 600), due=0) == {True: 600, False: 1200}


def test_delay_that_an_outage_made_is_forgotten() -> None:
    service = Service()
    service.look(0, work(0, delay=3600))
    for second in range(15, 315, 15):
        service.look(second, work(second, delay=5))
    assert service.looks(range(315, 900, 15), due=315) == {True: 315, False: 390}
