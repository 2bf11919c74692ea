"""Run Datadog's own validators (`ddev validate`) on the integration, or let them write the files that they generate.

Without arguments: every validator that works offline and outside Datadog's repositories. With `--sync`: write
`data/conf.yaml.example` and `config_models/` from `assets/configuration/spec.yaml`. Runs on any Python, makes
`.envs/ddev` when it is missing, and where ddev cannot run it says so in one line and leaves that line in
`.envs/ddev.skipped`, for the end of `make test`.
"""

from __future__ import annotations

import os
import subprocess
import sys

from tools.environments import ENVIRONMENTS, ROOT, EnvironmentFailed, PythonNotFound, ensure

INTEGRATION = 'prefect'
VALIDATORS = (
    'config',
    'models',
    'metadata',
    'package',
    'readmes',
    'http',
    'imports',
    'legacy-signature',
    'dashboards',
    'saved-views',
)
GENERATORS = ('config', 'models')
SKIPPED = ENVIRONMENTS / 'ddev.skipped'


def main(arguments: list[str]) -> int:
    sync = arguments == ['--sync']
    SKIPPED.unlink(missing_ok=True)
    obstacle = _obstacle()
    if obstacle:
        statement = f'ddev validators skipped: {obstacle}'
        SKIPPED.write_text(f'{statement}\n')
        print(statement)
        return 1 if sync else 0

    commands = (
        [[name, INTEGRATION, '--sync'] for name in GENERATORS] if sync else [[x, INTEGRATION] for x in VALIDATORS]
    )
    # A generated file that is wrong makes other validators fail: the first failure is the one to look at.
    return 0 if all(_passes(command) for command in commands) else 1


def _obstacle() -> str:
    """Return why ddev cannot run here, '' if it can."""
    try:
        ensure('ddev')
    except PythonNotFound as error:
        return str(error)
    if subprocess.run(['git', '-C', ROOT, 'rev-parse'], capture_output=True).returncode:
        return f'{ROOT} is not a git repository'
    return ''


def _passes(command: list[str]) -> bool:
    """Run one validator from the root: from a subfolder some find nothing and still succeed."""
    folder = ENVIRONMENTS / 'ddev'
    environment = os.environ | {
        # ddev calls programs of its own environment by their names.
        'PATH': f'{folder / "bin"}{os.pathsep}{os.environ.get("PATH", os.defpath)}',
        'XDG_CACHE_HOME': str(ENVIRONMENTS / 'ddev-files' / 'cache'),
        'XDG_DATA_HOME': str(ENVIRONMENTS / 'ddev-files' / 'data'),
    }
    validator = subprocess.run(
        ['ddev', '--no-interactive', '--no-color', 'validate', *command],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    failed = validator.returncode != 0
    print(f'ddev validate {" ".join(command)}: {"FAILED" if failed else "passed"}', flush=True)
    if failed:
        print(validator.stdout)
    return not failed


if __name__ == '__main__':
    try:
        sys.exit(main(sys.argv[1:]))
    except EnvironmentFailed as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
