"""The options of one instance, as the collectors use them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from datadog_checks.prefect.api.transport import split_user_info
from datadog_checks.prefect.event_names import EventNames
from datadog_checks.prefect.filters import NameFilter, ResourceFilters
from datadog_checks.prefect.ui_links import ui_url


class Names(Protocol):
    """`{include: [regex], exclude: [regex]}` of the generated configuration model."""

    @property
    def include(self) -> tuple[str, ...] | None: ...

    @property
    def exclude(self) -> tuple[str, ...] | None: ...


class InstanceOptions(Protocol):
    """What is read of the generated configuration model; its validators have checked every value."""

    @property
    def prefect_url(self) -> str: ...

    @property
    def tags(self) -> tuple[str, ...] | None: ...

    @property
    def work_pool_names(self) -> Names | None: ...

    @property
    def work_queue_names(self) -> Names | None: ...

    @property
    def deployment_names(self) -> Names | None: ...

    @property
    def flow_names(self) -> Names | None: ...

    @property
    def collect_events(self) -> bool | None: ...

    @property
    def event_names(self) -> Names | None: ...

    @property
    def prefect_tags(self) -> Names | None: ...

    @property
    def collect(self) -> Iterable[tuple[str, bool | None]] | None: ...

    @property
    def worker_retention(self) -> float | None: ...

    @property
    def late_start_threshold(self) -> float | None: ...

    @property
    def max_catchup(self) -> float | None: ...


@dataclass(frozen=True)
class Settings:
    """`tags` are those of every series: the instance's own and `prefect_url`, without user info.

    `prefect_tags` are the tags of a deployment that become tags of its series, None for none of them. `groups` are the
    keys of the option `collect` that are on.
    """

    prefect_url: str
    ui_url: str
    tags: tuple[str, ...]
    filters: ResourceFilters
    prefect_tags: NameFilter | None
    groups: frozenset[str]
    collect_events: bool
    event_names: EventNames
    late_start_threshold: timedelta
    worker_retention: timedelta
    max_catchup: timedelta
    fingerprint: str

    @classmethod
    def from_options(cls, options: InstanceOptions) -> Settings:
        url = split_user_info(options.prefect_url)[0]
        return cls(
            prefect_url=options.prefect_url,
            ui_url=ui_url(url),
            tags=(f'prefect_url:{url}', *(options.tags or ())),
            filters=ResourceFilters(
                work_pools=_name_filter(options.work_pool_names, 'work_pool_names'),
                work_queues=_name_filter(options.work_queue_names, 'work_queue_names'),
                deployments=_name_filter(options.deployment_names, 'deployment_names'),
                flows=_name_filter(options.flow_names, 'flow_names'),
            ),
            prefect_tags=_name_filter(options.prefect_tags, 'prefect_tags') if options.prefect_tags else None,
            groups=frozenset(group for group, is_on in options.collect or () if is_on),
            collect_events=bool(options.collect_events),
            event_names=EventNames(_name_filter(options.event_names, 'event_names')),
            late_start_threshold=timedelta(seconds=options.late_start_threshold or 0),
            worker_retention=timedelta(seconds=options.worker_retention or 0),
            max_catchup=timedelta(seconds=options.max_catchup or 0),
            fingerprint=_fingerprint(url, options),
        )


def _name_filter(names: Names | None, option: str) -> NameFilter:
    return NameFilter.compile(names.include, names.exclude, option) if names else NameFilter()


def _fingerprint(url: str, options: InstanceOptions) -> str:
    """Of what is counted, not how: the server and the filters, but not tags, credentials or time-outs."""
    filters = (
        options.work_pool_names,
        options.work_queue_names,
        options.deployment_names,
        options.flow_names,
        options.event_names,
    )
    counted = [url, *([list(names.include or ()), list(names.exclude or ())] if names else None for names in filters)]
    return hashlib.sha256(json.dumps(counted).encode()).hexdigest()[:16]
