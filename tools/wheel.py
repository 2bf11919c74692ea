"""Build the wheel, look into it, install it as the Agent does, and run the check from there against a real server.

The wheel is left in `dist/`. `.envs/agent` has what an Agent has, and never anything of this repository but the wheel.
"""

from __future__ import annotations

import subprocess
import sys
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from zipfile import ZipFile

from lab.api import PrefectApiDriver
from lab.prefect_server import PrefectServer
from tools.environments import ROOT, EnvironmentFailed, ensure

DIST = ROOT / 'dist'
SMOKE = Path(__file__).with_name('wheel_smoke.py')
DATA = 'datadog_checks/prefect/data/conf.yaml.example'


class WheelRefused(Exception):
    """The wheel is not one that an Agent would take."""


def main() -> int:
    wheel = build()
    inspect(wheel)
    python = ensure('agent') / 'bin' / 'python'
    install(wheel, python)
    with PrefectServer() as server:
        fill(server.api_url)
        # -I: neither the current folder nor PYTHONPATH can stand in for what is installed.
        return subprocess.run([python, '-I', SMOKE, server.api_url], cwd='/').returncode


def build() -> Path:
    for old in DIST.glob('*.whl'):
        old.unlink()
    _run(sys.executable, '-m', 'hatchling', 'build', '-t', 'wheel', '-d', DIST, cwd=ROOT / 'prefect')
    (wheel,) = DIST.glob('datadog_prefect-*.whl')
    return wheel


def inspect(wheel: Path) -> None:
    """Check what the Agent's installer looks at, and that the wheel holds the package and nothing else."""
    with ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata_name,) = (name for name in names if name.endswith('.dist-info/METADATA'))
        metadata: Message = message_from_bytes(archive.read(metadata_name))

    strangers = [name for name in names if not name.startswith(('datadog_checks/prefect/', 'datadog_prefect-'))]
    if strangers:
        raise WheelRefused(f'{wheel.name} holds files of others: {", ".join(strangers)}')
    if DATA not in names:
        raise WheelRefused(f'{wheel.name} lacks {DATA}')
    # The Agent installs without dependencies, and refuses a wheel that does not name this one.
    needed = [line for line in metadata.get_all('Requires-Dist', []) if 'extra ==' not in line]
    if len(needed) != 1 or not needed[0].startswith('datadog-checks-base'):
        raise WheelRefused(f'{wheel.name} must depend on datadog-checks-base alone, but depends on {needed}')


def install(wheel: Path, python: Path) -> None:
    """Install as `datadog-agent integration install -w` does: nothing is fetched."""
    _run(python, '-m', 'pip', 'install', '-q', '--no-index', '--no-deps', '--force-reinstall', wheel, cwd=ROOT)
    _run(python, '-m', 'pip', '-q', 'check', cwd=ROOT)


def fill(api_url: str) -> None:
    """Give the server one of each object that the check looks at."""
    with PrefectApiDriver(api_url) as api:
        api.create_work_pool('pool')
        deployment_id = api.create_deployment(
            flow_name='flow', name='deployment', entrypoint='flow.py:flow', work_pool_name='pool'
        )
        api.create_flow_run(deployment_id)


def _run(*command: str | Path, cwd: Path) -> None:
    finished = subprocess.run(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if finished.returncode:
        raise WheelRefused(f'{" ".join(map(str, command))}\n{finished.stdout}')


if __name__ == '__main__':
    try:
        sys.exit(main())
    except (WheelRefused, EnvironmentFailed) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
