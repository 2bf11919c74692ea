"""Run the tests that need a whole Prefect on other versions of it: `python -m tools.matrix [--short] [VERSION ...]`

A version is one that `requirements/prefect-<version>.txt` lists the packages of, or `oldest` or `newest` for the ends
of what is supported; without any it is each of them. Its environment, `.envs/prefect-<version>`, is made when it is
missing. The exit code is 0 if all tests passed on all versions.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from datadog_checks.prefect.api.versions import OLDEST
from lab import postgres
from lab.prefect_server import release
from tools.environments import REQUIREMENTS, ROOT, EnvironmentFailed, ensure

TESTS = ROOT / 'prefect' / 'tests' / 'integration'
FULL_RUN = TESTS / 'test_full_run.py'
EXACTLY_ONCE = TESTS / 'test_exactly_once_live.py'
UNSUPPORTED = TESTS / 'test_unsupported_version.py'
DATABASES = ('SQLite', 'PostgreSQL')


class Part(NamedTuple):
    """Tests of one file on one version, of which `database` selects those of one database."""

    version: str
    tests: Path
    database: str | None = None

    def run(self) -> tuple[bool, float]:
        """Return whether all tests passed, and the seconds. What they print comes at their end."""
        started = time.monotonic()
        environment = os.environ | {'PREFECT_ENV': str(ensure(f'prefect-{self.version}'))}
        selection = ['-k', self.database] if self.database else []
        command = [sys.executable, '-m', 'pytest', '-q', *selection, str(self.tests)]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        print(f'Prefect {self.version}: {self.tests.stem}\n{done.stdout}{done.stderr}', end='', flush=True)
        return done.returncode == 0, time.monotonic() - started


def known_versions() -> list[str]:
    """Return the versions that there is a list of packages for, oldest first."""
    names = [path.stem.removeprefix('prefect-') for path in REQUIREMENTS.glob('prefect-*.txt')]
    return sorted(names, key=release)


def supported_versions() -> list[str]:
    return [version for version in known_versions() if release(version) >= OLDEST]


def parts_for(version: str, *, is_short: bool, database: str | None) -> list[Part]:
    if release(version) < OLDEST:
        return [Part(version, UNSUPPORTED)]
    if not is_short:
        databases = [database] if database else DATABASES
        return [Part(version, FULL_RUN, database), *(Part(version, EXACTLY_ONCE, name) for name in databases)]
    is_newest = version == supported_versions()[-1]
    one = 'PostgreSQL' if is_newest and not postgres.missing() else 'SQLite'
    return [Part(version, FULL_RUN, database or one)]


def main() -> int:
    known, supported = known_versions(), supported_versions()
    words = {'oldest': supported[0], 'newest': supported[-1]}
    parser = argparse.ArgumentParser(prog='python -m tools.matrix', description='The full run on other versions.')
    parser.add_argument('versions', nargs='*', metavar='VERSION', help=f'one of {", ".join([*known, *words])}')
    parser.add_argument('--short', action='store_true', help='the full run only, on one database')
    parser.add_argument('--database', choices=DATABASES, help='this database only')
    parser.add_argument('--jobs', type=int, default=2, help='how many parts to run at the same time (default: 2)')
    options = parser.parse_args()
    versions = [words.get(name, name) for name in options.versions or known]
    if unknown := [version for version in versions if version not in known]:
        parser.error(f'{", ".join(unknown)} is none of {", ".join([*known, *words])}')
    parts = [
        part for version in versions for part in parts_for(version, is_short=options.short, database=options.database)
    ]
    # They wait for servers most of the time; three at once were too much for SQLite on two cores.
    with ThreadPoolExecutor(options.jobs) as executor:
        results = list(executor.map(Part.run, parts))
    for part, (has_passed, seconds) in zip(parts, results, strict=True):
        what = ' '.join(filter(None, [part.tests.stem, part.database]))
        print(f'Prefect {part.version:8}{what:40}{"passed" if has_passed else "FAILED"} in {seconds:.0f} s')
    return 0 if all(has_passed for has_passed, _ in results) else 1


if __name__ == '__main__':
    try:
        sys.exit(main())
    except EnvironmentFailed as error:
        sys.exit(str(error))
