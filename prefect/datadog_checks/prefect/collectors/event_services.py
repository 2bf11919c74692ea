"""The background services that work on events: what shows that each did its work, or left it undone.

See `run_services` for what `look` and `past` give. A server that gives no events tells nothing of them: whether that is
a failure is told by the collectors that count and send events.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from datadog_checks.prefect.api.errors import PrefectApiError
from datadog_checks.prefect.api.models import Event, ServiceSettings
from datadog_checks.prefect.api.time_range import TimeRange
from datadog_checks.prefect.api.times import is_due
from datadog_checks.prefect.collectors.base import RunContext
from datadog_checks.prefect.collectors.service_verdict import (
    EVENT_RETENTION,
    Evidence,
    Overdue,
    Service,
    Work,
    newest_events,
)
from datadog_checks.prefect.inventory.server_facts import WrittenStates

# How often events are looked for.
_EVENTS_INTERVAL = timedelta(seconds=60)
# Where the newest event is looked for: the server writes events down every 5 s (seen up to 5.2 s, 3.8.8).
_EVENTS_SINCE = timedelta(minutes=30)
_EVENTS_UNTIL = timedelta(seconds=15)
_TASK_RUN_EVENTS = {'prefix': ['prefect.task-run.']}
_OTHER_EVENTS = {'exclude_prefix': ['prefect.task-run.']}
_FLOW_RUN_EVENTS = {'prefix': ['prefect.flow-run.']}
# How often at most the oldest event is looked for: the vacuum deletes once an hour by default.
_VACUUM_INTERVAL = timedelta(minutes=10)
_BEFORE_PREFECT_3 = datetime(2020, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class RecorderMemory:
    """`recorded` is the event that was found in its task run last, `unrecorded` one that was not."""

    asked_at: datetime | None = None
    recorded: str | None = None
    unrecorded: Event | None = None


class TaskRunRecorder(Service[RecorderMemory]):
    """Tasks are run by workers, who tell the server by events; the recorder makes the rows of them."""

    name = 'task_run_recorder'
    initial_memory = RecorderMemory()

    def interval(self, settings: ServiceSettings) -> timedelta:
        return settings.recorder_flush

    def look(
        self, run: RunContext, settings: ServiceSettings, memory: RecorderMemory
    ) -> tuple[Evidence, RecorderMemory]:
        evidence = Evidence()
        if is_due(memory.asked_at, run.now, _EVENTS_INTERVAL):
            evidence.works, memory = _compare_task_runs(run, memory)
        if memory.unrecorded is not None:
            evidence.overdue['event'] = Overdue('event', run.now - memory.unrecorded.occurred)
        return evidence, memory

    def past(self, run: RunContext, settings: ServiceSettings) -> list[Work]:
        """An older event in its row."""
        time_range = TimeRange(run.now - EVENT_RETENTION, run.now - _EVENTS_SINCE)
        found = _newest_task_run_event(run, time_range)
        return [Work('event', event.occurred, None) for event in found if _is_recorded(run, event)]


def _compare_task_runs(run: RunContext, memory: RecorderMemory) -> tuple[list[Work], RecorderMemory]:
    """Look for the newest event in its row, and for one that was not there before."""
    lately = run.now - _EVENTS_SINCE
    works: list[Work] = []
    recorded, doubtful, unrecorded = memory.recorded, memory.unrecorded, None
    if doubtful is not None and _is_recorded(run, doubtful):
        works.append(Work('event', doubtful.occurred, run.now - doubtful.occurred))
    elif doubtful is not None and doubtful.occurred > lately and _is_kept(run, doubtful):
        unrecorded = doubtful
    for event in _newest_task_run_event(run, TimeRange(lately, run.now - _EVENTS_UNTIL)):
        if event.id == recorded:
            continue
        if _is_recorded(run, event):
            # What was not recorded before that is lost.
            recorded, unrecorded = event.id, None
            works.append(Work('event', event.occurred, timedelta()))
        elif unrecorded is None and _is_kept(run, event):
            unrecorded = event
    return works, RecorderMemory(run.now, recorded, unrecorded)


def _newest_task_run_event(run: RunContext, time_range: TimeRange) -> list[Event]:
    return newest_events(run, _TASK_RUN_EVENTS, time_range, 1)


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


@dataclass(frozen=True)
class PersisterMemory:
    """`unwritten_since` is the time of the first state whose event is not there, nor that of any later one."""

    asked_at: datetime | None = None
    unwritten_since: datetime | None = None


class EventPersister(Service[PersisterMemory]):
    """Writes events down: each state that a client sets comes with one that has the id of the state."""

    name = 'event_persister'
    initial_memory = PersisterMemory()

    def interval(self, settings: ServiceSettings) -> timedelta:
        return settings.persister_flush

    def look(
        self, run: RunContext, settings: ServiceSettings, memory: PersisterMemory
    ) -> tuple[Evidence, PersisterMemory]:
        run.inventory.remember_states()
        evidence = Evidence()
        if is_due(memory.asked_at, run.now, _EVENTS_INTERVAL):
            try:
                states = run.inventory.written_states()
            except PrefectApiError as error:
                run.log.debug('No events, so that nothing tells of the event persister: %s', error)
                return Evidence(), PersisterMemory(run.now)
            evidence.works = list(self._works(run, states))
            since = memory.unwritten_since
            if since is None or any(time > since for time in states.written):
                # A server that is killed loses what it had not written down yet.
                since = states.unwritten_since(settings.persister_flush)
            memory = PersisterMemory(run.now, since)
        if memory.unwritten_since is not None:
            evidence.overdue['state'] = Overdue('state', run.now - memory.unwritten_since - settings.persister_flush)
        return evidence, memory

    def past(self, run: RunContext, settings: ServiceSettings) -> list[Work]:
        """That the events of some states are there."""
        return list(self._newest(run, _FLOW_RUN_EVENTS))

    def _works(self, run: RunContext, states: WrittenStates) -> Iterator[Work]:
        yield from (Work('state', time, timedelta()) for time in states.written)
        # Whoever writes down other events lives. Where services run in a process of their own, and have no broker of
        # messages in common with the API, the events of clients do not get to them.
        if states.missing:
            yield from self._newest(run, _OTHER_EVENTS)

    @staticmethod
    def _newest(run: RunContext, names: dict[str, list[str]]) -> Iterator[Work]:
        found = newest_events(run, names, TimeRange(run.now - _EVENTS_SINCE, run.now), 1)
        yield from (Work('any', event.occurred, None) for event in found)


@dataclass(frozen=True)
class VacuumMemory:
    """`oldest` is the oldest event that is due to be deleted, `has_deleted` whether one went."""

    asked_at: datetime | None = None
    oldest: Event | None = None
    has_deleted: bool = False


class DatabaseVacuum(Service[VacuumMemory]):
    """Deletes events that are older than the server keeps them. Absent where the server does not tell for how long.

    What it deleted in the past leaves no trace, and elsewhere it may be set to keep them for longer: nothing is overdue
    until it was seen to delete some.
    """

    name = 'db_vacuum'
    initial_memory = VacuumMemory()

    def interval(self, settings: ServiceSettings) -> timedelta:
        return settings.vacuum_loop or timedelta()

    def is_enabled(self, settings: ServiceSettings) -> bool | None:
        """Without an event persister it does not delete events either (3.8.8)."""
        if settings.vacuums_events is None:
            return None
        return settings.vacuums_events and settings.enabled.get('event_persister') is not False

    def look(self, run: RunContext, settings: ServiceSettings, memory: VacuumMemory) -> tuple[Evidence, VacuumMemory]:
        loop, retention = settings.vacuum_loop, settings.event_retention
        if loop is None or retention is None:
            return Evidence(), memory
        evidence = Evidence()
        if is_due(memory.asked_at, run.now, min(loop / 2, _VACUUM_INTERVAL)):
            before = memory.oldest
            try:
                found = run.inventory.oldest_event(TimeRange(_BEFORE_PREFECT_3, run.now - retention))
            except PrefectApiError as error:
                run.log.debug('No events, so that nothing tells of the database vacuum: %s', error)
                return Evidence(), VacuumMemory(run.now, None, memory.has_deleted)
            has_deleted = before is not None and (found is None or found.occurred > before.occurred)
            memory = VacuumMemory(run.now, found, memory.has_deleted or has_deleted)
            if before is not None and has_deleted:
                evidence.works.append(Work('event', run.now, run.now - before.occurred - retention - 2 * loop))
        if memory.oldest is not None and memory.has_deleted:
            lateness = run.now - memory.oldest.occurred - retention - 2 * loop
            evidence.add_if_overdue(memory.oldest.id, Overdue('event', lateness))
        return evidence, memory
