from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from datadog_checks.prefect.api.client import IDS_PER_REQUEST, PrefectClient
from datadog_checks.prefect.api.errors import NotFound, PrefectApiError
from datadog_checks.prefect.api.paging import FLOW_RUNS_BY_START, TASK_RUNS_BY_END
from datadog_checks.prefect.api.versions import (
    DIFFERENCES,
    ENDS_OF_UNSTARTED_FLOW_RUNS,
    TASK_RUN_END_FILTER,
    Difference,
)
from tests.fake_prefect import FakePrefect, FakeResponse
from tests.fake_prefect.server import FakeRequest
from tests.unit.harness import LOG, Row, at, bodies, failing, new_transport, run_task_through, run_through, sent

READS: dict[str, Callable[[PrefectClient], Any]] = {
    '/work_pools/filter': lambda client: client.work_pools(),
    '/work_queues/filter': lambda client: client.work_queues(),
    '/deployments/filter': lambda client: client.deployment_page({}, 0, 200),
    '/flow_runs/filter': lambda client: list(client.flow_runs({}, FLOW_RUNS_BY_START)),
    '/task_runs/filter': lambda client: list(client.task_runs({}, TASK_RUNS_BY_END)),
    '/flows/filter': lambda client: client.flows(['00000000-0000-4000-8000-000000000000']),
    '/flow_run_states/': lambda client: client.flow_run_states('00000000-0000-4000-8000-000000000000'),
    '/flow_runs/count': lambda client: client.count_flow_runs({}),
    '/admin/version': lambda client: client.version(),
    '/health': lambda client: client.check_health(),
}
reads = pytest.mark.parametrize(('path', 'read'), READS.items(), ids=list(READS))


@pytest.fixture
def client(prefect_url: str) -> PrefectClient:
    return PrefectClient(new_transport(prefect_url), LOG)


class TestAnswers:
    @reads
    @pytest.mark.parametrize('answer', [None, 'text', {'a': 1}, [1], [[]], [None], True], ids=str)
    def test_answer_of_another_shape_is_an_error_that_names_the_endpoint(
        self, fake: FakePrefect, client: PrefectClient, path: str, read: Callable[[PrefectClient], Any], answer: object
    ) -> None:
        is_right = (path, answer) in [('/health', True), ('/admin/version', 'text')]
        fake.fault = failing(path, FakeResponse.of(answer))
        if is_right:
            read(client)
            return
        with pytest.raises(PrefectApiError) as raised:
            read(client)
        assert raised.value.endpoint.endswith(f' {path}')

    @reads
    def test_error_of_the_server_is_raised(
        self, fake: FakePrefect, client: PrefectClient, path: str, read: Callable[[PrefectClient], Any]
    ) -> None:
        fake.fault = failing(path, 500)
        with pytest.raises(PrefectApiError, match=f'{path}: HTTP 500'):
            read(client)

    def test_version_is_that_of_prefect_and_not_of_the_api(self, fake: FakePrefect, client: PrefectClient) -> None:
        fake.version = '3.4.25'
        assert client.version() == '3.4.25'

    def test_count_is_what_the_server_counts(self, fake: FakePrefect, client: PrefectClient) -> None:
        for _ in range(3):
            fake.add_flow_run()
        assert client.count_flow_runs({'flow_runs': {'state': {'type': {'any_': ['SCHEDULED']}}}}) == 3


class TestWorkQueues:
    def test_known_ones_that_others_of_the_same_name_hide_are_asked_for_by_id(
        self, fake: FakePrefect, client: PrefectClient
    ) -> None:
        """The fake orders ties by chance at each request."""
        fake.default_limit = 5
        expected = {fake.default_queue(fake.add_work_pool(f'pool {index}'))['id'] for index in range(40)}
        gone = '00000000-0000-4000-8000-000000000000'
        found = [queue.id for queue in client.work_queues({*expected, gone})]
        assert sorted(found) == sorted(expected)
        asked = bodies(fake, '/work_queues/filter')
        assert sum('offset' in body for body in asked) <= 9
        assert gone in [item for body in asked if 'work_queues' in body for item in body['work_queues']['id']['any_']]


class TestPageLimit:
    @pytest.mark.parametrize('limit', [1, 2, 50, 200, 1000])
    def test_limit_of_the_server_is_used(self, fake: FakePrefect, client: PrefectClient, limit: int) -> None:
        fake.default_limit = limit
        expected = {run_through(fake, start=at(index))['id'] for index in range(5)}
        assert {run.id for run in client.flow_runs({}, FLOW_RUNS_BY_START)} == expected
        assert {body['limit'] for body in bodies(fake, '/flow_runs/filter')} == {limit}

    def test_limit_is_asked_for_once(self, fake: FakePrefect, client: PrefectClient) -> None:
        for _ in range(3):
            client.work_pools()
            client.work_queues()
        assert len(sent(fake, '/flow_runs/paginate')) == 1

    def test_limit_that_is_lowered_meanwhile_is_learnt_by_the_next_read(
        self, fake: FakePrefect, client: PrefectClient
    ) -> None:
        fake.add_work_pool()
        client.work_pools()
        fake.default_limit = 50
        with pytest.raises(PrefectApiError, match='POST /work_pools/filter: the server lowered its page limit'):
            client.work_pools()
        assert len(client.work_pools()) == 1

    def test_limit_that_is_raised_meanwhile_does_no_harm(self, fake: FakePrefect, client: PrefectClient) -> None:
        fake.default_limit = 2
        client.work_pools()
        fake.default_limit = 200
        for index in range(7):
            fake.add_work_pool(f'pool {index}')
        assert len(client.work_pools()) == 7

    @pytest.mark.parametrize('answer', [{}, [], {'limit': None}, {'limit': 0}, {'limit': '200'}])
    def test_answer_without_limit_is_an_error(self, fake: FakePrefect, client: PrefectClient, answer: object) -> None:
        fake.fault = failing('/flow_runs/paginate', FakeResponse.of(answer))
        with pytest.raises(PrefectApiError, match='page limit'):
            client.work_pools()


class TestIds:
    def test_many_ids_are_sent_in_parts(self, fake: FakePrefect, client: PrefectClient) -> None:
        flows = [fake.add_flow(f'flow {index}') for index in range(250)]
        found = client.flows([flow['id'] for flow in flows])
        assert {(flow.id, flow.name) for flow in found} == {(flow['id'], flow['name']) for flow in flows}
        sizes = [len(body['flows']['id']['any_']) for body in bodies(fake, '/flows/filter')]
        assert sizes == [IDS_PER_REQUEST, IDS_PER_REQUEST, 50]

    def test_parts_are_no_larger_than_a_page(self, fake: FakePrefect, client: PrefectClient) -> None:
        fake.default_limit = 7
        runs = [run_through(fake) for _ in range(20)]
        assert len(client.flow_runs_by_id([run['id'] for run in runs])) == 20

    def test_nothing_is_asked_for_no_ids(self, fake: FakePrefect, client: PrefectClient) -> None:
        assert client.flow_runs_by_id([]) == client.task_runs_by_id([]) == client.flows([]) == []
        assert not [exchange for exchange in fake.requests if exchange.path.endswith('/filter')]

    def test_what_is_gone_is_missing(self, fake: FakePrefect, client: PrefectClient) -> None:
        kept, gone = run_task_through(fake), run_task_through(fake)
        fake.remove(gone)
        assert [run.id for run in client.task_runs_by_id([kept['id'], gone['id']])] == [kept['id']]


class TestMalformed:
    def test_malformed_objects_are_skipped_and_counted_by_problem(
        self, fake: FakePrefect, client: PrefectClient
    ) -> None:
        for changes in ({}, {'name': None}, {'name': None}, {'type': 7}):
            fake.add_work_pool() | changes
            fake.tables['work_pools'].newest()[-1].update(changes)
        assert len(client.work_pools()) == 1
        assert client.take_malformed() == {
            'WorkPool: name is null, expected a string': 2,
            'WorkPool: type is a number, expected a string': 1,
        }
        assert client.take_malformed() == {}

    def test_full_page_that_ends_with_a_row_without_time_is_an_error(
        self, fake: FakePrefect, client: PrefectClient
    ) -> None:
        fake.default_limit = 2

        def fault(request: FakeRequest) -> FakeResponse | None:
            if request.path != '/api/flow_runs/filter':
                return None
            rows: Any = fake._route(request)
            return FakeResponse.of([row | {'start_time': 'soon'} for row in rows])

        for index in range(3):
            run_through(fake, start=at(index))
        fake.fault = fault
        with pytest.raises(PrefectApiError, match='no start_time'):
            list(client.flow_runs({}, FLOW_RUNS_BY_START))


class TestWorkers:
    def test_workers_of_a_pool_are_read(self, fake: FakePrefect, client: PrefectClient) -> None:
        worker: Row = fake.add_worker(fake.add_work_pool('prod'), 'worker 1')
        assert [(item.id, item.name) for item in client.workers('prod', at(-3600))] == [(worker['id'], 'worker 1')]

    def test_pool_that_is_gone_has_none(self, client: PrefectClient) -> None:
        assert client.workers('gone', at(-3600)) == []

    def test_other_list_that_is_not_found_is_an_error(self, fake: FakePrefect, client: PrefectClient) -> None:
        fake.fault = failing('/work_pools/filter', 404)
        with pytest.raises(NotFound):
            client.work_pools()


class TestFeatures:
    """What the server has is asked before a request, of its version, or of itself where it hides that."""

    @pytest.mark.parametrize('item', DIFFERENCES, ids=lambda item: item.lacking)
    def test_known_version_decides_without_a_request(
        self, fake: FakePrefect, client: PrefectClient, item: Difference
    ) -> None:
        for version, has in ((item.before, True), ((3, 0, 4), False)):
            fake.version = '.'.join(map(str, version))
            client.version()
            assert client.has(item) is has
        assert {exchange.path for exchange in fake.requests} == {'/api/admin/version'}

    @pytest.mark.parametrize(('status', 'has'), [(200, True), (422, False)])
    def test_server_that_hides_its_version_is_asked_once(
        self, fake: FakePrefect, client: PrefectClient, status: int, has: bool
    ) -> None:
        refuse(fake, status)
        with pytest.raises(NotFound):
            client.version()
        assert [client.has(TASK_RUN_END_FILTER) for _ in range(3)] == [has] * 3
        assert len(sent(fake, '/task_runs/count')) == 1
        assert client.has(ENDS_OF_UNSTARTED_FLOW_RUNS)

    def test_version_that_is_no_release_says_nothing(self, fake: FakePrefect, client: PrefectClient) -> None:
        fake.fault = failing('/task_runs/count', 422)
        fake.version = '0+untagged.1.g1a2b3c4'
        client.version()
        assert not client.has(TASK_RUN_END_FILTER)

    def test_error_of_another_kind_is_raised_and_says_nothing(self, fake: FakePrefect, client: PrefectClient) -> None:
        fake.fault = failing('/task_runs/count', 503)
        with pytest.raises(PrefectApiError):
            client.has(TASK_RUN_END_FILTER)
        fake.fault = None
        assert client.has(TASK_RUN_END_FILTER)

    def test_server_of_another_version_is_judged_anew(self, fake: FakePrefect, client: PrefectClient) -> None:
        refuse(fake, 422)
        with pytest.raises(NotFound):
            client.version()
        assert not client.has(TASK_RUN_END_FILTER)
        fake.fault = None
        fake.version = '3.8.8'
        client.version()
        assert client.has(TASK_RUN_END_FILTER)
        fake.version = '3.4.25'
        client.version()
        assert not client.has(TASK_RUN_END_FILTER)

    def test_version_that_cannot_be_read_for_once_leaves_what_is_known(
        self, fake: FakePrefect, client: PrefectClient
    ) -> None:
        fake.version = '3.4.25'
        client.version()
        fake.fault = failing('/admin/version', 503)
        with pytest.raises(PrefectApiError):
            client.version()
        assert not client.has(TASK_RUN_END_FILTER)
        assert sent(fake, '/task_runs/count') == []


def refuse(fake: FakePrefect, status: int) -> None:
    """The server hides its version, and answers the question for the filter on ends with that status."""
    answers = {'/api/admin/version': (404, {}), '/api/task_runs/count': (status, 0)}

    def fault(request: FakeRequest) -> FakeResponse | None:
        if request.path not in answers:
            return None
        code, answer = answers[request.path]
        return FakeResponse.of(answer, code)

    fake.fault = fault
