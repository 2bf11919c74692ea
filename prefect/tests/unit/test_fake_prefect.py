"""What the fake server promises beyond `integration/test_fake_is_faithful.py`: time, visibility, faults, complaints."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from tests.fake_prefect import FakePrefect, FakeRequest, FakeResponse, recorded

Row = dict[str, Any]
REFUSALS_OF_AN_OPEN_SERVER = [case for case in recorded.cases('errors') if not case.startswith(('401', '403_csrf'))]


def ask(fake: FakePrefect, method: str, path: str, body: object = None, **options: Any) -> requests.Response:
    with fake.install() as url:
        return requests.request(method, url + path, json=body, timeout=5, **options)


def flow_runs(fake: FakePrefect, **body: Any) -> list[Row]:
    response = ask(fake, 'POST', '/flow_runs/filter', body)
    assert response.status_code == 200, response.text
    return list(response.json())


def at(fake: FakePrefect, seconds: float) -> datetime:
    return fake.now + timedelta(seconds=seconds)


class TestWorld:
    def test_rows_have_the_columns_of_recorded_ones(self, fake: FakePrefect) -> None:
        pool = fake.add_work_pool()
        queue = fake.add_work_queue(pool)
        deployment = fake.add_deployment(work_queue=queue)
        run = fake.add_flow_run(deployment=deployment)
        rows = {
            ('work_pools_filter', 'ready'): pool,
            ('work_queues_filter', 'limited'): queue,
            ('workers_filter', 'online'): fake.add_worker(pool),
            ('deployments_filter', 'ready'): deployment,
            ('flow_runs_filter', 'completed'): run,
            ('task_runs_filter', 'engine_extract'): fake.add_task_run(flow_run=run),
        }
        for (endpoint, case), row in rows.items():
            assert row.keys() == recorded.row(endpoint, case).keys()

    def test_runs_belong_to_what_their_deployment_belongs_to(self, fake: FakePrefect) -> None:
        pool = fake.add_work_pool('pool')
        deployment = fake.add_deployment(work_queue=fake.default_queue(pool))
        run = fake.add_flow_run(deployment=deployment)
        assert (run['flow_id'], run['deployment_id']) == (deployment['flow_id'], deployment['id'])
        assert (run['work_pool_id'], run['work_queue_id']) == (pool['id'], pool['default_queue_id'])
        assert (run['work_pool_name'], run['work_queue_name']) == ('pool', 'default')

    def test_ids_have_the_versions_of_the_server(self, fake: FakePrefect) -> None:
        run = fake.add_flow_run()
        dummy_id = fake.add_flow_run(parent=run)['parent_task_run_id']
        scheduled = fake.add_flow_run(auto_scheduled=True)
        rows = [run['id'], dummy_id, scheduled['id'], fake.add_task_run(flow_run=run)['id'], run['state_id']]
        assert [identity[14] for identity in rows] == ['4', '4', '7', '7', '7']
        later = fake.add_flow_run(auto_scheduled=True, at=at(fake, 1))
        assert later['id'] > scheduled['id']

    def test_the_same_seed_makes_the_same_world(self) -> None:
        assert FakePrefect(seed=1).add_flow_run() == FakePrefect(seed=1).add_flow_run()
        assert FakePrefect(seed=1).add_flow_run()['id'] != FakePrefect(seed=2).add_flow_run()['id']

    def test_unknown_columns_are_refused(self, fake: FakePrefect) -> None:
        with pytest.raises(TypeError, match='colour is no column'):
            fake.add_work_pool(colour='red')

    def test_deleted_objects_leave_the_traces_that_the_server_leaves(self, fake: FakePrefect) -> None:
        pool = fake.add_work_pool()
        deployment = fake.add_deployment(work_queue=fake.default_queue(pool))
        run = fake.add_flow_run(deployment=deployment)
        fake.remove(pool)
        fake.remove(deployment)
        assert run['deployment_id'] == deployment['id']
        assert (run['work_queue_id'], run['work_pool_name']) == (None, None)
        assert flow_runs(fake, deployments={}) == []
        assert ask(fake, 'POST', '/work_queues/filter', {}).json() == []


class TestStates:
    def test_start_is_kept_over_attempts_and_end_is_forgotten_by_a_retry(self, fake: FakePrefect) -> None:
        run = fake.add_flow_run()
        fake.set_flow_run_state(run, 'RUNNING', at=at(fake, 10))
        fake.set_flow_run_state(run, 'FAILED', at=at(fake, 15))
        assert (run['start_time'], run['end_time']) == ('2026-11-23T08:00:10Z', '2026-11-23T08:00:15Z')
        fake.set_flow_run_state(run, 'SCHEDULED', 'AwaitingRetry', at=at(fake, 20), scheduled_time=at(fake, 60))
        assert (run['end_time'], run['next_scheduled_start_time']) == (None, '2026-11-23T08:01:00Z')
        fake.set_flow_run_state(run, 'RUNNING', at=at(fake, 60))
        fake.set_flow_run_state(run, 'COMPLETED', at=at(fake, 61.5))
        assert (run['start_time'], run['end_time']) == ('2026-11-23T08:00:10Z', '2026-11-23T08:01:01.500000Z')
        assert (run['run_count'], run['total_run_time']) == (2, 6.5)
        assert (run['expected_start_time'], run['next_scheduled_start_time']) == ('2026-11-23T08:00:00Z', None)
        assert [state['name'] for state in ask(fake, 'GET', f'/flow_run_states/?flow_run_id={run["id"]}').json()] == [
            'Scheduled',
            'Running',
            'Failed',
            'AwaitingRetry',
            'Running',
            'Completed',
        ]

    @pytest.mark.parametrize(('version', 'has_end'), [('3.6.13', False), ('3.6.14', True), ('3.8.8', True)])
    def test_runs_that_never_ran_have_start_and_end_in_newer_versions(self, version: str, has_end: bool) -> None:
        fake = FakePrefect()
        fake.version = version
        run = fake.add_flow_run()
        fake.set_flow_run_state(run, 'CANCELLED', at=at(fake, 5))
        end = '2026-11-23T08:00:05Z' if has_end else None
        assert (run['start_time'], run['end_time']) == (end, end)
        assert run['run_count'] == 0

    def test_states_of_one_run_have_different_timestamps(self, fake: FakePrefect) -> None:
        run = fake.add_flow_run()
        fake.set_flow_run_state(run, 'PENDING')
        assert run['state']['timestamp'] == '2026-11-23T08:00:00.000001Z'

    def test_the_dummy_task_run_follows_its_subflow(self, fake: FakePrefect) -> None:
        parent = fake.add_flow_run()
        child = fake.add_flow_run(parent=parent)
        fake.set_flow_run_state(child, 'RUNNING')
        (dummy,) = ask(fake, 'POST', '/task_runs/filter', {'task_runs': {'subflow_runs': {'exists_': True}}}).json()
        assert (dummy['id'], dummy['flow_run_id']) == (child['parent_task_run_id'], parent['id'])
        assert dummy['state_type'] == 'RUNNING'

    def test_estimates_follow_the_clock(self, fake: FakePrefect) -> None:
        run = fake.add_flow_run()
        fake.now = at(fake, 20)
        assert flow_runs(fake)[0]['estimated_start_time_delta'] == 20
        fake.set_flow_run_state(run, 'RUNNING')
        fake.now = at(fake, 5)
        (answer,) = flow_runs(fake)
        assert (answer['estimated_run_time'], answer['estimated_start_time_delta']) == (5, 20)


class TestVisibility:
    def test_a_row_does_not_show_before_its_time(self, fake: FakePrefect) -> None:
        fake.add_flow_run(visible_from=at(fake, 30), flow=fake.add_flow())
        assert flow_runs(fake) == []
        assert ask(fake, 'POST', '/flow_runs/count', {}).json() == 0
        fake.now = at(fake, 30)
        assert len(flow_runs(fake)) == 1

    def test_the_old_row_shows_until_the_change_does(self, fake: FakePrefect) -> None:
        run = fake.add_flow_run()
        fake.set_flow_run_state(run, 'RUNNING')
        fake.set_flow_run_state(run, 'COMPLETED', visible_from=at(fake, 30))
        assert [row['state_name'] for row in flow_runs(fake)] == ['Running']
        states = f'/flow_run_states/?flow_run_id={run["id"]}'
        assert len(ask(fake, 'GET', states).json()) == 2
        fake.now = at(fake, 30)
        assert [row['state_name'] for row in flow_runs(fake)] == ['Completed']
        assert len(ask(fake, 'GET', states).json()) == 3


class TestAnswers:
    def test_ties_come_in_another_order_each_time(self, fake: FakePrefect) -> None:
        for _ in range(10):
            fake.add_flow_run()
        orders = {tuple(row['id'] for row in flow_runs(fake, sort='EXPECTED_START_TIME_ASC')) for _ in range(5)}
        assert len(orders) > 1
        assert len({tuple(row['id'] for row in flow_runs(fake)) for _ in range(5)}) == 1

    @pytest.mark.parametrize(('database', 'first'), [('sqlite', 'Completed'), ('postgresql', 'Scheduled')])
    def test_nulls_are_where_the_database_puts_them(self, database: str, first: str) -> None:
        fake = FakePrefect()
        fake.database = database
        fake.add_flow_run()
        fake.add_flow_run(state=('COMPLETED', 'Completed'))
        assert flow_runs(fake, sort='END_TIME_DESC')[0]['state_name'] == first

    def test_the_limit_is_the_default_and_the_maximum(self, fake: FakePrefect) -> None:
        fake.default_limit = 2
        for _ in range(3):
            fake.add_flow_run()
        assert len(flow_runs(fake)) == 2
        refused = ask(fake, 'POST', '/flow_runs/filter', {'limit': 3})
        assert refused.status_code == 422
        assert refused.json() == {'detail': 'Invalid limit: must be less than or equal to 2.'}
        assert ask(fake, 'GET', '/admin/settings').json()['server']['api']['default_limit'] == 2

    def test_the_date_is_that_of_the_fake_clock(self, fake: FakePrefect) -> None:
        fake.now = datetime(2027, 1, 2, 3, 4, 5, 999999, tzinfo=UTC)
        assert ask(fake, 'GET', '/health').headers['date'] == 'Sat, 02 Jan 2027 03:04:05 GMT'

    def test_pages_of_events_freeze_the_period_but_shift_with_late_events(self, fake: FakePrefect) -> None:
        for second in range(6):
            fake.add_event(occurred=at(fake, -10 - second))
        fake.add_event('prefect.late', occurred=at(fake, -1), visible_from=at(fake, 5))
        first = ask(fake, 'POST', '/events/filter', {'limit': 3}).json()
        fake.now = at(fake, 5)
        fake.add_event('prefect.after', occurred=fake.now)
        token = urlsplit(first['next_page']).query
        second = ask(fake, 'GET', f'/events/filter/next?{token}').json()
        assert (first['total'], second['total'], second['next_page']) == (6, 6, None)
        assert first['events'][-1] == second['events'][0]
        assert {event['event'] for event in second['events']} == {'prefect.flow-run.Completed'}

    def test_next_page_follows_the_host_header(self, fake: FakePrefect) -> None:
        fake.add_event()
        fake.add_event()
        page = ask(fake, 'POST', '/events/filter', {'limit': 1}, headers={'Host': 'proxy.test'}).json()
        assert page['next_page'].startswith('http://proxy.test/api/events/filter/next?page-token=')

    @pytest.mark.parametrize('path', ['/health', '/api/api/health'])
    def test_outside_of_the_api_is_nothing(self, fake: FakePrefect, path: str) -> None:
        answer = fake.handle('GET', path, {}, {'Accept': '*/*'}, b'')
        assert (answer.status, answer.body) == (404, b'{"detail":"Not Found"}')

    @pytest.mark.parametrize(
        'case', [case for case in recorded.cases('errors') if not case.startswith(('401', '403_c'))]
    )
    def test_recorded_refusals_are_repeated(self, case: str) -> None:
        exchange = recorded.exchange('errors', case)
        answer = ask(FakePrefect(), **exchange['request'])
        assert answer.status_code == exchange['status']
        assert answer.json().get('detail') == exchange['body'].get('detail')


class TestAccess:
    def test_credentials_guard_all_but_health_and_ready(self, fake: FakePrefect) -> None:
        fake.auth_string = 'user:pass'
        assert [ask(fake, 'GET', path).status_code for path in ('/health', '/ready', '/version')] == [200, 200, 401]
        assert ask(fake, 'GET', '/version', auth=('user', 'wrong')).json() == recorded.body('errors', '401')
        assert ask(fake, 'GET', '/version', auth=('user', 'pass')).status_code == 200

    def test_a_new_csrf_token_invalidates_the_old_one(self, fake: FakePrefect) -> None:
        fake.is_csrf_protected = True

        def count(**headers: str) -> Any:
            named = {f'Prefect-Csrf-{name}': value for name, value in headers.items()}
            return ask(fake, 'POST', '/flow_runs/count', {}, headers=named).json()

        assert count() == recorded.body('errors', '403_csrf_token_missing')
        assert count(Token='x') == recorded.body('errors', '403_csrf_client_missing')
        assert count(Token='x', Client='me') == recorded.body('errors', '403_csrf_token_invalid')
        tokens = [ask(fake, 'GET', '/csrf-token?client=me').json()['token'] for _ in range(2)]
        assert count(Token=tokens[0], Client='me') == recorded.body('errors', '403_csrf_token_invalid')
        assert count(Token=tokens[1], Client='me') == 0
        fake.now = at(fake, 3601)
        assert count(Token=tokens[1], Client='me') == recorded.body('errors', '403_csrf_token_invalid')

    def test_a_server_that_is_not_ready_says_so(self, fake: FakePrefect) -> None:
        fake.is_ready = False
        answer = ask(fake, 'GET', '/ready')
        assert (answer.status_code, answer.json()) == (503, recorded.body('ready', 'database_lost'))


class TestComplaints:
    @pytest.mark.parametrize(
        ('method', 'path', 'body', 'status'),
        [
            ('GET', '/flow_runs/history', None, 404),
            ('POST', '/flow_runs/filter', {'sort': 'CREATED_DESC'}, 422),
            ('POST', '/flow_runs/filter', {'flow_runs': {'created': {}}}, 422),
            ('POST', '/flow_runs/filter', {'work_queues': {}}, 200),
            ('POST', '/flow_runs/count', {'limit': 5}, 200),
            ('POST', '/flow_runs/filter', {'flow_runs': {'end_time': {'after_': 'soon'}}}, 422),
            ('POST', '/work_pools/filter', {'sort': 'NAME_ASC'}, 200),
            ('POST', '/events/filter', {'filter': {'text': {'query': 'error'}}}, 501),
        ],
        ids=str,
    )
    def test_requests_that_it_does_not_know_are_remembered(
        self, method: str, path: str, body: object, status: int
    ) -> None:
        fake = FakePrefect()
        assert ask(fake, method, path, body).status_code == status
        with pytest.raises(AssertionError, match=f'{method} /api{path}'):
            fake.assert_all_known()

    def test_every_request_is_logged(self, fake: FakePrefect) -> None:
        fake.add_flow_run()
        answer = ask(fake, 'POST', '/flow_runs/filter', {'limit': 1})
        ask(fake, 'GET', f'/flow_run_states/?flow_run_id={answer.json()[0]["id"]}')
        first, second = fake.requests
        assert (first.method, first.path, first.body) == ('POST', '/api/flow_runs/filter', {'limit': 1})
        assert (first.status, first.response_bytes) == (200, len(answer.content))
        assert second.query == {'flow_run_id': answer.json()[0]['id']}


class TestFaults:
    def test_a_fault_answers_instead_of_the_server(self, fake: FakePrefect) -> None:
        def busy(request: FakeRequest) -> FakeResponse | None:
            return (
                FakeResponse.of({'exception_message': 'Service Unavailable'}, 503) if 'count' in request.path else None
            )

        fake.fault = busy
        assert ask(fake, 'POST', '/flow_runs/count', {}).status_code == 503
        assert ask(fake, 'GET', '/health').json() is True

    def test_an_exception_breaks_the_connection(self, fake: FakePrefect) -> None:
        fake.fault = lambda request: requests.ConnectTimeout('too slow')
        with pytest.raises(requests.ConnectTimeout):
            ask(fake, 'GET', '/health')
        with fake.serve() as url, pytest.raises(requests.ConnectionError):
            requests.get(f'{url}/health', timeout=5)
        assert [request.status for request in fake.requests] == [None, None]


class TestSocket:
    def test_large_answers_are_compressed_on_request_over_one_connection(self, fake: FakePrefect) -> None:
        for _ in range(3):
            fake.add_flow_run()
        with fake.serve() as url, requests.Session() as session:
            plain = session.post(f'{url}/flow_runs/filter', json={}, headers={'Accept-Encoding': ''}, timeout=5)
            packed = session.post(f'{url}/flow_runs/filter', json={}, timeout=5)
            small = session.get(f'{url}/health', timeout=5)
            pools = session.get_adapter(url).poolmanager.pools
            connections = sum(pools[key].num_connections for key in pools.keys())  # noqa: SIM118
        assert 'content-encoding' not in plain.headers
        assert packed.headers['content-encoding'] == 'gzip'
        assert 'content-encoding' not in small.headers
        assert packed.json() == plain.json()
        assert int(packed.headers['content-length']) < int(plain.headers['content-length'])
        assert connections == 1

    def test_both_fronts_take_the_same_request_to_the_server(self, fake: FakePrefect) -> None:
        answers: list[Any] = []
        for front in (fake.install(), fake.serve()):
            with front as url:
                answers.append(requests.get(f'{url}/flow_run_states/?flow_run_id={"0" * 32}', timeout=5).json())
        assert answers == [[], []]
        assert fake.requests[0] == fake.requests[1]
