"""Processes that are measured, from the outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Self

from benchmarks.subject import Run
from benchmarks.traffic import Request
from lab.prefect_server import ROOT


class Subject:
    """A process of `benchmarks.subject`. It ends with the `with` block, and when this process dies: its input ends."""

    def __init__(self, kind: str, api_url: str, package: Path | None = None) -> None:
        """`package` is another folder than the present one from which the check is taken."""
        self.kind = kind
        self._command = [sys.executable, '-m', 'benchmarks.subject', kind, api_url]
        self._environment = {**os.environ, 'PYTHONPATH': str(package)} if package else None
        self._process: subprocess.Popen[str] | None = None

    def run(self) -> Run:
        """Have it run once. Raises RuntimeError if it ended."""
        self._say('run')
        line = self._started.stdout.readline() if self._started.stdout else ''
        if not line:
            raise RuntimeError(f'{" ".join(self._command)} ended')
        run = Run(**json.loads(line))
        run.requests = [Request(*request) for request in run.requests]
        return run

    def age(self) -> None:
        """See `subject.Check.age`."""
        self._say('age')

    def delay(self, seconds: float) -> None:
        """From now on each request takes so much longer."""
        self._say(f'delay {seconds}')

    def _say(self, word: str) -> None:
        assert self._started.stdin is not None
        self._started.stdin.write(f'{word}\n')
        self._started.stdin.flush()

    @property
    def _started(self) -> subprocess.Popen[str]:
        if self._process is None:
            self._process = subprocess.Popen(
                self._command,
                cwd=ROOT,
                env=self._environment,
                text=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        return self._process

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._process is not None:
            if error is not None:
                self._process.kill()
            self._process.communicate()


def cpu_seconds(process_id: int) -> float:
    """The processor time so far of a process and of the children that its first thread started, by Linux."""
    ticks = _ticks(process_id)
    for child in Path(f'/proc/{process_id}/task/{process_id}/children').read_text().split():
        # One that ended meanwhile.
        with suppress(OSError):
            ticks += _ticks(int(child))
    return ticks / os.sysconf('SC_CLK_TCK')


def _ticks(process_id: int) -> int:
    """Those of a process and of its children that ended."""
    fields = Path(f'/proc/{process_id}/stat').read_text().rpartition(')')[2].split()
    return sum(map(int, fields[11:15]))
