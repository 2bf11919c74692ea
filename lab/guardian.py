"""Run one command so that neither it nor anything that it starts can outlive the process that asked for it.

    python guardian.py --grace SECONDS [--remove FOLDER] -- COMMAND...

The guardian sits between a parent (a demo, a test session) and a command (a Prefect server, a worker):

- standard input is a pipe that the parent holds open. Its end means: stop. So the command stops when the parent
  asks for it, and also when the parent dies, however it dies;
- standard output gets one line, the process id of the command;
- standard error is handed to the command as its standard output and error.

To stop is SIGTERM to the process group of the command, then, after the grace period, SIGKILL to the group and to
everything else that the command started. On Linux the guardian is the "subreaper" of its descendants, so that
processes that left the group are found too: a Prefect worker may start each flow run in a session of its own. Then the
folder is removed; it stays when the command ended by itself, for its log. The exit status is that of the command
(128 + signal when a signal ended it).

It uses the standard library only and never imports the rest of the package, so that it starts in some milliseconds.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

ON_LINUX = sys.platform == 'linux'
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
POLL_SECONDS = 0.1


class StopRequested(Exception):
    """A signal asked the guardian itself to stop."""


def _set_process_option(option: int, value: int) -> None:
    if ON_LINUX:
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _die_with_guardian() -> None:
    _set_process_option(PR_SET_PDEATHSIG, signal.SIGKILL)


def _request_stop(signal_number: int, frame: FrameType | None) -> None:
    raise StopRequested


def _children_of(process_id: int) -> list[int]:
    """Return the ids of the direct children, as Linux tells them; elsewhere none."""
    children: list[int] = []
    for listing in Path('/proc', str(process_id), 'task').glob('*/children'):
        with contextlib.suppress(OSError):
            children += [int(word) for word in listing.read_text().split()]
    return children


def _descendants_of(process_id: int) -> list[int]:
    found: list[int] = []
    for child in _children_of(process_id):
        found += [child, *_descendants_of(child)]
    return found


class Guardian:
    """Starts the command, watches it and the parent, and leaves nothing behind."""

    def __init__(self, command: list[str], grace: float) -> None:
        self._grace = grace
        self._exit_status: int | None = None
        _set_process_option(PR_SET_CHILD_SUBREAPER, 1)
        self._process_id = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr.fileno(),
            start_new_session=True,
            preexec_fn=_die_with_guardian,
        ).pid

    def watch(self) -> bool:
        """Wait until the command has to be stopped; return False if it ended by itself."""
        print(self._process_id, flush=True)
        with contextlib.suppress(StopRequested):
            while self._is_running():
                readable, _, _ = select.select([sys.stdin.fileno()], [], [], POLL_SECONDS)
                if readable and not os.read(sys.stdin.fileno(), 1):
                    return True
            return False
        return True

    def stop(self) -> int:
        """Stop what still runs and return the exit status of the command."""
        for signal_number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(signal_number, signal.SIG_IGN)
        if self._is_running():
            self._signal_group(signal.SIGTERM)
            self._wait(self._grace)
        self._signal_group(signal.SIGKILL)
        while descendants := _descendants_of(os.getpid()):
            for process_id in descendants:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process_id, signal.SIGKILL)
            self._reap()
            time.sleep(POLL_SECONDS / 10)
        self._wait(self._grace)
        return self._exit_status if self._exit_status is not None else 1

    def _signal_group(self, signal_number: int) -> None:
        # EPERM is what macOS answers for a group of zombies.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process_id, signal_number)

    def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self._is_running() and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS / 2)

    def _is_running(self) -> bool:
        self._reap()
        return self._exit_status is None

    def _reap(self) -> None:
        """Collect every child that has ended: the command and the orphans that fell to the guardian."""
        with contextlib.suppress(ChildProcessError):
            while True:
                process_id, status = os.waitpid(-1, os.WNOHANG)
                if process_id == 0:
                    return
                if process_id == self._process_id:
                    code = os.waitstatus_to_exitcode(status)
                    self._exit_status = code if code >= 0 else 128 - code


def main() -> int:
    parser = argparse.ArgumentParser(description='Run a command that cannot outlive its parent.')
    parser.add_argument('--grace', type=float, default=10.0, help='seconds between SIGTERM and SIGKILL')
    parser.add_argument('--remove', type=Path, help='folder to remove at the end')
    parser.add_argument('command', nargs='+')
    arguments = parser.parse_args()
    for signal_number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signal_number, _request_stop)
    guardian = Guardian(arguments.command, arguments.grace)
    has_to_stop = guardian.watch()
    exit_status = guardian.stop()
    if has_to_stop and arguments.remove is not None:
        shutil.rmtree(arguments.remove, ignore_errors=True)
    return exit_status


if __name__ == '__main__':
    raise SystemExit(main())
