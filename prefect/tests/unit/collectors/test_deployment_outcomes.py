from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from datadog_checks.prefect.api.models import FlowRun
from datadog_checks.prefect.collectors import deployment_outcomes
from datadog_checks.prefect.collectors.deployment_outcomes import MAX_FAILURES, Outcomes, Past
from tests.fake_prefect import FakePrefect
from tests.unit.harness import Bench, Row, at, read_row, run_through


@pytest.fixture
def deployment(fake: FakePrefect) -> Row:
    return fake.add_deployment(work_queue=fake.default_queue(fake.add_work_pool()))


def ended(fake: FakePrefect, deployment: Row, second: float, state: str) -> FlowRun:
    row = run_through(fake, deployment=deployment, start=at(second - 1), seconds=1, end=(state, None))
    flow_run = read_row(FlowRun, row)
    assert isinstance(flow_run, FlowRun)
    return flow_run


@pytest.mark.parametrize('is_reversed', [False, True])
def test_failures_since_the_last_success_count_once_in_any_order(
    fake: FakePrefect, deployment: Row, *, is_reversed: bool
) -> None:
    runs = [
        ended(fake, deployment, second, state)
        for second, state in (
            (-50, 'FAILED'),
            (-40, 'COMPLETED'),
            (-30, 'CRASHED'),
            (-20, 'CANCELLED'),
            (-10, 'FAILED'),
        )
    ]
    past = Past()
    for run in [*runs, *runs][:: -1 if is_reversed else 1]:
        past = past.with_end(run)

    assert past.seen_success == at(-40)
    assert sorted(end.time for end in past.failures.values()) == [at(-30), at(-10)]
    assert [end.time for end in past.cancelled.values()] == [at(-20)]


def test_only_so_many_failures_are_kept_the_latest(fake: FakePrefect, deployment: Row) -> None:
    past = Past()
    for second in range(-MAX_FAILURES - 5, 0):
        past = past.with_end(ended(fake, deployment, second, 'FAILED'))

    assert len(past.failures) == MAX_FAILURES
    assert min(end.time for end in past.failures.values()) == at(-MAX_FAILURES)


def test_past_is_read_after_a_start_and_followed_from_then_on(fake: FakePrefect, bench: Bench, deployment: Row) -> None:
    for second, state in ((-300, 'COMPLETED'), (-200, 'FAILED')):
        ended(fake, deployment, second, state)
    outcomes = Outcomes()

    def known() -> tuple[Any, int]:
        nonlocal outcomes
        outcomes = outcomes.refresh(bench.context())
        past = outcomes.by_id[deployment['id']]
        return past.seen_success, len(past.failures)

    assert known() == (at(-300), 1)
    fake.now = at(15)
    ended(fake, deployment, 10, 'FAILED')
    assert known() == (at(-300), 2)
    fake.now = at(30)
    ended(fake, deployment, 20, 'COMPLETED')
    assert known() == (at(20), 0)


@pytest.mark.parametrize('state', [('RUNNING', 'Running'), ('SCHEDULED', 'AwaitingRetry')])
def test_run_that_is_retried_has_not_failed_yet(
    fake: FakePrefect, bench: Bench, deployment: Row, state: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where so many failed that a check does not ask for each of them again."""
    monkeypatch.setattr(deployment_outcomes, '_ASKED_AGAIN', 0)
    retried = [ended(fake, deployment, second, 'FAILED') for second in (-200, -100)][1]
    outcomes = Outcomes().refresh(bench.context())
    assert len(outcomes.by_id[deployment['id']].failures) == 2
    fake.set_flow_run_state(fake.tables['flow_runs'].get(retried.id), *state)
    fake.now = at(15)
    assert len(outcomes.refresh(bench.context()).by_id[deployment['id']].failures) == 1


def test_what_is_known_does_not_change(fake: FakePrefect, bench: Bench, deployment: Row) -> None:
    """So a run of the check whose samples are not submitted has left no trace."""
    success = ended(fake, deployment, -300, 'COMPLETED')
    failed = [ended(fake, deployment, second, 'FAILED') for second in (-200, -100)]
    for _ in range(3):
        known = Outcomes().refresh(bench.context())
    before = deepcopy(known)
    ended(fake, deployment, -10, 'CRASHED')
    fake.remove(fake.tables['flow_runs'].get(failed[0].id))
    fake.set_flow_run_state(fake.tables['flow_runs'].get(success.id), 'FAILED')
    for minutes in (1, 10):
        fake.now = at(60 * minutes)
        first, second = (known.refresh(bench.context()) for _ in range(2))
        assert first == second != known
        assert known == before
