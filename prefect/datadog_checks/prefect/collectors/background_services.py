"""Whether the background services of the server do their work, judged by the traces that it leaves in the API.

GET /health answers while they are dead. Each is judged by a piece of work that it leaves undone for longer than it ever
took (`service_verdict`); what it does shows that it lives. So nothing is wrong on a server that idles, nor while a
server that was down catches up, nor with a service that is switched off, or set otherwise, on purpose. Verified on
3.8.8 with services in the process of the API and in one of their own.

| service | work that is done | work that is overdue |
|---|---|---|
| scheduler | the plan of a deployment reaches further than before | no deployment is planned far enough ahead |
| late_run_marker | a run is called Late | a run that is due is still called Scheduled |
| foreman | a work queue that nobody polls turns NOT_READY | a work queue that nobody polls is READY |
| cancellation_cleanup | a subflow of a cancelled parent ends | such a subflow lives; a run is CANCELLING for too long |
| pause_expirations | a run whose pause is over fails | such a run is still PAUSED |
| task_run_recorder | the newest event of a task run is in its row | it is not |
| event_persister | the event of a state is there | it is not, nor that of any later one |
| db_vacuum | the oldest event goes when it is too old | it is there two intervals later |

The status of a worker proves nothing of the foreman: the API works it out for each answer (3.8.8).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from datadog_checks.prefect.collectors.base import RunContext
from datadog_checks.prefect.collectors.event_services import DatabaseVacuum, EventPersister, TaskRunRecorder
from datadog_checks.prefect.collectors.run_services import (
    CancellationCleanup,
    Foreman,
    LateRunMarker,
    PauseExpirations,
    Scheduler,
)
from datadog_checks.prefect.collectors.service_verdict import Service, ServiceRecord
from datadog_checks.prefect.metrics import SERVICE_IS_HEALTHY, SERVICE_LAG
from datadog_checks.prefect.sample import Sample
from datadog_checks.prefect.tags import BACKGROUND_SERVICE, make_tags

_SERVICES: tuple[Service[Any], ...] = (
    Scheduler(),
    LateRunMarker(),
    Foreman(),
    CancellationCleanup(),
    PauseExpirations(),
    TaskRunRecorder(),
    EventPersister(),
    DatabaseVacuum(),
)


@dataclass(frozen=True)
class ServicesMemory:
    """By the name of the service: what is known of it, and what its look remembers."""

    records: Mapping[str, ServiceRecord] = field(default_factory=dict)
    looks: Mapping[str, Any] = field(default_factory=dict)


class BackgroundServices:
    name = 'background_services'
    initial_memory = ServicesMemory()

    def collect(self, run: RunContext, memory: ServicesMemory) -> tuple[list[Sample], ServicesMemory]:
        is_anything_undone = any(record.undone for record in memory.records.values())
        settings = run.inventory.service_settings(is_doubted=is_anything_undone)
        samples: list[Sample] = []
        records: dict[str, ServiceRecord] = {}
        looks: dict[str, Any] = {}
        for service in _SERVICES:
            look = memory.looks.get(service.name, service.initial_memory)
            evidence, looks[service.name] = service.look(run, settings, look)
            record = memory.records.get(service.name)
            if record is None:
                evidence.works += service.past(run, settings)
                record = ServiceRecord()
            interval, is_enabled = service.interval(settings), service.is_enabled(settings)
            record = record.after(run.now, evidence.overdue, evidence.works, interval, is_enabled=is_enabled)
            records[service.name] = record
            is_healthy = record.is_healthy(run.now, evidence.overdue, interval, is_enabled=is_enabled)
            if is_healthy is not None:
                service_tags = make_tags({BACKGROUND_SERVICE: service.name})
                lag = max((item.lateness for item in evidence.overdue.values()), default=timedelta())
                samples.append(Sample(SERVICE_IS_HEALTHY, is_healthy, service_tags))
                samples.append(Sample(SERVICE_LAG, lag.total_seconds(), service_tags))
        return samples, ServicesMemory(records, looks)
