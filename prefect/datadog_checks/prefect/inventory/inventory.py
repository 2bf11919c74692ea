"""What collectors ask about the server in one run of the check: selection, runs and tagging under one roof.

Each list is fetched at most once. What outlives the run is in `InventoryMemory`.
"""

from __future__ import annotations

from collections.abc import Collection, Set
from datetime import datetime, timedelta
from functools import partial

from datadog_checks.prefect.api.client import PrefectClient
from datadog_checks.prefect.api.log import Log
from datadog_checks.prefect.filters import NameFilter, ResourceFilters
from datadog_checks.prefect.inventory import reading_time
from datadog_checks.prefect.inventory.lazy import Lazy
from datadog_checks.prefect.inventory.memory import InventoryMemory
from datadog_checks.prefect.inventory.named_events import NamedEvents
from datadog_checks.prefect.inventory.runs import Runs
from datadog_checks.prefect.inventory.selection import Selection
from datadog_checks.prefect.inventory.server_facts import ServerFacts
from datadog_checks.prefect.inventory.slots import SlotHolders, TakenSlots
from datadog_checks.prefect.inventory.tagging import Tagging


class Inventory:
    """The lookups of one run. Each may raise a PrefectApiError; that of a list is raised to all who need the list."""

    def __init__(
        self,
        client: PrefectClient,
        filters: ResourceFilters,
        memory: InventoryMemory,
        now: datetime,
        log: Log,
        prefect_tags: NameFilter | None = None,
        worker_retention: timedelta = timedelta(hours=1),
        counted_event_names: Collection[str] = (),
    ) -> None:
        memory.go_on(now)
        selection = Selection(
            client,
            filters,
            memory.deployments,
            memory.flows,
            memory.workers,
            memory.work_queue_ids,
            now,
            worker_retention,
        )
        tagging = Tagging(client, selection, memory.known_runs, prefect_tags)
        runs = Runs(client, selection, memory, now)
        facts = ServerFacts(client, runs.met_flow_runs, memory.server_facts, now, log)

        self._client = client
        self._memory = memory
        self._selection = selection
        self._runs = runs
        self._now = now
        self.has = client.has

        self.work_pools = selection.work_pools
        self.status_of = selection.status_of
        self.work_queues = selection.work_queues
        self.workers = selection.workers
        self.deployments = selection.deployments
        self.deployments_anew = selection.deployments_anew
        self.deployments_now = selection.deployments_now
        self.allowed = selection.allowed

        self.tag = tagging.tag
        self.tag_task_runs = tagging.tag_task_runs
        self.tags_by_id = tagging.tags_by_id
        self.flow_run_name = tagging.flow_run_name
        self.logged_task_runs = tagging.logged_task_runs
        self.deployment_tags = tagging.deployment_tags
        self.tags_of_deployment = tagging.tags_of_deployment
        self.prefect_tags = tagging.prefect_tags

        self.live_flow_runs = runs.live_flow_runs
        self.due_flow_runs = runs.due_flow_runs
        self.restarting_flow_runs = runs.restarting_flow_runs
        self.future_runs = Lazy(partial(memory.future_runs.refresh, client, selection, tagging, now, log))
        self._read_on_future_runs = partial(memory.future_runs.read_on, client, selection, tagging, now, log)
        self.started_flow_runs = runs.started_flow_runs
        self.count_started_flow_runs = runs.count_started_flow_runs
        self.finished_flow_runs = runs.finished_flow_runs
        self.count_finished_flow_runs = runs.count_finished_flow_runs
        self.flow_runs_ended_since = runs.flow_runs_ended_since
        self.newest_ends_of = runs.newest_ends_of
        self.last_success_of = runs.last_success_of
        self.last_successes_of = runs.last_successes_of
        self.oldest_end = runs.oldest_end
        self.first_planned_flow_run_of = runs.first_planned_flow_run_of
        self.planned_flow_runs_of = runs.planned_flow_runs_of
        self.flow_runs_by_id = client.flow_runs_by_id
        self.ends_are_read = runs.ends_are_read
        self.interrupted_flow_runs = runs.interrupted_flow_runs
        self.flow_run_states = runs.flow_run_states
        self.parents_not_alive = runs.parents_not_alive

        self.live_task_runs = runs.live_task_runs
        self.started_task_runs = runs.started_task_runs
        self.count_started_task_runs = runs.count_started_task_runs
        self.finished_task_runs = runs.finished_task_runs
        self.count_finished_task_runs = runs.count_finished_task_runs
        self.newest_finished_task_runs = runs.newest_finished_task_runs
        self.task_run_ends = runs.task_run_ends
        self.remember_ends = runs.remember_ends
        self.is_known_to_have_ended = runs.is_known_to_have_ended
        self.task_runs_by_id = client.task_runs_by_id
        self.keep_parentless = filters.keep_parentless
        self.waiting_background_task_runs = runs.waiting_background_task_runs
        self.task_workers = client.task_workers

        self.concurrency_limits = Lazy(client.concurrency_limits)
        self.tag_limits = Lazy(client.tag_limits)
        # With filters the live runs are not all that take slots.
        self.taken_slots = TakenSlots(client, None if filters.is_active else runs.live_flow_runs)
        self.slot_holders = SlotHolders(client, runs.live_flow_runs, are_all=not filters.is_active)

        self.service_settings = facts.service_settings
        self.remember_states = facts.remember_states
        self.written_states = facts.written_states
        self.automations = client.automations
        self.named_events = NamedEvents(client, counted_event_names)
        self.event_pages = client.event_pages
        self.count_events = client.count_events
        self.newest_events = client.newest_events
        self.flow_run_ids_that_logged = runs.flow_run_ids_that_logged
        self.log_pages = runs.log_pages
        self.oldest_event = client.oldest_event
        self.count_events_by_resource = client.count_events_by_resource

    def read_on(self) -> None:
        """Read on of the long lists that are not complete yet, once all else is reported: the next run has more."""
        if self._client.is_late(reading_time.END_OF_RUN):
            return
        if self._selection.are_deployments_listed():
            self._read_on_future_runs()
        else:
            self._selection.list_on()

    def idle_deployments(self, linger: timedelta, *, reads_back: bool) -> Set[str]:
        """The deployments that do no work now and did none within `linger`, by id.

        Only after a start this asks for more than the collectors do: `reads_back` adds what ended within `linger`.
        """
        deployments, activity, runs, now = self.deployments(), self._memory.activity, self._runs, self._now
        earliest = now - linger
        since = max(activity.read_until or (earliest if reads_back else now), earliest)
        ended = runs.flow_runs_ended_since(since) if since < now else []
        # What ends between these requests is in neither, but was at work in the run before.
        working = (*runs.due_flow_runs(), *runs.restarting_flow_runs(), *runs.live_flow_runs())
        activity.note(working, ended, now, linger)
        return deployments.keys() - activity.deployment_ids
