"""Make the Python environments that the Makefile runs in: `python3 -m tools.environments dev prefect-3.8.8 ...`

An environment holds what `requirements/<name>.txt` lists, each file of it with its hash. It lies in the user's cache
folder under a name that follows from that list and from the Python, so that clones share it, and `.envs/<name>` is a
link to it. Where the check is installed too, `.envs/<name>` is an environment of the clone's own: as good as empty, it
sees the packages of the shared one. Several are made side by side, and two processes do not make the same one.

uv installs; where it cannot (it reads no configuration of pip, so that it may find no package index), pip does. Needs
Python 3.11 or newer with `venv`, and nothing else.

Exit codes: 0 made, 1 failed, 3 no Python of the version that an environment needs.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time

if sys.version_info < (3, 11):  # noqa: UP036 (it is the point)
    sys.exit(
        f'Python 3.11 or newer is needed, but {sys.executable} is {sys.version.split()[0]}. '
        'Name another one: make PYTHON=/path/to/python3.12 ...'
    )

import fcntl
import shutil
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENTS = ROOT / '.envs'
REQUIREMENTS = ROOT / 'requirements'
SHARED = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'datadog-prefect' / 'environments'
NO_PYTHON = 3
# A shared environment that no clone has asked for so long is removed when another one is made.
UNUSED_SECONDS = 30 * 86400

# Environments that need a Python of their own, and those that take the one that runs this file where it is missing.
NEEDED_PYTHON = {'ddev': '3.13'}
PREFERRED_PYTHON = {'base-newest': '3.13'}
# Environments that the check is in as well: from the tree, or as the wheel that is installed there.
WITH_TREE = ('dev', 'base-')
WITH_WHEEL = ('agent',)
# Environments that many processes start from at once: what they import is compiled before.
COMPILED = ('prefect-',)

Command = list[str | Path]
LAST_LINES = 20
PROGRESS_SECONDS = 10.0


class EnvironmentFailed(Exception):
    """An environment could not be made; the message is for a person."""


class PythonNotFound(Exception):
    """No interpreter of the version that an environment needs."""


def main(names: list[str]) -> int:
    known = sorted(path.stem for path in REQUIREMENTS.glob('*.txt'))
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        print(f'usage: python3 -m tools.environments NAME ... (of {", ".join(known)})', file=sys.stderr)
        return 1
    try:
        ensure(*names)
    except PythonNotFound as error:
        print(error, file=sys.stderr)
        return NO_PYTHON
    except EnvironmentFailed as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('\ninterrupted: an unfinished environment is made anew next time', file=sys.stderr)
        return 130
    return 0


def ensure(*names: str) -> Path:
    """Make these environments, side by side, unless they are there, and return the folder of the first in `.envs`."""
    with ThreadPoolExecutor(len(names)) as executor:
        futures = [executor.submit(_ensure, name) for name in names]
        waiting = set(futures)
        while waiting:
            _, waiting = wait(waiting, PROGRESS_SECONDS)
            if waiting and _steps:
                steps = '; '.join(f'{name}: {step}' for name, step in sorted(dict(_steps).items()))
                _say(f'... {len(names) - len(waiting)} of {len(names)} are there; {steps}')
    # All have ended: what one raises leaves no other half done.
    folders = [future.result() for future in futures]
    return folders[0]


def interpreter(name: str) -> Path:
    """Return the Python that the environment is made with; raises PythonNotFound."""
    wanted = NEEDED_PYTHON.get(name) or PREFERRED_PYTHON.get(name)
    if wanted is None:
        return Path(sys.executable)
    for candidate in _candidates(wanted):
        if _runs(candidate, wanted):
            return candidate
    if name in NEEDED_PYTHON:
        raise PythonNotFound(f'no Python {wanted} found')
    return Path(sys.executable)


def _candidates(version: str) -> Iterator[Path]:
    """Where a Python may be. The first `python3.13` on PATH may be a shim of pyenv that exists and does not run."""
    if sys.version_info[:2] == tuple(int(part) for part in version.split('.')):
        yield Path(sys.executable)
    program = f'python{version}'
    yield from (Path(folder) / program for folder in os.environ.get('PATH', os.defpath).split(os.pathsep))
    siblings = [Path(sys.base_prefix).parent, Path.home() / '.local' / 'share' / 'uv' / 'python']
    siblings.append(Path(os.environ.get('PYENV_ROOT') or Path.home() / '.pyenv') / 'versions')
    for folder in siblings:
        yield from sorted(folder.glob(f'*{version}*/bin/{program}'))


def _runs(python: Path, version: str) -> bool:
    if not python.exists():
        return False
    question = 'import ensurepip, sys, venv; print("%d.%d" % sys.version_info[:2])'
    try:
        answer = subprocess.run([python, '-c', question], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return answer.returncode == 0 and answer.stdout.strip() == version


def _ensure(name: str) -> Path:
    python = interpreter(name)
    shared = _ensure_shared(name, python)
    folder = ENVIRONMENTS / name
    ENVIRONMENTS.mkdir(exist_ok=True)
    with _locked(ENVIRONMENTS / '.lock'):
        if name.startswith((*WITH_TREE, *WITH_WHEEL)):
            _make_own(name, folder, shared, python)
        elif not folder.is_symlink() or folder.readlink() != shared:
            _remove(folder)
            folder.symlink_to(shared)
    return folder


##### The shared environments


def _ensure_shared(name: str, python: Path) -> Path:
    """Make the environment in the cache folder unless it is there, and return its folder."""
    requirements = REQUIREMENTS / f'{name}.txt'
    folder = SHARED / f'{name}-{_hash(requirements, python)}'
    lock = folder.with_name(f'{folder.name}.lock')
    finished = folder / 'finished'
    if not (finished.exists() and (folder / 'bin' / 'python').exists()):
        try:
            SHARED.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EnvironmentFailed(f'{SHARED}: {error.strerror}. XDG_CACHE_HOME names another place') from error
        with _step(name, 'waits until another has made it'), _locked(lock):
            if not (finished.exists() and (folder / 'bin' / 'python').exists()):
                _make(name, folder, python, requirements)
                finished.touch()
                _remove_unused()
    finished.touch()
    return folder


def _remove_unused() -> None:
    """Remove the shared environments that were asked for long ago: their lists have changed since."""
    for finished in SHARED.glob('*/finished'):
        if time.time() - finished.stat().st_mtime > UNUSED_SECONDS:
            folder = finished.parent
            # First what says that it is whole.
            finished.unlink(missing_ok=True)
            _remove(folder)
            for rest in SHARED.glob(f'{folder.name}.*'):
                rest.unlink(missing_ok=True)


def _hash(requirements: Path, python: Path) -> str:
    """What the environment is made of. The folder is in it since an environment does not survive being moved."""
    version = subprocess.run(
        [python, '-c', 'import sys; print(sys.base_prefix, sys.version)'], capture_output=True, text=True, check=True
    )
    parts = [str(SHARED), version.stdout, requirements.read_text()]
    return hashlib.sha256('\n'.join(parts).encode()).hexdigest()[:16]


def _make(name: str, folder: Path, python: Path, requirements: Path) -> None:
    started = time.monotonic()
    packages = sum('==' in line for line in requirements.read_text().splitlines())
    log = folder.with_name(f'{folder.name}.log')
    log.unlink(missing_ok=True)
    _say(f'{name}: making the environment, at most {packages} packages')
    with _step(name, 'waits for uv'):
        uv = None if name == 'uv' else _uv()
    if uv is not None:
        try:
            with _step(name, 'uv installs'):
                _install_with_uv(uv, folder, python, requirements, log)
        except EnvironmentFailed:
            _say(f'{name}: uv could not install it, so pip does. What uv said: {log}')
            uv = None
    if uv is None:
        with _step(name, 'pip installs'):
            _install_with_pip(folder, python, requirements, log)
    _say(f'{name}: made in {time.monotonic() - started:.0f} s')


def _install_with_uv(uv: Path, folder: Path, python: Path, requirements: Path, log: Path) -> None:
    _remove(folder)
    _run([python, '-m', 'venv', '--without-pip', folder], log)
    options: Command = [
        '--no-progress',
        '--compile-bytecode',
        '--require-hashes',
        '--python',
        folder / 'bin' / 'python',
    ]
    # Where it finds no index it is to say so soon.
    patience = {'UV_HTTP_RETRIES': '1', 'UV_HTTP_CONNECT_TIMEOUT': '5'}
    _run([uv, 'pip', 'install', *options, '--requirement', requirements], log, patience)


def _install_with_pip(folder: Path, python: Path, requirements: Path, log: Path) -> None:
    _remove(folder)
    _run([python, '-m', 'venv', folder], log)
    pip: Command = [folder / 'bin' / 'python', '-m', 'pip', '--disable-pip-version-check', '--no-input']
    _run([*pip, 'install', '--require-hashes', '--requirement', requirements], log)


def _uv() -> Path | None:
    """The program `uv`, which pip installs; None if it cannot."""
    with _uv_lock:
        try:
            return _ensure_shared('uv', Path(sys.executable)) / 'bin' / 'uv'
        except EnvironmentFailed as error:
            _say(f'uv: pip could not install it, so pip installs everything\n{error}')
            return None


##### The environments of the clone


def _make_own(name: str, folder: Path, shared: Path, python: Path) -> None:
    """Make an environment that sees the packages of the shared one, and the check in the tree if it is for that."""
    (packages,) = shared.glob('lib/python*/site-packages')
    lines = [f'import site; site.addsitedir({str(packages)!r})']
    if name.startswith(WITH_TREE):
        lines.append(str(ROOT / 'prefect'))
    content = '\n'.join([*lines, ''])
    paths = folder / packages.relative_to(shared) / 'shared.pth'
    if folder.is_symlink() or not paths.exists() or paths.read_text() != content:
        _remove(folder)
        log = ENVIRONMENTS / f'{name}.log'
        _run([python, '-m', 'venv', '--without-pip', folder], log)
        log.unlink()
        paths.write_text(content)


##### What all of it needs

# What is done at the moment, by the name of the environment.
_steps: dict[str, str] = {}
_uv_lock = threading.Lock()


@contextmanager
def _step(name: str, step: str) -> Iterator[None]:
    before = _steps.get(name)
    _steps[name] = step
    try:
        yield
    finally:
        if before is None:
            del _steps[name]
        else:
            _steps[name] = before


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _remove(folder: Path) -> None:
    """Remove an environment. Of one that is a link, the link."""
    if folder.is_symlink():
        folder.unlink()
    with suppress(FileNotFoundError):
        shutil.rmtree(folder)


def _run(command: Command, log: Path, variables: Mapping[str, str] | None = None) -> None:
    """Run a command to its end. Raises EnvironmentFailed with the last of its output, all of which goes into `log`."""
    ignored = ('PYTHONPATH', 'PYTHONHOME', 'VIRTUAL_ENV')
    environment = {name: value for name, value in os.environ.items() if name not in ignored}
    environment.update(variables or {})
    with log.open('a') as output:
        status = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, env=environment).returncode
    if status:
        last_lines = '\n'.join(log.read_text(errors='replace').splitlines()[-LAST_LINES:])
        hint = '\nOn Debian and Ubuntu: apt install python3-venv' if 'ensurepip' in last_lines else ''
        raise EnvironmentFailed(f'{" ".join(map(str, command))} failed\n{last_lines}{hint}\nAll of it: {log}')


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let one thread of one process at a time go on."""
    with path.open('w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
