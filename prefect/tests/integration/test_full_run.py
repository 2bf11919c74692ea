"""One full run of real work on a real server: every series is there, with the value of the server's own records."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from datadog_checks.base.stubs.aggregator import AggregatorStub
from datadog_checks.dev.utils import get_metadata_metrics
from datadog_checks.prefect.api.versions import (
    DIFFERENCES,
    ENDS_OF_TIMED_OUT_TASK_RUNS,
    ENDS_OF_UNSTARTED_FLOW_RUNS,
    START_FILTER_OF_UNSTARTED_FLOW_RUNS,
    TASK_RUN_END_FILTER,
    differences,
)
from datadog_checks.prefect.metrics import METRICS
from lab.agent import CheckResult, CheckRunner
from lab.api import PrefectApiDriver
from lab.demo import (
    EXPECTATIONS,
    LATE_START_THRESHOLD_SECONDS,
    PREFECT_TAGS,
    EventComparison,
    LogComparison,
    Progress,
    compare_events,
    compare_with_server,
    last_checks,
    observe,
)
from lab.prefect_server import PrefectServer, prefect_version
from lab.recording import DOCUMENTED, OWN, Recording
from lab.sums import AVERAGE, FAMILIES, Comparison, adds_up
from lab.timeline import Timeline
from lab.workload import ABANDONED_FLOW, Workload
from tests.integration.ages import CLOCK_SECONDS, age_in
from tests.log_lines import unparsed
from tools.dashboards.files import DASHBOARDS, FOLDER
from tools.preview.contents import unexplained, widgets

Row = dict[str, Any]
# A run may change its state this long before a check sees it.
SECONDS = 5.0
# The kinds of events that the stories of the workload lead to.
FLOW_RUN_EVENTS = (
    *('Scheduled', 'Late', 'AwaitingRetry', 'Pending', 'Running', 'Paused', 'Cancelling'),
    *('Completed', 'Failed', 'TimedOut', 'Crashed', 'Cancelled'),
)
TASK_RUN_EVENTS = ('Pending', 'NotReady', 'Running', 'AwaitingRetry', 'Retrying', 'Completed', 'Failed', 'Crashed')
TERMINAL = ('COMPLETED', 'FAILED', 'CRASHED', 'CANCELLED')
# What two other instances of the check are about, by tag: each way makes other criteria for the server.
FILTERS = {
    'include': {
        'work_pool_name': '^workshop$',
        'work_queue_name': '^(critical|frozen)$',
        'deployment_name': '^(on-demand|frozen)$',
    },
    'exclude': {'work_pool_name': '^unattended$', 'work_queue_name': '^reports$', 'deployment_name': '^every-'},
}


@dataclass(frozen=True)
class FullRun:
    """What the check gave over the whole run, the last check of it, and the server as it was right after that."""

    recording: Recording
    last: CheckResult
    filtered: Mapping[str, CheckResult]
    comparisons: list[Comparison]
    events: EventComparison
    log_records: LogComparison
    events_of_workers: list[Row]
    flow_runs: list[Row]
    task_runs: list[Row]
    states: Mapping[str, list[Row]]
    flows: Mapping[str, str]
    deployments: Mapping[str, Row]
    work_pools: list[Row]
    work_queues: list[Row]
    workers: list[Row]
    filters_task_runs_by_end: bool
    filters_unstarted_by_expected_start: bool
    logs: Mapping[str, str]
    automation_events: Mapping[str, int]
    now: datetime

    def gauge(self, series: str, **tags: str) -> float:
        """The value that the last check gave to a series for these tags."""
        return self.last.value(series, **tags)

    def flow_name(self, flow_run: Row) -> str:
        return self.flows[flow_run['flow_id']]


def tag(tags: tuple[str, ...], key: str) -> str:
    return next((value for name, _, value in (item.partition(':') for item in tags) if name == key), '')


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


@pytest.fixture(scope='module')
def full_run(database_url: str | None) -> Iterator[FullRun]:
    """The demo's workload on a server of its own: what the other tests do there would count too."""
    recording = Recording()
    with PrefectServer(database_url=database_url) as server, PrefectApiDriver(server.api_url) as api:
        instance = {
            'prefect_url': server.api_url,
            'late_start_threshold': LATE_START_THRESHOLD_SECONDS,
            # Prefect waits for a lock of SQLite for so long, and then even reads wait (3.8.8 on a busy machine).
            'timeout': 60,
            'prefect_tags': PREFECT_TAGS,
            'expectations': EXPECTATIONS,
            'tags': ['team:data'],
            'collect_events': True,
            'collect_logs': True,
        }
        with Workload(server.api_url) as workload:
            workload.set_up()
            runner = CheckRunner(instance)
            filtered = {
                kind: CheckRunner(instance | {f'{key}s': {kind: [pattern]} for key, pattern in patterns.items()})
                for kind, patterns in FILTERS.items()
            }
            # Their second and last check, at the end, catches up with everything.
            assert not [error for other in filtered.values() if (error := other.run().error)]
            observe(workload, runner, recording, Progress(Console(file=StringIO())))
            last, log_records = last_checks(recording, runner, api)
            flow_runs = api.read_all('flow_runs/filter')
            yield FullRun(
                recording=recording,
                last=last,
                events=compare_events(recording, runner, api),
                log_records=log_records,
                events_of_workers=[
                    event
                    for event in api.events(*runner.read('worker_runs'))
                    if event['event'].startswith('prefect.worker.')
                ],
                flow_runs=flow_runs,
                task_runs=api.read_all('task_runs/filter', {'task_runs': {'subflow_runs': {'exists_': False}}}),
                states={run['id']: api.flow_run_states(run['id']) for run in flow_runs},
                flows={flow['id']: flow['name'] for flow in api.read_all('flows/filter')},
                deployments={row['id']: row for row in api.read_all('deployments/filter')},
                work_pools=api.read_all('work_pools/filter'),
                work_queues=api.read_all('work_queues/filter'),
                workers=api.read_all('work_pools/workshop/workers/filter'),
                filters_unstarted_by_expected_start=api.count_flow_runs(
                    flow_runs={'start_time': {'after_': '2000-01-01T00:00:00Z', 'is_null_': True}}
                )
                > 0,
                filters_task_runs_by_end=api.accepts('task_runs/count', task_runs={'end_time': {'is_null_': True}}),
                logs={
                    name: path.read_text() for name, path in ({'server': server.log_path} | workload.log_paths).items()
                },
                automation_events={
                    name: api.count_events([f'prefect.automation.{name}'])
                    for name in ('triggered', 'action.executed', 'action.failed')
                },
                comparisons=compare_with_server(recording, api),
                filtered={kind: other.run() for kind, other in filtered.items()},
                now=datetime.fromtimestamp(last.began, UTC),
            )


def test_no_check_failed_and_none_complained(full_run: FullRun) -> None:
    errors = full_run.recording.errors
    # A server with SQLite stands still for a minute now and then ("database is locked", seen on 3.0.11) where others
    # keep the processors busy. The next check reads what this one missed, and the sums are compared below in any case.
    stalls = Counter({error: times for error, times in errors.items() if 'no answer from 127.0.0.1' in error})
    assert errors - stalls == Counter()
    assert stalls.total() <= 1
    assert full_run.recording.warnings == {}


def test_every_documented_series_is_seen_with_a_value(full_run: FullRun) -> None:
    assert full_run.recording.missing == []
    # No flood is among the stories, so that no event and no log record has to wait. And a schedule is without a run for
    # two minutes before that is told, which is longer than the stories take.
    assert set(full_run.recording.always_zero) == {
        'prefect.server.events.pending',
        'prefect.server.logs.pending',
        'prefect.server.deployment.schedules.is_without_run',
    }
    assert full_run.recording.undeclared == []
    assert len(DOCUMENTED) == 59


@pytest.mark.parametrize('name', DASHBOARDS)
def test_each_part_of_the_dashboards_shows_something(full_run: FullRun, name: str) -> None:
    """Streams apart: their events and log lines are those of the preview's own demo."""
    dashboard = json.loads((FOLDER / name).read_text())
    streams = {
        f'{group} / {widget["definition"]["title"]}'
        for group, widget in widgets(dashboard)
        if widget['definition']['type'] == 'list_stream'
    }

    assert set(unexplained(dashboard, Timeline.of_recording(full_run.recording))) - streams == set()


def test_metadata_says_what_is_sent_and_nothing_else(full_run: FullRun) -> None:
    received = AggregatorStub()
    for result in full_run.recording.results:
        for point in result.points:
            kind = AggregatorStub.METRIC_ENUM_MAP[point.type]
            received.submit_metric(None, 'prefect', kind, point.name, point.value, list(point.tags), '', False)

    received.assert_metrics_using_metadata(
        get_metadata_metrics(), check_metric_type=True, check_submission_type=True, check_symmetric_inclusion=True
    )


def test_every_point_carries_the_tags_of_the_instance(full_run: FullRun) -> None:
    for point in full_run.last.points:
        assert 'team:data' in point.tags
        assert any(item.startswith('prefect_url:http://127.0.0.1:') for item in point.tags)


def test_tags_of_a_deployment_that_were_chosen_are_on_its_series(full_run: FullRun) -> None:
    teams = {'orders': 'team:shop', 'payout': 'team:finance'}
    seen: set[str | None] = set()
    for result in full_run.recording.results:
        for point in result.points:
            if any(item.startswith('deployment_name:') for item in point.tags):
                chosen = teams.get(tag(point.tags, 'flow_name'))
                seen.add(chosen)
                expected = [f'prefect_tag:{chosen}'] if chosen else []
                assert [item for item in point.tags if item.startswith('prefect_tag:')] == expected
    assert seen == {*teams.values(), None}


def test_background_services_are_well(full_run: FullRun) -> None:
    """Those that have done work lately. Nothing is said of a service that had nothing to do."""
    found = [point for point in full_run.last.points if point.name == 'prefect.server.service.is_healthy']
    assert found
    assert [point.tags for point in found if point.value != 1] == []


def test_version_is_that_of_prefect(full_run: FullRun) -> None:
    assert full_run.recording.metadata['version.raw'] == prefect_version()


def test_server_lacks_what_is_declared_for_its_version(full_run: FullRun) -> None:
    """What the README says of older versions, seen in the rows of this one."""
    unstarted = [run for run in full_run.flow_runs if run['state_type'] in TERMINAL and not run['run_count']]
    timed_out = [run for run in full_run.task_runs if run['state_name'] == 'TimedOut']
    assert unstarted
    assert timed_out
    lacking = {
        TASK_RUN_END_FILTER: not full_run.filters_task_runs_by_end,
        START_FILTER_OF_UNSTARTED_FLOW_RUNS: not full_run.filters_unstarted_by_expected_start,
        ENDS_OF_UNSTARTED_FLOW_RUNS: not any(run['end_time'] for run in unstarted),
        ENDS_OF_TIMED_OUT_TASK_RUNS: not any(run['end_time'] for run in timed_out),
    }
    assert set(lacking) == set(DIFFERENCES)
    assert {item for item, lacks in lacking.items() if lacks} == set(differences(prefect_version()))


def test_sums_are_those_of_the_server_for_every_tag_set(full_run: FullRun) -> None:
    assert [line for one in full_run.comparisons for line in one.lines] == []
    counts = {
        name
        for name, spec in METRICS.items()
        if name.startswith(FAMILIES) and adds_up(name, is_count=spec.type == 'count') and not name.endswith(AVERAGE)
    }
    assert {one.series for one in full_run.comparisons if not one.series.endswith(' seconds')} == counts
    assert all(one.happened for one in full_run.comparisons)


def test_percentiles_lie_in_their_order(full_run: FullRun) -> None:
    parts: dict[tuple[int, str, tuple[str, ...]], dict[str, float]] = defaultdict(dict)
    for number, result in enumerate(full_run.recording.results):
        for point in result.points:
            name, _, part = point.name.rpartition('.')
            if name.endswith('_duration'):
                parts[number, name, point.tags][part] = point.value
    assert parts
    for part in parts.values():
        assert part['median'] <= part['95percentile'] <= part['max']
        assert part['avg'] <= part['max']


def test_each_event_of_the_server_is_sent_once(full_run: FullRun) -> None:
    assert full_run.events.differences == []
    names = {name for name, _, _ in full_run.events.sent}
    assert names >= {
        *(f'prefect.flow-run.{name}' for name in FLOW_RUN_EVENTS),
        *(f'prefect.task-run.{name}' for name in TASK_RUN_EVENTS),
        *(f'prefect.{kind}.ready' for kind in ('work-pool', 'work-queue', 'deployment')),
    }


def test_each_log_record_is_sent_once(full_run: FullRun) -> None:
    assert full_run.log_records.sent == full_run.log_records.kept
    assert full_run.log_records.sent


def test_traceback_of_a_failed_flow_is_in_its_log_record(full_run: FullRun) -> None:
    failed = [log for log in full_run.recording.logs if 'error' in log]
    assert failed
    for log in failed:
        assert log['status'] == 'error'
        assert log['error']['stack'].startswith('Traceback (most recent call last):\n')
        assert log['error']['kind'] == log['error']['stack'].splitlines()[-1].partition(':')[0]
        assert log['prefect']['url'].endswith(log['prefect'].get('task_run_id', log['prefect']['flow_run_id']))
        assert 'flow_name:' in log['ddtags']


def test_automations_are_counted_as_often_as_the_server_says(full_run: FullRun) -> None:
    sums = Counter[str]()
    for result in full_run.recording.results:
        for point in result.points:
            if point.name.startswith('prefect.server.automation.') and point.name.endswith('.count'):
                sums[point.name] += int(point.value)
    happened = full_run.automation_events
    assert sums == {f'prefect.server.automation.{name}.count': number for name, number in happened.items()}
    assert all(happened.values())


def test_run_that_lost_its_process_is_lost_until_it_is_called_crashed(full_run: FullRun) -> None:
    values = [
        point.value
        for result in full_run.recording.results
        for point in result.points
        if point.name == 'prefect.server.flow_runs.heartbeat_lost' and f'flow_name:{ABANDONED_FLOW}' in point.tags
    ]
    assert set(values) == {0, 1}
    assert values[-1] == 0
    others = {
        tag(point.tags, 'flow_name')
        for result in full_run.recording.results
        for point in result.points
        if point.name == 'prefect.server.flow_runs.heartbeat_lost' and point.value
    }
    assert others == {ABANDONED_FLOW}


def test_events_of_task_runs_carry_the_tags_of_their_flow_runs(full_run: FullRun) -> None:
    events = [event for event in full_run.recording.events if event['event_type'] == 'prefect.task-run.Failed']
    assert events
    for event in events:
        keys = {item.partition(':')[0] for item in event['tags']}
        assert keys >= {'deployment_name', 'work_pool_name', 'work_queue_name', 'flow_name', 'task_key', 'team'}


def failures(full_run: FullRun, series: str, reason: str = '') -> Counter[str]:
    """The sums of what failed over all checks: by reason, or those of one reason by flow."""
    sums: Counter[str] = Counter()
    for (name, tags), value in counts(full_run.recording.results).items():
        if name == f'prefect.server.{series}' and reason in ('', tag(tags, 'failure_reason')):
            sums[tag(tags, 'flow_name' if reason else 'failure_reason')] += int(value)
    return sums


def test_flow_runs_failed_for_what_was_done_to_them(full_run: FullRun) -> None:
    name = 'flow_runs.failures.count'
    assert failures(full_run, name, 'exception:ValueError')['invoices'] == 1
    assert failures(full_run, name, 'timeout') == {'inventory': 1}
    assert failures(full_run, name, 'killed')['image-import'] == 1


def test_task_runs_failed_for_what_was_done_to_them(full_run: FullRun) -> None:
    found = failures(full_run, 'task_runs.failures.count')
    exceptions = [
        run
        for run in full_run.task_runs
        if run['end_time'] and run['state_type'] == 'FAILED' and 'ValueError: ' in run['state']['message']
    ]
    assert found['exception:ValueError'] == len(exceptions) > 0
    aborted = [run for run in full_run.task_runs if 'Execution was aborted' in (run['state']['message'] or '')]
    assert found['aborted'] == len(aborted) > 0


def test_messages_become_no_tags(full_run: FullRun) -> None:
    messages = {run['state']['message'] for run in (*full_run.flow_runs, *full_run.task_runs)} - {None, ''}
    tags = {item for result in full_run.recording.results for point in result.points for item in point.tags}
    values = {item.partition(':')[2] for item in tags}
    assert messages
    assert not {value for value in values for message in messages if message in value or 'missing' in value}


def test_what_workers_started_and_how_it_ended_is_what_their_events_tell(full_run: FullRun) -> None:
    told: Counter[tuple[str, str]] = Counter()
    for event in full_run.events_of_workers:
        related = {item['prefect.resource.role']: item for item in event['related']}
        if event['event'] in ('prefect.worker.submitted-flow-run', 'prefect.worker.executed-flow-run'):
            code = related['flow-run'].get('prefect.infrastructure.status-code', '')
            told[related['work-pool']['prefect.resource.name'], code] += 1
    found: Counter[tuple[str, str]] = Counter()
    for (name, tags), value in counts(full_run.recording.results).items():
        if name.startswith('prefect.server.work_pool.'):
            found[tag(tags, 'work_pool_name'), tag(tags, 'exit_code')] += int(value)
    assert found == told
    assert {('workshop', ''), ('workshop', '0'), ('workshop', '-9')} <= found.keys()


def test_background_tasks_wait_until_somebody_listens(full_run: FullRun) -> None:
    waiting = [run for run in full_run.task_runs if run['state_type'] == 'SCHEDULED' and run['flow_run_id'] is None]
    assert [run['task_key'].partition('-')[0] for run in waiting] == ['clean_up']
    assert full_run.gauge('task_runs.scheduled', task_name='clean_up') == 1
    age = age_in(full_run.last, moment(waiting[0]['expected_start_time']))
    assert full_run.gauge('task_runs.scheduled.max_age', task_name='clean_up') == age
    (listening,) = {run['task_key'] for run in full_run.task_runs if run['task_key'].startswith('make_thumbnail-')}
    # A task worker counts for a minute after it was last seen, and the last check may come later.
    workers = full_run.recording.get('prefect.server.task_workers.online').tracks
    most = {tag(tags, 'task_key'): track.peak for tags, track in workers.items()}
    assert most == {listening: 1, waiting[0]['task_key']: 0}
    peaks = full_run.recording.get('prefect.server.task_runs.scheduled').tracks
    assert max(track.peak for tags, track in peaks.items() if tag(tags, 'task_name') == 'make_thumbnail') == 3


def test_health_and_every_collector_are_well(full_run: FullRun) -> None:
    assert full_run.gauge('health') == 1
    assert full_run.gauge('ready') == 1
    success = [point.value for point in full_run.last.points if point.name == 'prefect.server.collector.success']
    assert success
    assert all(success)


def test_work_pools_are_in_the_state_that_the_server_tells(full_run: FullRun) -> None:
    assert {row['status'] for row in full_run.work_pools} == {'READY', 'NOT_READY', 'PAUSED'}
    for row in full_run.work_pools:
        for status in ('READY', 'NOT_READY', 'PAUSED'):
            value = full_run.gauge(f'work_pool.is_{status.lower()}', work_pool_id=row['id'], work_pool_type=row['type'])
            assert value == (row['status'] == status)


def test_worker_is_online_and_its_heartbeat_is_young(full_run: FullRun) -> None:
    (worker,) = (row for row in full_run.workers if row['status'] == 'ONLINE')
    names = {'work_pool_name': 'workshop', 'worker_id': worker['id'], 'worker_name': worker['name']}
    assert full_run.gauge('work_pool.worker.is_online', **names) == (worker['status'] == 'ONLINE') == 1
    # There is one every 10 s, which a busy server may take in late.
    assert -CLOCK_SECONDS <= full_run.gauge('work_pool.worker.heartbeat_age_seconds', **names) < 25


def test_work_queues_are_in_the_state_that_the_server_tells(full_run: FullRun) -> None:
    for row in full_run.work_queues:
        names = {'work_queue_id': row['id'], 'work_queue_priority': row['priority']}
        for status in ('READY', 'NOT_READY', 'PAUSED'):
            assert full_run.gauge(f'work_queue.is_{status.lower()}', **names) == (row['status'] == status)


def test_only_polled_work_queues_have_a_last_polled_age(full_run: FullRun) -> None:
    polled = {row['id'] for row in full_run.work_queues if row['last_polled']}
    name = 'prefect.server.work_queue.last_polled_age_seconds'
    points = {tag(point.tags, 'work_queue_id'): point.value for point in full_run.last.points if point.name == name}
    assert points.keys() == polled
    assert all(0 <= age < 60 for age in points.values())


def test_backlog_is_what_is_due_and_waits(full_run: FullRun) -> None:
    for row in full_run.work_queues:
        due = [
            moment(run['next_scheduled_start_time'])
            for run in full_run.flow_runs
            if run['work_queue_id'] == row['id']
            and run['state_type'] == 'SCHEDULED'
            and moment(run['next_scheduled_start_time']) <= full_run.now
        ]
        names = {'work_queue_id': row['id'], 'work_queue_status': row['status']}
        assert full_run.gauge('work_queue.backlog.size', **names) == len(due)
        age = age_in(full_run.last, min(due)) if due else 0.0
        assert full_run.gauge('work_queue.backlog.age', **names) == age


def test_concurrency_in_use_is_there_only_with_a_limit(full_run: FullRun) -> None:
    name = 'prefect.server.work_queue.concurrency.in_use'
    limited = {row['id'] for row in full_run.work_queues if row['concurrency_limit'] is not None}
    assert {tag(point.tags, 'work_queue_id') for point in full_run.last.points if point.name == name} == limited
    # The queue 'reports' has one slot, which one of three runs took at a time.
    peaks = {tag(track.tags, 'work_queue_name'): track.peak for track in full_run.recording.get(name).tracks.values()}
    assert peaks['reports'] == 100.0


def test_deployments_are_ready_where_the_server_says_so(full_run: FullRun) -> None:
    for row in full_run.deployments.values():
        value = full_run.gauge('deployment.is_ready', deployment_id=row['id'], is_paused=str(row['paused']))
        assert value == (row['status'] == 'READY')


def test_states_of_flow_runs_are_those_of_the_moment(full_run: FullRun) -> None:
    for series, state_type in (
        ('scheduled', 'SCHEDULED'),
        ('pending', 'PENDING'),
        ('running', 'RUNNING'),
        ('paused', 'PAUSED'),
    ):
        now = Counter(run['deployment_id'] for run in full_run.flow_runs if run['state_type'] == state_type)
        for deployment_id in full_run.deployments:
            assert full_run.gauge(f'flow_runs.{series}', deployment_id=deployment_id) == now[deployment_id]


def test_runs_are_late_for_what_was_done_to_them(full_run: FullRun) -> None:
    late = full_run.recording.get('prefect.server.flow_runs.late')
    reasons: dict[str, set[str]] = defaultdict(set)
    for tags in late.tracks:
        found = dict(item.split(':', 1) for item in tags)
        if late.tracks[tags].peak and 'deployment_name' in found:
            reasons[found['deployment_name']].add(found['late_reason'])
    assert reasons['nightly'] == {'no_worker'}
    assert reasons['paused'] == {'pool_paused'}
    assert reasons['frozen'] == {'queue_paused'}
    assert 'deployment_limit' in reasons['one-at-a-time']
    # Asked for at the same time as others, which may fill the work pool.
    assert 'queue_limit' in reasons['on-demand']


def test_what_is_late_at_the_end_is_what_the_server_still_schedules(full_run: FullRun) -> None:
    due: dict[str, datetime] = {}
    for run in full_run.flow_runs:
        if run['state_type'] == 'SCHEDULED' and (since := moment(run['next_scheduled_start_time'])) <= full_run.now:
            due[run['deployment_id']] = min(since, due.get(run['deployment_id'], since))
    assert len(due) == 3
    points = [point for point in full_run.last.points if point.name == 'prefect.server.flow_runs.late.max_age']
    ages = {tag(point.tags, 'deployment_id'): point.value for point in points if point.value}
    assert ages == {key: age_in(full_run.last, since) for key, since in due.items()}


def test_no_task_run_is_left_in_a_state_when_no_flow_run_is(full_run: FullRun) -> None:
    """A task run whose process was killed stays RUNNING on the server, and an unrunnable one stays NotReady."""
    left = [run for run in full_run.task_runs if run['state_type'] in ('PENDING', 'RUNNING', 'PAUSED')]
    assert left
    assert not any(run['state_type'] == 'RUNNING' for run in full_run.flow_runs)
    for series in ('pending', 'running', 'paused'):
        assert all(
            point.value == 0 for point in full_run.last.points if point.name == f'prefect.server.task_runs.{series}'
        )


@pytest.mark.parametrize('kind', FILTERS)
def test_filters_leave_out_what_they_are_meant_to_and_nothing_else(full_run: FullRun, kind: str) -> None:
    filtered = full_run.filtered[kind]
    assert filtered.error is None
    everything, some = (
        {key: value for key, value in counts(results).items() if not is_of_no_run(key[0])}
        for results in (full_run.recording.results, [filtered])
    )
    assert some == {key: value for key, value in everything.items() if passes(key[1], kind)}
    assert 0 < len(some) < len(everything)
    for series in ('deployment.is_ready', 'flow_runs.scheduled', 'flow_runs.paused'):
        of_all = {point.tags: point.value for point in full_run.last.points if point.name == f'prefect.server.{series}'}
        of_some = {point.tags: point.value for point in filtered.points if point.name == f'prefect.server.{series}'}
        assert of_some == {tags: value for tags, value in of_all.items() if passes(tags, kind)}


def counts(results: Iterable[CheckResult]) -> dict[tuple[str, tuple[str, ...]], float]:
    """The sum of each count over these checks, by series and tags, where there is any; none on the check itself."""
    sums: Counter[tuple[str, tuple[str, ...]]] = Counter()
    for result in results:
        for point in result.points:
            if point.type == 'count' and point.name not in OWN:
                sums[point.name, point.tags] += int(point.value)
    return +sums


def is_of_no_run(name: str) -> bool:
    """Of work pools the filters leave out a part, which the tags do not tell; of automations they leave out nothing."""
    return name.startswith(('prefect.server.work_pool.', 'prefect.server.automation.'))


def passes(tags: tuple[str, ...], kind: str) -> bool:
    """Whether a filter keeps what carries these tags. What has no such parent passes `exclude` only."""
    names = dict(item.split(':', 1) for item in tags)
    matches = [key in names and bool(re.search(pattern, names[key])) for key, pattern in FILTERS[kind].items()]
    return all(matches) if kind == 'include' else not any(matches)


def test_every_line_that_the_processes_printed_is_parsed_or_listed(full_run: FullRun) -> None:
    assert set(full_run.logs) == {'server', 'worker', 'script', 'thumbnails', 'thumbnail_worker'}
    assert {name: lines for name, text in full_run.logs.items() if (lines := unparsed(text))} == {}


def test_worker_that_was_killed_is_counted_as_offline(full_run: FullRun) -> None:
    assert full_run.gauge('work_pool.workers.online', work_pool_name='workshop') == 1
    assert full_run.gauge('work_pool.workers.offline', work_pool_name='workshop') == 1


def test_slots_that_nobody_gave_back_are_leaked(full_run: FullRun) -> None:
    gpu = {'concurrency_limit_name': 'gpu', 'concurrency_limit_type': 'tag'}
    assert full_run.gauge('concurrency_limit.in_use', **gpu) == 50
    assert full_run.gauge('concurrency_limit.leaked_slots', **gpu) == 1
    backfill = {'flow_name': 'backfill'}
    assert full_run.gauge('deployment.concurrency.active_slots', **backfill) == 1
    assert full_run.gauge('deployment.concurrency.leaked_slots', **backfill) == 1


def test_pasts_of_deployments_are_those_of_the_server(full_run: FullRun) -> None:
    for deployment_id, row in full_run.deployments.items():
        ended = [run for run in full_run.flow_runs if run['deployment_id'] == deployment_id and run['end_time']]
        successes = [moment(run['end_time']) for run in ended if run['state_type'] == 'COMPLETED']
        last = max(successes, default=None)
        failures = [
            run
            for run in ended
            if run['state_type'] in ('FAILED', 'CRASHED') and (last is None or moment(run['end_time']) > last)
        ]
        assert full_run.gauge('deployment.consecutive_failures', deployment_id=deployment_id) == len(failures)
        if last is not None:
            found = full_run.gauge('deployment.seconds_since_success', deployment_id=deployment_id)
            assert found == age_in(full_run.last, last)
        active = sum(schedule['active'] for schedule in row['schedules'])
        assert full_run.gauge('deployment.schedules.active', deployment_id=deployment_id) == active


def test_successes_are_expected_as_options_tags_and_schedules_say(full_run: FullRun) -> None:
    """Nobody runs what is frozen: it is overdue."""
    ended = [run for run in full_run.flow_runs if run['end_time']]
    oldest_end = min(moment(run['end_time']) for run in ended)
    ratios: dict[str, float] = {}
    for deployment_id, row in full_run.deployments.items():
        sources = {'one-at-a-time': 'option', 'frozen': 'tag', 'nightly': 'schedule'}
        wanted = {'deployment_id': deployment_id, 'is_paused': 'False'}
        if row['name'] not in sources:
            continue
        successes = [
            moment(run['end_time'])
            for run in ended
            if run['deployment_id'] == deployment_id and run['state_type'] == 'COMPLETED'
        ]
        since = max(moment(row['created']), max(successes, default=oldest_end))
        wanted['expectation_source'] = sources[row['name']]
        age = full_run.gauge('deployment.expectation.max_age_seconds', **wanted)
        assert age == age_in(full_run.last, since)
        ratios[row['name']] = age / full_run.gauge('deployment.expectation.max_age_ratio', **wanted)
        if row['name'] == 'nightly':
            planned = [
                moment(run['expected_start_time'])
                for run in full_run.flow_runs
                if run['deployment_id'] == deployment_id and run['auto_scheduled']
            ]
            assert ratios['nightly'] == pytest.approx((min(planned) - since).total_seconds() + 60, abs=SECONDS)
    assert ratios['one-at-a-time'] == pytest.approx(3600)
    assert ratios['frozen'] == pytest.approx(30)
    assert full_run.gauge('deployment.expectation.max_age_ratio', deployment_name='frozen') > 1


def test_run_that_takes_too_long_is_told_until_it_is_cancelled(full_run: FullRun) -> None:
    (backfill,) = (run for run in full_run.flow_runs if full_run.flow_name(run) == 'backfill')
    entered = {state['type']: moment(state['timestamp']) for state in full_run.states[backfill['id']]}
    seconds = (entered['CANCELLING'] - entered['RUNNING']).total_seconds()
    points: dict[str, list[float]] = defaultdict(list)
    for result in full_run.recording.results:
        for point in result.points:
            prefix, _, what = point.name.rpartition('_')
            tags = {f'deployment_id:{backfill["deployment_id"]}', 'expectation_source:tag'}
            if prefix == 'prefect.server.deployment.expectation.max_run_time' and tags <= set(point.tags):
                points[what].append(point.value)
    assert 2 < max(points['seconds']) < seconds + SECONDS
    assert points['ratio'] == [value / 2 for value in points['seconds']]
    assert points['ratio'][-1] == 0


def test_next_runs_are_those_of_the_schedules(full_run: FullRun) -> None:
    name = 'prefect.server.deployment.seconds_until_next_run'
    found = {tag(point.tags, 'deployment_id'): point.value for point in full_run.last.points if point.name == name}
    expected: dict[str, datetime] = {}
    for run in full_run.flow_runs:
        due = run['next_scheduled_start_time']
        if due and moment(due) > full_run.now:
            expected[run['deployment_id']] = min(moment(due), expected.get(run['deployment_id'], moment(due)))
    assert expected
    assert {key: -ahead for key, ahead in found.items()} == {
        key: age_in(full_run.last, due) for key, due in expected.items()
    }
