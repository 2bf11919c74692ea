"""The background services that work on runs and queues: what shows that each did its work, or left it undone.

The table in `background_services` names them. `look` gives what one run of the check sees of a service, and what to
remember for the next; `past` what earlier work of it shows, asked for once after a start.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from datadog_checks.prefect.api.models import Deployment, FlowRun, ServiceSettings
from datadog_checks.prefect.api.times import RESOLUTION, is_due
from datadog_checks.prefect.collectors.base import RunContext
from datadog_checks.prefect.collectors.service_verdict import EARLIEST, Evidence, Overdue, Service, Work, past_events
from datadog_checks.prefect.inventory.server_facts import CLEANUP_MESSAGES, PAUSE_EXPIRED_MESSAGE

# Deployments with a schedule that are looked at, those that run most often.
_PROBES = 3
# A deployment that rests so many times longer than another tells less, and later.
_ALIKE = 4
# Runs of a deployment that are read to see how its plan was made, and how far back beyond the last that may be due.
_PAST_PLAN = timedelta(days=1)
_PLANNED_RUNS = 200
_EXTENSIONS = 5


@dataclass(frozen=True)
class SchedulerMemory:
    """How far the plans of deployments reach, as they were seen last; since when each is looked at; what is overdue."""

    asked_at: datetime | None = None
    reaches: Mapping[str, datetime] = field(default_factory=dict)
    seen: Mapping[str, datetime] = field(default_factory=dict)
    overdue: Mapping[str, Overdue] = field(default_factory=dict)


class Scheduler(Service[SchedulerMemory]):
    """How far ahead the runs of some deployments are planned, looked at as often as the scheduler plans.

    A plan is made good at the next loop once it is shorter than `scheduled_ahead` or than three runs, by default.
    Other settings allow for shorter ones, down to none at all until shortly before a run is due: that shows in how
    short the plan was each time that it was made good. Only that a run has not been planned when it was due is wrong
    with any settings. The first look at a plan tells how it was made in the past.
    """

    name = 'scheduler'
    initial_memory = SchedulerMemory()

    def interval(self, settings: ServiceSettings) -> timedelta:
        return settings.scheduler_loop

    def look(
        self, run: RunContext, settings: ServiceSettings, memory: SchedulerMemory
    ) -> tuple[Evidence, SchedulerMemory]:
        if not is_due(memory.asked_at, run.now, settings.scheduler_loop):
            return Evidence(dict(memory.overdue)), memory
        probes = _probes(run, settings)
        reaches: dict[str, datetime] = {}
        works: list[Work] = []
        for probe in probes:
            found = _read_plan(run, probe, memory.reaches.get(probe.id), settings, works)
            if found is not None:
                reaches[probe.id] = found
        seen = {probe.id: memory.seen.get(probe.id, run.now) for probe in probes}
        evidence = Evidence(works=works)
        # One that never had a plan may have a schedule that the scheduler cannot read, unless all are like that.
        until = reaches or seen
        judged = [probe for probe in probes if probe.id in until]
        lateness = min((_shortness(until[probe.id], run.now, settings) for probe in judged), default=timedelta())
        # The scheduler plans for all of them or for none.
        if lateness > timedelta() and _are_still_active(run, judged):
            rest = max(_rest(probe) for probe in judged)
            evidence.overdue['plan'] = Overdue('plan', lateness, settings.scheduled_ahead + rest)
        return evidence, SchedulerMemory(run.now, reaches, seen, evidence.overdue)


def _read_plan(
    run: RunContext, probe: Deployment, before: datetime | None, settings: ServiceSettings, works: list[Work]
) -> datetime | None:
    """How far the plan of a deployment reaches, None if it never had one; adds what shows that it was extended."""
    if before is None:
        planned = run.inventory.planned_flow_runs_of(probe.id, run.now - _rest(probe) - _PAST_PLAN, _PLANNED_RUNS)
    else:
        planned = run.inventory.planned_flow_runs_of(probe.id, before + RESOLUTION, 1)
    reach = max((item.expected_start_time for item in planned if item.expected_start_time is not None), default=None)
    if before is None:
        works += _past_extensions(probe, planned, settings)
    elif reach is not None:
        works.append(_extension(probe, before, planned[0].created or run.now, settings))
    return reach or before


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


class LateRunMarker(Service[None]):
    """Calls runs Late that have not started in time."""

    name = 'late_run_marker'
    initial_memory = None

    def interval(self, settings: ServiceSettings) -> timedelta:
        return settings.late_runs_loop

    def is_enabled(self, settings: ServiceSettings) -> bool | None:
        return settings.enabled.get('late_runs')

    def look(self, run: RunContext, settings: ServiceSettings, memory: None) -> tuple[Evidence, None]:
        evidence = Evidence()
        for item in run.inventory.due_flow_runs():
            due = item.next_scheduled_start_time
            if due is None or item.state_time is None:
                continue
            if item.state_name == 'Scheduled':
                # Some are made, or put off, when their time has passed.
                lateness = run.now - max(due, item.state_time) - _grace(settings)
                evidence.add_if_overdue(item.id, Overdue('late', lateness))
            elif item.state_name == 'Late':
                evidence.works.append(_marked_late(item, due, item.state_time, settings))
        return evidence, memory

    def past(self, run: RunContext, settings: ServiceSettings) -> list[Work]:
        """The runs that were called Late last, as far as the events are kept."""
        marked = {item.resource.object_id: item.occurred for item in past_events(run, 'prefect.flow-run.Late')}
        runs = run.inventory.flow_runs_by_id(sorted(marked))
        return [
            _marked_late(item, item.expected_start_time, marked[item.id], settings)
            for item in runs
            if item.expected_start_time is not None
        ]


def _marked_late(item: FlowRun, due: datetime, at: datetime, settings: ServiceSettings) -> Work:
    return Work('late', at, at - max(due, item.created or due) - _grace(settings))


def _grace(settings: ServiceSettings) -> timedelta:
    return settings.late_after + settings.late_runs_loop


# Of the queues that were READY: when they were polled last.
PolledQueues = Mapping[str, datetime]


class Foreman(Service[PolledQueues]):
    """Makes a work queue that nobody polls NOT_READY."""

    name = 'foreman'
    initial_memory: PolledQueues = {}  # noqa: RUF012 - nothing is ever put into it

    def interval(self, settings: ServiceSettings) -> timedelta:
        return settings.foreman_loop

    def look(self, run: RunContext, settings: ServiceSettings, memory: PolledQueues) -> tuple[Evidence, PolledQueues]:
        evidence = Evidence()
        polled: dict[str, datetime] = {}
        for queue in run.inventory.work_queues():
            if queue.last_polled is None:
                continue
            lateness = _unpolled(queue.last_polled, run.now, settings)
            if queue.status == 'READY':
                polled[queue.id] = queue.last_polled
                evidence.add_if_overdue(f'{queue.id} {queue.last_polled}', Overdue('queue', lateness))
            elif queue.status == 'NOT_READY' and memory.get(queue.id) == queue.last_polled:
                evidence.works.append(Work('queue', run.now, lateness))
        return evidence, polled

    def past(self, run: RunContext, settings: ServiceSettings) -> list[Work]:
        """The queues that turned NOT_READY last and were not polled since; without events, that some did."""
        turned = {item.resource.object_id: item.occurred for item in past_events(run, 'prefect.work-queue.not-ready')}
        works: list[Work] = []
        for queue in run.inventory.work_queues():
            if queue.status == 'NOT_READY' and queue.last_polled is not None:
                at = turned.get(queue.id, EARLIEST)
                delay = _unpolled(queue.last_polled, at, settings) if at > queue.last_polled else None
                works.append(Work('queue', at, delay))
        return works


def _unpolled(last_polled: datetime, now: datetime, settings: ServiceSettings) -> timedelta:
    return now - last_polled - settings.queue_polled_within - settings.foreman_loop


# Runs that are to be ended, by their ids: of each the kind of work, and since when it is overdue.
DueRuns = Mapping[str, tuple[str, datetime]]


class CancellationCleanup(Service[DueRuns]):
    """Ends the subflows of a cancelled parent, and runs that are CANCELLING for too long.

    Its past does not show: others cancel runs, too, and events do not say who did.
    """

    name = 'cancellation_cleanup'
    initial_memory: DueRuns = {}  # noqa: RUF012 - nothing is ever put into it

    def interval(self, settings: ServiceSettings) -> timedelta:
        return settings.cancellation_loop

    def look(self, run: RunContext, settings: ServiceSettings, memory: DueRuns) -> tuple[Evidence, DueRuns]:
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
        return _evidence_of_ends(run, memory, watched, CLEANUP_MESSAGES), watched


def _is_on_its_way(flow_run: FlowRun) -> bool:
    """Whether the cleanup has done its part: a subflow with a deployment is cancelled by its worker."""
    return flow_run.state_type == 'CANCELLING' and flow_run.deployment_id is not None


class PauseExpirations(Service[DueRuns]):
    """Fails paused and suspended runs that nobody resumed in their time."""

    name = 'pause_expirations'
    initial_memory: DueRuns = {}  # noqa: RUF012 - nothing is ever put into it

    def interval(self, settings: ServiceSettings) -> timedelta:
        return settings.pause_loop

    def look(self, run: RunContext, settings: ServiceSettings, memory: DueRuns) -> tuple[Evidence, DueRuns]:
        watched = {
            item.id: ('pause', item.pause_timeout + settings.pause_loop)
            for item in run.inventory.live_flow_runs()
            if item.state_type == 'PAUSED' and item.pause_timeout is not None
        }
        return _evidence_of_ends(run, memory, watched, (PAUSE_EXPIRED_MESSAGE,)), watched

    def past(self, run: RunContext, settings: ServiceSettings) -> list[Work]:
        """That it failed some runs, as far as the events are kept; not how long that took."""
        failed = past_events(run, 'prefect.flow-run.Failed')
        return [Work('pause', item.occurred, None) for item in failed if item.state_message == PAUSE_EXPIRED_MESSAGE]


def _evidence_of_ends(run: RunContext, before: DueRuns, watched: DueRuns, messages: tuple[str, ...]) -> Evidence:
    """The runs that should have been ended, and those that were since the last run of the check, as a message tells."""
    gone = {key: item for key, item in before.items() if key not in watched}
    evidence = Evidence()
    for item in run.inventory.flow_runs_by_id(sorted(gone)):
        kind, due = gone[item.id]
        if item.state_message in messages and item.state_time is not None:
            evidence.works.append(Work(kind, item.state_time, item.state_time - due))
    for key, (kind, due) in watched.items():
        evidence.add_if_overdue(key, Overdue(kind, run.now - due))
    return evidence
