"""Automations: whether each is enabled, how often its trigger fired, and whether its actions worked.

The server tells no one when an action fails: a webhook that is gone, a deployment that was deleted, a block that is
wrong. It notes it in an event, which is counted here with or without `collect_events`. Verified on 3.8.8.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from datadog_checks.prefect.aggregation import LingeringSeries, Tally
from datadog_checks.prefect.api.models import Automation, Event
from datadog_checks.prefect.api.times import is_due
from datadog_checks.prefect.collectors.base import RunContext
from datadog_checks.prefect.event_names import ACTION_EXECUTED, ACTION_FAILED
from datadog_checks.prefect.event_names import AUTOMATION_TRIGGERED as TRIGGERED
from datadog_checks.prefect.metrics import (
    AUTOMATION_ACTION_EXECUTED,
    AUTOMATION_ACTION_FAILED,
    AUTOMATION_IS_ENABLED,
    AUTOMATION_TRIGGERED,
)
from datadog_checks.prefect.sample import Sample
from datadog_checks.prefect.streams.cursor import Batch, StreamCursor
from datadog_checks.prefect.streams.known_rows import KnownRows
from datadog_checks.prefect.tags import ACTION_TYPE, AUTOMATION_ID, AUTOMATION_NAME, Tags, make_tags

# How often all automations are listed: people edit them, rarely.
_LIST_INTERVAL = timedelta(seconds=60)
_SERIES = {
    TRIGGERED: AUTOMATION_TRIGGERED,
    ACTION_EXECUTED: AUTOMATION_ACTION_EXECUTED,
    ACTION_FAILED: AUTOMATION_ACTION_FAILED,
}


@dataclass(frozen=True)
class AutomationsMemory:
    known: KnownRows = field(default_factory=KnownRows)
    lingering: LingeringSeries = field(default_factory=LingeringSeries)
    automations: tuple[Automation, ...] = ()
    listed_at: datetime | None = None


class Automations:
    """The filters on work pools, work queues, deployments and flows do not apply: an automation hangs on none."""

    name = 'automations'
    initial_memory = AutomationsMemory()

    def collect(
        self, run: RunContext, cursor: StreamCursor | None, memory: AutomationsMemory
    ) -> Batch[AutomationsMemory]:
        new, window = run.new_named_events(self.name, cursor, memory.known)
        automations, listed_at = memory.automations, memory.listed_at
        if is_due(listed_at, run.now, _LIST_INTERVAL):
            automations, listed_at = tuple(run.inventory.automations()), run.now
        counts, lingering = memory.lingering.samples(run.now, _count(new))
        enabled = [Sample(AUTOMATION_IS_ENABLED, item.is_enabled, _tags(item.id, item.name)) for item in automations]
        return Batch(
            [*enabled, *counts],
            window.next_cursor(),
            AutomationsMemory(window.next_known(), lingering, automations, listed_at),
        )


def _count(events: list[Event]) -> Tally:
    tally = Tally(*_SERIES.values())
    for event in events:
        if event.name in _SERIES:
            automation = event.resource
            tags = _tags(automation.object_id, automation.name, event.action_type)
            tally.add(_SERIES[event.name], tags)
    return tally


def _tags(automation_id: str, name: str | None, action_type: str | None = None) -> Tags:
    return make_tags({AUTOMATION_ID: automation_id, AUTOMATION_NAME: name, ACTION_TYPE: action_type})
