"""Log records: what flow runs and task runs have logged, sent on as logs of Datadog."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from datadog_checks.prefect.api.models import LogRecord
from datadog_checks.prefect.api.time_range import TimeRange
from datadog_checks.prefect.collectors.base import RunContext
from datadog_checks.prefect.collectors.log_text import agent_log
from datadog_checks.prefect.metrics import LOGS_PENDING
from datadog_checks.prefect.sample import AgentLog, Sample
from datadog_checks.prefect.streams.cursor import Batch, StreamCursor
from datadog_checks.prefect.streams.log_reading import PAGE_SIZE, LogPart, read_parts
from datadog_checks.prefect.tags import Tags, merge_tags

# Clients send their records every two seconds, and a busy one may take a little longer.
_MARGIN = timedelta(seconds=10)


class Logs:
    """The log records that pass, each once by its id. Those of a flood wait for the next runs of the check."""

    name = 'logs'
    # About how many records the overlap holds.
    initial_memory = 0.0

    def collect(self, run: RunContext, cursor: StreamCursor | None, memory: float) -> Batch[float]:
        window = run.window(self.name, cursor, margin=_MARGIN, overlap=run.settings.log_overlap)
        flow_run_ids = None if window.is_first else run.inventory.flow_run_ids_that_logged(window.since)
        source = _Source(run, flow_run_ids)
        batches = (_batch(run, part) for part in read_parts(window, source, memory))
        return replace(next(batches), rest=batches)


@dataclass(frozen=True)
class _Source:
    """The records that may be sent."""

    run: RunContext
    flow_run_ids: Collection[str] | None

    def pages(self, time_range: TimeRange) -> Iterator[list[LogRecord]]:
        level = self.run.settings.log_level
        return self.run.inventory.log_pages(level, time_range, self.flow_run_ids, PAGE_SIZE)

    def convert(self, records: Sequence[LogRecord]) -> list[AgentLog | None]:
        settings, inventory = self.run.settings, self.run.inventory
        named = [item for item in records if settings.log_names.allows(item.logger)]
        flow_runs = inventory.tags_by_id({item.flow_run_id for item in named if item.flow_run_id is not None})
        included = {item.id: tags for item in named if (tags := self._flow_run_tags(item, flow_runs)) is not None}
        task_run_ids = {item.task_run_id for item in named if item.task_run_id is not None and item.id in included}
        task_runs = inventory.logged_task_runs(task_run_ids)
        excluded = len(records) - len(included)
        if excluded:
            self.run.log.debug('logs: %d of %d records are excluded by filters', excluded, len(records))
        converted: list[AgentLog | None] = []
        for item in records:
            if item.id not in included:
                converted.append(None)
                continue
            task_run_name, task_tags = task_runs.get(item.task_run_id or '', (None, ()))
            flow_run_name = inventory.flow_run_name(item.flow_run_id) if item.flow_run_id is not None else None
            tags = merge_tags(included[item.id], task_tags)
            converted.append(agent_log(item, flow_run_name, task_run_name, tags, settings.ui_url, settings.service))
        return converted

    def _flow_run_tags(self, item: LogRecord, flow_runs: dict[str, Tags | None]) -> Tags | None:
        """None where the filters exclude it; a background task belongs to no flow run."""
        if item.flow_run_id is not None:
            return flow_runs[item.flow_run_id]
        return () if self.run.settings.filters.keep_parentless else None


def _batch(run: RunContext, part: LogPart) -> Batch[float]:
    seconds = 0.0 if part.reached is None else max(0.0, (run.now - part.reached).total_seconds())
    samples = [Sample(LOGS_PENDING, seconds)] if part.is_last else []
    return Batch(samples, part.cursor, part.held, logs=part.logs)
