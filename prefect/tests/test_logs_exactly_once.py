"""Whole histories of log records against the fake server: each record is sent once, no matter what happens.

A history is a set of waves of records, which show later than the time that they carry or, where a client's clock is
ahead, before it; and a series of checks, of which some meet a fault, some are killed with a page in hand, and some are
followed by a restart of the Agent. What a killed check had in hand is left out, for the next one sends it again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import count
from typing import Any

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from datadog_checks.prefect.api.errors import PrefectApiError
from datadog_checks.prefect.collectors import logs as logs_module
from datadog_checks.prefect.collectors.logs import Logs
from datadog_checks.prefect.streams import log_reading
from tests.fake_prefect import FakePrefect
from tests.test_exactly_once import FAULTS, LATEST, fault_at
from tests.unit.harness import Bench, Row, at, run_through

INFO = 20
# By which the clock of a client may be ahead, in seconds.
AHEAD = 60
PERIOD = 250
OPTIONS: dict[str, dict[str, Any]] = {
    'all': {},
    # The server is asked for everything, and what is excluded is dropped.
    'without local': {'flow_names': {'exclude': ['^local$']}},
    # The server is asked for the records of certain runs.
    'billing only': {'flow_names': {'include': ['^billing$']}},
}
# What each run that logs belongs to, and which options let its records pass.
RUNS = {
    'of billing': set(OPTIONS),
    'of billing, ended': set(OPTIONS),
    # `exclude` keeps a run of which nothing is known any more.
    'of billing, deleted': {'all', 'without local'},
    'local': {'all'},
    'background task': {'all', 'without local'},
}


@dataclass(frozen=True)
class Wave:
    """Records from a second on, so many milliseconds apart. Each shows `delay` seconds after its time."""

    second: int
    number: int
    gap: int
    delay: int
    run: str = 'of billing'
    level: int = INFO
    logger: str = 'prefect.flow_runs'
    size: int = 10


@dataclass(frozen=True)
class Check:
    """A check, so many seconds after the one before. `fault` breaks its request of that number.

    It is killed when it has submitted so many batches and has not persisted the last of them.
    """

    after: int
    fault: tuple[int, str] | None = None
    killed_at: int | None = None
    restarts: bool = False


@dataclass(frozen=True)
class Limits:
    """In small, what `log_reading.py` says."""

    page: int = 10
    new: int = 30
    pages: int = 6
    bytes: int = 20_000
    new_bytes: int = 15_000


@dataclass(frozen=True)
class History:
    waves: tuple[Wave, ...]
    checks: tuple[Check, ...]
    options: str = 'all'
    overlap: int = 120
    limits: Limits = Limits()


class Story:
    """The runs and their records; `expected` are the messages that are to be sent."""

    def __init__(self, fake: FakePrefect, options: str) -> None:
        self._fake = fake
        self._options = options
        self._numbers = count()
        billing, local = (fake.add_flow(name) for name in ('billing', 'local'))
        self._deleted = fake.add_flow_run(flow=billing, state=('RUNNING', None))
        self._runs: dict[str, Row | None] = {
            'of billing': fake.add_flow_run(flow=billing, state=('RUNNING', None)),
            'of billing, ended': run_through(fake, start=at(1), seconds=PERIOD, flow=billing),
            'of billing, deleted': self._deleted,
            'local': fake.add_flow_run(flow=local, state=('RUNNING', None)),
            'background task': None,
        }
        self.expected: Counter[str] = Counter()

    def play(self, wave: Wave) -> None:
        if wave.run == 'of billing, deleted' and self._options == 'billing only':
            # What is sent of it depends on when it is deleted.
            return
        is_wanted = wave.level >= INFO and wave.logger != 'noisy' and self._options in RUNS[wave.run]
        for index in range(wave.number):
            second = wave.second + index * wave.gap / 1000
            message = f'{next(self._numbers)} '
            self._fake.add_log(
                self._runs[wave.run],
                at=at(second),
                visible_from=at(second + wave.delay),
                level=wave.level,
                name=wave.logger,
                message=message + 'x' * wave.size,
            )
            self.expected[message] += is_wanted

    def delete(self) -> None:
        self._fake.remove(self._deleted)


@contextmanager
def limited(limits: Limits) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logs_module, 'PAGE_SIZE', limits.page)
        patch.setattr(log_reading, 'PAGE_SIZE', limits.page)
        patch.setattr(log_reading, 'MOST_NEW', limits.new)
        patch.setattr(log_reading, 'MOST_PAGES', limits.pages)
        patch.setattr(log_reading, 'MOST_BYTES', limits.bytes)
        patch.setattr(log_reading, 'MOST_NEW_BYTES', limits.new_bytes)
        yield


def observe(history: History) -> tuple[Counter[str], Counter[str]]:
    """How often each record was sent and persisted, and how often it should be."""
    fake = FakePrefect()
    story = Story(fake, history.options)
    found: Counter[str] = Counter()
    options = {'log_overlap': history.overlap, 'log_names': {'exclude': ['noisy']}} | OPTIONS[history.options]
    with limited(history.limits), fake.install() as url:
        bench = Bench(fake, url, **options)
        assert bench.follow_logs(Logs())[0] == []
        for wave in history.waves:
            story.play(wave)
        for number, planned in enumerate([*history.checks, *good_checks(history)]):
            fake.now += timedelta(seconds=planned.after)
            fake.fault = fault_at(*planned.fault) if planned.fault else None
            run(bench, planned, history.limits, found)
            if number == len(history.checks) // 2:
                story.delete()
    fake.assert_all_known()
    return found, +story.expected


def run(bench: Bench, planned: Check, limits: Limits, found: Counter[str]) -> None:
    """One run of the check, and what becomes of it afterwards."""
    size = 0
    try:
        for number, batch in enumerate(bench.batches(Logs(), commit=False)):
            size += sum(log.size for log in batch.logs)
            assert len(batch.logs) <= limits.page
            if number == planned.killed_at:
                bench.restart()
                break
            bench.commit(Logs(), batch)
            found.update(log.attributes['message'].partition('x')[0] for log in batch.logs)
    except PrefectApiError:
        assert planned.fault
    assert size <= limits.bytes
    if planned.restarts:
        bench.restart()


def good_checks(history: History) -> list[Check]:
    """Those that it takes until all was sent, if each sends as little as it may."""
    limits = history.limits
    all_bytes = sum(wave.number * (wave.size + 1_000) for wave in history.waves)
    rows = sum(wave.number for wave in history.waves)
    floods = all_bytes // limits.new_bytes + rows // limits.new + rows // (limits.page * limits.pages)
    seconds = PERIOD + LATEST + 2 * history.overlap
    return [Check(after=30)] * (seconds // 30 + 2 * floods)


waves = st.builds(
    Wave,
    second=st.integers(min_value=1, max_value=PERIOD - 10),
    number=st.sampled_from([1, 3, 9, 10, 11, 25, 60]),
    gap=st.sampled_from([0, 1, 50]),
    delay=st.sampled_from([-AHEAD, 0, 1, 12, LATEST]) | st.integers(min_value=-AHEAD, max_value=LATEST),
    run=st.just('of billing') | st.sampled_from(list(RUNS)),
    level=st.sampled_from([INFO, INFO, 40, 10]),
    logger=st.sampled_from(['prefect.flow_runs', 'prefect.flow_runs', 'noisy']),
    size=st.sampled_from([10, 10, 3_000]),
)
checks = st.builds(
    Check,
    after=st.integers(min_value=1, max_value=60),
    fault=st.none() | st.tuples(st.integers(min_value=0, max_value=8), st.sampled_from(FAULTS)),
    killed_at=st.none() | st.integers(min_value=0, max_value=4),
    restarts=st.booleans(),
)
histories = st.builds(
    History,
    waves=st.lists(waves, min_size=1, max_size=5).map(tuple),
    checks=st.lists(checks, max_size=12).map(tuple),
    options=st.sampled_from(list(OPTIONS)),
    overlap=st.sampled_from([120, 120, 300]),
)

# More than ten pages and more than 4 MB of new records, as much as in truth.
FLOOD = History(
    waves=(Wave(second=2, number=2_300, gap=1, delay=0, size=2_000),),
    checks=(Check(after=10, killed_at=3), Check(after=10)),
    limits=Limits(
        log_reading.PAGE_SIZE,
        log_reading.MOST_NEW,
        log_reading.MOST_PAGES,
        log_reading.MOST_BYTES,
        log_reading.MOST_NEW_BYTES,
    ),
)

# Late records, more than one check hands over, just where the overlap leaves them behind, and others that are new.
LATE = History(
    waves=(
        Wave(second=60, number=60, gap=1, delay=0),
        Wave(second=20, number=11, gap=1, delay=LATEST, size=3_000),
        Wave(second=140, number=25, gap=1, delay=0),
    ),
    checks=(Check(after=15),) * 10,
)


@settings(phases=[Phase.explicit, Phase.generate])
@given(histories)
@example(FLOOD)
@example(LATE)
@example(replace(LATE, checks=(*LATE.checks[:-1], Check(after=15, killed_at=1))))
def test_each_log_record_is_sent_once(history: History) -> None:
    sent, expected = observe(history)

    assert sent == expected
