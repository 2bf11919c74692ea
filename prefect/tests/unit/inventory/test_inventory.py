from __future__ import annotations

from collections.abc import Callable

import pytest

from datadog_checks.prefect.api.errors import PrefectApiError
from datadog_checks.prefect.api.time_range import TimeRange
from tests.fake_prefect import FakePrefect
from tests.unit.harness import Bench, Row, at, bodies, failing, rows_sent, run_through, sent, tags_of


@pytest.fixture
def bench(fake: FakePrefect, prefect_url: str) -> Bench:
    return Bench(fake, prefect_url)


@pytest.fixture
def runs(fake: FakePrefect) -> dict[str, Row]:
    """RUNNING flow runs by what they belong to: 'pool/queue/deployment', with '-' where there is none."""
    found: dict[str, Row] = {}
    for pool_name in ('prod', 'test'):
        pool = fake.add_work_pool(pool_name)
        for queue_name in ('high', 'low'):
            queue = fake.add_work_queue(pool, queue_name)
            for name in ('hourly', 'daily'):
                found[f'{pool_name}/{queue_name}/{name}'] = fake.add_flow_run(
                    deployment=fake.add_deployment(name=name, work_queue=queue), state=('RUNNING', 'Running')
                )
    found['-/-/hourly'] = fake.add_flow_run(deployment=fake.add_deployment(name='hourly'), state=('RUNNING', 'Running'))
    found['-/-/-'] = fake.add_flow_run(flow=fake.add_flow('desk'), state=('RUNNING', 'Running'))
    return found


# Options, and what of pool, queue and deployment they keep.
FILTERS: list[tuple[Row, Callable[[str, str, str], bool]]] = [
    ({}, lambda pool, queue, deployment: True),
    ({'work_pool_names': {'include': ['^prod$']}}, lambda pool, queue, deployment: pool == 'prod'),
    ({'work_pool_names': {'exclude': ['^prod$']}}, lambda pool, queue, deployment: pool != 'prod'),
    ({'work_queue_names': {'include': ['^high$']}}, lambda pool, queue, deployment: queue == 'high'),
    ({'work_queue_names': {'exclude': ['^high$']}}, lambda pool, queue, deployment: queue != 'high'),
    ({'deployment_names': {'include': ['^hourly$']}}, lambda pool, queue, deployment: deployment == 'hourly'),
    ({'deployment_names': {'exclude': ['^hourly$']}}, lambda pool, queue, deployment: deployment != 'hourly'),
    (
        {'work_pool_names': {'include': ['prod']}, 'deployment_names': {'exclude': ['^hourly$']}},
        lambda pool, queue, deployment: pool == 'prod' and deployment != 'hourly',
    ),
    (
        {'work_queue_names': {'exclude': ['low']}, 'deployment_names': {'include': ['.']}},
        lambda pool, queue, deployment: queue != 'low' and deployment != '-',
    ),
    ({'flow_names': {'include': ['^flow of hourly$']}}, lambda pool, queue, deployment: deployment == 'hourly'),
    ({'flow_names': {'exclude': ['^flow of hourly$']}}, lambda pool, queue, deployment: deployment != 'hourly'),
    (
        {'work_pool_names': {'exclude': ['prod']}, 'flow_names': {'include': ['of hourly', 'desk']}},
        lambda pool, queue, deployment: pool != 'prod' and deployment != 'daily',
    ),
    ({'flow_names': {'include': ['nothing']}}, lambda pool, queue, deployment: False),
    ({'work_pool_names': {'include': ['nothing']}}, lambda pool, queue, deployment: False),
    ({'deployment_names': {'include': ['.'], 'exclude': ['.']}}, lambda pool, queue, deployment: False),
]


@pytest.mark.parametrize(('changes', 'keeps'), FILTERS, ids=[str(changes) for changes, _ in FILTERS])
class TestFilters:
    def test_filter_on_a_parent_applies_to_flow_runs_and_is_sent_to_the_server(
        self,
        fake: FakePrefect,
        prefect_url: str,
        runs: dict[str, Row],
        changes: Row,
        keeps: Callable[[str, str, str], bool],
    ) -> None:
        kept = {run['id'] for parents, run in runs.items() if keeps(*parents.split('/'))}
        run = Bench(fake, prefect_url, **changes).context()
        assert {flow_run.id for flow_run in run.inventory.live_flow_runs()} == kept
        assert {row['id'] for row in rows_sent(fake, '/flow_runs/filter')} == kept

    def test_tags_by_id_are_none_for_what_is_excluded(
        self,
        fake: FakePrefect,
        prefect_url: str,
        runs: dict[str, Row],
        changes: Row,
        keeps: Callable[[str, str, str], bool],
    ) -> None:
        bench = Bench(fake, prefect_url, **changes)
        ids = {run['id']: keeps(*parents.split('/')) for parents, run in runs.items()}
        for _ in range(2):
            found = bench.context().inventory.tags_by_id(ids)
            assert {run_id: tags is not None for run_id, tags in found.items()} == ids


class TestLookups:
    def test_each_list_is_fetched_at_most_once_per_run(self, fake: FakePrefect, bench: Bench, runs: Row) -> None:
        found = bench.context().inventory
        for _ in range(2):
            found.work_pools(), found.work_queues(), found.deployments()
            found.live_flow_runs(), found.due_flow_runs(), found.restarting_flow_runs()
        assert [len(sent(fake, f'/{kind}/filter')) for kind in ('work_pools', 'work_queues', 'deployments')] == [1] * 3
        assert len(sent(fake, '/flow_runs/filter')) == 3

    def test_next_run_fetches_anew(self, fake: FakePrefect, bench: Bench) -> None:
        assert bench.context().inventory.work_pools() == {}
        fake.add_work_pool('new')
        assert set(bench.context().inventory.work_pools()) == {'new'}

    def test_error_is_raised_to_all_who_need_the_list(self, fake: FakePrefect, bench: Bench) -> None:
        fake.fault = failing('/deployments/filter')
        found = bench.context().inventory
        for _ in range(3):
            with pytest.raises(PrefectApiError):
                found.deployments()
        assert len(sent(fake, '/deployments/filter')) == 1

    def test_ended_runs_of_a_span_are_read_once(self, fake: FakePrefect, bench: Bench) -> None:
        ends = [run_through(fake, start=at(second), seconds=0)['id'] for second in range(10)]
        found = bench.context().inventory
        for _ in range(2):
            assert {run.id for run in found.finished_flow_runs(TimeRange(at(2)))} == set(ends[2:])
            assert {run.id for run in found.finished_flow_runs(TimeRange(at(2), at(5)))} == set(ends[2:5])
        assert len(sent(fake, '/flow_runs/filter')) == 2

    def test_number_of_ended_runs_is_that_of_their_rows(self, fake: FakePrefect, bench: Bench) -> None:
        for second in range(10):
            run_through(fake, start=at(second), seconds=0)
        fake.add_flow_run(state=('RUNNING', 'Running'))
        assert bench.context().inventory.count_finished_flow_runs(TimeRange(at(2), at(5))) == 3


class TestFlows:
    def test_no_flow_is_listed_without_a_filter_on_flows(self, fake: FakePrefect, bench: Bench, runs: Row) -> None:
        bench.context().inventory.live_flow_runs()
        assert sent(fake, '/flows/filter') == []

    def test_deployments_of_excluded_flows_are_not_downloaded(
        self, fake: FakePrefect, prefect_url: str, runs: dict[str, Row]
    ) -> None:
        found = Bench(fake, prefect_url, flow_names={'exclude': ['daily']}).context().inventory
        assert {deployment.name for deployment in found.deployments().values()} == {'hourly'}
        assert {row['name'] for row in rows_sent(fake, '/deployments/filter')} == {'hourly'}

    def test_new_flow_does_not_list_all_deployments_anew(
        self, fake: FakePrefect, prefect_url: str, runs: dict[str, Row]
    ) -> None:
        bench = Bench(fake, prefect_url, flow_names={'exclude': ['daily']})
        bench.context().inventory.deployments()
        fake.now = at(60)
        new = fake.add_deployment(name='weekly')
        before = len(bodies(fake, '/deployments/filter'))
        assert new['id'] in bench.context().inventory.deployments()
        listings = [body for body in bodies(fake, '/deployments/filter')[before:] if 'offset' in body]
        assert max(body['limit'] for body in listings) <= 10

    def test_flows_that_are_too_many_to_send_are_filtered_here(
        self, fake: FakePrefect, prefect_url: str, runs: dict[str, Row], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr('datadog_checks.prefect.inventory.selection._IDS_CAP', 3)
        found = Bench(fake, prefect_url, flow_names={'exclude': ['daily']}).context().inventory
        kept = {run['id'] for parents, run in runs.items() if not parents.endswith('daily')}
        assert {flow_run.id for flow_run in found.live_flow_runs()} == kept
        assert all('flows' not in body for body in bodies(fake, '/flow_runs/filter'))


class TestPrefectTags:
    @pytest.mark.parametrize(
        ('patterns', 'passing'),
        [
            pytest.param(None, (), id='none by default'),
            pytest.param({'include': ['^team:', '^tier']}, ('team:data', 'tier 1'), id='included'),
            pytest.param({'exclude': ['^team:']}, ('nightly', 'tier 1'), id='not excluded'),
        ],
    )
    def test_tags_of_a_deployment_that_pass_are_tags_of_its_runs(
        self, fake: FakePrefect, prefect_url: str, patterns: Row | None, passing: tuple[str, ...]
    ) -> None:
        deployment = fake.add_deployment(tags=['nightly', 'team:data', 'tier 1'])
        run = run_through(fake, deployment=deployment)
        found = Bench(fake, prefect_url, **({'prefect_tags': patterns} if patterns else {})).context().inventory
        (made,) = (found.tags_by_id([run['id']])).values()
        assert made is not None
        assert tuple(tag for tag in made if tag.startswith('prefect_tag:')) == tuple(
            f'prefect_tag:{tag}' for tag in passing
        )

    def test_run_without_a_deployment_has_none(self, fake: FakePrefect, prefect_url: str) -> None:
        flow = fake.add_flow('etl')
        run = run_through(fake, flow=flow, tags=['team:data'])
        bench = Bench(fake, prefect_url, prefect_tags={'include': ['.']})
        assert bench.context().inventory.tags_by_id([run['id']]) == {run['id']: tags_of(flow=flow)}


class TestTaskRunEnds:
    def test_end_is_asked_for_until_it_is_known(self, fake: FakePrefect, bench: Bench) -> None:
        task_run = fake.add_task_run(state=('RUNNING', 'Running'))
        ids = [task_run['id']]
        assert bench.context().inventory.task_run_ends(ids) == {}
        fake.set_task_run_state(task_run, 'COMPLETED', at=at(5))
        for _ in range(3):
            assert bench.context().inventory.task_run_ends(ids) == {task_run['id']: at(5)}
        assert len(sent(fake, '/task_runs/filter')) == 2


class TestTagsById:
    def test_tags_of_a_run_that_was_tagged_are_remembered(self, fake: FakePrefect, bench: Bench) -> None:
        flow = fake.add_flow('etl')
        run = run_through(fake, flow=flow)
        for _ in range(3):
            assert bench.context().inventory.tags_by_id([run['id']]) == {run['id']: tags_of(flow=flow)}
        assert len(bodies(fake, '/flow_runs/filter')) == 1

    def test_run_that_is_gone_has_no_tags(self, fake: FakePrefect, prefect_url: str, bench: Bench) -> None:
        gone = '00000000-0000-4000-8000-000000000000'
        assert bench.context().inventory.tags_by_id([gone]) == {gone: ()}
        including = Bench(fake, prefect_url, deployment_names={'include': ['.']})
        assert including.context().inventory.tags_by_id([gone]) == {gone: None}

    def test_nothing_is_asked_for_no_runs(self, fake: FakePrefect, bench: Bench) -> None:
        assert bench.context().inventory.tags_by_id([]) == {}
        assert fake.requests == []
