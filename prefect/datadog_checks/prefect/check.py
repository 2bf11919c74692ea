"""PrefectCheck: runs the collectors, submits what they return, and persists how far the streams are read."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from threading import Event
from typing import TYPE_CHECKING, Any

from datadog_checks.base import AgentCheck
from datadog_checks.base.checks import base
from datadog_checks.prefect.api.client import PrefectClient
from datadog_checks.prefect.api.errors import (
    CollectionError,
    NotFound,
    OutOfTime,
    PrefectError,
    Rejected,
    UnsupportedVersion,
)
from datadog_checks.prefect.api.log import silence_telltales
from datadog_checks.prefect.api.server_clock import ServerClock
from datadog_checks.prefect.api.session import BoundedHttp
from datadog_checks.prefect.api.transport import Transport
from datadog_checks.prefect.api.versions import differences, require_supported
from datadog_checks.prefect.collectors import check_cost, health, snapshot_collectors, stream_collectors
from datadog_checks.prefect.collectors.base import AnySnapshotCollector, AnyStreamCollector, RunContext
from datadog_checks.prefect.collectors.idle import IdleDeployments
from datadog_checks.prefect.config_models import ConfigMixin
from datadog_checks.prefect.inventory.inventory import Inventory
from datadog_checks.prefect.inventory.memory import InventoryMemory
from datadog_checks.prefect.metrics import CHECK_COST, COLLECTOR_DURATION, COLLECTOR_SUCCESS, NAMESPACE
from datadog_checks.prefect.sample import AgentEvent, AgentLog, Sample
from datadog_checks.prefect.settings import Settings
from datadog_checks.prefect.streams.cache_files import CacheFiles
from datadog_checks.prefect.streams.cursor import Batch, CheckState
from datadog_checks.prefect.streams.registry import REGISTRY, Cancelled, Member
from datadog_checks.prefect.streams.store import Cache, StateStore
from datadog_checks.prefect.submitted import SubmittedSeries
from datadog_checks.prefect.tags import COLLECTOR, make_tags
from datadog_checks.prefect.unknown_options import warn_of_unknown_options

if TYPE_CHECKING:
    from datadog_checks.prefect.config_models.instance import InstanceConfig

# In so many runs in a row a collector is skipped at most for want of time, if the server allows it.
_MOST_SKIPS = 2
# Seconds between two questions for the server's version.
_VERSION_INTERVAL = 3600


class PrefectCheck(AgentCheck, ConfigMixin):
    """One Prefect server, as seen through its REST API."""

    __NAMESPACE__ = NAMESPACE

    # The base's HTTP wrapper reads the raw instance, so a default of the configuration model does not reach it.
    HTTP_CONFIG_REMAPPER = {  # type: ignore[assignment]  # noqa: RUF012
        'persist_connections': {'name': 'persist_connections', 'default': True},
        # Prefect reads user name and password as UTF-8.
        'use_legacy_auth_encoding': {'name': 'use_legacy_auth_encoding', 'default': False},
    }

    def __init__(self, name: str, init_config: dict[str, Any], instances: list[dict[str, Any]]) -> None:
        super().__init__(name, _that_are_set(init_config), [_that_are_set(instance) for instance in instances])
        silence_telltales()
        self._clock = ServerClock()
        self._memory = InventoryMemory()
        # What each collector remembers, by its name: taken over once its samples are submitted.
        self._memories: dict[str, Any] = {}
        # In how many runs in a row there was no time for a collector, by its name.
        self._skips: Counter[str] = Counter()
        self._version_asked_at: float | None = None
        self._cancelled = Event()
        # What `agent status` has shown and goes on showing, of which the log has one line.
        self._shown: set[str] = set()
        # What the present run has sent, and the number of series of which the warning was given, 0 for none.
        self._submitted = SubmittedSeries(self.should_send_metric)
        self._too_many: tuple[int, str] = (0, '')
        self._idle = IdleDeployments()
        self._settings: Settings
        self._snapshot_collectors: tuple[AnySnapshotCollector, ...]
        self._stream_collectors: tuple[AnyStreamCollector, ...]
        self._transport: Transport
        self._client: PrefectClient
        self._member: Member
        self._store: StateStore
        self._state: CheckState
        # After `load_configuration_models`, which checks every option.
        self.check_initializations.append(self._initialize)

    def log_typos_in_options(self, user_config: dict[str, Any] | None, models_config: Any, level: str) -> None:
        """Called by the base for `init_config` and `instances`; its own warning is for names that are nearly right."""
        warn_of_unknown_options(user_config or {}, type(models_config).model_fields, self.log)

    def persistent_cache_id(self) -> str:
        """Keeps the state over edits of tags, credentials and time-outs, and apart from that of other filters."""
        return Settings.from_options(self._options()).state_id

    def cancel(self) -> None:
        """Called by the Agent when it drops the instance, also while a check runs, which it cannot stop."""
        self._cancelled.set()

    def check(self, _: Any) -> None:
        """One run. Raises CollectionError at its end if a part of it failed, UnsupportedVersion before it reads."""
        try:
            self._run()
        except Cancelled:
            self.log.debug('The Agent dropped this instance: what it had not submitted is left to the next one')
        finally:
            self._show_lasting_problems()

    def _run(self) -> None:
        self._transport.start_run()
        self._idle.start_run()
        self._submitted = SubmittedSeries(self.should_send_metric)
        started = time.monotonic()
        samples, error = health.collect(self._client)
        self._submit(samples)
        failures: dict[str, Exception] = {}
        self._report(health.NAME, error, started, failures)
        if samples[0].value:
            self._require_supported_version()
            self._tell_server_from_others()
            run = self._run_context()
            self._collect(run, failures)
            self._idle.refresh(run)
            self._read_on(run)
        self._submit(check_cost.authorization(self._transport.stats))
        if CHECK_COST in self._settings.groups:
            self._submit(check_cost.costs(self._transport.stats))
            self._submit(check_cost.series(self._submitted))
        if failures:
            raise CollectionError(failures, 1 + len(self._snapshot_collectors) + len(self._stream_collectors))

    def _collect(self, run: RunContext, failures: dict[str, Exception]) -> None:
        # The streams first: what a snapshot shows now, it shows a little later, too. Among snapshots those come first
        # that the last run had no time for; and before all what two runs had no time for, so that each has its turn.
        skips, self._skips = self._skips, Counter()
        transactions: list[tuple[str, bool, Callable[[], None]]] = [
            *((item.name, False, partial(self._run_stream, item, run)) for item in self._stream_collectors),
            *((item.name, True, partial(self._run_snapshot, item, run)) for item in self._snapshot_collectors),
        ]
        transactions.sort(key=lambda item: (skips[item[0]] < _MOST_SKIPS, item[1], -skips[item[0]]))
        for name, _, transact in transactions:
            started = time.monotonic()
            try:
                transact()
            except Cancelled:
                raise
            except Exception as error:
                self._report(name, error, started, failures)
                if isinstance(error, OutOfTime):
                    self._skips[name] = skips[name] + 1
            else:
                self._report(name, None, started, failures)
        for problem, times in self._client.take_malformed().items():
            self.log.warning('Skipped %d malformed objects: %s', times, problem)

    def _read_on(self, run: RunContext) -> None:
        try:
            run.inventory.read_on()
        except PrefectError as error:
            # Met again by the collectors of the next run, which report it.
            self.log.debug('Long lists are not read on: %s', error)

    def _run_snapshot(self, collector: AnySnapshotCollector, run: RunContext) -> None:
        samples, memory = collector.collect(run, self._memories.get(collector.name, collector.initial_memory))
        self._submit(self._idle.needed(run, samples))
        self._memories[collector.name] = memory

    def _run_stream(self, collector: AnyStreamCollector, run: RunContext) -> None:
        name = collector.name
        memory = self._memories.get(name, collector.initial_memory)
        batch = collector.collect(run, self._state.cursor(name), memory)
        self._commit(run, name, batch)
        for following in batch.rest:
            self._commit(run, name, following)

    def _commit(self, run: RunContext, name: str, batch: Batch[Any]) -> None:
        samples = self._idle.needed(run, batch.samples)
        # In one go: an instance that takes the place of this one counts all of the batch or nothing of it.
        with self._alive():
            self._submit(samples)
            self._submit_events(batch.events)
            self._submit_logs(batch.logs)
            # The next run repeats anything that fails up to here. A crash before the state is written repeats the
            # batch; the other way round it would be lost.
            self._memories[name] = batch.memory
            self._state = self._state.advanced(name, batch.cursor)
            size = self._store.save(self._state)
        self.log.debug('%s: read up to %s, state is %d bytes', name, batch.cursor.until, size)

    def _report(self, collector: str, error: Exception | None, started: float, failures: dict[str, Exception]) -> None:
        collector_tags = make_tags({COLLECTOR: collector})
        self._submit([Sample(COLLECTOR_SUCCESS, error is None, collector_tags)])
        if CHECK_COST in self._settings.groups:
            self._submit([Sample(COLLECTOR_DURATION, time.monotonic() - started, collector_tags)])
        if error is None:
            return
        if isinstance(error, Rejected):
            # The server may be another version by now.
            self._version_asked_at = None
        if not isinstance(error, PrefectError):
            self.log.error('%s: unexpected error', collector, exc_info=error)
        failures[collector] = error

    def _submit(self, samples: Iterable[Sample]) -> None:
        gauge, count, instance_tags, note = self.gauge, self.count, self._settings.tags, self._submitted.add
        with self._alive():
            for spec, value, tags in samples:
                submit = gauge if spec.type == 'gauge' else count
                # The base would put the name together for each value, an eighth of all that it does with one.
                submit(spec.full_name, value, tags=[*tags, *instance_tags], raw=True)
                note(spec, tags)

    @contextmanager
    def _alive(self) -> Iterator[None]:
        """What happens in here happens before `cancel()` or not at all, and before the next instance loads the state.

        Raises Cancelled.
        """
        with REGISTRY.lock:
            if self._cancelled.is_set():
                raise Cancelled
            yield

    def _submit_events(self, events: Iterable[AgentEvent]) -> None:
        for event in events:
            self.event(
                {
                    'event_type': event.event_type,
                    'source_type_name': self.name,
                    'msg_title': event.title,
                    'msg_text': event.text,
                    'timestamp': event.timestamp,
                    'alert_type': event.alert_type,
                    'priority': event.priority,
                    'aggregation_key': event.aggregation_key,
                    'tags': [*event.tags, *self._settings.tags],
                }
            )

    def _submit_logs(self, logs: Iterable[AgentLog]) -> None:
        for log in logs:
            tags = (tag.replace(',', '_') for tag in (*log.tags, *self._settings.tags))
            # The base makes milliseconds of seconds, and cuts them off.
            seconds = (log.milliseconds + 0.5) / 1000
            data: Any = {**log.attributes, 'timestamp': seconds, 'ddtags': ','.join(tags)}
            self.send_log(data)

    def _run_context(self) -> RunContext:
        now = self._clock.now()
        settings = self._settings
        inventory = Inventory(
            self._client,
            settings.filters,
            self._memory,
            now,
            self.log,
            settings.prefect_tags,
            settings.worker_retention,
            settings.counted_event_names,
        )
        return RunContext(now=now, inventory=inventory, settings=settings, log=self.log)

    def _require_supported_version(self) -> None:
        """Ask for the server's version now and then: no part of the collection, a server that hides it is no failure.

        Raises UnsupportedVersion, at every run until the server is upgraded.
        """
        if self._version_asked_at is not None and time.monotonic() - self._version_asked_at < _VERSION_INTERVAL:
            return
        try:
            version = self._client.version()
            self._report_version(version)
            require_supported(version)
            for difference in differences(version):
                self.log.debug('%s', difference)
        except UnsupportedVersion as error:
            snapshots, streams = self._snapshot_collectors, self._stream_collectors
            for name in (*(item.name for item in snapshots), *(item.name for item in streams)):
                self._report(name, error, time.monotonic(), {})
            raise
        except NotFound as error:
            self.log.debug('The server hides its version: %s', error)
        except PrefectError as error:
            # Asked again at the next run: what an old server lacks has to be known while the overlap still holds.
            self.log.debug('No version: %s', error)
            return
        self._version_asked_at = time.monotonic()

    @AgentCheck.metadata_entrypoint
    def _report_version(self, version: str) -> None:
        self.set_metadata('version', version)

    def _initialize(self) -> None:
        self._settings = Settings.from_options(self._options())
        self._idle = IdleDeployments(self._settings.min_collection_interval, report_idle=self._settings.report_idle)
        self._snapshot_collectors = snapshot_collectors(self._settings.groups)
        self._stream_collectors = stream_collectors(
            self._settings.groups,
            collect_events=self._settings.collect_events,
            collect_logs=self._settings.collect_logs,
        )
        self._transport = Transport(
            BoundedHttp(self.instance, self.init_config, self.HTTP_CONFIG_REMAPPER, self.log),
            self._settings.prefect_url,
            self._clock,
            self.log,
            auth_string=self._options().auth_string,
        )
        self._client = PrefectClient(self._transport, self.log)
        self._enter()

    def _enter(self) -> None:
        """Take up the state, after what an instance that was cancelled has persisted last."""
        settings = self._settings
        self._member = Member(
            settings.state_id, settings.instance_id, settings.ui_url, self._transport.base_url, self._cancelled
        )
        with REGISTRY.lock:
            REGISTRY.enter(self._member)
            self._store = StateStore(
                Cache(self.read_persistent_cache, self.write_persistent_cache),
                self.log,
                instance=settings.instance_id,
                former=self._cache_of(settings.former_state_id),
                files=CacheFiles(str(_agent().get_config('run_path') or ''), self._prefix(settings.state_id)),
                warn=self._show,
                now=self._clock.local_now,
            )
            self._state = self._store.load(
                [collector.name for collector in self._stream_collectors],
                is_shared=any(other.has_common_state for other in REGISTRY.counting_the_same(self._member)),
                max_age=settings.max_state_age,
            )
            self._member.has_common_state = self._store.is_common

    def _prefix(self, state_id: str) -> str:
        """What the base puts before each key: the check, and the name of the instance if it has one."""
        return f'{self.check_id.rpartition(":")[0]}:{state_id}_'

    def _cache_of(self, state_id: str) -> Cache:
        """The persistent cache under another id than the base knows."""
        prefix = self._prefix(state_id)
        return Cache(
            lambda key: str(_agent().read_persistent_cache(prefix + key)),
            lambda key, value: _agent().write_persistent_cache(prefix + key, value),
        )

    def _tell_server_from_others(self) -> None:
        """Ask what tells the server from another one, if another instance asks elsewhere for the same `ui_url`.

        Once they differ they are asked again at each run: of two replicas one is upgraded first.
        """
        member = self._member
        others = REGISTRY.with_its_ui_url(member)
        if not others or (member.server and all(other.server in (None, member.server) for other in others)):
            return
        try:
            oldest = self._client.oldest_flow()
            member.server = (self._client.version(), oldest.id if oldest else '')
        except PrefectError as error:
            self.log.debug('The server cannot be told from others: %s', error)

    def _show_lasting_problems(self) -> None:
        """In `agent status` for as long as they last, in the log once. The Agent forgets warnings at each run."""
        problems = [problem for problem in (self._store.problem, self._describe_too_many_series()) if problem]
        member = self._member
        if not self._cancelled.is_set():
            if REGISTRY.counting_the_same(member):
                problems.append(
                    f'Another instance counts the same runs of {member.ui_url}: counts of this server are sent twice. '
                    'Put the two together, or divide what they count by filters'
                )
            for other in REGISTRY.with_its_ui_url(member):
                if None not in (member.server, other.server) and member.server != other.server:
                    problems.append(
                        f'{member.server_url} and {other.server_url} are different servers with one `ui_url`, '
                        f'{member.ui_url}: their series cannot be told apart. Give each its own `ui_url`'
                    )
        for problem in problems:
            self._show(problem)
        self._shown = set(problems)

    def _describe_too_many_series(self) -> str:
        """Empty if there are no more than `max_series`. The numbers are those of when it was last put into words."""
        total, most = self._submitted.total, self._settings.max_series
        if total <= most:
            self._too_many = (0, '')
        elif not 0.9 < total / (self._too_many[0] or 1) < 1.1:
            # Otherwise each run would log other numbers.
            advice = self._submitted.advice(self._idle.count(self._submitted))
            problem = f'The check sends {total:,} series, more than max_series ({most:,.0f}). All are sent. {advice}'
            self._too_many = (total, problem)
        return self._too_many[1]

    def _show(self, problem: str) -> None:
        if problem not in self._shown:
            self._shown.add(problem)
            self.warning('%s', problem)
        elif problem not in self.warnings:
            self.warnings.append(problem)

    def _options(self) -> InstanceConfig:
        """The options after validation; the base loads them before any other initialization."""
        return self.config


def _agent() -> Any:
    """The Agent as the base sees it: another one when the check runs in a process of its own."""
    return vars(base)['datadog_agent']


def _that_are_set(options: dict[str, Any] | None) -> dict[str, Any]:
    """The options that have a value: without one, `tls_verify:` would turn verification off and `timeout:` fail."""
    return {option: value for option, value in (options or {}).items() if value is not None}
