"""What collectors return: samples, events and log records."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

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


@dataclass(frozen=True)
class AgentLog:
    """One log record as the Agent takes it: what becomes JSON, its time in milliseconds since 1970, and its tags.

    `tags` are without those of the instance.
    """

    attributes: Mapping[str, Any]
    milliseconds: int
    tags: Tags

    @cached_property
    def size(self) -> int:
        """About how many bytes the Agent writes of it."""
        return len(json.dumps([self.attributes, self.tags], ensure_ascii=False).encode(errors='replace'))
