"""Child processes that are always stopped: at the end of a `with` block, on an error, and when this process dies."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

GUARDIAN = Path(__file__).with_name('guardian.py')
KILL_SECONDS = 10


class GuardedProcess:
    """A command under the care of `guardian.py`, in a session of its own, with one log file.

    `grace` is the number of seconds between SIGTERM and SIGKILL. `remove_folder` is removed when the command has been
    stopped, also when that is because this process was killed.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        environment: Mapping[str, str],
        folder: Path,
        log_path: Path,
        grace: float = 10.0,
        remove_folder: Path | None = None,
    ) -> None:
        self.command = [str(word) for word in command]
        self.log_path = log_path
        self._environment = dict(environment)
        self._folder = folder
        self._grace = grace
        self._remove_folder = remove_folder
        self._guardian: subprocess.Popen[bytes] | None = None
        self._process_id: int | None = None

    @property
    def pid(self) -> int:
        """The process id of the command itself (not of its guardian)."""
        if self._process_id is None:
            raise RuntimeError(f'{self.command[0]} has not been started')
        return self._process_id

    @property
    def is_running(self) -> bool:
        return self._guardian is not None and self._guardian.poll() is None

    @property
    def exit_status(self) -> int | None:
        """The exit status of the command, None while it runs; 128 + signal when a signal ended it."""
        return None if self._guardian is None else self._guardian.poll()

    def start(self) -> Self:
        options = ['--grace', str(self._grace)]
        if self._remove_folder is not None:
            options += ['--remove', str(self._remove_folder)]
        with self.log_path.open('ab') as log:
            self._guardian = subprocess.Popen(
                [sys.executable, '-I', '-S', GUARDIAN, *options, '--', *self.command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=self._folder,
                env=self._environment,
                start_new_session=True,
            )
        assert self._guardian.stdout is not None
        answer = self._guardian.stdout.readline().strip()
        if not answer:
            self.stop()
            raise RuntimeError(f'{self.command[0]} could not be started:\n{self.log_tail()}')
        self._process_id = int(answer)
        return self

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the command to end by itself and return its exit status."""
        if self._guardian is None:
            raise RuntimeError(f'{self.command[0]} has not been started')
        return self._guardian.wait(timeout)

    def stop(self) -> None:
        """Stop the command and everything that it started. May be called any number of times."""
        if self._guardian is None:
            return
        assert self._guardian.stdin is not None
        assert self._guardian.stdout is not None
        self._guardian.stdin.close()
        self._guardian.wait(self._grace + KILL_SECONDS)
        self._guardian.stdout.close()

    def log_tail(self, lines: int = 30) -> str:
        """Return the last lines that the command has printed."""
        try:
            text = self.log_path.read_text(errors='replace')
        except FileNotFoundError:
            return '(no log)'
        return '\n'.join(text.splitlines()[-lines:]) or '(the log is empty)'

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.stop()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port: int = probe.getsockname()[1]
        return port
