"""Events of a real server: every kind of transition is sent once, in floods, over restarts and through proxies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from datadog_checks.prefect.event_names import HEARTBEAT, EventNames
from datadog_checks.prefect.filters import NameFilter
from lab.agent import CheckResult, CheckRunner
from lab.api import PrefectApiDriver
from lab.fault_proxy import Front
from lab.prefect_server import PrefectServer
from lab.waiting import wait_until

Row = dict[str, Any]

# What a flow run is put into, and how bad that is. The first state comes with the run.
STATES = {
    ('SCHEDULED', 'Scheduled'): 'info',
    ('SCHEDULED', 'Late'): 'warning',
    ('SCHEDULED', 'AwaitingRetry'): 'warning',
    ('SCHEDULED', 'AwaitingConcurrencySlot'): 'info',
    ('SCHEDULED', 'Resuming'): 'info',
    ('PENDING', 'Pending'): 'info',
    ('PENDING', 'Submitting'): 'info',
    ('PENDING', 'InfrastructurePending'): 'info',
    ('RUNNING', 'Running'): 'info',
    ('PAUSED', 'Paused'): 'info',
    ('PAUSED', 'Suspended'): 'info',
    ('CANCELLING', 'Cancelling'): 'info',
    ('CANCELLED', 'Cancelled'): 'warning',
    ('COMPLETED', 'Completed'): 'success',
    ('COMPLETED', 'Skipped'): 'success',
    ('FAILED', 'Failed'): 'error',
    ('FAILED', 'TimedOut'): 'error',
    ('CRASHED', 'Crashed'): 'error',
}
MESSAGE = 'the database said no'


@pytest.fixture(scope='module')
def prefect_server(database_url: str | None) -> Iterator[PrefectServer]:
    """One for each database: how names are compared and ties are ordered is up to it."""
    with PrefectServer(database_url=database_url) as server:
        yield server


@pytest.fixture(scope='module')
def server(prefect_server: PrefectServer) -> PrefectServer:
    return prefect_server


@pytest.fixture
def unique() -> str:
    """A name that no other test has."""
    return f'events-{uuid4().hex[:8]}'


def emit(api: PrefectApiDriver, names: Iterable[str], resource: str, *, milliseconds: int = 1) -> None:
    """Send events like any client of Prefect, so far apart, and wait until the server shows them."""
    begin = datetime.now(UTC)
    events = [
        {
            'id': str(uuid4()),
            'event': name,
            'occurred': (begin + timedelta(milliseconds=milliseconds * index)).isoformat(),
            'resource': {'prefect.resource.id': f'{resource}.{index}', 'prefect.resource.name': f'number {index}'},
        }
        for index, name in enumerate(names)
    ]
    for start in range(0, len(events), 100):
        api.request('POST', 'events', events[start : start + 100])  # type: ignore[arg-type]
    criteria = {'filter': {'resource': {'id_prefix': [f'{resource}.']}}, 'limit': 0}
    # The server writes events down every 5 s, or later when it is busy.
    wait_until(lambda: api.request('POST', 'events/filter', criteria)['total'] == len(events), f'{len(events)} events')


def first_check(prefect_url: str, **options: Any) -> CheckRunner:
    """A check that has been run once, so that all that happens from now on is new."""
    runner = CheckRunner({'prefect_url': prefect_url, 'collect_events': True, **options})
    assert good(runner.run()).events == ()
    return runner


def good(result: CheckResult) -> CheckResult:
    assert result.error is None
    assert result.log == ()
    return result


def pending(result: CheckResult) -> float:
    (value,) = (point.value for point in result.points if point.name == 'prefect.server.events.pending')
    return value


def test_every_kind_of_transition_is_sent_once(
    prefect_server: PrefectServer, api: PrefectApiDriver, unique: str
) -> None:
    began = datetime.now(UTC)
    runner = first_check(prefect_server.api_url, work_pool_names={'include': [f'^{unique}$']}, tags=['team:data'])
    for pool in (unique, f'{unique}-other'):
        api.create_work_pool(pool)
    deployment_id, other_id = (
        api.create_deployment(flow_name=unique, name=pool, entrypoint='x.py:x', work_pool_name=pool)
        for pool in (unique, f'{unique}-other')
    )
    api.create_flow_run(other_id)
    for state_type, name in STATES:
        flow_run_id = api.create_flow_run(deployment_id, name=name, parameters={'password': 'hunter2'})
        if state_type == 'CANCELLING':
            # A run that has not started is Cancelled at once.
            api.set_flow_run_state(flow_run_id, 'RUNNING', force=True)
        if name != 'Scheduled':
            state = {'type': state_type, 'name': name, 'message': MESSAGE}
            api.request('POST', f'flow_runs/{flow_run_id}/set_state', {'state': state, 'force': True})
    api.request('POST', f'work_pools/{unique}/workers/heartbeat', {'name': 'w1'})
    api.request('POST', f'work_pools/{unique}/get_scheduled_flow_runs', {})

    wanted = {f'prefect.flow-run.{name}' for _, name in STATES}
    wanted |= {'prefect.work-pool.ready', 'prefect.work-queue.ready', 'prefect.deployment.ready'}
    wanted |= {'prefect.work-pool.not-ready'}

    def happened() -> Counter[tuple[str, str, int]]:
        """The events of the server on this work pool that pass the default of event_names."""
        return Counter(
            (event['event'], event['resource']['prefect.resource.id'], second(event['occurred']))
            for event in api.events(began, datetime.now(UTC) + timedelta(seconds=60))
            if event['event'] in wanted
            and any(
                item.get('prefect.resource.name') == unique and 'work-pool' in item['prefect.resource.id']
                for item in (event['resource'], *event['related'])
            )
        )

    wait_until(lambda: wanted == {name for name, _, _ in happened()}, 'an event of every kind')
    before = happened()
    events = [*good(runner.run()).events, *good(runner.run()).events]
    # Meanwhile the server may call a run late.
    sent = Counter((item['event_type'], item['aggregation_key'], item['timestamp']) for item in events)
    assert before <= sent <= happened()

    by_title = {item['msg_title']: item for item in events}
    for (_, name), alert_type in STATES.items():
        event = by_title[f'[PREFECT] [flow-run] {name} -> {name}']
        assert event['alert_type'] == alert_type
        assert event['priority'] == ('low' if alert_type == 'info' else 'normal')
        assert {'team:data', f'prefect_url:{prefect_server.url}', f'deployment_name:{unique}'} <= set(event['tags'])
        assert (MESSAGE in event['msg_text']) is (name != 'Scheduled')
        assert f'({prefect_server.url}/runs/flow-run/' in event['msg_text']
    assert by_title[f'[PREFECT] [work-pool] {unique} -> not-ready']['alert_type'] == 'error'
    assert by_title['[PREFECT] [work-queue] default -> ready']['alert_type'] == 'success'
    assert 'hunter2' not in str(events)


def second(time_text: str) -> int:
    return int(datetime.fromisoformat(time_text).timestamp())


def test_flood_of_1200_events_takes_two_checks_with_a_restart_in_between(
    prefect_server: PrefectServer, api: PrefectApiDriver, unique: str
) -> None:
    options = {'event_names': {'include': [rf'^prefect\.{unique}\.']}}
    runner = first_check(prefect_server.api_url, **options)
    emit(api, [f'prefect.{unique}.happened'] * 1200, unique)

    results = []
    for _ in range(3):
        results.append(good(runner.run()))
        # The same instance after a restart of the Agent: another check, and the state that this one has persisted.
        runner.cancel()
        runner = CheckRunner({'prefect_url': prefect_server.api_url, 'collect_events': True, **options})
    first, second, third = results

    assert [(len(result.events), pending(result)) for result in (first, second, third)] == [
        (1000, 200),
        (200, 0),
        (0, 0),
    ]
    sent = [event['aggregation_key'] for result in (first, second) for event in result.events]
    assert sent == [f'{unique}.{index}' for index in range(1200)]


def test_events_of_one_moment_are_all_sent_once(
    prefect_server: PrefectServer, api: PrefectApiDriver, unique: str
) -> None:
    runner = first_check(prefect_server.api_url, event_names={'include': [rf'^prefect\.{unique}\.']})
    emit(api, [f'prefect.{unique}.happened'] * 180, unique, milliseconds=0)

    events = [*good(runner.run()).events, *good(runner.run()).events]
    assert Counter(event['aggregation_key'] for event in events) == Counter(f'{unique}.{index}' for index in range(180))


def test_pages_go_on_behind_a_proxy_that_changes_host_and_path(
    prefect_server: PrefectServer, api: PrefectApiDriver, unique: str
) -> None:
    # They ask for events themselves.
    apart = dict.fromkeys(('automations', 'background_services', 'heartbeats', 'worker_runs'), False)
    with Front(prefect_server.api_url, path='/team/prefect') as front:
        runner = first_check(front.url, event_names={'include': [rf'^prefect\.{unique}\.']}, collect=apart)
        emit(api, [f'prefect.{unique}.happened'] * 120, unique)
        front.requests.clear()
        result = good(runner.run())

    assert len(result.events) == 120
    assert front.requests.count('POST /events/filter') == 1
    assert front.requests.count('GET /events/filter/next') == 2


@pytest.fixture(scope='module')
def odd_names(api: PrefectApiDriver) -> tuple[str, list[str]]:
    """A stem that no other event has, and the names of one event each, most of which begin with it."""
    stem = f'odd{uuid4().hex[:8]}'
    names = [f'{stem}{end}' for end in ('_a', '-a', '%a', '\\a', 'a', 'A', 'e', '.a', '.b', '.E', '.e')]
    names += [f'prefect.{stem}.late', f'prefect.{stem}.ready', 'prefect.flow-run.Late', HEARTBEAT]
    emit(api, names, stem)
    return stem, names


@pytest.mark.parametrize(
    ('include', 'exclude'),
    [
        (['^X_a'], []),
        (['^X%'], []),
        ([r'^X\\'], []),
        (['^Xa', '^Xe'], ['^Xa']),
        (['X'], ['^X_a']),
        ([r'^X(\.a|\.e)$', r'^X\.(b|c)'], []),
        ([r'^prefect\.X\.'], ['late']),
        ([r'^prefect\.flow-run\.'], []),
    ],
    ids=str,
)
def test_server_gives_every_event_that_passes(
    api: PrefectApiDriver, odd_names: tuple[str, list[str]], include: list[str], exclude: list[str]
) -> None:
    """The wildcards of its LIKE, upper and lower case, and what is escaped there lose none."""
    stem, names = odd_names
    include, exclude = ([pattern.replace('X', stem) for pattern in patterns] for patterns in (include, exclude))
    wanted = EventNames(NameFilter.compile(include, exclude))
    criteria = {'event': wanted.criterion, 'resource': {'id_prefix': [f'{stem}.']}}
    given = {event['event'] for event in api.request('POST', 'events/filter', {'filter': criteria})['events']}
    passing = {name for name in names if wanted.allows(name)}
    assert passing
    assert passing <= given
    assert HEARTBEAT not in given
