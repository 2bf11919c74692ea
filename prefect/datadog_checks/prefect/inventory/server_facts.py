"""What the server tells of itself: the settings of its background services, and whether it writes its events down."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from datadog_checks.prefect.api.client import PrefectClient
from datadog_checks.prefect.api.errors import PrefectError
from datadog_checks.prefect.api.log import Log
from datadog_checks.prefect.api.models import FlowRun, ServiceSettings
from datadog_checks.prefect.api.time_range import TimeRange
from datadog_checks.prefect.api.times import is_due
from datadog_checks.prefect.inventory.recent_cache import RecentCache

_SETTINGS_INTERVAL = timedelta(hours=1)
# How often the settings are asked for while they are doubted: they may have been changed by a restart of the server.
_DOUBTED_SETTINGS_INTERVAL = timedelta(seconds=60)
# The event of a state is written down every 5 s (seen up to 5.2 s, 3.8.8).
_STATE_AGES = timedelta(seconds=20), timedelta(minutes=10)
# As many as one answer has.
_MOST_STATES = 50
_MOST_REMEMBERED = 500
# The messages of states that background services set. The services may run in a process of their own, with a broker of
# messages of its own (3.8.8), so that their events tell nothing of those of others.
CLEANUP_MESSAGES = (
    'The parent flow run was cancelled.',
    'Flow run cancellation timed out; marked this flow run as Cancelled.',
)
PAUSE_EXPIRED_MESSAGE = 'The flow was paused and never resumed.'
_SET_BY_SERVICES = (*CLEANUP_MESSAGES, PAUSE_EXPIRED_MESSAGE)


@dataclass(frozen=True, slots=True)
class WrittenStates:
    """Of the states that flow runs lately entered: when those entered theirs whose events are there, and are not."""

    written: tuple[datetime, ...] = ()
    missing: tuple[datetime, ...] = ()

    @property
    def newest_missing(self) -> list[datetime]:
        """Those without an event after which no event is there either. One that is missing among others is lost."""
        newest = max(self.written, default=None)
        return sorted(time for time in self.missing if newest is None or time > newest)

    def unwritten_since(self, at_least: timedelta) -> datetime | None:
        """Since when no event is written down, if so for longer than `at_least`; None else."""
        missing = self.newest_missing
        return missing[0] if missing and missing[-1] - missing[0] > at_least else None


class ServerFactsMemory:
    """What is kept of it between the runs of the check."""

    def __init__(self) -> None:
        self.settings = ServiceSettings()
        self.settings_asked_at: datetime | None = None
        # When flow runs entered states, by the id of the state.
        self.state_times: RecentCache[str, datetime] = RecentCache(_MOST_REMEMBERED, _STATE_AGES[1])


class ServerFacts:
    def __init__(
        self,
        client: PrefectClient,
        met_flow_runs: Callable[[], list[FlowRun]],
        memory: ServerFactsMemory,
        now: datetime,
        log: Log,
    ) -> None:
        self._client = client
        self._met_flow_runs = met_flow_runs
        self._memory = memory
        self._now = now
        self._log = log

    def service_settings(self, *, is_doubted: bool = False) -> ServiceSettings:
        """The server's settings, asked for once an hour; a server that hides them is no failure."""
        memory = self._memory
        interval = _DOUBTED_SETTINGS_INTERVAL if is_doubted else _SETTINGS_INTERVAL
        if is_due(memory.settings_asked_at, self._now, interval):
            memory.settings_asked_at = self._now
            try:
                memory.settings = self._client.service_settings()
            except PrefectError as error:
                self._log.debug('Taking the default intervals of the background services: %s', error)
        return memory.settings

    def remember_states(self) -> None:
        """Note the states of the flow runs that are met in this run of the check: their events are due."""
        for item in self._met_flow_runs():
            if item.state_id is not None and item.state_time is not None and _is_set_by_client(item):
                self._memory.state_times[item.state_id] = item.state_time

    def written_states(self) -> WrittenStates:
        """Look for the events of the states of the last minutes: the event of a state has the id of the state.

        At most one request; none if no flow run entered a state. Raises a PrefectApiError.
        """
        youngest, oldest = _STATE_AGES
        retention = self._memory.settings.event_retention
        since = self._now - (oldest if retention is None else min(oldest, retention))
        until = self._now - youngest
        times = {key: time for key, time in self._memory.state_times.items() if since <= time <= until}
        newest = dict(sorted(times.items(), key=lambda item: item[1])[-_MOST_STATES:])
        if not newest:
            return WrittenStates()
        time_range = TimeRange(since - timedelta(minutes=1), self._now)
        found = {event.id for event in self._client.events_by_id(list(newest), time_range)}
        return WrittenStates(
            tuple(time for key, time in newest.items() if key in found),
            tuple(time for key, time in newest.items() if key not in found),
        )


def _is_set_by_client(flow_run: FlowRun) -> bool:
    """Whether the state was set by a request. The scheduler makes runs without an event (3.8.8)."""
    return flow_run.state_type != 'SCHEDULED' and flow_run.state_message not in _SET_BY_SERVICES
