"""Leaked slots: what two runs of the check saw of limits, and who may have held a slot meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta

import pytest

from datadog_checks.prefect.api.models import ConcurrencyLimit, TagLimit
from datadog_checks.prefect.collectors.leaked_slots import NOTHING, find_leaks
from tests.fake_prefect import FakePrefect
from tests.unit.harness import Bench, Row, read_row, run_through

RUNNING = ('RUNNING', 'Running')
Looks = Callable[[], Mapping[str, int]]


@pytest.fixture
def deployment(fake: FakePrefect) -> Row:
    return fake.add_deployment(name='hourly')


@pytest.fixture
def look(fake: FakePrefect, bench: Bench) -> Looks:
    """The leaks of the next run, 15 s later, with what the run before saw."""
    seen = NOTHING

    def next_run() -> Mapping[str, int]:
        nonlocal seen
        fake.now += timedelta(seconds=15)
        limits = [read_row(ConcurrencyLimit, row) for row in fake.tables['concurrency_limits'].newest()]
        tag_limits = [read_row(TagLimit, row) for row in fake.tables['tag_limits'].newest()]
        leaked, seen = find_leaks(bench.context(), seen, limits, tag_limits)
        return leaked

    return next_run


def test_slot_is_leaked_once_two_runs_have_seen_it(fake: FakePrefect, look: Looks, deployment: Row) -> None:
    of_deployment = f'deployment:{deployment["id"]}'
    fake.add_concurrency_limit(of_deployment, 3, 2)
    fake.add_concurrency_limit('database', 3, 1)

    assert look() == {of_deployment: 0, 'database': 0}
    assert look() == {of_deployment: 2, 'database': 1}


def test_fewer_of_both_runs_count(fake: FakePrefect, look: Looks) -> None:
    limit = fake.add_concurrency_limit('database', 9, 2)
    look()
    limit['active_slots'] = 5

    assert look() == {'database': 2}
    limit['active_slots'] = 1
    assert look() == {'database': 1}


def test_limit_with_decay_has_none(fake: FakePrefect, look: Looks) -> None:
    fake.add_concurrency_limit('rate', 9, 2)['slot_decay_per_second'] = 1.0
    look()

    assert look() == {}


@pytest.mark.parametrize(
    ('happens', 'of_deployment', 'of_all'),
    [
        (lambda fake, own, other: None, 2, 1),
        (lambda fake, own, other: fake.add_flow_run(deployment=own, state=RUNNING), 1, 0),
        (lambda fake, own, other: fake.add_flow_run(deployment=other, state=RUNNING), 2, 0),
        (lambda fake, own, other: run_through(fake, deployment=own, seconds=5), 1, 0),
        (lambda fake, own, other: run_through(fake, deployment=other, seconds=5), 2, 0),
    ],
    ids=['nothing', 'own run is alive', 'other run is alive', 'own run has ended', 'other run has ended'],
)
def test_who_may_hold_a_slot(
    fake: FakePrefect,
    look: Looks,
    deployment: Row,
    happens: Callable[[FakePrefect, Row, Row], object],
    of_deployment: int,
    of_all: int,
) -> None:
    name = f'deployment:{deployment["id"]}'
    fake.add_concurrency_limit(name, 3, 2)
    fake.add_concurrency_limit('database', 3, 1)
    look()
    happens(fake, deployment, fake.add_deployment(name='other'))

    assert look() == {name: of_deployment, 'database': of_all}


def test_slots_of_a_tag_are_leaked_by_name_and_without(fake: FakePrefect, look: Looks) -> None:
    flow_run = fake.add_flow_run(state=RUNNING)
    alive = fake.add_task_run(flow_run=flow_run, state=RUNNING)
    dead = fake.add_task_run(flow_run=flow_run, state=('COMPLETED', 'Completed'))
    fake.add_tag_limit('gpu', 5, [alive, dead])
    fake.add_concurrency_limit('tag:gpu', 5, 3)

    assert look()['tag:gpu'] == 0
    # One that has ended, and one that nobody holds.
    assert look()['tag:gpu'] == 2
