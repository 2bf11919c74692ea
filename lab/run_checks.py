"""Run the check at an interval until this process is killed, as an Agent would whose state is on disk.

    python -m lab.run_checks --instance JSON --folder FOLDER [--interval 1] [--deaths 0.01 --seed 1]

The folder takes the persisted state and the journal (see `journal.py`), so that the next process goes on where this one
was killed and the sums can be told afterwards. `--deaths` is the chance that the process kills itself while it persists
a batch: a kill from outside seldom meets these moments.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from datadog_checks.base.stubs import aggregator, datadog_agent
from datadog_checks.prefect.metrics import LOGS_PENDING, NAMESPACE
from lab.agent import AgentFiles, CheckResult, CheckRunner, LogFile
from lab.journal import CheckRecord, JournalWriter
from lab.sums import LOG_RECORDS, adds_up

JOURNAL_NAME = 'journal.jsonl'
# What an event itself tells: the deployment of a task run is looked up, and may be gone by then.
EVENT_TAGS = ('flow_name:', 'task_key:')
# The server may show a task run after its first log record, so `task_key` is left out.
LOG_TAGS = ('flow_name:', 'deployment_name:')
SUCCESS = f'{NAMESPACE}.collector.success'


class Persistence:
    """Stands between the check and what the Agent gives it, and keeps the journal."""

    def __init__(self, folder: Path, deaths: float, seed: int) -> None:
        self._cache = AgentFiles(folder)
        self._folder = folder
        self._found: list[str] = []
        self._journal: JournalWriter | None = None
        self._deaths = deaths
        self._random = random.Random(seed)
        self._has_samples = False
        # Events and log records since the last batch, by name and tags.
        self._happened: Counter[tuple[str, tuple[str, ...]]] = Counter()
        self.state_bytes = 0

    def read(self, key: str) -> str:
        document = self._cache.read(key)
        if self._journal is None:
            self._found.append(document)
        return document

    def write(self, key: str, document: str) -> None:
        self.journal.persist(document)
        is_last = self._has_samples and self._random.random() < self._deaths
        # Before the state is written, in the middle, or right afterwards.
        written = self._random.choice((None, 0, len(document) // 2, len(document))) if is_last else len(document)
        if written is not None:
            self._cache.write(key, document[:written])
        if is_last:
            os.kill(os.getpid(), signal.SIGKILL)
        self._has_samples = False
        self._happened.clear()
        self.state_bytes = len(document)

    def sample(self, name: str, type_code: int, value: float, tags: Sequence[str]) -> None:
        """Write down a value that adds up."""
        if value and adds_up(name, is_count=type_code == aggregator.COUNT):
            self.journal.sample(name.removeprefix(f'{NAMESPACE}.'), tags, value)
            self._has_samples = True

    def event(self, event: Mapping[str, Any]) -> None:
        """Write down how many events of this name and these tags there are in the batch so far."""
        self._happens(event['event_type'], [tag for tag in event['tags'] if tag.startswith(EVENT_TAGS)])

    def log(self, line: str) -> None:
        """Write down how often the batch has this log record so far."""
        record = json.loads(line)
        tags = [tag for tag in record['ddtags'].split(',') if tag.startswith(LOG_TAGS)]
        self._happens(LOG_RECORDS, [*tags, f'log_id:{record["prefect"]["log_id"]}'])

    def _happens(self, name: str, tags: Sequence[str]) -> None:
        key = (name, tuple(tags))
        self._happened[key] += 1
        self.journal.sample(name, tags, self._happened[key])
        self._has_samples = True

    @property
    def is_read(self) -> bool:
        """Whether the check has asked for its state, which it does before anything else."""
        return bool(self._found)

    @property
    def journal(self) -> JournalWriter:
        if not self._found:
            raise RuntimeError('the check has not read its state')
        if self._journal is None:
            self._journal = JournalWriter(self._folder / JOURNAL_NAME, self._found)
        return self._journal

    def install(self) -> None:
        """Take the place of the stubs of datadog-checks-base in this process."""
        submit: Callable[..., None] = aggregator.submit_metric

        def submit_metric(
            check: object, check_id: str, type_code: int, name: str, value: float, tags: list[str], *more: Any
        ) -> None:
            self.sample(name, type_code, value, tags)
            submit(check, check_id, type_code, name, value, tags, *more)

        def submit_event(check: object, check_id: str, event: Mapping[str, Any]) -> None:
            self.event(event)

        aggregator.submit_metric = submit_metric  # type: ignore[method-assign]
        aggregator.submit_event = submit_event  # type: ignore[method-assign]
        datadog_agent.read_persistent_cache = self.read  # type: ignore[method-assign]
        datadog_agent.write_persistent_cache = self.write  # type: ignore[method-assign]


class JournaledLogFile(LogFile):
    """The Agent's file of log records, each of which is written down."""

    def __init__(self, persistence: Persistence) -> None:
        super().__init__()
        self._persistence = persistence

    def write(self, line: str) -> None:
        self._persistence.log(line)
        super().write(line)


def resident_bytes() -> int:
    """The memory of this process now; 0 where /proc does not tell it."""
    try:
        pages = int(Path('/proc/self/statm').read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf('SC_PAGE_SIZE')


def succeeded_collectors(result: CheckResult) -> list[str]:
    """The collectors that read all that they had to: that of logs did not while some are left for the next run."""
    names = [
        tag.partition(':')[2]
        for point in result.points
        if point.name == SUCCESS and point.value
        for tag in point.tags
        if tag.startswith('collector:')
    ]
    if any(point.name == LOGS_PENDING.full_name and point.value for point in result.points):
        names.remove('logs')
    return names


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog='python -m lab.run_checks', description='Run the check until killed.')
    parser.add_argument(
        '--instance', type=json.loads, required=True, help='one instance of prefect.d/conf.yaml as JSON'
    )
    parser.add_argument('--folder', type=Path, required=True, help='for the persisted state and the journal')
    parser.add_argument('--interval', type=float, default=1.0, help='seconds from one check to the next (default: 1)')
    parser.add_argument('--deaths', type=float, default=0.0, help='chance to die while a batch is persisted')
    parser.add_argument('--seed', type=int, default=0, help='of these deaths')
    options = parser.parse_args(arguments)

    persistence = Persistence(options.folder, options.deaths, options.seed)
    persistence.install()
    runner = CheckRunner(options.instance)
    runner.log_file = JournaledLogFile(persistence)
    while True:
        began_at, clock = time.time(), time.monotonic()
        result = runner.run()
        if not persistence.is_read:
            raise RuntimeError(f'the check did not begin: {result.error}')
        persistence.journal.check(
            CheckRecord(
                began_at=began_at,
                seconds=result.seconds,
                succeeded=succeeded_collectors(result),
                resident_bytes=resident_bytes(),
                state_bytes=persistence.state_bytes,
                log=list(result.log),
            )
        )
        time.sleep(max(0.0, clock + options.interval - time.monotonic()))


if __name__ == '__main__':
    sys.exit(main())
