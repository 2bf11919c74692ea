"""Scheduled flow runs that are not due: right for every deployment, at the price of what changes among them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from datadog_checks.base.stubs import aggregator
from datadog_checks.prefect import PrefectCheck
from datadog_checks.prefect.api import server_clock
from datadog_checks.prefect.inventory import future_runs
from tests.fake_prefect import FakePrefect
from tests.fake_prefect.times import to_text
from tests.unit.harness import after_restart, let_requests_take

SCHEDULED = 'prefect.server.flow_runs.scheduled'
Row = dict[str, Any]


def name_of(tags: list[str]) -> str:
    return next(tag.removeprefix('deployment_name:') for tag in tags if tag.startswith('deployment_name:'))


class Schedules:
    """Deployments with future runs on a fake server, and a check in front of it."""

    def __init__(self, fake: FakePrefect, check: PrefectCheck) -> None:
        self.fake = fake
        self._check = check
        pool = fake.add_work_pool()
        self._queue = fake.default_queue(pool)
        self.deployments: list[Row] = []
        self.runs: dict[str, list[Row]] = {}

    def add_deployment(self, number_of_runs: int, *, every: int = 60, begin: int = 60) -> Row:
        deployment = self.fake.add_deployment(name=f'deployment-{len(self.deployments)}', work_queue=self._queue)
        self.deployments.append(deployment)
        self.runs[deployment['id']] = []
        for number in range(number_of_runs):
            self.add_run(deployment, begin + number * every)
        return deployment

    def add_run(self, deployment: Row, after: int) -> Row:
        due = self.fake.now + timedelta(seconds=after)
        run = self.fake.add_flow_run(deployment=deployment, auto_scheduled=True, scheduled_time=due)
        self.runs[deployment['id']].append(run)
        return run

    def remove_run(self, deployment: Row, index: int) -> None:
        self.fake.remove(self.runs[deployment['id']].pop(index))

    def pause(self, deployment: Row) -> None:
        """As the server does: what is scheduled is deleted at once."""
        self.edit(deployment, paused=True)
        while self.runs[deployment['id']]:
            self.remove_run(deployment, 0)

    def edit(self, deployment: Row, **changes: Any) -> None:
        """As a person does, a moment later than anything before."""
        self.fake.now += timedelta(seconds=1)
        deployment |= changes | {'updated': to_text(self.fake.now)}

    def truth(self) -> Counter[str]:
        return Counter({deployment['name']: len(self.runs[deployment['id']]) for deployment in self.deployments})

    def check(self, after: int = 15) -> Counter[str] | None:
        """What the check reports by deployment, that many seconds later; None if it reports nothing."""
        self.fake.now += timedelta(seconds=after)
        self.fake.requests.clear()
        aggregator.reset()
        error = self._check.run()
        assert not error, error
        points = aggregator.metrics(SCHEDULED)
        if not points:
            return None
        return Counter({name_of(point.tags): int(point.value) for point in points})

    def requests_about_the_future(self) -> list[str]:
        """The paths of the requests that asked for scheduled runs later than now."""
        return [
            exchange.path
            for exchange in self.fake.requests
            if isinstance(exchange.body, dict)
            and 'after_' in exchange.body.get('flow_runs', {}).get('next_scheduled_start_time', {})
        ]


@contextmanager
def new_schedules() -> Iterator[Schedules]:
    """What the fixture gives, for a test that needs one per example."""
    fake = FakePrefect()
    with pytest.MonkeyPatch.context() as patch, fake.install() as url:
        patch.setattr(server_clock, 'local_now', lambda: fake.now)
        yield Schedules(fake, after_restart(url))


@pytest.fixture
def schedules(fake: FakePrefect, new_check: Callable[..., PrefectCheck]) -> Schedules:
    return Schedules(fake, new_check())


def test_the_first_check_counts_every_deployment(schedules: Schedules) -> None:
    for number in (0, 3, 61):
        schedules.add_deployment(number)

    assert schedules.check(0) == schedules.truth()


def test_while_nothing_changes_one_count_tells_so(schedules: Schedules) -> None:
    for _ in range(20):
        schedules.add_deployment(61, begin=3600)
    schedules.check(0)
    schedules.check()

    assert schedules.check() == schedules.truth()
    asked = schedules.requests_about_the_future()
    assert set(asked) == {'/api/flow_runs/count'}
    # The total, and a few groups of deployments in turn.
    assert len(asked) <= 4


def test_more_than_an_instance_remembers_are_an_error_that_names_the_filter(
    schedules: Schedules, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedules.add_deployment(3, begin=3600)
    monkeypatch.setattr(future_runs, '_CAPACITY', 2)

    with pytest.raises(AssertionError, match=r'3 flow runs are scheduled, more than 2\. .* work_pool_names'):
        schedules.check()


def test_what_becomes_due_is_taken_out_by_the_clock(schedules: Schedules) -> None:
    schedules.add_deployment(61)
    schedules.check(0)

    assert schedules.check(200) == schedules.truth()
    assert '/api/flow_runs/filter' not in schedules.requests_about_the_future()


def test_a_run_that_was_added_is_found_without_reading_all(schedules: Schedules) -> None:
    for number in range(30):
        schedules.add_deployment(61, begin=3600 + number)
    schedules.check(0)
    schedules.add_run(schedules.deployments[7], 7200)

    assert schedules.check() == schedules.truth()
    pages = schedules.requests_about_the_future().count('/api/flow_runs/filter')
    assert 1 <= pages <= 3


def test_runs_that_are_all_gone_are_forgotten_by_a_count(schedules: Schedules) -> None:
    for number in range(30):
        schedules.add_deployment(61, begin=3600 + number)
    schedules.check(0)
    schedules.check()
    for deployment in schedules.deployments:
        while schedules.runs[deployment['id']]:
            schedules.remove_run(deployment, 0)

    assert schedules.check() == schedules.truth()
    assert schedules.requests_about_the_future() == ['/api/flow_runs/count'] * 2


def test_where_all_has_changed_it_is_read_straight(schedules: Schedules) -> None:
    """Each stretch of time holds a change, so that counts over halves of it tell nothing."""
    for number in range(40):
        schedules.add_deployment(100, begin=3600 + number * 7)
    schedules.fake.default_limit = 50
    schedules.check(0)
    schedules.check()
    for deployment in schedules.deployments:
        for index in range(99, 0, -3):
            schedules.remove_run(deployment, index)

    assert schedules.check() == schedules.truth()
    asked = Counter(schedules.requests_about_the_future())
    pages = schedules.truth().total() / 50
    assert asked['/api/flow_runs/filter'] <= 1.2 * pages
    assert asked['/api/flow_runs/count'] <= 0.6 * pages


def test_a_deployment_that_is_paused_is_read_alone(schedules: Schedules) -> None:
    for number in range(30):
        schedules.add_deployment(61, begin=3600 + number)
    schedules.check(0)
    schedules.check()
    schedules.pause(schedules.deployments[3])

    assert schedules.check() == schedules.truth()
    asked = schedules.requests_about_the_future()
    assert asked.count('/api/flow_runs/filter') == 1
    assert len(asked) <= 5


def test_changes_that_cancel_out_in_the_total_are_found_within_a_minute(schedules: Schedules) -> None:
    for _ in range(40):
        schedules.add_deployment(5, begin=3600)
    schedules.check(0)
    schedules.check()
    # The same times: neither the total nor any stretch of time tells.
    schedules.remove_run(schedules.deployments[11], 0)
    schedules.add_run(schedules.deployments[29], 3600)

    seen = [schedules.check(15) for _ in range(4)]

    assert seen[-1] == schedules.truth()


def test_more_runs_at_one_moment_than_fit_on_a_page(schedules: Schedules) -> None:
    for _ in range(9):
        schedules.add_deployment(3, every=0, begin=3600)
    schedules.fake.default_limit = 4

    assert schedules.check(0) == schedules.truth()


def test_runs_that_take_too_long_to_read_are_left_to_the_next_checks(
    schedules: Schedules, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(10):
        schedules.add_deployment(20, begin=3600)
    schedules.fake.default_limit = 25
    let_requests_take(schedules.fake, 3.0, monkeypatch, '/flow_runs/filter')

    seen = [schedules.check(1) for _ in range(8)]

    assert seen[0] is None
    assert seen[-1] == schedules.truth()
    assert all(counts in (None, schedules.truth()) for counts in seen)


changes = st.lists(
    st.tuples(
        st.sampled_from(['add', 'remove', 'pause', 'resume', 'wait']),
        st.integers(min_value=0, max_value=11),
        st.integers(min_value=20, max_value=7200),
    ),
    max_size=8,
)


@settings(max_examples=2 * settings().max_examples, phases=[Phase.explicit, Phase.generate])
@given(rounds=st.lists(changes, min_size=1, max_size=6), page_limit=st.sampled_from([5, 200]), seed=st.integers(0, 9))
def test_whatever_changes_it_is_right_again_within_a_minute(
    rounds: list[list[tuple[str, int, int]]], page_limit: int, seed: int
) -> None:
    with new_schedules() as schedules:
        schedules.fake.default_limit = page_limit
        chance = Random(seed)
        for _ in range(12):
            schedules.add_deployment(chance.randrange(8), every=600, begin=chance.randrange(900, 4000))
        schedules.check(0)
        for round_of_changes in rounds:
            for change, number, after in round_of_changes:
                deployment = schedules.deployments[number]
                if change == 'add':
                    schedules.add_run(deployment, after)
                elif change == 'remove' and schedules.runs[deployment['id']]:
                    schedules.remove_run(deployment, 0)
                elif change == 'pause':
                    schedules.pause(deployment)
                elif change == 'resume':
                    schedules.edit(deployment, paused=False)
            schedules.check(15)
        seen = [schedules.check(15) for _ in range(4)]

        assert seen[-1] == schedules.truth()
        schedules.fake.assert_all_known()
