"""The options of one instance, as the collectors use them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

from datadog_checks.prefect.event_names import COUNTED_EVENTS, EventNames
from datadog_checks.prefect.expectations import KEYS, Rule, seconds
from datadog_checks.prefect.filters import NameFilter, ResourceFilters
from datadog_checks.prefect.tags import PREFECT_URL
from datadog_checks.prefect.ui_links import split_user_info, ui_url

# The streams of runs and events are read again this many seconds back at every check: less would cut that.
MIN_CATCHUP_SECONDS = 120
# How long after its own time a log record may come, in seconds.
MIN_LOG_OVERLAP, MAX_LOG_OVERLAP = 120, 900
# The levels of Python's loggers, which Prefect's are.
LOG_LEVELS = {'DEBUG': 10, 'INFO': 20, 'WARNING': 30, 'ERROR': 40, 'CRITICAL': 50}
# The state of a cluster check is gone on from for so many seconds, or for three intervals.
_SHORT_STATE_AGE = 60


_FAILED_ACTIONS = r'^prefect\.automation\.action\.failed$'


class Names(Protocol):
    """`{include: [regex], exclude: [regex]}` of the generated configuration model."""

    @property
    def include(self) -> tuple[str, ...] | None: ...

    @property
    def exclude(self) -> tuple[str, ...] | None: ...


class Expected(Protocol):
    """An entry of the option `expectations`."""

    @property
    def deployment_names(self) -> Names | None: ...

    @property
    def max_age(self) -> float | str | None: ...

    @property
    def max_run_time(self) -> float | str | None: ...


class InstanceOptions(Protocol):
    """What is read of the generated configuration model; its validators have checked every value."""

    @property
    def prefect_url(self) -> str: ...

    @property
    def ui_url(self) -> str | None: ...

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
    def report_idle(self) -> bool | None: ...

    @property
    def max_series(self) -> float | None: ...

    @property
    def collect_events(self) -> bool | None: ...

    @property
    def event_names(self) -> Names | None: ...

    @property
    def collect_logs(self) -> bool | None: ...

    @property
    def log_level(self) -> str | None: ...

    @property
    def log_names(self) -> Names | None: ...

    @property
    def log_overlap(self) -> float | None: ...

    @property
    def service(self) -> str | None: ...

    @property
    def prefect_tags(self) -> Names | None: ...

    @property
    def expectations(self) -> Iterable[Expected] | None: ...

    @property
    def collect(self) -> Iterable[tuple[str, bool | None]] | None: ...

    @property
    def worker_retention(self) -> float | None: ...

    @property
    def late_start_threshold(self) -> float | None: ...

    @property
    def max_catchup(self) -> float | None: ...

    @property
    def min_collection_interval(self) -> float | None: ...

    @property
    def empty_default_hostname(self) -> bool | None: ...

    @property
    def model_fields_set(self) -> set[str]:
        """The options that are set."""
        ...


@dataclass(frozen=True)
class Settings:
    """`tags` are those of every series: the instance's own and `prefect_url`, where people open the server.

    `prefect_tags` are the tags of a deployment that become tags of its series, None for none of them. `groups` are the
    keys of the option `collect` that are on. `state_id` is the same for instances that count the same, `instance_id`
    tells these apart, and `former_state_id` is what version 1.0 had in place of the first. `max_state_age` is set where
    another Agent may have run the instance meanwhile.
    """

    # With user info, if it has some.
    prefect_url: str = field(repr=False)
    ui_url: str
    tags: tuple[str, ...]
    filters: ResourceFilters
    prefect_tags: NameFilter | None
    expectations: tuple[Rule, ...]
    groups: frozenset[str]
    report_idle: bool
    max_series: float
    min_collection_interval: timedelta
    collect_events: bool
    event_names: EventNames
    collect_logs: bool
    log_level: int
    log_names: NameFilter
    log_overlap: timedelta
    service: str | None
    late_start_threshold: timedelta
    worker_retention: timedelta
    max_catchup: timedelta
    state_id: str
    instance_id: str
    former_state_id: str
    max_state_age: timedelta | None

    @property
    def counted_event_names(self) -> frozenset[str]:
        """The names of all events that the groups that are on count."""
        return frozenset(name for group, names in COUNTED_EVENTS.items() if group in self.groups for name in names)

    @classmethod
    def from_options(cls, options: InstanceOptions) -> Settings:
        url = split_user_info(options.prefect_url)[0]
        page_url = options.ui_url or ui_url(url)
        interval = options.min_collection_interval or 0
        return cls(
            prefect_url=options.prefect_url,
            ui_url=page_url,
            tags=(f'{PREFECT_URL}:{page_url}', *(options.tags or ())),
            filters=ResourceFilters(
                work_pools=_name_filter(options.work_pool_names, 'work_pool_names'),
                work_queues=_name_filter(options.work_queue_names, 'work_queue_names'),
                deployments=_name_filter(options.deployment_names, 'deployment_names'),
                flows=_name_filter(options.flow_names, 'flow_names'),
            ),
            prefect_tags=_name_filter(options.prefect_tags, 'prefect_tags') if options.prefect_tags else None,
            expectations=tuple(map(_rule, options.expectations or ())),
            groups=frozenset(group for group, is_on in options.collect or () if is_on),
            report_idle=bool(options.report_idle),
            max_series=options.max_series or 0,
            min_collection_interval=timedelta(seconds=interval),
            collect_events=bool(options.collect_events),
            event_names=EventNames(_name_filter(options.event_names, 'event_names')),
            collect_logs=bool(options.collect_logs),
            log_level=LOG_LEVELS[options.log_level or 'INFO'],
            log_names=_name_filter(options.log_names, 'log_names'),
            log_overlap=timedelta(seconds=options.log_overlap or MIN_LOG_OVERLAP),
            service=options.service,
            late_start_threshold=timedelta(seconds=options.late_start_threshold or 0),
            worker_retention=timedelta(seconds=options.worker_retention or 0),
            max_catchup=timedelta(seconds=_max_catchup(options)),
            state_id=_hash(page_url, *_filters(options)),
            instance_id=_hash(
                url,
                options.tags,
                options.collect_events,
                options.min_collection_interval,
                # Only if it is on, so that others keep the id that they have.
                *(['collect_logs'] if options.collect_logs else []),
            ),
            former_state_id=_hash(url, *_filters(options), _event_names_of_1_0(options)),
            max_state_age=(
                timedelta(seconds=max(_SHORT_STATE_AGE, 3 * interval)) if options.empty_default_hostname else None
            ),
        )


def _name_filter(names: Names | None, option: str) -> NameFilter:
    return NameFilter.compile(names.include, names.exclude, option) if names else NameFilter()


def _rule(entry: Expected) -> Rule:
    durations = {key: getattr(entry, key) for key in KEYS}
    return Rule(
        _name_filter(entry.deployment_names, 'expectations'),
        {key: seconds(duration) for key, duration in durations.items() if duration is not None},
    )


def _max_catchup(options: InstanceOptions) -> float:
    """Where another Agent may have counted what is read back, that is little by default."""
    if options.empty_default_hostname and 'max_catchup' not in options.model_fields_set:
        return max(MIN_CATCHUP_SECONDS, 2 * (options.min_collection_interval or 0))
    return options.max_catchup or 0


def _filters(options: InstanceOptions) -> Iterable[object]:
    """What decides which runs are counted. Tags, credentials, time-outs and the names of events decide how."""
    names = (options.work_pool_names, options.work_queue_names, options.deployment_names, options.flow_names)
    return map(_patterns, names)


def _patterns(names: Names | None) -> list[list[str]] | None:
    return [list(names.include or ()), list(names.exclude or ())] if names else None


def _event_names_of_1_0(options: InstanceOptions) -> list[list[str]] | None:
    patterns = _patterns(options.event_names)
    # In the default since then.
    return patterns and [[item for item in names if item != _FAILED_ACTIONS] for names in patterns]


def _hash(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
