"""What collectors return: samples and events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from datadog_checks.prefect.metrics import MetricSpec
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
