"""A real PostgreSQL server for Prefect servers: one process tree, on the loopback interface.

The programs are those of the operating system. Where they are missing, `missing()` says so. They refuse to run as root;
then they run as the user `postgres`, whom their package makes.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from lab.processes import GuardedProcess, free_port

USER = 'postgres'
HOST = '127.0.0.1'
# Debian and its kin have a folder for each version, and none of them on PATH.
DEBIAN_FOLDERS = Path('/usr/lib/postgresql')
START_SECONDS = 60.0
PROBE_SECONDS = 0.2
# What is lost when the machine fails is of no interest here.
SETTINGS = {'fsync': 'off', 'full_page_writes': 'off', 'synchronous_commit': 'off', 'listen_addresses': HOST}


def missing() -> str | None:
    """Return what keeps PostgreSQL from being run here, in words for a person; None if nothing does."""
    if _programs() is None:
        return f'PostgreSQL is not installed: no initdb on PATH or in {DEBIAN_FOLDERS}/*/bin'
    if os.geteuid() != 0:
        return None
    if shutil.which('setpriv') is None:
        return 'PostgreSQL does not run as root, and there is no setpriv to run it as another user'
    if not any(user.pw_name == USER for user in pwd.getpwall()):
        return f'PostgreSQL does not run as root, and there is no user {USER}'
    return None


def _programs() -> Path | None:
    """The folder of initdb and postgres, of the newest version that is found."""
    on_path = shutil.which('initdb')
    if on_path is not None:
        return Path(on_path).resolve().parent
    found = [path.parent for path in DEBIAN_FOLDERS.glob('*/bin/initdb')]
    return max(found, key=lambda folder: [int(part) for part in re.findall(r'\d+', str(folder))], default=None)


class PostgresServer:
    """`postgres` with an empty database, in a temporary folder that is removed when it is stopped.

    A standby is a copy of another server, which can only be read and lags `lag_seconds` behind it.
    """

    def __init__(self, *, standby_of: PostgresServer | None = None, lag_seconds: float = 0.0) -> None:
        self._primary = standby_of
        self._lag_seconds = lag_seconds
        self._process: GuardedProcess | None = None
        self._folder: Path | None = None
        self.port = free_port()

    @property
    def folder(self) -> Path:
        if self._folder is None:
            raise RuntimeError('PostgreSQL has not been started')
        return self._folder

    @property
    def url(self) -> str:
        """The value for PREFECT_API_DATABASE_CONNECTION_URL.

        By a socket some Prefect (3.4.25) does not hear of new automations: it looks for the host before the path only.
        """
        return f'postgresql+asyncpg://prefect@{HOST}:{self.port}/postgres'

    def start(self) -> Self:
        """Start the server and return when it takes connections.

        Raises RuntimeError, with the end of its log, when it does not.
        """
        programs = _programs()
        if (problem := missing()) or programs is None:
            raise RuntimeError(problem)
        self._folder = Path(tempfile.mkdtemp(prefix='prefect-lab-postgres-'))
        try:
            if os.geteuid() == 0:
                shutil.chown(self._folder, USER)
            self._make_database(programs)
            settings = {**SETTINGS, 'port': str(self.port)}
            if self._primary is not None:
                settings['recovery_min_apply_delay'] = f'{self._lag_seconds * 1000:.0f}ms'
            options = [word for name, value in settings.items() for word in ('-c', f'{name}={value}')]
            self._process = GuardedProcess(
                self._as_user([programs / 'postgres', '-D', 'data', '-k', self._folder, *options]),
                environment=self._environment(),
                folder=self._folder,
                log_path=self._folder / 'postgres.log',
                grace=5.0,
                remove_folder=self._folder,
            ).start()
            self._wait_until_ready(programs, self._process)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop the server and remove its folder. May be called any number of times."""
        if self._process is not None:
            self._process.stop()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _make_database(self, programs: Path) -> None:
        if self._primary is None:
            options = ['--username=prefect', '--auth=trust', '--encoding=UTF8', '--locale=C', '--no-sync']
            self._run([programs / 'initdb', '-D', 'data', *options])
        else:
            options = ['-h', HOST, '-p', str(self._primary.port), '-U', 'prefect', '--checkpoint=fast', '--no-sync']
            self._run([programs / 'pg_basebackup', '-D', 'data', *options, '--write-recovery-conf'])

    def _wait_until_ready(self, programs: Path, process: GuardedProcess) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and process.is_running:
            if self._run([programs / 'pg_isready', '-h', HOST, '-p', str(self.port)], check=False):
                return
            time.sleep(PROBE_SECONDS)
        raise RuntimeError(f'PostgreSQL takes no connections:\n{process.log_tail()}')

    def _run(self, command: Sequence[str | Path], *, check: bool = True) -> bool:
        """Run one of its programs to the end, and return whether it went well."""
        done = subprocess.run(
            self._as_user(command),
            cwd=self.folder,
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
        )
        if check and done.returncode:
            raise RuntimeError(f'{command[0]} failed:\n{done.stdout}{done.stderr}')
        return done.returncode == 0

    @staticmethod
    def _as_user(command: Sequence[str | Path]) -> list[str | Path]:
        if os.geteuid() != 0:
            return list(command)
        # A change of the user takes away the signal that the kernel sends when the guardian dies, unless it is kept.
        return ['setpriv', f'--reuid={USER}', f'--regid={USER}', '--clear-groups', '--pdeathsig=keep', *command]

    @staticmethod
    def _environment() -> dict[str, str]:
        """The caller's environment without what would reach into PostgreSQL."""
        return {name: value for name, value in os.environ.items() if not name.startswith('PG')} | {'LC_ALL': 'C'}

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.stop()
