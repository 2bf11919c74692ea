from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from threading import Event, Thread
from typing import Any, get_args

import pytest
import requests

from datadog_checks.base.stubs.aggregator import AggregatorStub
from datadog_checks.base.stubs.datadog_agent import DatadogAgentStub
from datadog_checks.prefect import PrefectCheck
from datadog_checks.prefect.api.errors import PrefectApiError
from datadog_checks.prefect.api.versions import DIFFERENCES, SUPPORTED
from datadog_checks.prefect.collectors import snapshot_collectors, stream_collectors
from datadog_checks.prefect.collectors.work_pools import WorkPools
from datadog_checks.prefect.config_models import defaults
from datadog_checks.prefect.config_models.instance import InstanceConfig
from datadog_checks.prefect.event_names import COUNTED_EVENTS
from datadog_checks.prefect.metrics import BACKGROUND_SERVICES, HEARTBEATS, METRICS, NAMESPACE
from datadog_checks.prefect.streams import state_history
from datadog_checks.prefect.streams.registry import Member, Registry
from tests.conftest import AgentClock
from tests.fake_prefect import FakePrefect, FakeResponse
from tests.fake_prefect.server import FakeRequest
from tests.unit.harness import Row, at, failing, run_task_through, run_through, sent

STATE_OF_1_0 = (Path(__file__).parents[1] / 'fixtures' / 'state_1.0.0.json').read_text()
NewCheck = Callable[..., PrefectCheck]
RunCheck = Callable[[PrefectCheck], AggregatorStub]

UI_URL = 'http://prefect.test:4200'
GROUPS = defaults.instance_collect()
SNAPSHOTS = [collector.name for collector in snapshot_collectors(GROUPS)]
STREAMS = [collector.name for collector in stream_collectors(GROUPS)]
COLLECTORS = ['health', *SNAPSHOTS, *STREAMS]
# The options that say what is counted; the two others with patterns choose tags and series.
FILTERS = [
    name
    for name, option in InstanceConfig.model_fields.items()
    if any({'include', 'exclude'} <= set(getattr(kind, 'model_fields', ())) for kind in get_args(option.annotation))
    and name not in ('prefect_tags', 'metric_patterns', 'event_names', 'log_names')
]
# What a retried flow run with one task run adds to the sums.
LATE_RUN = {
    'flow_runs.completed.count': 1,
    'flow_runs.throughput': 1,
    'flow_runs.retry_gaps_duration.count': 1,
    'task_runs.completed.count': 1,
    'task_runs.throughput': 1,
}


def run_failing(check: PrefectCheck, aggregator: AggregatorStub) -> str:
    """The message of the error with which a run ends."""
    aggregator.reset()
    answer = check.run()
    assert answer, 'the run did not fail'
    (error,) = json.loads(answer)
    return str(error['message'])


def failing_lookup(states: object) -> None:
    raise PrefectApiError('GET /flow_run_states/', 'answered 500')


def refusing(submit: Callable[..., None], part: str) -> Callable[..., None]:
    """The function, with an error for each series with that in its name."""

    def submit_or_fail(name: str, *arguments: Any, **options: Any) -> None:
        if part in name:
            raise ZeroDivisionError
        submit(name, *arguments, **options)

    return submit_or_fail


def total(aggregator: AggregatorStub, name: str) -> float:
    return sum(metric.value for metric in aggregator.metrics(f'{NAMESPACE}.{name}'))


def success(aggregator: AggregatorStub) -> dict[str, float]:
    """`collector.success` by collector."""
    return {
        tag.removeprefix('collector:'): metric.value
        for metric in aggregator.metrics('prefect.server.collector.success')
        for tag in metric.tags
        if tag.startswith('collector:')
    }


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged above INFO."""
    return [record.getMessage() for record in caplog.records if record.levelno > logging.INFO]


@pytest.fixture
def full_world(fake: FakePrefect) -> Callable[[], None]:
    """A server with everything; calling it lets all happen that the streams tell, after the first run of the check."""
    queue = fake.add_work_queue(fake.add_work_pool('prod', concurrency_limit=9), 'high', concurrency_limit=3)
    fake.add_worker(fake.tables['work_pools'].get(queue['work_pool_id']))
    deployment = fake.add_deployment(
        name='hourly', work_queue=queue, tags=['expect:max_age=1h', 'expect:max_run_time=1h']
    )
    fake.add_concurrency_limit(f'deployment:{deployment["id"]}', 2, 1)
    fake.add_concurrency_limit('database', 4, 1)
    flow = fake.add_flow('ad hoc')
    states = ('PENDING', 'RUNNING', 'PAUSED', 'CANCELLING')
    live = [fake.add_flow_run(deployment=deployment, state=(state, state.capitalize())) for state in states]
    for name in ('AwaitingRetry', 'AwaitingConcurrencySlot'):
        fake.add_flow_run(deployment=deployment, state=('SCHEDULED', name), scheduled_time=at(-30))
    fake.add_flow_run(deployment=deployment, scheduled_time=at(7200), auto_scheduled=True)
    fake.add_flow_run(flow=flow, parent=live[1], state=('RUNNING', 'Running'))
    for state in states[:3]:
        fake.add_task_run(flow_run=live[1], state=(state, state.capitalize()))
    fake.add_automation()
    fake.add_task_worker('resize')
    fake.add_task_run(task_key='resize', state=('SCHEDULED', 'Scheduled'))
    fake.add_task_run(flow_run=live[1], state=('SCHEDULED', 'AwaitingRetry'))

    def happen() -> None:
        for end in ('COMPLETED', 'FAILED', 'CRASHED', 'CANCELLED'):
            run = run_through(fake, deployment=deployment, start=at(1), seconds=2, end=(end, None))
            run['expected_start_time'] = '2026-11-23T07:00:00Z'
            upstream = run_task_through(fake, flow_run=live[1], start=at(1), seconds=1, end=(end, None))
            run_task_through(fake, flow_run=live[1], start=at(3), seconds=1, upstream=[upstream], task_key='load')
        run_through(fake, flow=flow, start=at(1), seconds=2)
        run_task_through(fake, task_key='mail', start=at(1))
        for names in COUNTED_EVENTS.values():
            for name in names:
                fake.add_event(name, occurred=at(5))
        fake.add_heartbeat(live[1], occurred=at(5))
        retried = run_through(fake, deployment=deployment, start=at(1), seconds=1, end=('SCHEDULED', 'AwaitingRetry'))
        fake.set_flow_run_state(retried, 'RUNNING', at=at(6))
        fake.now = at(15)

    return happen


class TestSamples:
    def test_full_world_gives_every_series_with_no_other_tags_than_declared(
        self, fake: FakePrefect, new_check: NewCheck, run_check: RunCheck, full_world: Callable[[], None]
    ) -> None:
        check = new_check(tags=['team:data'], collect_events=True, collect_logs=True)
        run_check(check)
        full_world()
        # That a service lives shows in what it does.
        fake.add_flow_run(state=('SCHEDULED', 'Late'), scheduled_time=fake.now - timedelta(seconds=60))
        aggregator = run_check(check)
        specs = {spec.full_name: spec for spec in METRICS.values()}
        assert set(aggregator.metric_names) == set(specs)
        for name, spec in specs.items():
            for metric in aggregator.metrics(name):
                keys = [tag.partition(':')[0] for tag in metric.tags]
                assert set(keys) <= {*spec.tag_keys, 'prefect_url', 'team'}, name
                assert len(keys) == len(set(keys)), name
                assert metric.type == getattr(aggregator, spec.type.upper()), name

    def test_no_tag_is_empty_or_none(
        self, fake: FakePrefect, new_check: NewCheck, run_check: RunCheck, full_world: Callable[[], None]
    ) -> None:
        check = new_check()
        run_check(check)
        full_world()
        fake.add_flow_run(state=('RUNNING', 'Running'))
        fake.add_task_run(state=('RUNNING', 'Running'))
        fake.add_work_pool('bare', type=None)
        fake.add_deployment(name='bare')
        aggregator = run_check(check)
        assert aggregator.metric_names
        for name in aggregator.metric_names:
            for metric in aggregator.metrics(name):
                assert not [tag for tag in metric.tags if tag.partition(':')[2] in ('', 'None', 'null')], name

    def test_instance_tags_and_url_are_on_every_series(
        self, new_check: NewCheck, run_check: RunCheck, full_world: Callable[[], None], prefect_url: str
    ) -> None:
        url = prefect_url.replace('//', '//user:secret@')
        check = new_check(tags=['team:data', 'region:eu'], prefect_url=f'{url}/')
        run_check(check)
        full_world()
        aggregator = run_check(check)
        assert aggregator.metric_names
        for name in aggregator.metric_names:
            for metric in aggregator.metrics(name):
                assert {'team:data', 'region:eu', f'prefect_url:{UI_URL}'} <= set(metric.tags), name

    def test_run_ids_are_in_no_tag(
        self, fake: FakePrefect, new_check: NewCheck, run_check: RunCheck, full_world: Callable[[], None]
    ) -> None:
        check = new_check()
        run_check(check)
        full_world()
        aggregator = run_check(check)
        ids = {row['id'] for table in ('flow_runs', 'task_runs') for row in fake.tables[table].newest()}
        found = {tag for name in aggregator.metric_names for metric in aggregator.metrics(name) for tag in metric.tags}
        assert ids
        assert found
        assert not [tag for tag in found if tag.partition(':')[2] in ids]

    def test_empty_server_gives_health_and_success_and_says_nothing(
        self, new_check: NewCheck, run_check: RunCheck, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        check = new_check()
        for _ in range(2):
            aggregator = run_check(check)
            of_objects = {
                spec.full_name
                for spec in METRICS.values()
                if spec.family not in ('collector', 'api', 'check', 'service')
            }
            assert of_objects & set(aggregator.metric_names) == {'prefect.server.health', 'prefect.server.ready'}
        assert warnings(caplog) == []

    def test_nothing_normal_is_logged_above_debug(
        self,
        fake: FakePrefect,
        new_check: NewCheck,
        run_check: RunCheck,
        full_world: Callable[[], None],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        fake.add_work_queue(fake.add_work_pool('empty'), 'never polled', last_polled=None)
        caplog.set_level(logging.INFO)
        check = new_check()
        run_check(check)
        full_world()
        run_check(check)
        assert [record.getMessage() for record in caplog.records if record.name.startswith('datadog')] == []

    @pytest.mark.parametrize('does_fail', [False, True], ids=['', 'after a failure'])
    @pytest.mark.parametrize('is_restarted', [False, True], ids=['', 'after a restart'])
    def test_flow_run_that_shows_late_is_counted_with_its_retry_gaps(
        self,
        fake: FakePrefect,
        new_check: NewCheck,
        run_check: RunCheck,
        aggregator: AggregatorStub,
        monkeypatch: pytest.MonkeyPatch,
        does_fail: bool,
        is_restarted: bool,
    ) -> None:
        deployment = fake.add_deployment(name='hourly')
        check = new_check()
        for seconds in (0, 15, 30):
            fake.now = at(seconds)
            run_check(check)
        run = run_through(fake, deployment=deployment, start=at(20), seconds=1, end=('SCHEDULED', 'AwaitingRetry'))
        fake.set_flow_run_state(run, 'RUNNING', at=at(23))
        fake.set_flow_run_state(run, 'COMPLETED', at=at(24))
        fake.now = at(45)
        if does_fail:
            with monkeypatch.context() as patch:
                patch.setattr(state_history, 'retry_gaps', failing_lookup)
                assert 'flow_runs.retry_gaps' in run_failing(check, aggregator)
            assert total(aggregator, 'flow_runs.completed.count') == 1
            fake.now = at(60)
        if is_restarted:
            check = new_check()
        run_check(check)
        assert total(aggregator, 'flow_runs.completed.count') == (not does_fail)
        assert total(aggregator, 'flow_runs.retry_gaps_duration.max') == 2
        fake.now = at(75)
        assert total(run_check(check), 'flow_runs.retry_gaps_duration.count') == 0


class TestFailures:
    def test_unreachable_server_gives_zeros_and_one_error_and_is_asked_nothing_else(
        self, fake: FakePrefect, new_check: NewCheck, aggregator: AggregatorStub
    ) -> None:
        fake.fault = lambda request: requests.exceptions.ConnectTimeout()
        message = run_failing(new_check(), aggregator)
        assert 'health: GET /health: no connection to prefect.test:4200' in message
        assert total(aggregator, 'health') == total(aggregator, 'ready') == 0
        assert len(aggregator.metrics('prefect.server.health')) == len(aggregator.metrics('prefect.server.ready')) == 1
        assert success(aggregator) == {'health': 0}
        assert [request.path for request in fake.requests] == ['/api/health']

    def test_server_without_database_is_still_read(
        self, fake: FakePrefect, new_check: NewCheck, aggregator: AggregatorStub
    ) -> None:
        fake.is_ready = False
        message = run_failing(new_check(), aggregator)
        assert 'GET /ready: HTTP 503' in message
        assert success(aggregator) == {name: int(name != 'health') for name in COLLECTORS}

    def test_good_run_reports_success_of_every_collector(self, new_check: NewCheck, run_check: RunCheck) -> None:
        assert success(run_check(new_check())) == dict.fromkeys(COLLECTORS, 1)

    @pytest.mark.parametrize(
        ('path', 'failed'),
        [
            pytest.param(
                '/work_pools/prod/workers/filter', {'workers', 'late_runs', 'background_services'}, id='workers'
            ),
            pytest.param(
                '/work_queues/filter',
                {'work_queues', 'late_runs', 'concurrency', 'background_services'},
                id='work queues',
            ),
            pytest.param('/flow_run_states/', {*STREAMS} - {'task_runs.started', 'task_runs.finished'}, id='states'),
            pytest.param(
                '/task_runs/filter',
                {'task_runs', 'task_runs.ages', 'task_runs.started', 'task_runs.finished', 'background_tasks'},
                id='task runs',
            ),
        ],
    )
    def test_failed_collector_does_not_stop_the_others(
        self,
        fake: FakePrefect,
        new_check: NewCheck,
        run_check: RunCheck,
        aggregator: AggregatorStub,
        full_world: Callable[[], None],
        path: str,
        failed: set[str],
    ) -> None:
        check = new_check()
        run_check(check)
        full_world()
        fake.fault = failing(path, 503)
        message = run_failing(check, aggregator)
        assert {name for name, value in success(aggregator).items() if not value} <= failed
        assert set(success(aggregator)) == set(COLLECTORS)
        method = 'GET' if path == '/flow_run_states/' else 'POST'
        assert f'{method} {path}: HTTP 503' in message

    def test_error_names_each_failed_collector_with_endpoint_and_cause(
        self, fake: FakePrefect, new_check: NewCheck, aggregator: AggregatorStub
    ) -> None:
        faults = [failing('/work_queues/filter', 500), failing('/task_runs/filter', 429)]
        fake.fault = lambda request: faults[0](request) or faults[1](request)
        message = run_failing(new_check(), aggregator)
        # The server asked for patience, so what comes afterwards fails too.
        assert re.match(r'\d+ of \d+ collectors failed: ', message)
        assert 'work_queues, concurrency, background_services: POST /work_queues/filter: HTTP 500, ' in message
        assert re.search(r'\btask_runs, .*: POST /task_runs/filter: HTTP 429, ', message)

    def test_failed_collector_submits_nothing(
        self, fake: FakePrefect, new_check: NewCheck, aggregator: AggregatorStub
    ) -> None:
        for name in ('a', 'b', 'c'):
            fake.add_worker(fake.add_work_pool(name))
        fake.fault = failing('/work_pools/c/workers/filter')
        run_failing(new_check(), aggregator)
        assert not aggregator.metrics('prefect.server.work_pool.worker.is_online')
        assert len(aggregator.metrics('prefect.server.work_pool.is_ready')) == 3

    def test_mistake_in_a_collector_is_logged_with_its_traceback_and_does_not_stop_the_others(
        self,
        new_check: NewCheck,
        aggregator: AggregatorStub,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        def collect(*arguments: Any) -> None:
            raise ZeroDivisionError('by hand')

        monkeypatch.setattr(WorkPools, 'collect', collect)
        message = run_failing(new_check(), aggregator)
        assert 'work_pools: unexpected ZeroDivisionError, a defect of the check' in message
        assert success(aggregator) == {name: int(name != 'work_pools') for name in COLLECTORS}
        assert 'ZeroDivisionError' in caplog.text

    def test_next_good_run_is_clean(
        self, fake: FakePrefect, new_check: NewCheck, run_check: RunCheck, aggregator: AggregatorStub
    ) -> None:
        check = new_check()
        fake.fault = failing('/work_pools/filter')
        run_failing(check, aggregator)
        fake.fault = None
        assert success(run_check(check)) == dict.fromkeys(COLLECTORS, 1)

    def test_shared_lookup_that_fails_is_asked_for_once(
        self, fake: FakePrefect, new_check: NewCheck, aggregator: AggregatorStub
    ) -> None:
        fake.fault = failing('/work_pools/filter')
        run_failing(new_check(), aggregator)
        assert len(sent(fake, '/work_pools/filter')) == 1
        assert success(aggregator)['work_pools'] == success(aggregator)['workers'] == 0

    @pytest.mark.parametrize('field', ['password', 'user info', 'header'])
    def test_no_secret_is_in_errors_logs_and_tags(
        self,
        fake: FakePrefect,
        new_check: NewCheck,
        aggregator: AggregatorStub,
        caplog: pytest.LogCaptureFixture,
        prefect_url: str,
        field: str,
    ) -> None:
        caplog.set_level(logging.DEBUG)
        options: dict[str, Any] = {
            'password': {'username': 'reader', 'password': 'sesame'},
            'user info': {'prefect_url': prefect_url.replace('//', '//reader:sesame@')},
            'header': {'extra_headers': {'Authorization': 'Bearer sesame'}},
        }[field]
        check = new_check(**options)
        texts = []
        for fault in (
            FakeResponse.of({'exception_message': 'Unauthorized'}, 401),
            requests.exceptions.ConnectionError('http://reader:sesame@prefect.test'),
            requests.exceptions.InvalidURL('http://reader:sesame@prefect.test'),
            FakeResponse(302, b'', {'Location': 'http://reader:sesame@prefect.test/login'}),
        ):
            fake.fault = failing('/work_pools/filter', fault)
            aggregator.reset()
            texts.append(check.run())
            texts += [tag for name in aggregator.metric_names for m in aggregator.metrics(name) for tag in m.tags]
        assert 'sesame' not in '\n'.join([*texts, caplog.text])
        assert all(text for text in texts)


class TestMalformedObjects:
    @pytest.mark.parametrize('id_of_bad', ['00000000-0000-4000-8000-000000000000', None, 7], ids=['id', 'null', '7'])
    def test_malformed_object_is_skipped_and_logged_once_per_run(
        self,
        fake: FakePrefect,
        new_check: NewCheck,
        run_check: RunCheck,
        caplog: pytest.LogCaptureFixture,
        id_of_bad: object,
    ) -> None:
        good = fake.add_work_pool('good')
        bad = good | {'id': id_of_bad, 'name': None}
        fake.fault = failing('/work_pools/filter', FakeResponse.of([bad, good]))
        check = new_check()
        for runs in (1, 2):
            aggregator = run_check(check)
            assert len(aggregator.metrics('prefect.server.work_pool.is_ready')) == 1
            skipped = [text for text in warnings(caplog) if 'malformed' in text]
            assert sum(int(text.split()[1]) for text in skipped) == runs

    def test_malformed_flow_run_does_not_hide_the_others(
        self, fake: FakePrefect, new_check: NewCheck, run_check: RunCheck, caplog: pytest.LogCaptureFixture
    ) -> None:
        for index in range(5):
            fake.add_flow_run(state=('RUNNING', 'Running'), at=at(-index))
        fake.tables['flow_runs'].newest()[2]['run_count'] = 'many'
        aggregator = run_check(new_check())
        assert total(aggregator, 'flow_runs.running') == 4
        assert [text for text in warnings(caplog) if 'FlowRun: run_count' in text]

    def test_value_of_a_malformed_field_is_not_logged(
        self, fake: FakePrefect, new_check: NewCheck, run_check: RunCheck, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        fake.add_work_pool('good', type={'password': 'sesame'})
        run_check(new_check())
        assert 'WorkPool: type is an object' in caplog.text
        assert 'sesame' not in caplog.text


class TestStreams:
    def test_restarted_agent_goes_on_where_it_was(
        self, fake: FakePrefect, new_check: NewCheck, run_check: RunCheck
    ) -> None:
        run_check(new_check())
        found = []
        for seconds in (15, 30, 600, 615):
            run_through(fake, start=at(seconds - 5), seconds=2)
            fake.now = at(seconds)
            found.append(total(run_check(new_check()), 'flow_runs.completed.count'))
        assert found == [1, 1, 1, 1]

    def test_what_happened_while_the_agent_was_down_is_counted(
        self, fake: FakePrefect, new_check: NewCheck, run_check: RunCheck
    ) -> None:
        run_check(new_check())
        for seconds in range(100, 3000, 100):
            run_through(fake, start=at(seconds), seconds=2)
        fake.now = at(3000)
        aggregator = run_check(new_check())
        assert total(aggregator, 'flow_runs.completed.count') == total(aggregator, 'flow_runs.throughput') == 29

    def test_what_is_older_than_max_catchup_is_skipped_with_a_warning(
        self, fake: FakePrefect, new_check: NewCheck, run_check: RunCheck, caplog: pytest.LogCaptureFixture
    ) -> None:
        options = {'max_catchup': 600}
        run_check(new_check(**options))
        for seconds in (1000, 2000, 2399, 2401, 2900):
            run_through(fake, start=at(seconds), seconds=0.5)
        fake.now = at(3000)
        check = new_check(**options)
        assert total(run_check(check), 'flow_runs.completed.count') == 2
        assert sorted(text.split(':')[0] for text in warnings(caplog)) == sorted(STREAMS)
        assert all('up to 2026-11-23T08:40:00.000000Z is not counted' in text for text in warnings(caplog))
        caplog.clear()
        fake.now = at(3015)
        assert total(run_check(check), 'flow_runs.completed.count') == 0
        assert warnings(caplog) == []

    @pytest.mark.parametrize('path', ['/flow_runs/filter', '/deployments/filter', '/flows/filter'])
    def test_failed_collector_does_not_move_its_cursor(
        self,
        fake: FakePrefect,
        new_check: NewCheck,
        run_check: RunCheck,
        aggregator: AggregatorStub,
        path: str,
    ) -> None:
        check = new_check()
        run_check(check)
        fake.fault = failing(path, 503)
        for seconds in (300, 600):
            run_through(fake, start=at(seconds - 200), seconds=2)
            fake.now = at(seconds)
            run_failing(check, aggregator)
            assert success(aggregator)['flow_runs.finished'] == 0
        fake.fault = None
        fake.now = at(900)
        aggregator = run_check(check)
        assert total(aggregator, 'flow_runs.completed.count') == total(aggregator, 'flow_runs.throughput') == 2

    def test_failed_stream_leaves_the_other_streams_exact(
        self, fake: FakePrefect, new_check: NewCheck, run_check: RunCheck, aggregator: AggregatorStub
    ) -> None:
        check = new_check()
        run_check(check)
        run_through(fake, start=at(1), seconds=2)
        run_task_through(fake, start=at(1), seconds=2)
        fake.now = at(15)
        fake.fault = failing('/task_runs/filter')
        run_failing(check, aggregator)
        first = {name: total(aggregator, f'{name}.completed.count') for name in ('flow_runs', 'task_runs')}
        fake.fault = None
        fake.now = at(300)
        run_check(check)
        second = {name: total(aggregator, f'{name}.completed.count') for name in ('flow_runs', 'task_runs')}
        assert (first, second) == ({'flow_runs': 1, 'task_runs': 0}, {'flow_runs': 0, 'task_runs': 1})

    def test_submission_that_raises_loses_nothing(
        self,
        fake: FakePrefect,
        new_check: NewCheck,
        run_check: RunCheck,
        aggregator: AggregatorStub,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The process goes on: what the streams remember must not say that the runs which showed late are counted."""
        deployment = fake.add_deployment(name='hourly')
        check = new_check()
        for seconds in (0, 15, 30, 45):
            fake.now = at(seconds)
            run_check(check)
        retried = run_through(fake, deployment=deployment, start=at(18), seconds=1, end=('SCHEDULED', 'AwaitingRetry'))
        fake.set_flow_run_state(retried, 'RUNNING', at=at(20))
        fake.set_flow_run_state(retried, 'COMPLETED', at=at(22))
        run_task_through(fake, flow_run=retried, start=at(20), seconds=2)
        fake.now = at(60)
        with monkeypatch.context() as patch:
            for submit in ('gauge', 'count'):
                patch.setattr(check, submit, refusing(getattr(check, submit), '_runs.'))
            assert 'unexpected ZeroDivisionError' in run_failing(check, aggregator)
        already = {name: total(aggregator, name) for name in LATE_RUN}
        fake.now = at(75)
        run_check(check)
        assert {name: already[name] + total(aggregator, name) for name in LATE_RUN} == LATE_RUN

    def test_collectors_keep_nothing_by_themselves(
        self, new_check: NewCheck, run_check: RunCheck, full_world: Callable[[], None]
    ) -> None:
        """What they remember goes through the check. What is exempt holds facts of the server."""
        exempt = {'_pasts', '_collector', 'name'}
        check = new_check(collect_events=True)
        run_check(check)
        full_world()
        run_check(check)
        for collector in (*check._snapshot_collectors, *check._stream_collectors):
            assert not vars(collector).keys() - exempt, collector.name
            assert collector.name in check._memories

    def test_series_that_was_not_submitted_as_0_is_submitted_so_later(
        self, fake: FakePrefect, new_check: NewCheck, run_check: RunCheck, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Else a monitor stays as it was: a run without a deployment is reported as 0 once."""
        live = fake.add_flow_run(state=('RUNNING', 'Running'))
        check = new_check()
        assert total(run_check(check), 'flow_runs.running') == 1
        fake.set_flow_run_state(live, 'COMPLETED', at=at(5))
        fake.now = at(15)
        with monkeypatch.context() as patch:
            patch.setattr(check, 'gauge', refusing(check.gauge, 'flow_runs.running'))
            assert check.run()
        fake.now = at(30)
        assert [metric.value for metric in run_check(check).metrics('prefect.server.flow_runs.running')] == [0]

    @pytest.mark.parametrize('written', [None, 0, 0.5, 0.99, 1])
    def test_crash_while_persisting_repeats_at_most_that_batch(
        self,
        fake: FakePrefect,
        new_check: NewCheck,
        run_check: RunCheck,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        written: float | None,
    ) -> None:
        """Before the Agent writes, when it has emptied its file, in the middle, or right afterwards."""
        run_check(new_check())
        run_through(fake, start=at(1), seconds=2)
        run_task_through(fake, start=at(1), seconds=2)
        fake.now = at(15)
        crashed = new_check()
        persist = crashed.write_persistent_cache

        def crash(key: str, document: str) -> None:
            is_last = '"2026-11-23T08:00:15' in document.partition('"flow_runs.finished"')[2].partition('seen')[0]
            if not is_last:
                persist(key, document)
                return
            if written is not None:
                persist(key, document[: int(written * len(document))])
            raise SystemExit

        monkeypatch.setattr(crashed, 'write_persistent_cache', crash)
        with pytest.raises(SystemExit):
            crashed.run()
        fake.now = at(30)
        aggregator = run_check(new_check())
        assert total(aggregator, 'flow_runs.completed.count') == (written != 1)
        assert total(aggregator, 'flow_runs.throughput') == 1
        assert total(aggregator, 'task_runs.completed.count') == 1
        assert warnings(caplog) == []

    def test_first_run_reads_nothing_back(
        self, fake: FakePrefect, new_check: NewCheck, run_check: RunCheck, full_world: Callable[[], None]
    ) -> None:
        full_world()
        aggregator = run_check(new_check())
        of_streams = [spec for spec in METRICS.values() if spec.family in ('flow_runs', 'task_runs')]
        counts = [spec.name for spec in of_streams if spec.type == 'count' or 'duration' in spec.name]
        assert {name: total(aggregator, name) for name in counts} == dict.fromkeys(counts, 0)

    def test_other_filters_have_cursors_of_their_own(
        self, fake: FakePrefect, new_check: NewCheck, run_check: RunCheck
    ) -> None:
        run_check(new_check())
        run_through(fake, start=at(1), seconds=2)
        fake.now = at(15)
        filtered = new_check(work_pool_names={'exclude': ['x']})
        assert total(run_check(filtered), 'flow_runs.completed.count') == 0
        assert total(run_check(new_check()), 'flow_runs.completed.count') == 1

    @pytest.mark.parametrize(
        'document',
        [
            pytest.param('nonsense', id='no JSON'),
            pytest.param('{"version": 99, "streams": {}}', id='unknown version'),
            pytest.param('[1, 2]', id='another shape'),
            pytest.param('{"version": 1, "serial": 1, "streams": {"flow_runs.finished": {}}}', id='no cursor'),
        ],
    )
    def test_unreadable_state_is_one_warning_and_a_fresh_start(
        self,
        fake: FakePrefect,
        new_check: NewCheck,
        run_check: RunCheck,
        datadog_agent: DatadogAgentStub,
        caplog: pytest.LogCaptureFixture,
        document: str,
    ) -> None:
        run_check(new_check())
        assert len(datadog_agent._cache) == 2
        datadog_agent._cache.update(dict.fromkeys(datadog_agent._cache, document))
        run_through(fake, start=at(1), seconds=2)
        fake.now = at(15)
        check = new_check()
        assert total(run_check(check), 'flow_runs.completed.count') == 0
        (warning,) = warnings(caplog)
        assert 'Starting afresh' in warning
        run_through(fake, start=at(20), seconds=2)
        fake.now = at(30)
        assert total(run_check(check), 'flow_runs.completed.count') == 1


class TestEvents:
    def test_they_carry_the_tags_of_the_instance_and_no_secret(
        self, fake: FakePrefect, new_check: NewCheck, run_check: RunCheck, prefect_url: str
    ) -> None:
        secret_url = prefect_url.replace('//', '//user:secret@')
        check = new_check(tags=['team:data'], prefect_url=secret_url, collect_events=True)
        run_check(check)
        fake.now = at(15)
        fake.add_event('prefect.flow-run.Failed', occurred=at(10))
        (event,) = run_check(check).events
        assert {'team:data', f'prefect_url:{UI_URL}'} <= set(event['tags'])
        assert event['source_type_name'] == 'prefect'
        assert event['timestamp'] == at(10).timestamp()
        assert 'secret' not in json.dumps(event)

    def test_off_asks_for_none_and_says_nothing_of_them(
        self, fake: FakePrefect, new_check: NewCheck, run_check: RunCheck
    ) -> None:
        # These read events for their own series, whether they are sent or not.
        check = new_check(collect=dict.fromkeys([BACKGROUND_SERVICES, HEARTBEATS, *COUNTED_EVENTS], False))
        for seconds in (0, 15):
            fake.now = at(seconds)
            fake.add_event()
            aggregator = run_check(check)
        assert aggregator.events == []
        assert 'prefect.server.events.pending' not in aggregator.metric_names
        assert 'events' not in success(aggregator)
        assert not [exchange for exchange in fake.requests if '/events/' in exchange.path]

    def test_metrics_do_not_depend_on_them(
        self, fake: FakePrefect, new_check: NewCheck, full_world: Callable[[], None], aggregator: AggregatorStub
    ) -> None:
        check = new_check(collect_events=True, event_names={'include': ['none']})
        check.run()
        full_world()
        fake.fault = failing('/events/filter')
        message = run_failing(check, aggregator)
        assert ' collectors failed: automations, worker_runs, events: POST /events/filter: HTTP 500' in message
        assert {name for name, good in success(aggregator).items() if not good} == {*COUNTED_EVENTS, 'events'}
        assert total(aggregator, 'flow_runs.completed.count') == 2
        assert total(aggregator, 'task_runs.completed.count')
        assert 'prefect.server.events.pending' not in aggregator.metric_names

    def test_they_are_sent_before_the_cursor_is_persisted(
        self, fake: FakePrefect, new_check: NewCheck, run_check: RunCheck, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An Agent that is killed in between sends them again; the other way round they would be lost."""
        check = new_check(collect_events=True)
        run_check(check)
        fake.now = at(15)
        fake.add_event(occurred=at(10))
        monkeypatch.setattr(check, 'event', lambda event: 1 / 0)
        check.run()
        assert len(run_check(new_check(collect_events=True)).events) == 1


class TestLogs:
    def test_they_carry_the_tags_of_the_instance_and_an_exact_time(
        self, fake: FakePrefect, new_check: NewCheck, run_check: RunCheck, datadog_agent: DatadogAgentStub
    ) -> None:
        check = new_check(tags=['team:data, ops'], collect_logs=True, service='orders')
        run_check(check)
        fake.now = at(15)
        fake.add_log(fake.add_flow_run(), at=at(10.569))
        run_check(check)
        (log,) = datadog_agent._sent_logs[check.check_id]
        assert {'team:data_ ops', f'prefect_url:{UI_URL}'} <= set(log['ddtags'].split(','))
        assert log['timestamp'] == at(10.569).timestamp() * 1000
        assert (log['ddsource'], log['service']) == ('prefect', 'orders')

    def test_failed_submission_repeats_the_page_in_hand_and_no_more(
        self,
        fake: FakePrefect,
        new_check: NewCheck,
        run_check: RunCheck,
        datadog_agent: DatadogAgentStub,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        fake.default_limit = 10
        run_check(new_check(collect_logs=True))
        flow_run = fake.add_flow_run()
        fake.now = at(15)
        for index in range(35):
            fake.add_log(flow_run, at=at(5 + index / 10), message=str(index))
        sent: list[str] = []

        def send(line: str, check_id: str) -> None:
            if len(sent) == 25 and not check._cancelled.is_set():
                raise RuntimeError('the Agent is gone')
            sent.append(json.loads(line)['message'])

        monkeypatch.setattr(datadog_agent, 'send_log', send)
        check = new_check(collect_logs=True)
        assert 'unexpected RuntimeError' in check.run()
        run_check(new_check(collect_logs=True))
        assert set(sent) == {str(index) for index in range(35)}
        assert 0 < len(sent) - 35 < 10


class TestState:
    def test_that_cannot_be_read_is_one_warning_and_all_is_collected(
        self,
        new_check: NewCheck,
        aggregator: AggregatorStub,
        datadog_agent: DatadogAgentStub,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        def fail(key: str) -> str:
            raise RuntimeError('failed to read data')

        monkeypatch.setattr(datadog_agent, 'read_persistent_cache', fail)
        monkeypatch.setattr(datadog_agent, 'write_persistent_cache', lambda key, text: None)
        check = new_check()
        for _ in range(3):
            aggregator.reset()
            assert check.run() == ''
            assert success(aggregator) == dict.fromkeys(COLLECTORS, 1)
            (shown,) = check.get_warnings()
            assert 'RuntimeError: failed to read data' in shown
            assert "the Agent's run directory" in shown
        assert warnings(caplog) == [shown]

    def test_write_that_raises_drops_no_samples(
        self,
        fake: FakePrefect,
        new_check: NewCheck,
        run_check: RunCheck,
        datadog_agent: DatadogAgentStub,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        check = new_check()
        run_check(check)
        counted = []
        monkeypatch.setattr(datadog_agent, 'write_persistent_cache', lambda key, text: 1 / 0)
        for seconds in (15, 30, 45):
            run_through(fake, start=at(seconds - 14), seconds=2)
            run_task_through(fake, start=at(seconds - 14), seconds=2)
            fake.now = at(seconds)
            aggregator = run_check(check)
            assert success(aggregator) == dict.fromkeys(COLLECTORS, 1)
            counted.append([total(aggregator, f'{kind}_runs.completed.count') for kind in ('flow', 'task')])
            assert any('ZeroDivisionError' in shown for shown in check.get_warnings())
        assert counted == [[1, 1]] * 3

    @pytest.mark.parametrize(
        'times',
        [
            {'until': '0001-01-01T00:00:00Z'},
            {'until': '0001-01-01T00:00:00+23:59'},
            {'floor': '9999-12-31T23:59:59Z'},
            {'until': '9999-12-31T23:59:59-23:59'},
        ],
        ids=str,
    )
    def test_of_impossible_times_is_one_warning_and_a_fresh_start(
        self,
        fake: FakePrefect,
        new_check: NewCheck,
        run_check: RunCheck,
        datadog_agent: DatadogAgentStub,
        caplog: pytest.LogCaptureFixture,
        times: Row,
    ) -> None:
        run_check(new_check())
        for key, text in datadog_agent._cache.items():
            document = json.loads(text)
            for cursor in document['streams'].values():
                cursor.update(times)
            datadog_agent._cache[key] = json.dumps(document)
        check = new_check()
        fake.now = at(15)
        run_check(check)
        (warning,) = warnings(caplog)
        assert 'Starting afresh' in warning
        run_through(fake, start=at(20), seconds=2)
        fake.now = at(30)
        assert total(run_check(check), 'flow_runs.completed.count') == 1

    def test_of_version_1_0_is_gone_on_from(
        self, fake: FakePrefect, new_check: NewCheck, run_check: RunCheck, datadog_agent: DatadogAgentStub
    ) -> None:
        datadog_agent._cache['prefect:d3c361254cc527c8_state_0'] = STATE_OF_1_0
        run_through(fake, start=at(48), seconds=2)
        fake.now = at(60)
        assert total(run_check(new_check()), 'flow_runs.completed.count') == 1
        assert datadog_agent._cache['prefect:d3c361254cc527c8_state_0'] == ''
        assert total(run_check(new_check()), 'flow_runs.completed.count') == 0

    def test_of_events_that_are_switched_off_is_dropped(
        self, fake: FakePrefect, new_check: NewCheck, run_check: RunCheck
    ) -> None:
        run_check(new_check(collect_events=True))
        run_check(new_check())
        fake.now = at(15)
        fake.add_event(occurred=at(10))
        fake.now = at(20)
        assert run_check(new_check(collect_events=True)).events == []

    def test_of_another_name_of_the_instance_lies_where_the_agent_looks(
        self, new_check: NewCheck, run_check: RunCheck, datadog_agent: DatadogAgentStub
    ) -> None:
        check = new_check()
        check.check_id = 'prefect:my server:0123'
        run_check(check)
        state_id = check.persistent_cache_id()
        assert {key.rpartition('_')[0] for key in datadog_agent._cache} == {f'prefect:my server:{state_id}_state'}
        assert check._prefix(state_id) == f'prefect:my server:{state_id}_'


class TestCancel:
    def test_instance_that_is_dropped_submits_nothing_more_and_says_nothing(
        self,
        fake: FakePrefect,
        new_check: NewCheck,
        run_check: RunCheck,
        aggregator: AggregatorStub,
        datadog_agent: DatadogAgentStub,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        check = new_check()
        run_check(check)
        run_through(fake, start=at(1), seconds=2)
        fake.now = at(15)
        aggregator.reset()
        asked = 0

        def drop_at_the_third(request: FakeRequest) -> None:
            nonlocal asked
            asked += 1
            if asked == 3:
                check.cancel()
                aggregator.reset()
                datadog_agent._cache['before'] = json.dumps(datadog_agent._cache)

        fake.fault = drop_at_the_third
        assert check.run() == ''
        assert asked < 30
        assert not aggregator.metric_names
        assert json.loads(datadog_agent._cache.pop('before')) == datadog_agent._cache
        assert check.run() == ''
        assert not aggregator.metric_names
        assert warnings(caplog) == []
        assert total(run_check(new_check()), 'flow_runs.completed.count') == 1

    @pytest.mark.parametrize('request_number', range(3, 33))
    def test_new_instance_counts_what_the_old_one_did_not(
        self,
        fake: FakePrefect,
        new_check: NewCheck,
        aggregator: AggregatorStub,
        request_number: int,
    ) -> None:
        """Wherever the old one is when the Agent drops it and starts the new one beside it."""
        old = new_check()
        assert old.run() == ''
        run_through(fake, start=at(1), seconds=2)
        run_task_through(fake, start=at(1), seconds=2)
        fake.now = at(15)
        aggregator.reset()
        asked = 0

        def edit_meanwhile(request: FakeRequest) -> None:
            nonlocal asked
            asked += 1
            if asked == request_number:
                assert new_check(tags=['team:edited']).run() == ''

        fake.fault = edit_meanwhile
        assert old.run() == ''
        if asked < request_number:
            assert new_check(tags=['team:edited']).run() == ''
        for series in ('flow_runs.completed', 'flow_runs.throughput', 'task_runs.completed', 'task_runs.throughput'):
            assert total(aggregator, f'{series}.count' if 'completed' in series else series) == 1, series

    def test_new_instance_waits_until_what_was_submitted_is_persisted(
        self,
        fake: FakePrefect,
        new_check: NewCheck,
        aggregator: AggregatorStub,
        datadog_agent: DatadogAgentStub,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        old = new_check()
        assert old.run() == ''
        run_through(fake, start=at(1), seconds=2)
        fake.now = at(15)
        aggregator.reset()
        write = datadog_agent.write_persistent_cache
        threads: list[Thread] = []

        def edit_before_it_is_written(key: str, text: str) -> None:
            if total(aggregator, 'flow_runs.completed.count') and not threads:
                threads.append(Thread(target=new_check(tags=['team:edited']).run))
                threads[0].start()
                threads[0].join(0.3)
            write(key, text)

        monkeypatch.setattr(datadog_agent, 'write_persistent_cache', edit_before_it_is_written)
        assert old.run() == ''
        threads[0].join()
        assert total(aggregator, 'flow_runs.completed.count') == 1
        assert total(aggregator, 'flow_runs.throughput') == 1

    def test_before_the_first_run(self, new_check: NewCheck, aggregator: AggregatorStub) -> None:
        check = new_check()
        check.cancel()
        assert 'has dropped this instance' in run_failing(check, aggregator)
        assert not aggregator.metric_names


class TestOneUiUrl:
    def other(self, registry: Registry, server: tuple[str, str] | None) -> Member:
        """Another instance, which asks at another address for the same ui_url."""
        member = Member('other', 'other', UI_URL, 'http://10.0.0.7/api', Event(), server=server)
        registry.enter(member)
        return member

    def test_servers_that_differ_are_warned_of_for_as_long_as_they_do(
        self, fake: FakePrefect, new_check: NewCheck, run_check: RunCheck, registry: Registry
    ) -> None:
        oldest = fake.add_flow('first')
        fake.now = at(5)
        fake.add_flow('second')
        other = self.other(registry, ('3.8.8', 'another flow'))
        check = new_check()
        for server, differ in (
            (('3.8.8', 'another flow'), True),
            (('3.8.7', oldest['id']), True),
            (('3.8.8', oldest['id']), False),
            (None, False),
        ):
            other.server = server
            run_check(check)
            shown = check.get_warnings()
            assert any('are different servers with one `ui_url`' in text for text in shown) is differ
            assert any('http://10.0.0.7/api' in text for text in shown) is differ

    def test_nothing_is_asked_while_there_is_one_address(
        self, fake: FakePrefect, new_check: NewCheck, run_check: RunCheck, registry: Registry
    ) -> None:
        check = new_check()
        run_check(check)
        assert not sent(fake, '/flows/count')
        other = self.other(registry, None)
        for _ in range(3):
            run_check(check)
        assert len(sent(fake, '/flows/count')) == 1
        assert other.server is None

    def test_server_that_does_not_tell_is_not_compared(
        self, fake: FakePrefect, new_check: NewCheck, run_check: RunCheck, registry: Registry
    ) -> None:
        other = self.other(registry, ('3.8.8', 'another flow'))
        fake.fault = failing('/flows/count')
        check = new_check()
        run_check(check)
        assert check.get_warnings() == []
        fake.fault = None
        run_check(check)
        (shown,) = check.get_warnings()
        assert other.server_url in shown


class TestPersistentCacheId:
    def cache_id(self, new_check: NewCheck, **options: Any) -> str:
        check = new_check(**options)
        check.load_configuration_models()
        return check.persistent_cache_id()

    @pytest.mark.parametrize(
        'options',
        [
            pytest.param({'tags': ['team:data']}, id='tags'),
            pytest.param({'username': 'reader', 'password': 'sesame'}, id='credentials'),
            pytest.param({'prefect_url': 'http://reader:sesame@prefect.test:4200/api'}, id='user info'),
            pytest.param({'prefect_url': 'http://prefect.test:4200/api/'}, id='trailing slash'),
            pytest.param({'timeout': 99}, id='timeout'),
            pytest.param({'late_start_threshold': 60}, id='threshold'),
            pytest.param({'max_catchup': 7200}, id='max_catchup'),
            pytest.param({'min_collection_interval': 60}, id='interval'),
            pytest.param({'collect_events': True}, id='collect_events'),
            pytest.param({'event_names': {'include': ['a']}}, id='event_names'),
            pytest.param({'prefect_tags': {'include': ['a']}}, id='tags of deployments'),
            pytest.param({'ui_url': UI_URL, 'prefect_url': 'http://10.0.0.7/api'}, id='address behind one ui_url'),
            pytest.param({'service': 'prefect'}, id='service'),
        ],
    )
    def test_edit_of_how_it_is_collected_keeps_the_state(self, new_check: NewCheck, options: Row) -> None:
        assert self.cache_id(new_check, **options) == self.cache_id(new_check)

    def test_other_server_or_filter_has_another_state(self, new_check: NewCheck) -> None:
        variants: list[Row] = [{}, {'prefect_url': 'http://other.test/api'}, {'ui_url': 'http://elsewhere.test'}]
        for key in FILTERS:
            variants += [{key: {'include': ['a']}}, {key: {'exclude': ['a']}}, {key: {'include': ['a', 'b']}}]
        assert len(variants) >= 3 + 3 * 4
        ids = {self.cache_id(new_check, **options) for options in variants}
        assert len(ids) == len(variants)


class TestMetadata:
    def test_version_is_that_of_prefect_and_asked_for_once_an_hour(
        self,
        fake: FakePrefect,
        new_check: NewCheck,
        run_check: RunCheck,
        datadog_agent: DatadogAgentStub,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        passed = 0.0
        monkeypatch.setattr('datadog_checks.prefect.check.time.monotonic', lambda: passed)
        check = new_check()
        asked = []
        for seconds in (0, 15, 3599, 3600, 3615):
            passed = seconds
            run_check(check)
            asked.append(len(sent(fake, '/admin/version')))
        assert asked == [1, 1, 1, 2, 2]
        datadog_agent.assert_metadata(
            'prefect:test',
            {
                'version.scheme': 'semver',
                'version.raw': '3.8.8',
                'version.major': '3',
                'version.minor': '8',
                'version.patch': '8',
            },
        )

    @pytest.mark.parametrize('outcome', [404, 500, FakeResponse.of(None), FakeResponse(200, b'<html>')])
    def test_server_that_hides_its_version_is_no_failure(
        self, fake: FakePrefect, new_check: NewCheck, run_check: RunCheck, outcome: FakeResponse | int
    ) -> None:
        fake.fault = failing('/admin/version', outcome)
        assert success(run_check(new_check())) == dict.fromkeys(COLLECTORS, 1)

    @pytest.mark.parametrize(
        ('outcome', 'times'), [pytest.param(404, 1, id='no such endpoint'), pytest.param(500, 3, id='fails')]
    )
    def test_version_is_asked_for_at_the_next_run_if_the_question_failed(
        self, fake: FakePrefect, new_check: NewCheck, run_check: RunCheck, outcome: int, times: int
    ) -> None:
        """Until it is known, a server is taken for a new one."""
        fake.fault = failing('/admin/version', outcome)
        check = new_check()
        for _ in range(3):
            run_check(check)
        assert len(sent(fake, '/admin/version')) == times

    @pytest.mark.parametrize('version', ['3.0.11', '3.4.25'])
    def test_server_whose_version_is_known_refuses_nothing(
        self, fake: FakePrefect, new_check: NewCheck, run_check: RunCheck, version: str
    ) -> None:
        fake.version = version
        check = new_check()
        for seconds in (0, 15, 30):
            fake.now = at(seconds)
            run_check(check)
        assert [exchange for exchange in fake.requests if exchange.status == 422] == []

    def test_refused_request_makes_the_next_run_ask_for_the_version(
        self, fake: FakePrefect, new_check: NewCheck, run_check: RunCheck, aggregator: AggregatorStub
    ) -> None:
        """A server that was replaced by an older one, within the hour."""
        check = new_check()
        run_check(check)
        fake.version = '3.4.25'
        assert 'HTTP 422' in run_failing(check, aggregator)
        assert success(run_check(check)) == dict.fromkeys(COLLECTORS, 1)

    def test_what_an_old_server_lacks_is_told_once_at_debug(
        self, fake: FakePrefect, new_check: NewCheck, run_check: RunCheck, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        fake.version = '3.6.13'
        check = new_check()
        for _ in range(3):
            run_check(check)
        for item in DIFFERENCES:
            lines = [record.levelname for record in caplog.records if record.getMessage() == str(item)]
            assert lines == (['DEBUG'] if item.before > (3, 6, 13) else [])
        assert not warnings(caplog)


class TestUnsupportedVersion:
    def test_is_one_error_that_names_it_and_the_supported_range(
        self, fake: FakePrefect, new_check: NewCheck, aggregator: AggregatorStub, datadog_agent: DatadogAgentStub
    ) -> None:
        fake.version = '2.20.27'
        message = run_failing(new_check(), aggregator)
        assert message == f'Prefect 2.20.27 is not supported, only {SUPPORTED}. Upgrade the Prefect server'
        assert [exchange.path for exchange in fake.requests] == ['/api/health', '/api/ready', '/api/admin/version']
        assert total(aggregator, 'health') == total(aggregator, 'ready') == 1
        assert success(aggregator) == {name: int(name == 'health') for name in COLLECTORS}
        assert datadog_agent._metadata['prefect:test', 'version.raw'] == '2.20.27'

    def test_lasts_until_the_server_is_upgraded(
        self, fake: FakePrefect, new_check: NewCheck, run_check: RunCheck, aggregator: AggregatorStub
    ) -> None:
        check = new_check()
        fake.version = '2.20.27'
        assert run_failing(check, aggregator) == run_failing(check, aggregator)
        fake.version = '3.8.8'
        assert success(run_check(check)) == dict.fromkeys(COLLECTORS, 1)

    def test_is_refused_also_where_the_agent_collects_no_metadata(
        self, fake: FakePrefect, new_check: NewCheck, aggregator: AggregatorStub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(PrefectCheck, 'is_metadata_collection_enabled', staticmethod(lambda: False))
        fake.version = '2.20.27'
        assert 'Prefect 2.20.27 is not supported' in run_failing(new_check(), aggregator)


class TestServerClock:
    @pytest.mark.parametrize('skew', [-90, 90, 3000, -3000], ids=lambda skew: f'{skew} s')
    def test_agent_whose_clock_is_wrong_reports_the_same(
        self,
        fake: FakePrefect,
        new_check: NewCheck,
        run_check: RunCheck,
        agent_clock: AgentClock,
        full_world: Callable[[], None],
        skew: float,
    ) -> None:
        """`Date` has no parts of a second: the server is taken to be half a second into it."""
        agent_clock.skew = timedelta(seconds=skew)
        fake.now += timedelta(seconds=0.5)
        check = new_check()
        run_check(check)
        full_world()
        fake.now += timedelta(seconds=0.5)
        aggregator = run_check(check)
        expected = {
            'work_pool.worker.heartbeat_age_seconds': 15.5,
            'work_queue.backlog.age': 45.5,
            'flow_runs.completed.count': 2,
            'flow_runs.throughput': 6,
            'task_runs.throughput': 9,
            'flow_runs.retry_gaps_duration.max': 4,
        }
        assert {name: round(total(aggregator, name), 3) for name in expected} == expected

    def test_clock_that_gets_corrected_between_runs_counts_once(
        self, fake: FakePrefect, new_check: NewCheck, run_check: RunCheck, agent_clock: AgentClock
    ) -> None:
        check = new_check()
        run_check(check)
        found = []
        for seconds, skew in ((15, 0), (30, 300), (45, -300), (60, 0), (75, 0)):
            run_through(fake, start=at(seconds - 10), seconds=2)
            fake.now = at(seconds)
            agent_clock.skew = timedelta(seconds=skew)
            found.append(total(run_check(check), 'flow_runs.completed.count'))
        assert sum(found) == 5
