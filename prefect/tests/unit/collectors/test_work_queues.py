from __future__ import annotations

from collections.abc import Callable

import pytest

from datadog_checks.prefect.collectors.work_queues import WorkQueues
from tests.fake_prefect import FakePrefect
from tests.unit.harness import Bench, Row, at, series, tags_of


def queue_tags(queue: Row) -> tuple[str, ...]:
    return tags_of(work_queue=queue, work_queue_priority=queue['priority'])


def status_tags(queue: Row) -> tuple[str, ...]:
    return tags_of(work_queue=queue, work_queue_priority=queue['priority'], work_queue_status=queue['status'])


@pytest.fixture
def queue(fake: FakePrefect) -> Row:
    """A queue whose deployment `fake.tables` has as the only one."""
    queue = fake.add_work_queue(fake.add_work_pool(), 'high')
    fake.add_deployment(work_queue=queue)
    return queue


@pytest.fixture
def add_run(fake: FakePrefect, queue: Row) -> Callable[..., Row]:
    """Add a flow run of the queue."""
    (deployment,) = fake.tables['deployments'].newest()
    return lambda *state, **run: fake.add_flow_run(deployment=deployment, **({'state': state} if state else {}), **run)


def only(bench: Bench, queue: Row, name: str) -> float | None:
    """The value of one series of the queue."""
    return bench.read(WorkQueues()).get((f'work_queue.{name}', status_tags(queue)))


@pytest.mark.parametrize(
    ('status', 'expected'),
    [
        pytest.param('READY', (1, 0, 0), id='ready'),
        pytest.param('NOT_READY', (0, 1, 0), id='not ready'),
        pytest.param('PAUSED', (0, 0, 1), id='paused'),
    ],
)
def test_exactly_one_state_is_1_and_the_state_is_a_tag_of_the_rest(
    fake: FakePrefect, bench: Bench, status: str, expected: tuple[int, int, int]
) -> None:
    pool = fake.add_work_pool()
    fake.remove(fake.default_queue(pool))
    queue = fake.add_work_queue(pool, 'high', priority=7, status=status, last_polled=at(-4.25), concurrency_limit=8)
    is_ready, is_not_ready, is_paused = expected
    assert bench.read(WorkQueues()) == {
        ('work_queue.is_ready', queue_tags(queue)): is_ready,
        ('work_queue.is_not_ready', queue_tags(queue)): is_not_ready,
        ('work_queue.is_paused', queue_tags(queue)): is_paused,
        ('work_queue.last_polled_age_seconds', status_tags(queue)): 4.25,
        ('work_queue.backlog.size', status_tags(queue)): 0,
        ('work_queue.backlog.age', status_tags(queue)): 0,
        ('work_queue.concurrency.in_use', status_tags(queue)): 0,
    }


@pytest.mark.parametrize(
    ('last_polled', 'age'),
    [
        pytest.param(None, None, id='never polled'),
        pytest.param(at(0), 0, id='polled now'),
        pytest.param(at(5), 0, id='polled in the future'),
        pytest.param(at(-86400), 86400, id='polled a day ago'),
    ],
)
def test_last_polled_age_is_that_of_the_last_poll(
    fake: FakePrefect, bench: Bench, queue: Row, last_polled: object, age: float | None
) -> None:
    queue['last_polled'] = None
    if last_polled is not None:
        fake._override(queue, {'last_polled': last_polled})
    assert only(bench, queue, 'last_polled_age_seconds') == age


class TestBacklog:
    def test_run_that_was_due_days_ago_is_in_the_backlog(
        self, bench: Bench, queue: Row, add_run: Callable[..., Row]
    ) -> None:
        add_run(scheduled_time=at(-3 * 86400))
        add_run(scheduled_time=at(-20))
        assert only(bench, queue, 'backlog.size') == 2
        assert only(bench, queue, 'backlog.age') == 3 * 86400

    def test_run_that_is_due_later_is_not_in_the_backlog(
        self, bench: Bench, queue: Row, add_run: Callable[..., Row]
    ) -> None:
        add_run(scheduled_time=at(1))
        assert only(bench, queue, 'backlog.size') == 0
        assert only(bench, queue, 'backlog.age') == 0

    def test_run_that_is_due_this_very_moment_is_in_the_backlog(
        self, bench: Bench, queue: Row, add_run: Callable[..., Row]
    ) -> None:
        add_run(scheduled_time=at(0))
        assert only(bench, queue, 'backlog.size') == 1

    @pytest.mark.parametrize('name', ['Late', 'AwaitingRetry', 'AwaitingConcurrencySlot', 'Resuming', 'My own'])
    def test_every_scheduled_state_counts(
        self, bench: Bench, queue: Row, add_run: Callable[..., Row], name: str
    ) -> None:
        add_run('SCHEDULED', name, scheduled_time=at(-60))
        assert only(bench, queue, 'backlog.size') == 1

    def test_age_is_that_of_the_present_wait_and_not_of_the_first(
        self, fake: FakePrefect, bench: Bench, queue: Row, add_run: Callable[..., Row]
    ) -> None:
        run = add_run('RUNNING', 'Running', at=at(-900))
        fake.set_flow_run_state(run, 'SCHEDULED', 'AwaitingRetry', at=at(-100), scheduled_time=at(-40))
        assert only(bench, queue, 'backlog.age') == 40

    @pytest.mark.parametrize('state_type', ['PENDING', 'RUNNING', 'PAUSED', 'CANCELLING', 'COMPLETED', 'FAILED'])
    def test_run_in_another_state_is_not_in_the_backlog(
        self, fake: FakePrefect, bench: Bench, queue: Row, add_run: Callable[..., Row], state_type: str
    ) -> None:
        fake.set_flow_run_state(add_run(scheduled_time=at(-60)), state_type)
        assert only(bench, queue, 'backlog.size') == 0

    def test_backlog_stays_with_its_queue(
        self, fake: FakePrefect, bench: Bench, queue: Row, add_run: Callable[..., Row]
    ) -> None:
        other = fake.add_work_queue(fake.add_work_pool('other'), 'high')
        fake.add_flow_run(deployment=fake.add_deployment(work_queue=other), scheduled_time=at(-5))
        fake.add_flow_run(scheduled_time=at(-700))
        add_run(scheduled_time=at(-30))
        assert only(bench, queue, 'backlog.size') == 1
        assert only(bench, queue, 'backlog.age') == 30
        assert only(bench, other, 'backlog.age') == 5


class TestConcurrency:
    @pytest.mark.parametrize(
        ('limit', 'taken', 'percent'),
        [
            pytest.param(None, 2, None, id='no limit'),
            pytest.param(0, 0, 100, id='limit 0'),
            pytest.param(0, 1, 100, id='limit 0 with a run'),
            pytest.param(4, 0, 0, id='unused'),
            pytest.param(4, 1, 25, id='a quarter'),
            pytest.param(3, 3, 100, id='full'),
            pytest.param(2, 3, 150, id='limit lowered below what runs'),
        ],
    )
    def test_in_use_is_the_share_of_the_limit_in_percent(
        self,
        bench: Bench,
        queue: Row,
        add_run: Callable[..., Row],
        limit: int | None,
        taken: int,
        percent: float | None,
    ) -> None:
        queue['concurrency_limit'] = limit
        for _ in range(taken):
            add_run('RUNNING', 'Running')
        assert only(bench, queue, 'concurrency.in_use') == percent

    @pytest.mark.parametrize('changes', [{}, {'deployment_names': {'include': ['.']}}], ids=['no filter', 'filter'])
    def test_pending_and_running_runs_take_slots_and_no_others(
        self, new_bench: Callable[..., Bench], queue: Row, add_run: Callable[..., Row], changes: Row
    ) -> None:
        queue['concurrency_limit'] = 10
        for state_type in ('PENDING', 'RUNNING', 'PAUSED', 'CANCELLING', 'SCHEDULED', 'COMPLETED', 'CRASHED'):
            add_run(state_type, state_type.capitalize())
        assert only(new_bench(**changes), queue, 'concurrency.in_use') == 20

    def test_runs_of_other_queues_take_no_slots(
        self, fake: FakePrefect, bench: Bench, queue: Row, add_run: Callable[..., Row]
    ) -> None:
        queue['concurrency_limit'] = 10
        other = fake.add_work_queue(fake.add_work_pool('other'), 'high')
        fake.add_flow_run(deployment=fake.add_deployment(work_queue=other), state=('RUNNING', 'Running'))
        fake.add_flow_run(state=('RUNNING', 'Running'))
        add_run('RUNNING', 'Running')
        assert only(bench, queue, 'concurrency.in_use') == 10

    def test_slots_of_filtered_runs_count(
        self, fake: FakePrefect, new_bench: Callable[..., Bench], queue: Row, add_run: Callable[..., Row]
    ) -> None:
        """The limit is shared by all, so its use would be wrong for a part of the runs."""
        queue['concurrency_limit'] = 2
        add_run('RUNNING', 'Running')
        bench = new_bench(deployment_names={'exclude': ['.']})
        assert only(bench, queue, 'concurrency.in_use') == 50


@pytest.mark.parametrize(
    ('changes', 'kept'),
    [
        pytest.param({'work_queue_names': {'include': ['high']}}, {'high', 'higher'}, id='include'),
        pytest.param({'work_queue_names': {'exclude': ['^high$']}}, {'default', 'higher'}, id='exclude'),
        pytest.param({'work_pool_names': {'exclude': ['^pool$']}}, set(), id='pool excluded'),
        pytest.param({'work_pool_names': {'include': ['^another$']}}, set(), id='pool not included'),
    ],
)
def test_filters_leave_out_queues(
    fake: FakePrefect, new_bench: Callable[..., Bench], changes: Row, kept: set[str]
) -> None:
    pool = fake.add_work_pool('pool')
    fake.add_work_queue(pool, 'high')
    fake.add_work_queue(pool, 'higher')
    found = series(new_bench(**changes).read(WorkQueues()), 'work_queue.is_ready')
    names = {tag.partition(':')[2] for _, tags in found for tag in tags if tag.startswith('work_queue_name:')}
    assert names == kept


def test_backlog_of_an_excluded_queue_is_not_downloaded(
    fake: FakePrefect, new_bench: Callable[..., Bench], add_run: Callable[..., Row]
) -> None:
    for _ in range(5):
        add_run(scheduled_time=at(-10))
    new_bench(work_queue_names={'exclude': ['high']}).read(WorkQueues())
    assert [exchange.response_bytes for exchange in fake.requests if exchange.path == '/api/flow_runs/filter'] == [2]
