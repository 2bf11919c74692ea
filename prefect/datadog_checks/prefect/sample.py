"""What collectors return: samples and events, and for streams the cursor that goes with them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from datadog_checks.prefect.metrics import MetricSpec
from datadog_checks.prefect.streams.cursor import StreamCursor
from datadog_checks.prefect.tags import Tags


class Sample(NamedTuple):
    """One value of one series, in the unit of its spec. `tags` are those of the object, not those of the instance."""

    spec: MetricSpec
    value: float
    tags: Tags = ()


@dataclass(frozen=True, slots=True)
class AgentEvent:
    """One event as the Agent takes it. `timestamp` is in epoch seconds; `tags` are without those of the instance."""

    event_type: str
    title: str
    text: str
    timestamp: int
    alert_type: Literal['error', 'warning', 'success', 'info']
    priority: Literal['normal', 'low']
    aggregation_key: str
    tags: Tags


@dataclass(frozen=True, slots=True)
class Batch:
    """What one read of a stream found, and the cursor to persist once all of it is submitted.

    `samples` are to be taken once: made as they are submitted, thousands of them need not be there at a time. All that
    can fail comes before.
    """

    samples: Iterable[Sample]
    cursor: StreamCursor
    events: tuple[AgentEvent, ...] = ()
