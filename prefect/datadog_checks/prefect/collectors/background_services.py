"""Whether the background services of the server do their work, judged by the traces that it leaves in the API.

GET /health answers while they are dead. Each is judged by a piece of work that it leaves undone for longer than it ever
took (`service_verdict`); what it does shows that it lives. So nothing is wrong on a server that idles, nor while a
server that was down catches up, nor with a service that is switched off, or set otherwise, on purpose. Verified on
3.8.8 with services in the process of the API and in one of their own.

| service | work that is done | work that is overdue |
|---|---|---|
| scheduler | the plan of a deployment reaches further than before | no deployment is planned far enough ahead |
| late_run_marker | a run is called Late | a run that is due is still called Scheduled |
| foreman | a work queue that nobody polls turns NOT_READY | a work queue that nobody polls is READY |
| cancellation_cleanup | a subflow of a cancelled parent ends | such a subflow lives; a run is CANCELLING for too long |
| task_run_recorder | the newest event of a task run is in its row | it is not |

The status of a worker proves nothing of the foreman: the API works it out for each answer (3.8.8).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from datadog_checks.prefect.api.errors import PrefectApiError, PrefectError
from datadog_checks.prefect.api.models import Deployment, Event, FlowRun, ServiceSettings
from datadog_checks.prefect.api.time_range import TimeRange
from datadog_checks.prefect.api.times import RESOLUTION, is_due
from datadog_checks.prefect.collectors.base import RunContext
from datadog_checks.prefect.collectors.service_verdict import EARLIEST, Overdue, ServiceRecord, Work
from datadog_checks.prefect.metrics import SERVICE_IS_HEALTHY, SERVICE_LAG
from datadog_checks.prefect.sample import Sample
from datadog_checks.prefect.tags import BACKGROUND_SERVICE, make_tags

_SETTINGS_INTERVAL = timedelta(hours=1)
# How often the settings are asked for while work is undone: they may have been changed by a restart of the server.
_DOUBTED_SETTINGS_INTERVAL = timedelta(seconds=60)
# Deployments with a schedule that are looked at, those that run most often.
_PROBES = 3
# A deployment that rests so many times longer than another tells less, and later.
_ALIKE = 4
# Runs of a deployment that are read to see how its plan was made, and how far back beyond the last that may be due.
_PAST_PLAN = timedelta(days=1)
_PLANNED_RUNS = 200
_EXTENSIONS = 5
# Where the newest event is looked for: the server writes events down every 5 s (seen up to 5.2 s, 3.8.8).
_EVENTS_SINCE = timedelta(minutes=30)
_EVENTS_UNTIL = timedelta(seconds=15)
# How long the server keeps events (3.8.8), and how many are looked at after a start.
_EVENT_RETENTION = timedelta(days=7)
_PAST_EVENTS = 20
_EVENTS_INTERVAL = timedelta(seconds=60)
# How the cancellation cleanup explains what it does (3.8.8); runs are cancelled by others, too.
_CLEANUP_MESSAGES = (
    'The parent flow run was cancelled.',
    'Flow run cancellation timed out; marked this flow run as Cancelled.',
)
_TASK_RUN_EVENTS = {'prefix': ['prefect.task-run.']}

# The services by the value of their tag, with their key in the settings.
_SETTINGS_KEYS = {
    'scheduler': 'scheduler',
    'late_run_marker': 'late_runs',
    'foreman': 'foreman',
    'cancellation_cleanup': 'cancellation_cleanup',
    'task_run_recorder': 'task_run_recorder',
}


@dataclass
class Evidence:
    """What one run of the check sees of a service: pieces of work that are overdue, by a key, and what was done."""

    overdue: dict[str, Overdue] = field(default_factory=dict)
    works: list[Work] = field(default_factory=list)

    def add_if_overdue(self, key: str, item: Overdue) -> None:
        if item.lateness > timedelta():
            self.overdue[key] = item


class BackgroundServices:
    name = 'background_services'

    def __init__(self) -> None:
        self._settings = ServiceSettings()
        self._settings_asked_at: datetime | None = None
        self._is_past_known = False
        self._records: dict[str, ServiceRecord] = {}
        self._scheduler = _Scheduler()
        self._foreman = _Foreman()
        self._cancellation = _CancellationCleanup()
        self._recorder = _TaskRunRecorder()

    def collect(self, run: RunContext) -> Iterator[Sample]:
        settings = self._current_settings(run)
        found = {
            'scheduler': (settings.scheduler_loop, self._scheduler.look(run, settings)),
            'late_run_marker': (settings.late_runs_loop, _look_at_late_runs(run, settings)),
            'foreman': (settings.foreman_loop, self._foreman.look(run, settings)),
            'cancellation_cleanup': (settings.cancellation_loop, self._cancellation.look(run, settings)),
            'task_run_recorder': (settings.recorder_flush, self._recorder.look(run)),
        }
        if not self._is_past_known:
            found['late_run_marker'][1].works += _past_late_runs(run, settings)
            found['foreman'][1].works += _past_polling(run, settings)
            self._is_past_known = True
        for service, (interval, evidence) in found.items():
            yield from self._judge(run, service, interval, evidence)

    def _judge(self, run: RunContext, service: str, interval: timedelta, evidence: Evidence) -> Iterator[Sample]:
        is_enabled = self._settings.enabled.get(_SETTINGS_KEYS[service])
        record = self._records.get(service, ServiceRecord())
        record = record.after(run.now, evidence.overdue, evidence.works, interval, is_enabled=is_enabled)
        self._records[service] = record
        is_healthy = record.is_healthy(run.now, evidence.overdue, interval, is_enabled=is_enabled)
        if is_healthy is None:
            return
        service_tags = make_tags({BACKGROUND_SERVICE: service})
        yield Sample(SERVICE_IS_HEALTHY, is_healthy, service_tags)
        lag = max((item.lateness for item in evidence.overdue.values()), default=timedelta())
        yield Sample(SERVICE_LAG, lag.total_seconds(), service_tags)

    def _current_settings(self, run: RunContext) -> ServiceSettings:
        """The server's settings, asked for once an hour; a server that hides them is no failure."""
        is_anything_undone = any(record.undone for record in self._records.values())
        interval = _DOUBTED_SETTINGS_INTERVAL if is_anything_undone else _SETTINGS_INTERVAL
        if is_due(self._settings_asked_at, run.now, interval):
            self._settings_asked_at = run.now
            try:
                self._settings = run.inventory.service_settings()
            except PrefectError as error:
                run.log.debug('Taking the default intervals of the background services: %s', error)
        return self._settings


class _Scheduler:
    """How far ahead the runs of some deployments are planned, looked at as often as the scheduler plans.

    A plan is made good at the next loop once it is shorter than `scheduled_ahead` or than three runs, by default.
    Other settings allow for shorter ones, down to none at all until shortly before a run is due: that shows in how
    short the plan was each time that it was made good. Only that a run has not been planned when it was due is wrong
    whatever the settings.
    """

    def __init__(self) -> None:
        self._asked_at: datetime | None = None
        # How far the plan of a deployment reaches, as it was seen last.
        self._reaches: dict[str, datetime] = {}
        # Since when a deployment is looked at.
        self._seen: dict[str, datetime] = {}
        self._evidence = Evidence()

    def look(self, run: RunContext, settings: ServiceSettings) -> Evidence:
        if not is_due(self._asked_at, run.now, settings.scheduler_loop):
            return Evidence(self._evidence.overdue)
        self._asked_at = run.now
        probes = _probes(run, settings)
        reaches: dict[str, datetime] = {}
        works: list[Work] = []
        for probe in probes:
            found = self._read(run, probe, settings, works)
            if found is not None:
                reaches[probe.id] = found
        self._reaches = reaches
        self._seen = {probe.id: self._seen.get(probe.id, run.now) for probe in probes}
        self._evidence = Evidence(works=works)
        # One that never had a plan may have a schedule that the scheduler cannot read, unless all are like that.
        until = reaches or self._seen
        judged = [probe for probe in probes if probe.id in until]
        lateness = min((_shortness(until[probe.id], run.now, settings) for probe in judged), default=timedelta())
        # The scheduler plans for all of them or for none.
        if lateness > timedelta() and self._are_still_active(run, judged):
            rest = max(_rest(probe) for probe in judged)
            self._evidence.overdue['plan'] = Overdue('plan', lateness, settings.scheduled_ahead + rest)
        return self._evidence

    def _read(
        self, run: RunContext, probe: Deployment, settings: ServiceSettings, works: list[Work]
    ) -> datetime | None:
        """How far the plan of a deployment reaches, None if it never had one; adds what shows that it was extended."""
        before = self._reaches.get(probe.id)
        if before is None:
            planned = run.inventory.planned_flow_runs_of(probe.id, run.now - _rest(probe) - _PAST_PLAN, _PLANNED_RUNS)
        else:
            planned = run.inventory.planned_flow_runs_of(probe.id, before + RESOLUTION, 1)
        reach = max(
            (item.expected_start_time for item in planned if item.expected_start_time is not None), default=None
        )
        if before is None:
            works += _past_extensions(probe, planned, settings)
        elif reach is not None:
            works.append(_extension(probe, before, planned[0].created or run.now, settings))
        return reach or before

    @staticmethod
    def _are_still_active(run: RunContext, probes: list[Deployment]) -> bool:
        """To switch a schedule off is no edit of its deployment (3.8.8): before a doubt they are listed again."""
        listed = run.inventory.deployments_anew([probe.id for probe in probes])
        return all(item.longest_rest is not None and not item.is_paused for item in listed.values())


def _slack(settings: ServiceSettings) -> timedelta:
    return 2 * settings.scheduler_loop


def _probes(run: RunContext, settings: ServiceSettings) -> list[Deployment]:
    """Some deployments whose schedules tell most: the rests of their schedules are short and alike."""
    rests = {
        item.id: item.longest_rest
        for item in run.inventory.deployments().values()
        if item.longest_rest is not None
        and not item.is_paused
        and (item.updated is None or run.now - item.updated > _slack(settings))
    }
    chosen = sorted(rests, key=lambda key: (rests[key], key))[:_PROBES]
    return [run.inventory.deployments()[key] for key in chosen if rests[key] <= _ALIKE * rests[chosen[0]]]


def _rest(probe: Deployment) -> timedelta:
    return probe.longest_rest or timedelta()


def _shortness(reach: datetime, now: datetime, settings: ServiceSettings) -> timedelta:
    """By how much a plan that reaches so far is shorter than the settings ask for."""
    return now + settings.scheduled_ahead - _slack(settings) - reach


def _past_extensions(probe: Deployment, planned: list[FlowRun], settings: ServiceSettings) -> list[Work]:
    """How the plan was extended last, as the times tell at which its runs were made, all of one loop together."""
    made: list[tuple[datetime, datetime]] = sorted(
        (item.created, item.expected_start_time)
        for item in planned
        if item.created is not None and item.expected_start_time is not None
    )
    works: list[Work] = []
    reach: datetime | None = None
    last_made = EARLIEST
    for at, expected in made:
        if reach is not None and at - last_made > timedelta(seconds=1):
            works.append(_extension(probe, reach, at, settings))
        reach, last_made = max(reach or expected, expected), at
    # An edit takes away what was planned, so that what is planned anew tells nothing of the time before.
    edited = probe.updated or EARLIEST
    return [
        work if edited + _slack(settings) < work.at else Work(work.kind, work.at, None)
        for work in (works or [Work('plan', at, None) for at, _ in made[-1:]])[-_EXTENSIONS:]
    ]


def _extension(probe: Deployment, reach: datetime, at: datetime, settings: ServiceSettings) -> Work:
    """The plan, which reached so far, was extended at a time."""
    # With no run planned for longer than it rests the deployment was paused, or the scheduler was away.
    is_telling = at - reach <= _rest(probe)
    return Work('plan', at, _shortness(reach, at, settings) if is_telling else None)


def _look_at_late_runs(run: RunContext, settings: ServiceSettings) -> Evidence:
    evidence = Evidence()
    for item in run.inventory.due_flow_runs():
        due = item.next_scheduled_start_time
        if due is None or item.state_time is None:
            continue
        if item.state_name == 'Scheduled':
            # Some are made, or put off, when their time has passed.
            evidence.add_if_overdue(item.id, Overdue('late', run.now - max(due, item.state_time) - _grace(settings)))
        elif item.state_name == 'Late':
            evidence.works.append(_marked_late(item, due, item.state_time, settings))
    return evidence


def _marked_late(item: FlowRun, due: datetime, at: datetime, settings: ServiceSettings) -> Work:
    return Work('late', at, at - max(due, item.created or due) - _grace(settings))


def _grace(settings: ServiceSettings) -> timedelta:
    return settings.late_after + settings.late_runs_loop


def _past_late_runs(run: RunContext, settings: ServiceSettings) -> list[Work]:
    """The runs that were called Late last, as far as the events are kept."""
    marked = {item.resource.object_id: item.occurred for item in _past_events(run, 'prefect.flow-run.Late')}
    runs = run.inventory.flow_runs_by_id(sorted(marked))
    return [
        _marked_late(item, item.expected_start_time, marked[item.id], settings)
        for item in runs
        if item.expected_start_time is not None
    ]


class _Foreman:
    def __init__(self) -> None:
        # Of the queues that were READY: when they were polled last.
        self._polled: dict[str, datetime] = {}

    def look(self, run: RunContext, settings: ServiceSettings) -> Evidence:
        evidence = Evidence()
        polled: dict[str, datetime] = {}
        for queue in run.inventory.work_queues():
            if queue.last_polled is None:
                continue
            lateness = _unpolled(queue.last_polled, run.now, settings)
            if queue.status == 'READY':
                polled[queue.id] = queue.last_polled
                evidence.add_if_overdue(f'{queue.id} {queue.last_polled}', Overdue('queue', lateness))
            elif queue.status == 'NOT_READY' and self._polled.get(queue.id) == queue.last_polled:
                evidence.works.append(Work('queue', run.now, lateness))
        self._polled = polled
        return evidence


def _unpolled(last_polled: datetime, now: datetime, settings: ServiceSettings) -> timedelta:
    return now - last_polled - settings.queue_polled_within - settings.foreman_loop


def _past_polling(run: RunContext, settings: ServiceSettings) -> list[Work]:
    """The queues that turned NOT_READY last and were not polled since; without events, that some did."""
    turned = {item.resource.object_id: item.occurred for item in _past_events(run, 'prefect.work-queue.not-ready')}
    works: list[Work] = []
    for queue in run.inventory.work_queues():
        if queue.status == 'NOT_READY' and queue.last_polled is not None:
            at = turned.get(queue.id, EARLIEST)
            delay = _unpolled(queue.last_polled, at, settings) if at > queue.last_polled else None
            works.append(Work('queue', at, delay))
    return works


def _past_events(run: RunContext, name: str) -> list[Event]:
    """The last events of a name, the newest last; none from a server that has no events."""
    time_range = TimeRange(run.now - _EVENT_RETENTION, run.now)
    try:
        found = run.inventory.newest_events({'name': [name]}, time_range, _PAST_EVENTS)
    except PrefectApiError as error:
        # Told by the collector that is about events.
        run.log.debug('No events, so that nothing tells of the past of a background service: %s', error)
        return []
    return found[::-1]


class _CancellationCleanup:
    def __init__(self) -> None:
        # The runs that are to be ended: of each the kind of work, and since when it is overdue.
        self._watched: dict[str, tuple[str, datetime]] = {}

    def look(self, run: RunContext, settings: ServiceSettings) -> Evidence:
        live = run.inventory.live_flow_runs()
        watched: dict[str, tuple[str, datetime]] = {}
        subflows = [item for item in live if item.parent_task_run_id is not None and not _is_on_its_way(item)]
        for subflow_id, parent in run.inventory.parents_not_alive(subflows).items():
            if parent.state_type == 'CANCELLED' and parent.end_time is not None:
                watched[subflow_id] = 'subflow', parent.end_time + settings.cancellation_loop
        if settings.cancelling_timeout is not None:
            for item in live:
                if item.state_type == 'CANCELLING' and item.state_time is not None:
                    due = item.state_time + settings.cancelling_timeout + settings.cancellation_loop
                    watched[item.id] = 'cancelling', due
        evidence = Evidence(works=list(self._done(run, watched)))
        for key, (kind, due) in watched.items():
            evidence.add_if_overdue(key, Overdue(kind, run.now - due))
        self._watched = watched
        return evidence

    def _done(self, run: RunContext, watched: Mapping[str, tuple[str, datetime]]) -> Iterator[Work]:
        """What was done since the last run of the check."""
        gone = {key: item for key, item in self._watched.items() if key not in watched}
        for item in run.inventory.flow_runs_by_id(sorted(gone)):
            kind, due = gone[item.id]
            if item.state_message in _CLEANUP_MESSAGES and item.state_time is not None:
                yield Work(kind, item.state_time, item.state_time - due)


def _is_on_its_way(flow_run: FlowRun) -> bool:
    """Whether the cleanup has done its part: a subflow with a deployment is cancelled by its worker."""
    return flow_run.state_type == 'CANCELLING' and flow_run.deployment_id is not None


class _TaskRunRecorder:
    """Tasks are run by workers, who tell the server by events; the recorder makes the rows of them."""

    def __init__(self) -> None:
        self._asked_at: datetime | None = None
        # The event that was found in its task run last.
        self._recorded: str | None = None
        # An event that is not.
        self._unrecorded: Event | None = None

    def look(self, run: RunContext) -> Evidence:
        if is_due(self._asked_at, run.now, _EVENTS_INTERVAL):
            evidence = Evidence(works=list(self._compare(run)))
            self._asked_at = run.now
        else:
            evidence = Evidence()
        if self._unrecorded is not None:
            evidence.overdue['event'] = Overdue('event', run.now - self._unrecorded.occurred)
        return evidence

    def _compare(self, run: RunContext) -> Iterator[Work]:
        """Look for the newest event in its row; after a start also for an older one."""
        lately = run.now - _EVENTS_SINCE
        if self._asked_at is None:
            for event in self._newest_event(run, TimeRange(run.now - _EVENT_RETENTION, lately)):
                if _is_recorded(run, event):
                    yield Work('event', event.occurred, None)
        doubtful, self._unrecorded = self._unrecorded, None
        if doubtful is not None and _is_recorded(run, doubtful):
            yield Work('event', doubtful.occurred, run.now - doubtful.occurred)
        elif doubtful is not None and doubtful.occurred > lately and _is_kept(run, doubtful):
            self._unrecorded = doubtful
        for event in self._newest_event(run, TimeRange(lately, run.now - _EVENTS_UNTIL)):
            if event.id == self._recorded:
                continue
            if _is_recorded(run, event):
                self._recorded = event.id
                # Whatever was not recorded before is lost.
                self._unrecorded = None
                yield Work('event', event.occurred, timedelta())
            elif self._unrecorded is None and _is_kept(run, event):
                self._unrecorded = event

    @staticmethod
    def _newest_event(run: RunContext, time_range: TimeRange) -> list[Event]:
        try:
            return run.inventory.newest_events(_TASK_RUN_EVENTS, time_range, 1)
        except PrefectApiError as error:
            # Told by the collector that is about events.
            run.log.debug('No events, so that nothing tells of the task run recorder: %s', error)
            return []


def _is_recorded(run: RunContext, event: Event) -> bool:
    task_run_id = event.resource.object_id
    if run.inventory.is_known_to_have_ended(task_run_id):
        return True
    return any(
        item.end_time is not None or item.state_time is None or item.state_time >= event.occurred
        for item in run.inventory.task_runs_by_id([task_run_id])
    )


def _is_kept(run: RunContext, event: Event) -> bool:
    """Whether the server would have the row of a task run: to delete a flow run deletes its task runs."""
    flow_run = event.related.get('flow-run')
    return flow_run is not None and bool(run.inventory.flow_runs_by_id([flow_run.object_id]))
