"""A stand-in for the Datadog Agent: runs the check and keeps what the Agent would have received.

The check runs against the stubs that datadog-checks-base has for this (aggregator, metadata, persistent cache), by
`run()` like in the Agent: configuration is validated, state is read from and written to the persistent cache, an
exception becomes an error text. `python -m lab.demo` and `python -m lab.check` are built on it; it needs no pytest.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

from datadog_checks.base.stubs import aggregator, datadog_agent
from datadog_checks.prefect import PrefectCheck
from datadog_checks.prefect.submitted import SubmittedSeries

_NUMBERS = count()


@dataclass(frozen=True)
class Point:
    """One submitted value. `type` is 'gauge' or 'count'; `tags` are sorted."""

    name: str
    type: str
    value: float
    tags: tuple[str, ...]


@dataclass(frozen=True)
class CheckResult:
    """What one run of the check gave.

    `error` is the message that `agent status` would show, None for a good run, and `answer` what the Agent logs of it:
    JSON with message and traceback; `warnings` are those that the check raised for `agent status`; `log` holds its log
    lines of level WARNING and above. `logs` are the log records that the Agent reads of its file. `submitted` are its
    series, of which `report_idle: false` would save `idle`. `began` is when it began, in seconds since 1970 by the
    clock of this machine.
    """

    points: tuple[Point, ...]
    events: tuple[Mapping[str, Any], ...]
    logs: tuple[Mapping[str, Any], ...]
    metadata: Mapping[str, str]
    error: str | None
    answer: str
    warnings: tuple[str, ...]
    log: tuple[str, ...]
    submitted: SubmittedSeries
    idle: int
    seconds: float
    began: float

    def values(self, series: str, **tags: str) -> dict[tuple[str, ...], float]:
        """The values of a series (without the namespace) by its tags, as far as it has these.

        Raises LookupError if the run failed: what is not there then says nothing.
        """
        if self.error is not None:
            raise LookupError(self.error)
        wanted = {f'{key}:{text}' for key, text in tags.items()}
        points = (point for point in self.points if point.name == f'prefect.server.{series}')
        return {point.tags: point.value for point in points if wanted <= set(point.tags)}

    def value(self, series: str, **tags: str) -> float:
        """The only value of a series with these tags; raises LookupError if there is none, or several."""
        found = self.values(series, **tags)
        if len(found) != 1:
            raise LookupError(f'{series} {tags}: {found}')
        (value,) = found.values()
        return value


class _LogLines(logging.Handler):
    """Keeps the log lines of one run."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f'{record.levelname} {record.getMessage()}')


@contextmanager
def _captured_log() -> Iterator[list[str]]:
    handler = _LogLines()
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield handler.lines
    finally:
        root.removeHandler(handler)


class LogFile:
    """The file of an instance below the Agent's run directory: comp/logs/integrations/impl of the Agent.

    Each record is a line of JSON. A file that would become larger than `logs_config.integrations_logs_files_max_size`
    is removed and begun anew, whether the Agent has read it or not. The Agent reads a file that it has open to its end,
    removed or not, and looks for another one each `file_scan_period`, ten seconds: what is begun and removed between
    two looks is `lost`. Here it looks between two runs of the check.
    """

    def __init__(self, most_bytes: int = 10 * 2**20) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        # The file that the Agent has open, and the one that has taken its place since.
        self._unread: list[str] = []
        self._begun_anew: list[str] | None = None
        self.lost = 0

    def write(self, line: str) -> None:
        size = len(line.encode()) + 1
        if self._bytes + size > self._most_bytes:
            self.lost += len(self._begun_anew or ())
            self._bytes, self._begun_anew = 0, []
        self._bytes += size
        (self._unread if self._begun_anew is None else self._begun_anew).append(line)

    def read(self) -> list[Any]:
        """What was written since the last look."""
        lines = [*self._unread, *(self._begun_anew or ())]
        self._unread, self._begun_anew = [], None
        return [json.loads(line) for line in lines]


class AgentFiles:
    """The Agent's persistent cache, with its faults: pkg/persistentcache/persistentcache.go and rtloader.

    A key is a plain file below `run_path`, in a folder that is named by what stands before the first colon, which the
    Agent makes with mode 0700. A write truncates the file first; its error goes to the Agent's log only. A file that is
    missing reads as an empty text; what cannot be read raises `RuntimeError('failed to read data')`.
    """

    def __init__(self, run_path: Path) -> None:
        self.run_path = run_path

    def path(self, key: str) -> Path:
        """The file of a key."""
        folder, _, name = key.partition(':')
        return self.run_path / self._clean(folder) / self._clean(name)

    def read(self, key: str) -> str:
        try:
            path = self.path(key)
            path.parent.mkdir(0o700, parents=True, exist_ok=True)
            return path.read_text() if path.exists() else ''
        except OSError:
            raise RuntimeError('failed to read data') from None

    def write(self, key: str, value: str) -> None:
        try:
            path = self.path(key)
            path.parent.mkdir(0o700, parents=True, exist_ok=True)
            # C strings end at NUL.
            path.write_text(value.partition('\0')[0])
        except OSError as error:
            logging.getLogger('agent').debug('Failed to write cache %s: %s', key, error)

    @contextmanager
    def installed(self) -> Iterator[AgentFiles]:
        """Let the stub of the Agent, which forgets all when the process ends, use these files."""
        names = ('read_persistent_cache', 'write_persistent_cache')
        before = dict(datadog_agent._config)
        datadog_agent._config['run_path'] = str(self.run_path)
        vars(datadog_agent).update(zip(names, (self.read, self.write), strict=True))
        try:
            yield self
        finally:
            datadog_agent._config = before
            for name in names:
                vars(datadog_agent).pop(name)

    @staticmethod
    def _clean(name: str) -> str:
        return re.sub('[^a-zA-Z0-9_-]', '', name)


class CheckRunner:
    """One instance of the check, with the state that an Agent keeps for it between runs.

    The stubs are shared by the whole process: run one check at a time, and read its result from `run()` only. To
    restart the Agent, cancel this one and make another.
    """

    def __init__(self, instance: Mapping[str, Any], init_config: Mapping[str, Any] | None = None) -> None:
        self._check = PrefectCheck('prefect', dict(init_config or {}), [dict(instance)])
        # Not `id(self)`: Python gives it again, and with it what the stubs keep of a check that is gone.
        self._check.check_id = f'prefect:{next(_NUMBERS):x}'
        self.log_file = LogFile()

    def cancel(self) -> None:
        """Drop the instance, as the Agent does when the configuration is edited: from any thread, during a run too."""
        self._check.cancel()

    def read(self, stream: str) -> tuple[datetime, datetime]:
        """The period of which the check has read a stream: from its first run to its last good one, server's time."""
        cursor = self._check._state.cursor(stream)
        if cursor is None:
            raise RuntimeError(f'{stream} was not read yet')
        return cursor.floor, cursor.until

    def run(self) -> CheckResult:
        """Run the check once, as the Agent would at one of its intervals."""
        aggregator.reset()
        with _captured_log() as log:
            began, started_at = time.time(), time.perf_counter()
            with self._taking_logs():
                answer = self._check.run()
            seconds = time.perf_counter() - started_at
        return CheckResult(
            points=tuple(
                Point(name, aggregator.METRIC_ENUM_MAP_REV[stub.type], stub.value, tuple(sorted(stub.tags)))
                for name in aggregator.metric_names
                for stub in aggregator.metrics(name)
            ),
            events=tuple(aggregator.events),
            logs=tuple(self.log_file.read()),
            metadata={
                name: value
                for (check_id, name), value in datadog_agent._metadata.items()
                if check_id == self._check.check_id
            },
            error=json.loads(answer)[0]['message'] if answer else None,
            answer=answer,
            warnings=tuple(str(warning) for warning in self._check.get_warnings()),
            log=tuple(log),
            submitted=self._check._submitted,
            idle=self._check._idle.count(self._check._submitted),
            seconds=seconds,
            began=began,
        )

    @contextmanager
    def _taking_logs(self) -> Iterator[None]:
        """Write the log records into the file, not into a stub that keeps them all."""
        vars(datadog_agent)['send_log'] = lambda line, check_id: self.log_file.write(line)
        try:
            yield
        finally:
            # Two runners may be at work side by side.
            vars(datadog_agent).pop('send_log', None)
