"""Whether the background services of the server do their work, judged by the traces that it leaves in the API.

GET /health answers while they are dead. Each is judged by a piece of work that is overdue by its own interval (GET
/admin/settings, else the defaults): a single piece that stays undone, through all the checks of a while, makes it
unhealthy. So nothing is wrong on a server that idles, nor while a server that was down catches up. Verified by
switching each of them off on 3.8.8.

| service | work that is overdue |
|---|---|
| scheduler | a schedule without end has no run as far ahead as the scheduler plans (an hour) |
| late_run_marker | a run that is due is still called Scheduled, not Late |
| foreman | a worker without heartbeats is ONLINE, a work queue that nobody polls is READY |
| cancellation_cleanup | a subflow lives though its parent was cancelled; a run is CANCELLING beyond the time-out |
| task_run_recorder | the newest event of a task run is not in the row of that task run (with `collect_events`) |
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

from datadog_checks.prefect.api.errors import PrefectApiError, PrefectError
from datadog_checks.prefect.api.models import Event, FlowRun, ServiceSettings
from datadog_checks.prefect.api.time_range import TimeRange
from datadog_checks.prefect.api.times import is_due
from datadog_checks.prefect.collectors.base import RunContext
from datadog_checks.prefect.metrics import SERVICE_IS_HEALTHY, SERVICE_LAG
from datadog_checks.prefect.sample import Sample
from datadog_checks.prefect.tags import BACKGROUND_SERVICE, make_tags

_SETTINGS_INTERVAL = timedelta(hours=1)
# A piece of work must stay undone for so long, and for so many intervals of its service, until that is a symptom.
_PATIENCE = timedelta(seconds=60)
_INTERVALS = 4
# Deployments that are looked at: the scheduler plans for all of them or for none, and of each of these SQLite reads all
# runs that it ever had (3.8.8: 4 ms for a thousand).
_DEPLOYMENTS = 50
# Where the newest event is looked for: the server writes events down every 5 s (seen up to 5.2 s, 3.8.8).
_EVENTS_SINCE = timedelta(minutes=10)
_EVENTS_UNTIL = timedelta(seconds=15)
_TASK_RUN_EVENTS = {'prefix': ['prefect.task-run.']}

# For how long each overdue piece of work is overdue, by a key that changes when it is done.
Overdue = Mapping[str, timedelta]
# Longer than any interval makes sense.
_LONGEST_INTERVAL = 86400


class BackgroundServices:
    name = 'background_services'

    def __init__(self) -> None:
        self._settings = ServiceSettings()
        self._settings_asked_at: datetime | None = None
        self._plan_asked_at: datetime | None = None
        # Service -> piece of work -> since when it is seen undone, without a break.
        self._undone: dict[str, dict[str, datetime]] = {}
        # The event that was found in its task run last.
        self._recorded: str | None = None

    def collect(self, run: RunContext) -> Iterator[Sample]:
        settings = self._current_settings(run)
        yield from self._judge(run, 'scheduler', settings.scheduler_loop, self._unscheduled(run, settings))
        yield from self._judge(run, 'late_run_marker', settings.late_runs_loop, _not_marked_late(run, settings))
        yield from self._judge(run, 'foreman', settings.foreman_loop, _not_marked_offline(run, settings))
        yield from self._judge(
            run, 'cancellation_cleanup', settings.cancellation_loop, self._not_cancelled(run, settings)
        )
        unrecorded = self._unrecorded(run)
        if unrecorded is not None:
            yield from self._judge(run, 'task_run_recorder', settings.recorder_flush, unrecorded)

    def _judge(self, run: RunContext, service: str, interval: timedelta, overdue: Overdue) -> Iterator[Sample]:
        known = self._undone.get(service, {})
        undone = self._undone[service] = {key: known.get(key, run.now) for key in overdue}
        patience = max(_PATIENCE, _INTERVALS * interval)
        service_tags = make_tags({BACKGROUND_SERVICE: service})
        is_healthy = all(run.now - since < patience for since in undone.values())
        yield Sample(SERVICE_IS_HEALTHY, is_healthy, service_tags)
        lag = max(overdue.values(), default=timedelta())
        yield Sample(SERVICE_LAG, max(0.0, lag.total_seconds()), service_tags)

    def _current_settings(self, run: RunContext) -> ServiceSettings:
        """The server's settings, asked for once an hour; a server that hides them is no failure."""
        if is_due(self._settings_asked_at, run.now, _SETTINGS_INTERVAL):
            self._settings_asked_at = run.now
            try:
                self._settings = run.inventory.service_settings()
            except PrefectError as error:
                run.log.debug('Taking the default intervals of the background services: %s', error)
        return self._settings

    def _unscheduled(self, run: RunContext, settings: ServiceSettings) -> Overdue:
        """What the scheduler has not planned; all that is not counts as one piece of work.

        It is asked for as often as the scheduler plans.
        """
        known = self._undone.get('scheduler', {})
        is_planned = 'plan' not in known
        if is_due(self._plan_asked_at, run.now, settings.scheduler_loop):
            is_planned = _is_planned(run, settings)
            self._plan_asked_at = run.now
        return {} if is_planned else {'plan': run.now - known.get('plan', run.now)}

    def _not_cancelled(self, run: RunContext, settings: ServiceSettings) -> Overdue:
        live = run.inventory.live_flow_runs()
        overdue: dict[str, timedelta] = {}
        subflows = [item for item in live if item.parent_task_run_id is not None and not _is_on_its_way(item)]
        for subflow_id, parent in run.inventory.parents_not_alive(subflows).items():
            if parent.state_type == 'CANCELLED' and parent.end_time is not None:
                overdue[subflow_id] = run.now - parent.end_time - settings.cancellation_loop
        if settings.cancelling_timeout is not None:
            for item in live:
                if item.state_type == 'CANCELLING' and item.state_time is not None:
                    overdue[f'{item.state_id}'] = (
                        run.now - item.state_time - settings.cancelling_timeout - settings.cancellation_loop
                    )
        return _positive(overdue)

    def _unrecorded(self, run: RunContext) -> Overdue | None:
        """The newest event of a task run if its row does not show it; None where events are not read.

        Tasks are run by workers, who tell the server by events; the recorder makes the rows of them.
        """
        if not run.settings.collect_events:
            return None
        try:
            event = run.inventory.newest_event(
                _TASK_RUN_EVENTS, TimeRange(run.now - _EVENTS_SINCE, run.now - _EVENTS_UNTIL)
            )
        except PrefectApiError as error:
            # Told by the collector that is about events.
            run.log.debug('No events, so that nothing tells of the task run recorder: %s', error)
            return None
        if event is None or event.id == self._recorded or _is_recorded(run, event):
            self._recorded = event.id if event is not None else None
            return {}
        return {'event': run.now - event.occurred}


def _is_planned(run: RunContext, settings: ServiceSettings) -> bool:
    """Whether each of some deployments has a run as far ahead as the scheduler plans.

    A plan is made good once it is shorter than `scheduled_ahead`, at the next loop; runs in any state are counted, for
    those that a user cancels ahead are not made again.
    """
    slack = 2 * settings.scheduler_loop
    planned = sorted(
        item.id
        for item in run.inventory.deployments().values()
        if item.has_endless_schedule and not item.is_paused and (item.updated is None or run.now - item.updated > slack)
    )[:_DEPLOYMENTS]
    if not planned:
        return True
    ahead = run.now + settings.scheduled_ahead - slack
    return run.inventory.count_planned_beyond(planned, ahead) >= len(planned)


def _not_marked_late(run: RunContext, settings: ServiceSettings) -> Overdue:
    grace = settings.late_after + settings.late_runs_loop
    return _positive(
        {
            item.id: run.now - item.next_scheduled_start_time - grace
            for item in run.inventory.due_flow_runs()
            if item.state_name == 'Scheduled' and item.next_scheduled_start_time is not None
        },
    )


def _not_marked_offline(run: RunContext, settings: ServiceSettings) -> Overdue:
    overdue: dict[str, timedelta] = {}
    for pool in run.inventory.work_pools().values():
        for worker in run.inventory.workers()[pool.name]:
            if worker.status == 'ONLINE' and worker.last_heartbeat_time is not None:
                interval = worker.heartbeat_interval_seconds or settings.heartbeat_interval.total_seconds()
                gone = (
                    run.now - worker.last_heartbeat_time - min(interval, _LONGEST_INTERVAL) * settings.heartbeats_missed
                )
                overdue[f'{worker.id} {worker.last_heartbeat_time}'] = gone - settings.foreman_loop
    for queue in run.inventory.work_queues():
        if queue.status == 'READY' and queue.last_polled is not None:
            gone = run.now - queue.last_polled - settings.queue_polled_within
            overdue[f'{queue.id} {queue.last_polled}'] = gone - settings.foreman_loop
    return _positive(overdue)


def _is_on_its_way(flow_run: FlowRun) -> bool:
    """Whether the cleanup has done its part: a subflow with a deployment is cancelled by its worker."""
    return flow_run.state_type == 'CANCELLING' and flow_run.deployment_id is not None


def _is_recorded(run: RunContext, event: Event) -> bool:
    task_run_id = event.resource.object_id
    if run.inventory.is_known_to_have_ended(task_run_id):
        return True
    return any(
        item.end_time is not None or item.state_time is None or item.state_time >= event.occurred
        for item in run.inventory.task_runs_by_id([task_run_id])
    )


def _positive(overdue: Overdue) -> Overdue:
    return {key: lateness for key, lateness in overdue.items() if lateness > timedelta()}
