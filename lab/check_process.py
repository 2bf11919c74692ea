"""A process that runs the check at an interval, and that may be killed at any moment and goes on afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from lab.journal import Journal
from lab.prefect_server import ROOT
from lab.processes import GuardedProcess
from lab.run_checks import JOURNAL_NAME


class CheckProcess:
    """`python -m lab.run_checks` with its state and its journal in `folder`, started anew whenever it has died.

    `deaths` is the chance that it kills itself while it persists a batch; a change holds from the next start on.
    """

    def __init__(
        self, instance: Mapping[str, Any], folder: Path, *, deaths: float = 0.0, interval: float = 1.0
    ) -> None:
        self.deaths = deaths
        self.starts = 0
        # Times that it was killed by `kill`; the other starts but one are deaths of its own.
        self.kills = 0
        self._instance = dict(instance)
        self._folder = folder
        self._interval = interval
        self._process: GuardedProcess | None = None
        self._journal = Journal(folder / JOURNAL_NAME)

    def keep_running(self) -> None:
        """Start the process if it is not there."""
        if self._process is not None:
            if self._process.is_running:
                return
            if self._process.exit_status != 128 + signal.SIGKILL:
                raise RuntimeError(f'the process that runs the check ended:\n{self._process.log_tail()}')
            self._process.stop()
        self.starts += 1
        command: list[str | Path] = [sys.executable, '-m', 'lab.run_checks']
        command += ['--instance', json.dumps(self._instance), '--folder', self._folder]
        command += ['--interval', str(self._interval), '--deaths', str(self.deaths), '--seed', str(self.starts)]
        self._process = GuardedProcess(
            command, environment=os.environ, folder=ROOT, log_path=self._folder / 'check.log', grace=0.5
        ).start()

    def kill(self) -> None:
        """Kill the process where it stands (SIGKILL)."""
        if self._process is not None and self._process.is_running:
            self.kills += 1
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)
            self._process.wait()

    @property
    def journal(self) -> Journal:
        """What the process has done so far."""
        (self._folder / JOURNAL_NAME).touch()
        self._journal.read()
        return self._journal

    def __enter__(self) -> Self:
        self.keep_running()
        return self

    def __exit__(self, *error: object) -> None:
        if self._process is not None:
            self._process.stop()
