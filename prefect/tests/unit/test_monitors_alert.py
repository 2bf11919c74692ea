"""Each monitor alerts when its trouble comes, recovers when it is mended, and is silent over what is normal.

There are two kinds of scenarios. Most are written down here: what the check sends in a situation, minute by minute, as
the description of each series says. Those of `RECORDED` come from a real server (`make record-troubles`) and are played
in fast motion. `tools/monitor_evaluation.py` follows Datadog.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import pytest

from datadog_checks.prefect.metrics import METRICS
from lab.timeline import TimedSeries, Timeline
from tests.unit.lint import for_each
from tools.monitor_evaluation import Status, courses

FOLDER = Path(__file__).parents[2]
MONITORS = {path.stem: json.loads(path.read_text()) for path in (FOLDER / 'assets' / 'monitors').glob('*.json')}
NAMESPACE = 'prefect.server.'
SERVER = {'prefect_url': 'http://prefect:4200'}
DEPLOYMENT = {'deployment_name': 'daily', 'flow_name': 'report'}
QUEUE = {'work_pool_name': 'k8s', 'work_queue_name': 'default'}
LIMIT = {'concurrency_limit_name': 'database'}
LIVE = {'is_paused': 'false'}
MINUTES, HOURS, DAYS = 1, 60, 1440

# (minutes, value): a number, something that makes one of the minutes since its beginning, or None for no series.
Phase = tuple[int, 'float | Callable[[int], float] | None']


def ageing(minutes_since: int) -> float:
    """An age in seconds that began with its phase."""
    return 60.0 * minutes_since


@dataclass(frozen=True)
class Line:
    """One series over the minutes of a scenario."""

    metric: str
    tags: Mapping[str, str]
    phases: Sequence[Phase]

    def series(self, step: int) -> TimedSeries:
        points, minute = [], 0
        for length, value in self.phases:
            for offset in range(0, length, step):
                if value is not None:
                    points.append(((minute + offset) // step, value(offset) if callable(value) else float(value)))
            minute += length
        return TimedSeries(NAMESPACE + self.metric, METRICS[self.metric].type, {**SERVER, **self.tags}, tuple(points))


def line(metric: str, tags: Mapping[str, str], *phases: Phase) -> Line:
    return Line(metric, tags, phases)


def course(name: str, *lines: Line) -> list[Status]:
    """The statuses of all groups of a monitor, one group after the other, without repetitions."""
    minutes = max(sum(length for length, _ in one.phases) for one in lines)
    step = max(1, minutes // 2000)
    times = tuple(60.0 * minute for minute in range(0, minutes, step))
    found = courses(MONITORS[name], Timeline(times, tuple(one.series(step) for one in lines)), 1)
    return [status for statuses in found.values() for status, _ in groupby(statuses)]


def without_warnings(statuses: Sequence[Status]) -> list[Status]:
    return [status for status, _ in groupby(status for status in statuses if status is not Status.WARN)]


def waits(reason: str, tags: Mapping[str, str], minutes: int) -> Line:
    """A flow run that is late for so long because of this reason, and then starts."""
    late = {**tags, 'late_reason': reason}
    return line('flow_runs.late.max_age', late, (30, None), (minutes, ageing), (5, 0), (5 * HOURS, None))


def rises(metric: str, tags: Mapping[str, str], bad: float, minutes: int, good: float = 0) -> Line:
    return line(metric, tags, (5 * HOURS, good), (minutes, bad), (5 * HOURS, good))


def ages(metric: str, tags: Mapping[str, str], minutes: int) -> Line:
    return line(metric, tags, (2 * HOURS, 0), (minutes, ageing), (2 * HOURS, 0))


def ends(tags: Mapping[str, str], *, failed: float = 0, crashed: float = 0, completed: float = 0) -> list[Line]:
    """So many flow runs end in each of thirty minutes; none in the hours before and after."""
    return [
        line(f'flow_runs.{state}.count', tags, (3 * HOURS, 0), (30, value), (3 * HOURS, 0))
        for state, value in (('failed', failed), ('crashed', crashed), ('completed', completed))
    ]


def once(state: str, tags: Mapping[str, str]) -> list[Line]:
    """A daily deployment: one flow run ends, hours before and after nothing."""
    return [
        line(f'flow_runs.{one}.count', tags, (2 * HOURS, 0), (1, 1 if one == state else 0), (2 * HOURS, 0))
        for one in ('failed', 'crashed', 'completed')
    ]


SCHEDULED = {**DEPLOYMENT, **LIVE}
AUTOMATION = {'automation_name': 'page', 'action_type': 'send-notification'}
TASK = {'task_key': 'send-mail'}
SERVICE = {'background_service': 'scheduler'}
FIRES: dict[str, list[Line]] = {
    'background_tasks_waiting': [
        ages('task_runs.scheduled.max_age', TASK, 30),
        line('task_workers.online', TASK, (2 * HOURS, 1), (30, 0), (2 * HOURS, 1)),
    ],
    'heartbeat_lost': [rises('flow_runs.heartbeat_lost', DEPLOYMENT, 1, 30)],
    'automation_action_failed': [line('automation.action.failed.count', AUTOMATION, (60, 0), (2, 1), (60, 0))],
    'background_service_dead': [
        rises('service.is_healthy', SERVICE, 0, 30, good=1),
        rises('service.is_healthy', {'background_service': 'foreman'}, 1, 30, good=1),
    ],
    'cancelling_stuck': [ages('flow_runs.cancelling.max_age', DEPLOYMENT, 2 * HOURS)],
    'collection_failing': [
        rises('collector.success', {'collector': 'workers'}, 0, 40, good=1),
        rises('collector.success', {'collector': 'flow_runs'}, 1, 40, good=1),
        rises('api.authorized', {}, 1, 40, good=1),
    ],
    'concurrency_saturated': [waits('queue_limit', QUEUE, 2 * HOURS)],
    'crashed_runs': [line('flow_runs.crashed.count', DEPLOYMENT, (60, 0), (3, 1), (60, 0))],
    'crashed_runs_without_deployment': [
        line('flow_runs.crashed.count', {'flow_name': 'notebook'}, (60, 0), (6, 1), (60, 0))
    ],
    'deployment_limit_full': [waits('deployment_limit', DEPLOYMENT, 2 * HOURS)],
    'deployment_not_ready': [
        rises('deployment.is_ready', SCHEDULED, 0, 60, good=1),
        rises('deployment.schedules.active', SCHEDULED, 2, 60, good=2),
    ],
    'events_behind': [rises('events.pending', {}, 5000, 60)],
    'failing_in_a_row': [rises('deployment.consecutive_failures', SCHEDULED, 3, 60)],
    'failure_rate': ends(DEPLOYMENT, failed=1),
    'freshness_missed': [rises('deployment.expectation.max_age_ratio', SCHEDULED, 1.2, 60, good=0.5)],
    'global_limit_full': [
        rises('concurrency_limit.in_use', LIMIT, 100, 6 * HOURS, good=50),
        rises('concurrency_limit.limit', LIMIT, 4, 6 * HOURS, good=4),
        rises('concurrency_limit.is_active', LIMIT, 1, 6 * HOURS, good=1),
    ],
    'late_runs': [waits('work_not_picked_up', QUEUE, 60)],
    'late_runs_served': [waits('no_worker', DEPLOYMENT, 60)],
    'late_runs_without_deployment': [waits('unknown', {'flow_name': 'notebook'}, 90)],
    'leaked_slots': [rises('concurrency_limit.leaked_slots', LIMIT, 1, 60)],
    'leaked_slots_deployment': [rises('deployment.concurrency.leaked_slots', SCHEDULED, 1, 60)],
    'logs_behind': [rises('logs.pending', {}, 900, 2 * HOURS)],
    'not_authorized': [rises('api.authorized', {}, 0, 20, good=1)],
    'nothing_executes': [
        rises('flow_runs.late', {**QUEUE, 'late_reason': 'work_not_picked_up'}, 3, 60),
        line('flow_runs.running', DEPLOYMENT, (5 * HOURS, 2), (60, 0), (5 * HOURS, 2)),
        rises('flow_runs.pending', DEPLOYMENT, 0, 60),
    ],
    'paused_stuck': [ages('flow_runs.paused.max_age', DEPLOYMENT, 2 * DAYS)],
    'pending_stuck': [ages('flow_runs.pending.max_age', DEPLOYMENT, 60)],
    'pending_stuck_without_deployment': [ages('flow_runs.pending.max_age', {'flow_name': 'notebook'}, 2 * HOURS)],
    'pool_limit_full': [waits('pool_limit', QUEUE, 2 * HOURS)],
    'pool_paused_long': [waits('pool_paused', QUEUE, 2 * DAYS)],
    'pool_without_worker': [waits('no_worker', QUEUE, 30)],
    'queue_paused_long': [waits('queue_paused', QUEUE, 2 * DAYS)],
    'run_running_long': [rises('deployment.expectation.max_run_time_ratio', SCHEDULED, 1.5, 60, good=0.5)],
    'schedule_without_run': [rises('deployment.schedules.is_without_run', SCHEDULED, 1, 2 * HOURS)],
    'server_down': [rises('ready', {}, 0, 20, good=1)],
    'server_failure_rate': ends(DEPLOYMENT, failed=2, completed=1),
    'server_slow': [rises('api.duration_seconds', {'endpoint_family': 'flow_runs'}, 14, 60, good=0.4)],
}
HOURLY = line('flow_runs.late.max_age', {**QUEUE, 'late_reason': 'queue_limit'}, *[(45, ageing), (15, 0)] * 8)
RESTART = [(2 * HOURS, 1.0), (10, None), (2 * HOURS, 1.0)]
SILENT: dict[str, dict[str, list[Line]]] = {
    'automation_action_failed': {
        'an action that works': [line('automation.action.failed.count', AUTOMATION, (120, 0))]
    },
    'background_tasks_waiting': {
        'a long queue that a worker works off': [
            ages('task_runs.scheduled.max_age', TASK, 60),
            line('task_workers.online', TASK, (300, 1)),
        ],
        'a worker that listens for nothing now': [
            line('task_runs.scheduled.max_age', TASK, (60, 0)),
            line('task_workers.online', TASK, (60, 0)),
        ],
    },
    'heartbeat_lost': {'a beat that comes late': [rises('flow_runs.heartbeat_lost', DEPLOYMENT, 1, 3)]},
    'background_service_dead': {
        'a service that has shown no work yet': [
            line('service.is_healthy', {'background_service': 'foreman'}, (60, 1)),
            line('service.is_healthy', SERVICE, (30, None), (30, 1)),
        ],
        'a restart of the Agent': [line('service.is_healthy', SERVICE, *RESTART)],
        'a moment of overdue work': [rises('service.is_healthy', SERVICE, 0, 5, good=1)],
    },
    'cancelling_stuck': {'a flow that takes time to end': [ages('flow_runs.cancelling.max_age', DEPLOYMENT, 20)]},
    'collection_failing': {
        'refused credentials, which have a monitor of their own': [
            rises('collector.success', {'collector': 'workers'}, 0, 60, good=1),
            rises('api.authorized', {}, 0, 60, good=1),
        ],
        'one failed run of the check': [
            rises('collector.success', {'collector': 'workers'}, 0, 1, good=1),
            rises('api.authorized', {}, 1, 1, good=1),
        ],
        'a server that is down: nothing is tried': [
            line('collector.success', {'collector': 'workers'}, (60, 1), (60, None), (60, 1)),
            line('api.authorized', {}, (60, 1), (60, None), (60, 1)),
        ],
        'a restart of the Agent': [
            line('collector.success', {'collector': 'workers'}, *RESTART),
            line('api.authorized', {}, *RESTART),
        ],
    },
    'concurrency_saturated': {
        'a queue that is throttled on purpose and moves': [HOURLY],
        'a limit of 1 with an hourly job of 55 minutes and nothing waiting': [
            line('work_queue.concurrency.in_use', QUEUE, *[(55, 100), (5, 0)] * 8),
            waits('queue_limit', QUEUE, 1),
        ],
    },
    'crashed_runs': {
        'a single crash': [line('flow_runs.crashed.count', DEPLOYMENT, (60, 0), (1, 1), (60, 0))],
        'crashes without a deployment': FIRES['crashed_runs_without_deployment'],
    },
    'crashed_runs_without_deployment': {'crashes of a deployment': FIRES['crashed_runs']},
    'deployment_limit_full': {'an overlap of a quarter of an hour': [waits('deployment_limit', DEPLOYMENT, 15)]},
    'deployment_not_ready': {
        'an on-demand deployment that nobody serves now': [
            line('deployment.is_ready', SCHEDULED, (120, 0)),
            line('deployment.schedules.active', SCHEDULED, (120, 0)),
        ],
        'a served deployment that was stopped, and is paused': [
            line('deployment.is_ready', {**DEPLOYMENT, 'is_paused': 'true'}, (120, 0)),
            line('deployment.schedules.active', {**DEPLOYMENT, 'is_paused': 'true'}, (120, 1)),
        ],
        'a restart of the process': [
            rises('deployment.is_ready', SCHEDULED, 0, 10, good=1),
            rises('deployment.schedules.active', SCHEDULED, 1, 10, good=1),
        ],
        'a deployment of a push pool': [
            line('deployment.is_ready', {**SCHEDULED, **QUEUE}, (120, 0)),
            line('deployment.schedules.active', {**SCHEDULED, **QUEUE}, (120, 1)),
        ],
    },
    'events_behind': {'a burst': [rises('events.pending', {}, 5000, 10)]},
    'failing_in_a_row': {
        'two failures': [rises('deployment.consecutive_failures', SCHEDULED, 2, 60)],
        'a deployment that is paused': [
            line('deployment.consecutive_failures', {'is_paused': 'true', **DEPLOYMENT}, (60, 9))
        ],
    },
    'failure_rate': {
        'one failure of a daily deployment': once('failed', DEPLOYMENT),
        'one crash of a daily deployment': once('crashed', DEPLOYMENT),
        'a tenth of many runs': ends(DEPLOYMENT, failed=1, completed=9),
    },
    'freshness_missed': {
        'a weekly deployment on its sixth day': [
            line('deployment.expectation.max_age_ratio', SCHEDULED, (6 * DAYS, lambda minutes: minutes / (7 * DAYS)))
        ],
        'a monthly deployment': [line('deployment.expectation.max_age_ratio', SCHEDULED, (60, 0.98))],
        'an on-demand deployment without an expectation': [
            line('deployment.seconds_since_success', SCHEDULED, (2 * DAYS, ageing)),
            line('deployment.expectation.max_age_ratio', {**SCHEDULED, 'deployment_name': 'other'}, (2 * DAYS, 0.2)),
        ],
    },
    'global_limit_full': {
        'a limit of 1 with a long hourly job': [
            line('concurrency_limit.in_use', LIMIT, *[(58, 100), (2, 0)] * 8),
            line('concurrency_limit.limit', LIMIT, (480, 1)),
            line('concurrency_limit.is_active', LIMIT, (480, 1)),
        ],
        'a limit of 0': [
            line('concurrency_limit.in_use', LIMIT, (480, 100)),
            line('concurrency_limit.limit', LIMIT, (480, 0)),
            line('concurrency_limit.is_active', LIMIT, (480, 1)),
        ],
        'a limit that is switched off': [
            line('concurrency_limit.in_use', LIMIT, (480, 100)),
            line('concurrency_limit.limit', LIMIT, (480, 2)),
            line('concurrency_limit.is_active', LIMIT, (480, 0)),
        ],
    },
    'late_runs': {
        '45 s of lateness': [waits('work_not_picked_up', QUEUE, 1)],
        'ten minutes for a node to come up': [waits('work_not_picked_up', QUEUE, 10)],
        **{
            f'{reason}, which has a monitor of its own': [waits(reason, QUEUE, 6 * HOURS)]
            for reason in ('no_worker', 'pool_paused', 'queue_paused', 'pool_limit', 'queue_limit', 'deployment_limit')
        },
        'served deployments, which have a monitor of their own': [waits('no_worker', DEPLOYMENT, 60)],
    },
    'late_runs_served': {
        'a restart of the process': [waits('no_worker', DEPLOYMENT, 5)],
        'a limit, which has a monitor of its own': [waits('deployment_limit', DEPLOYMENT, 60)],
        'a deployment of a pool': [waits('no_worker', {**QUEUE, **DEPLOYMENT}, 60)],
    },
    'late_runs_without_deployment': {'runs of a deployment': [waits('unknown', DEPLOYMENT, 90)]},
    'leaked_slots': {'a slot that is given back': [rises('concurrency_limit.leaked_slots', LIMIT, 1, 3)]},
    'leaked_slots_deployment': {
        'a slot that is given back': [rises('deployment.concurrency.leaked_slots', SCHEDULED, 1, 3)]
    },
    'logs_behind': {
        'a burst that is caught up': [rises('logs.pending', {}, 900, 20)],
        'a flood that the check reads two minutes late': [rises('logs.pending', {}, 120, 3 * HOURS)],
        'a restart of the Agent': [line('logs.pending', {}, (2 * HOURS, 0), (10, None), (5, 600), (2 * HOURS, 0))],
        'records that are not collected': [line('events.pending', {}, (2 * HOURS, 0))],
    },
    'not_authorized': {
        'a restart of the Agent': [line('api.authorized', {}, *RESTART)],
        'a single refusal': [rises('api.authorized', {}, 0, 1, good=1)],
    },
    'nothing_executes': {
        'a server at night': [
            line('flow_runs.late', {**QUEUE, 'late_reason': 'work_not_picked_up'}, (120, 0)),
            line('flow_runs.running', DEPLOYMENT, (120, 0)),
            line('flow_runs.pending', DEPLOYMENT, (120, 0)),
        ],
        'a queue that is full and works': [
            line('flow_runs.late', {**QUEUE, 'late_reason': 'queue_limit'}, (120, 5)),
            line('flow_runs.running', DEPLOYMENT, (120, 1)),
            line('flow_runs.pending', DEPLOYMENT, (120, 0)),
        ],
        'pods that come up': [
            line('flow_runs.late', {**QUEUE, 'late_reason': 'queue_limit'}, (120, 5)),
            line('flow_runs.running', DEPLOYMENT, (120, 0)),
            line('flow_runs.pending', DEPLOYMENT, (120, 2)),
        ],
        'a pool that is paused': [
            line('flow_runs.late', {**QUEUE, 'late_reason': 'pool_paused'}, (120, 5)),
            line('flow_runs.running', DEPLOYMENT, (120, 0)),
            line('flow_runs.pending', DEPLOYMENT, (120, 0)),
        ],
    },
    'paused_stuck': {'an approval within the day': [ages('flow_runs.paused.max_age', DEPLOYMENT, 20 * HOURS)]},
    'pending_stuck': {
        'a node that comes up': [ages('flow_runs.pending.max_age', DEPLOYMENT, 10)],
        'a run without a deployment': FIRES['pending_stuck_without_deployment'],
    },
    'pending_stuck_without_deployment': {'a run of a deployment': FIRES['pending_stuck']},
    'pool_limit_full': {'a pool that is throttled on purpose and moves': [waits('pool_limit', QUEUE, 45)]},
    'pool_paused_long': {'a pool that is paused for a night': [waits('pool_paused', QUEUE, 12 * HOURS)]},
    'pool_without_worker': {
        'a restart of the worker': [waits('no_worker', QUEUE, 4)],
        'a push or managed pool without workers, and nothing late': [line('work_pool.workers.online', QUEUE, (60, 0))],
        'a fresh install: pools, no worker, no work': [line('work_pool.workers.online', QUEUE, (60, 0))],
        'a served deployment': [waits('no_worker', DEPLOYMENT, 60)],
    },
    'queue_paused_long': {'a queue that is paused for a night': [waits('queue_paused', QUEUE, 12 * HOURS)]},
    'run_running_long': {
        'an ordinary run': [rises('deployment.expectation.max_run_time_ratio', SCHEDULED, 0.9, 60)],
    },
    'schedule_without_run': {
        'a deployment that is just being made': [rises('deployment.schedules.is_without_run', SCHEDULED, 1, 10)]
    },
    'server_down': {
        'a restart of the server': [rises('ready', {}, 0, 2, good=1)],
        'a restart of the Agent': [line('ready', {}, *RESTART)],
    },
    'server_failure_rate': {
        'failures of few runs': once('failed', DEPLOYMENT),
        'a deployment that fails among many that complete': ends(DEPLOYMENT, failed=5, completed=20),
    },
    'server_slow': {
        'the long first run of a check': [
            rises('api.duration_seconds', {'endpoint_family': 'flow_runs'}, 30, 1, good=0.4)
        ]
    },
}


def test_every_monitor_has_its_scenarios() -> None:
    assert FIRES.keys() == MONITORS.keys()
    assert SILENT.keys() == MONITORS.keys()
    assert all(SILENT.values())


@for_each({name: name for name in sorted(FIRES)})
def test_monitor_alerts_and_recovers(name: str) -> None:
    assert without_warnings(course(name, *FIRES[name])) == [Status.OK, Status.ALERT, Status.OK]


@for_each({f'{name}: {case}': (name, lines) for name, cases in SILENT.items() for case, lines in cases.items()})
def test_normal_is_silent(case: tuple[str, list[Line]]) -> None:
    name, lines = case

    assert Status.ALERT not in course(name, *lines)


def ended_in_trouble(lines: Sequence[Line]) -> list[Line]:
    """The lines with their series ending in the trouble, as when somebody pauses or deletes what is bad."""
    gone = []
    for one in lines:
        before, trouble = one.phases[:2]
        rest = sum(length for length, _ in one.phases[2:])
        gone.append(replace(one, phases=(before, trouble, (rest, None))))
    return gone


@for_each({name: name for name in sorted(FIRES) if name != 'server_down'})
def test_trouble_ends_with_its_series(name: str) -> None:
    statuses = course(name, *ended_in_trouble(FIRES[name]))

    assert Status.ALERT in statuses
    assert statuses[-1] is Status.OK


def test_silence_of_a_server_is_no_recovery() -> None:
    assert course('server_down', *ended_in_trouble(FIRES['server_down']))[-1] is Status.ALERT


@pytest.mark.parametrize(
    ('lines', 'alerting'),
    [
        (
            [
                rises('api.authorized', {}, 0, 60, good=1),
                *(rises('collector.success', {'collector': f'part{n}'}, 0, 60, good=1) for n in range(17)),
            ],
            {'not_authorized'},
        ),
        (
            [
                waits('no_worker', {**QUEUE, **DEPLOYMENT}, 60),
                rises('flow_runs.late', {**QUEUE, **DEPLOYMENT, 'late_reason': 'no_worker'}, 5, 60),
                rises('flow_runs.running', DEPLOYMENT, 0, 60),
                rises('flow_runs.pending', DEPLOYMENT, 0, 60),
                rises('work_queue.backlog.age', QUEUE, 3000, 60),
                rises('work_queue.last_polled_age_seconds', QUEUE, 3000, 60),
            ],
            {'pool_without_worker'},
        ),
    ],
    ids=['refused credentials', 'one dead worker'],
)
def test_one_cause_is_one_alert(lines: list[Line], alerting: set[str]) -> None:
    assert {name for name in MONITORS if Status.ALERT in course(name, *lines)} == alerting


def test_a_broken_database_pages_once_for_the_server() -> None:
    lines = [
        one
        for number in range(50)
        for one in ends({'deployment_name': f'daily-{number}', 'flow_name': 'report'}, failed=0.1)
    ]

    assert without_warnings(course('server_failure_rate', *lines)).count(Status.ALERT) == 1
    assert MONITORS['server_failure_rate']['definition']['priority'] <= 2
    assert all(
        MONITORS[name]['definition']['priority'] >= 3
        for name in MONITORS
        if 'deployment_name' in MONITORS[name]['definition']['query'].partition(' by ')[2]
    )


# The group that has the trouble in the recording, without the server, and the seconds that a second of it stands for.
RECORDED: dict[str, tuple[tuple[str, ...], float]] = {
    'background_service_dead': ((), 120),
    'crashed_runs': (('hourly', 'image-import'), 60),
    'failing_in_a_row': (('hourly', 'flaky'), 60),
    'leaked_slots': (('database',), 60),
    'not_authorized': ((), 60),
    'pending_stuck': (('hourly', 'stuck'), 60),
    'pool_without_worker': (('lonely',), 60),
    'late_runs': (('attended', 'reports', 'work_not_picked_up'), 60),
    'server_down': ((), 60),
}


@pytest.fixture(scope='module')
def recording() -> Timeline:
    return Timeline.load(FOLDER / 'tests' / 'fixtures' / 'series' / 'troubles.json.gz')


def recorded_course(name: str, recording: Timeline) -> list[Status]:
    group, speed = RECORDED[name]
    found = {key[1:]: statuses for key, statuses in courses(MONITORS[name], recording, speed).items()}
    return without_warnings([status for status, _ in groupby(found[group])])


@pytest.mark.parametrize('name', sorted(RECORDED))
def test_monitor_alerts_and_recovers_over_a_recording(name: str, recording: Timeline) -> None:
    assert recorded_course(name, recording)[:3] == [Status.OK, Status.ALERT, Status.OK]
