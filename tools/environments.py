"""Make the Python environments that the Makefile runs in: `python3 tools/environments.py dev agent ...`

`.envs/<name>` is a virtual environment with what `requirements/<name>.txt` lists. One that is up to date is left
alone: its `stamp` file holds a hash of what it was made from. An environment that is a symbolic link belongs to
somebody else and is used as it is. Needs Python 3.11 or newer with `venv`, and nothing else.

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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENTS = ROOT / '.envs'
REQUIREMENTS = ROOT / 'requirements'
NO_PYTHON = 3

# Environments that do not run on the Python that runs this file.
PYTHON_OF_ENVIRONMENT = {'ddev': '3.13', 'dev-3.13': '3.13'}
# Lists that pip installs as they are: they are complete, and it would not find all that their packages ask for.
WITHOUT_DEPENDENCIES = {'prefect-2.20.27', 'prefect-3.9.1'}
# Environments that the check itself is installed into, from the tree.
WITH_CHECK = {'dev', 'dev-3.13'}

LAST_LINES = 20


class EnvironmentFailed(Exception):
    """An environment could not be made; the message is for a person."""


class PythonNotFound(Exception):
    """No interpreter of the version that an environment needs."""


def main(names: list[str]) -> int:
    known = sorted(path.stem for path in REQUIREMENTS.glob('*.txt'))
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        print(f'usage: environments.py NAME ... (one of {", ".join(known)})', file=sys.stderr)
        return 1
    try:
        for name in names:
            ensure(name)
    except PythonNotFound as error:
        print(error, file=sys.stderr)
        return NO_PYTHON
    except EnvironmentFailed as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('\ninterrupted: the unfinished environment is made anew next time', file=sys.stderr)
        return 130
    return 0


def ensure(name: str) -> Path:
    """Make `.envs/<name>` unless it is up to date, and return its folder."""
    folder = ENVIRONMENTS / name
    if folder.is_symlink():
        return folder
    with _lock():
        python = interpreter(name)
        stamp = _stamp(name, python)
        stamp_file = folder / 'stamp'
        if not (folder / 'bin' / 'python').exists() or not stamp_file.exists() or stamp_file.read_text() != stamp:
            _make(name, folder, python)
            stamp_file.write_text(stamp)
    return folder


def interpreter(name: str) -> Path:
    """Return the Python that the environment is made with; raises PythonNotFound."""
    wanted = PYTHON_OF_ENVIRONMENT.get(name)
    if wanted is None:
        return Path(sys.executable)
    for candidate in _candidates(wanted):
        if _runs(candidate, wanted):
            return candidate
    raise PythonNotFound(f'no Python {wanted} found')


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


def _make(name: str, folder: Path, python: Path) -> None:
    requirements = REQUIREMENTS / f'{name}.txt'
    log = folder.parent / f'{name}.log'
    started = time.monotonic()
    print(f'{name}: installing {len(_pins(requirements))} packages ... ', end='', file=sys.stderr, flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    pip: list[str | Path] = [
        folder / 'bin' / 'python',
        '-m',
        'pip',
        '--disable-pip-version-check',
        '--no-input',
        'install',
        '-q',
    ]
    log.write_text('')
    _run([python, '-m', 'venv', folder], log)
    _run([*pip, *(['--no-deps'] if name in WITHOUT_DEPENDENCIES else []), '--requirement', requirements], log)
    if name in WITH_CHECK:
        _run([*pip, '--no-deps', '--no-build-isolation', '--editable', ROOT / 'prefect'], log)
    print(f'{time.monotonic() - started:.0f} s', file=sys.stderr, flush=True)


def _run(command: list[str | Path], log: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ('PYTHONPATH', 'PYTHONHOME')}
    with log.open('a') as output:
        status = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, env=environment).returncode
    if status:
        last_lines = '\n'.join(log.read_text(errors='replace').splitlines()[-LAST_LINES:])
        hint = '\nOn Debian and Ubuntu: apt install python3-venv' if 'ensurepip' in last_lines else ''
        raise EnvironmentFailed(f'failed\n{last_lines}{hint}\nAll of it: {log}')


def _stamp(name: str, python: Path) -> str:
    """What the environment is made of. The folder is in it since an environment does not survive being moved."""
    base = sys.base_prefix if python == Path(sys.executable) else str(python)
    parts = [str(ENVIRONMENTS / name), base, sys.version, *_pins(REQUIREMENTS / f'{name}.txt')]
    if name in WITH_CHECK:
        parts.append((ROOT / 'prefect' / 'pyproject.toml').read_text())
    return hashlib.sha256('\n'.join(parts).encode()).hexdigest()


def _pins(requirements: Path) -> list[str]:
    """Return the lines that name a package, of the file and of those that it includes."""
    pins: list[str] = []
    for line in requirements.read_text().splitlines():
        if line.startswith('-r '):
            pins += _pins(requirements.parent / line.removeprefix('-r ').strip())
        elif line and not line.startswith('#'):
            pins.append(line)
    return pins


@contextmanager
def _lock() -> Iterator[None]:
    """Let one process at a time make environments."""
    ENVIRONMENTS.mkdir(exist_ok=True)
    with (ENVIRONMENTS / '.lock').open('w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
