"""What a process that runs checks has submitted and persisted, true at any moment at which it is killed.

One JSON object per line, each written by one unbuffered system call before the next thing is done:

- `{"start": pid, "states": [digest, ...]}`: a process begins, and finds these states persisted ('' for none);
- `{"sample": [series, tags, value]}`: a value was submitted; for an event its name and how many the batch has so far;
  for a log record `log records`, its id among the tags, and how often the batch has it so far;
- `{"persist": digest}`: the state of that digest is about to be written;
- `{"check": {...}}`: a check is done, see `CheckRecord`.

The samples between two `persist` are a batch: what the check hands over together with a cursor. A batch is persisted if
the process went on after its `persist`, or if the next process found that digest. One that is not is repeated by the
next process, so it is not added up; there can be one such batch per kill.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lab.sums import LOG_RECORDS, Sums


def digest_of(document: str) -> str:
    return hashlib.sha256(document.encode()).hexdigest()[:16] if document else ''


@dataclass(frozen=True)
class CheckRecord:
    """One run of the check: when it began (epoch seconds), how long it took, and what it left behind.

    `succeeded` names the collectors that did; `resident_bytes` is the memory of the process, `state_bytes` the size of
    the persisted state; `log` holds lines of level WARNING and above.
    """

    began_at: float
    seconds: float
    succeeded: list[str]
    resident_bytes: int
    state_bytes: int
    log: list[str]


class JournalWriter:
    """Appends to a journal. `states` are the documents that the process found persisted."""

    def __init__(self, path: Path, states: Iterable[str]) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        # A line of its own, even if a killed process left half a line.
        os.write(self._file, b'\n')
        self._write({'start': os.getpid(), 'states': [digest_of(state) for state in states]})

    def sample(self, series: str, tags: Sequence[str], value: float) -> None:
        self._write({'sample': [series, sorted(tags), value]})

    def persist(self, document: str) -> None:
        self._write({'persist': digest_of(document)})

    def check(self, record: CheckRecord) -> None:
        self._write({'check': asdict(record)})

    def _write(self, entry: Mapping[str, Any]) -> None:
        os.write(self._file, json.dumps(entry).encode() + b'\n')


class Journal:
    """A journal as it was when it was last read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # In bytes.
        self._position = 0
        self.sums = Sums()
        self.checks: list[CheckRecord] = []
        self.starts = 0
        # The checks of the process that began last.
        self.latest_checks: list[CheckRecord] = []
        self.batches = 0
        # Batches with at least one value that were submitted but not persisted: they are repeated.
        self.repeated_batches = 0
        # Log records in those batches, and in the largest of them.
        self.repeated_logs = 0
        self.most_repeated_logs = 0
        # Starts that found neither the last state nor the one that was being written.
        self.lost_states = 0
        # By series and all tags.
        self._batch: dict[tuple[str, tuple[str, ...]], float] = {}
        self._persisted = self._persisting = ''

    def successes_since(self, moment: float, *collectors: str) -> int:
        """How often each of these collectors has succeeded, at least, in checks that began after this epoch second."""
        succeeded = Counter(name for record in self.checks if record.began_at > moment for name in record.succeeded)
        return min(succeeded[collector] for collector in collectors)

    def read(self) -> None:
        """Read what was written since the last time."""
        for entry in self._entries():
            if 'start' in entry:
                self._start(entry['states'])
                continue
            if self._persisting:
                self._close_batch()
            if 'sample' in entry:
                series, tags, value = entry['sample']
                self._batch[series, tuple(tags)] = value
            elif 'persist' in entry:
                self._persisting = entry['persist']
            elif 'check' in entry:
                self.checks.append(CheckRecord(**entry['check']))
                self.latest_checks.append(self.checks[-1])

    def _start(self, found: Sequence[str]) -> None:
        self.starts += 1
        self.latest_checks = []
        if self._persisting and self._persisting in found:
            self._close_batch()
        elif self._persisted not in found:
            self.lost_states += 1
        self.repeated_batches += bool(self._batch)
        logs = sum(int(value) for (series, _), value in self._batch.items() if series == LOG_RECORDS)
        self.repeated_logs += logs
        self.most_repeated_logs = max(self.most_repeated_logs, logs)
        self._batch = {}
        self._persisting = ''

    def _close_batch(self) -> None:
        """The batch is persisted: it counts."""
        self.batches += bool(self._batch)
        self.sums.add_samples(self._batch)
        self._batch = {}
        self._persisted, self._persisting = self._persisting, ''

    def _entries(self) -> Iterator[dict[str, Any]]:
        with self._path.open('rb') as file:
            file.seek(self._position)
            for line in file:
                if not line.endswith(b'\n'):
                    # It is being written.
                    return
                self._position += len(line)
                try:
                    entry = json.loads(line)
                except ValueError:
                    # Blank, or cut by a kill.
                    continue
                yield entry
