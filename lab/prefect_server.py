"""Real Prefect processes: a server, a worker, a script that runs flows without a deployment.

The processes run in an environment that has Prefect installed (`.envs/prefect-<version>` below the repository's root;
`PREFECT_ENV` names another one), listen on loopback only, keep their files in temporary folders, and send nothing to
anybody: analytics are off. Each is guarded (see `guardian.py`) and leaves neither process nor file behind.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import requests

from lab.processes import GuardedProcess, free_port

PREFECT_VERSION = '3.8.8'
ROOT = Path(__file__).resolve().parent.parent
FLOWS_FOLDER = Path(__file__).resolve().parent / 'flows'
START_SECONDS = 120.0
PROBE_SECONDS = 0.2

# Settings of no effect in a version that does not know them.
QUIET_SETTINGS = {
    'DO_NOT_TRACK': '1',
    'NO_COLOR': '1',
    'NO_PROXY': '127.0.0.1,localhost',
    'no_proxy': '127.0.0.1,localhost',
    'PREFECT_CLI_COLORS': 'false',
    'PREFECT_LOGGING_COLORS': 'false',
    'PREFECT_SERVER_ANALYTICS_ENABLED': 'false',
    'PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT': 'false',
    'PYTHONUNBUFFERED': '1',
    # What libraries have to say of each other: it depends on their versions, and is nothing of Prefect's.
    'PYTHONWARNINGS': 'ignore',
}


def prefect_environment_folder() -> Path:
    """Return the folder of the environment that has Prefect: PREFECT_ENV, or the one that the Makefile makes."""
    return Path(os.environ.get('PREFECT_ENV') or ROOT / '.envs' / f'prefect-{PREFECT_VERSION}')


def prefect_version() -> str:
    """Return the version of Prefect in that environment."""
    (installed,) = prefect_environment_folder().glob('lib/python*/site-packages/prefect-[0-9]*.dist-info')
    return installed.stem.removeprefix('prefect-')


def release(version: str) -> tuple[int, ...]:
    """Return the numbers of a version, to compare it with others."""
    return tuple(int(part) for part in version.split('.'))


class _PrefectProcess:
    """A process of the Prefect environment with a temporary folder of its own."""

    def __init__(self, name: str, python: Path | None, settings: Mapping[str, str], grace: float) -> None:
        self._name = name
        self._python = python or prefect_environment_folder() / 'bin' / 'python'
        self._settings = dict(settings)
        self._grace = grace
        self._process: GuardedProcess | None = None
        self._folder: Path | None = None

    @property
    def _command(self) -> str:
        """The script `prefect`, for the Python to run: `python -m prefect` came after 3.0."""
        return str(self._python.with_name('prefect'))

    @property
    def process(self) -> GuardedProcess:
        if self._process is None:
            raise RuntimeError(f'the {self._name} has not been started')
        return self._process

    @property
    def folder(self) -> Path:
        """The temporary folder: PREFECT_HOME, the SQLite database, the log."""
        if self._folder is None:
            raise RuntimeError(f'the {self._name} has not been started')
        return self._folder

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.is_running

    @property
    def log_path(self) -> Path:
        return self.process.log_path

    def start(self) -> Self:
        raise NotImplementedError

    def stop(self) -> None:
        """Stop the process and all that it started, and remove its folder. May be called any number of times."""
        if self._process is not None:
            self._process.stop()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _launch(self, arguments: Sequence[str], settings: Mapping[str, str]) -> None:
        if not self._python.exists():
            raise FileNotFoundError(f'no Prefect environment: {self._python} does not exist (run `make environments`)')
        self._folder = Path(tempfile.mkdtemp(prefix=f'prefect-lab-{self._name}-'))
        self._process = GuardedProcess(
            [self._python, *arguments],
            environment=self._environment() | dict(settings) | self._settings,
            folder=self._folder,
            log_path=self._folder / f'{self._name}.log',
            grace=self._grace,
            remove_folder=self._folder,
        )
        self._process.start()

    def _environment(self) -> dict[str, str]:
        """The caller's environment without what would reach into Prefect or Python, plus a home of its own."""
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(('PREFECT_', 'PYTHON', 'VIRTUAL_'))
        }
        path = f'{self._python.parent}{os.pathsep}{inherited.get("PATH", os.defpath)}'
        return inherited | QUIET_SETTINGS | {'PATH': path, 'PREFECT_HOME': str(self.folder / 'home')}

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.stop()


class PrefectServer(_PrefectProcess):
    """`prefect server start` on a free loopback port, with SQLite in a temporary folder unless a database is named.

    `settings` are Prefect settings as environment variables (`{'PREFECT_SERVER_API_DEFAULT_LIMIT': '50'}`). Without
    services it only answers: `Services` has them in a process of their own.
    """

    def __init__(
        self,
        python: Path | None = None,
        settings: Mapping[str, str] | None = None,
        *,
        database_url: str | None = None,
        start_seconds: float = START_SECONDS,
        with_services: bool = True,
    ) -> None:
        super().__init__('server', python, settings or {}, grace=5.0)
        self._with_services = with_services
        self._database_url = database_url
        self._start_seconds = start_seconds
        self.port = free_port()

    @property
    def url(self) -> str:
        return f'http://127.0.0.1:{self.port}'

    @property
    def api_url(self) -> str:
        """The value for `prefect_url`: the base of the REST API, without a trailing slash."""
        return f'{self.url}/api'

    def start(self) -> Self:
        """Start the server and return when it is healthy and ready.

        Raises RuntimeError with the end of the server's log when it ends or is not ready in time.
        """
        arguments = ['server', 'start', '--host', '127.0.0.1', '--port', str(self.port)]
        arguments += [] if self._with_services else ['--no-services']
        try:
            self._launch([self._command, *arguments], {})
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def _environment(self) -> dict[str, str]:
        return super()._environment() | {
            'PREFECT_API_DATABASE_CONNECTION_URL': self.database_url,
            'PREFECT_SERVER_ALLOW_EPHEMERAL_MODE': 'false',
        }

    @property
    def database_url(self) -> str:
        return self._database_url or f'sqlite+aiosqlite:///{self.folder}/prefect.db'

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + self._start_seconds
        with requests.Session() as session:
            session.trust_env = False
            while time.monotonic() < deadline:
                if not self.is_running:
                    raise RuntimeError(f'the Prefect server ended while it started:\n{self.process.log_tail()}')
                if self._answers(session, 'health') and self._answers(session, 'ready'):
                    return
                time.sleep(PROBE_SECONDS)
        raise RuntimeError(
            f'the Prefect server was not ready after {self._start_seconds:.0f} s:\n{self.process.log_tail()}'
        )

    def _answers(self, session: requests.Session, path: str) -> bool:
        try:
            return session.get(f'{self.api_url}/{path}', timeout=5).ok
        except requests.RequestException:
            return False


class Services(_PrefectProcess):
    """`prefect server services start`: the background services of a server, on its database, in their own process.

    Events that clients send do not get here: the server's own broker of messages is within its process.
    """

    def __init__(
        self, database_url: str, *, python: Path | None = None, settings: Mapping[str, str] | None = None
    ) -> None:
        super().__init__('services', python, settings or {}, grace=5.0)
        self._database_url = database_url

    def start(self) -> Self:
        settings = {'PREFECT_API_DATABASE_CONNECTION_URL': self._database_url}
        self._launch([self._command, 'server', 'services', 'start'], settings)
        return self


class Worker(_PrefectProcess):
    """`prefect worker start --type process`: polls a work pool and runs each flow run as a subprocess.

    When it is stopped, its flow-run subprocesses are killed too. It does not wait for its first poll: the worker is of
    use some seconds after `start()` returns.
    """

    def __init__(
        self,
        api_url: str,
        work_pool_name: str,
        *,
        name: str = 'w1',
        work_queue_names: Sequence[str] = (),
        python: Path | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__('worker', python, settings or {}, grace=3.0)
        self._api_url = api_url
        self.work_pool_name = work_pool_name
        self.name = name
        self._work_queue_names = tuple(work_queue_names)

    def start(self) -> Self:
        arguments = ['worker', 'start', '--type', 'process']
        arguments += ['--pool', self.work_pool_name, '--name', self.name, '--install-policy', 'never']
        for work_queue_name in self._work_queue_names:
            arguments += ['--work-queue', work_queue_name]
        self._launch([self._command, *arguments], {'PREFECT_API_URL': self._api_url})
        return self


class FlowScript(_PrefectProcess):
    """A Python file of `lab/flows` run as a plain script against a server: flow runs without a deployment."""

    def __init__(
        self, api_url: str, file_name: str, *, python: Path | None = None, settings: Mapping[str, str] | None = None
    ) -> None:
        super().__init__('script', python, settings or {}, grace=3.0)
        self._api_url = api_url
        self.file_path = FLOWS_FOLDER / file_name

    def start(self) -> Self:
        self._launch([str(self.file_path)], {'PREFECT_API_URL': self._api_url})
        return self

    def wait(self, timeout: float | None = None) -> int:
        return self.process.wait(timeout)
