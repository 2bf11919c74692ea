"""Build the wheel, look into it, install it as the Agent does, and run the check from there against a real server.

The wheel is left in `dist/`, and beside it its bill of materials (CycloneDX). `.envs/agent` has what an Agent has, and
never anything of this repository but the wheel.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from zipfile import ZipFile

from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.model.license import LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from lab.api import PrefectApiDriver
from lab.prefect_server import PrefectServer
from tools.environments import ROOT, EnvironmentFailed, ensure

DIST = ROOT / 'dist'
SMOKE = Path(__file__).with_name('wheel_smoke.py')
LICENCE = 'BSD-3-Clause'
DATA = 'datadog_checks/prefect/data/conf.yaml.example'


class WheelRefused(Exception):
    """The wheel is not one that an Agent would take."""


def main() -> int:
    wheel = build()
    inspect(wheel)
    write_bill_of_materials(wheel)
    python = ensure('agent') / 'bin' / 'python'
    install(wheel, python)
    with PrefectServer() as server:
        fill(server.api_url)
        # -I: neither the current folder nor PYTHONPATH can stand in for what is installed.
        return subprocess.run([python, '-I', SMOKE, server.api_url], cwd='/').returncode


def build() -> Path:
    for old in (*DIST.glob('*.whl'), *DIST.glob('*.cdx.json')):
        old.unlink()
    _run(sys.executable, '-m', 'hatchling', 'build', '-t', 'wheel', '-d', DIST, cwd=ROOT / 'prefect')
    (wheel,) = DIST.glob('datadog_prefect-*.whl')
    return wheel


def inspect(wheel: Path) -> None:
    """Check what the Agent's installer looks at, and that the wheel holds the package and nothing else."""
    metadata = read_metadata(wheel)
    with ZipFile(wheel) as archive:
        names = archive.namelist()
        licences = [archive.read(name) for name in names if '.dist-info/licenses/' in name]

    strangers = [name for name in names if not name.startswith(('datadog_checks/prefect/', 'datadog_prefect-'))]
    if strangers:
        raise WheelRefused(f'{wheel.name} holds files of others: {", ".join(strangers)}')
    if DATA not in names:
        raise WheelRefused(f'{wheel.name} lacks {DATA}')
    if metadata['License-Expression'] != LICENCE or licences != [(ROOT / 'LICENSE').read_bytes()]:
        raise WheelRefused(f'{wheel.name} must name the licence {LICENCE} and hold the file LICENSE')
    # The Agent installs without dependencies, and refuses a wheel that does not name this one.
    needed = needed_packages(metadata)
    if len(needed) != 1 or not needed[0].startswith('datadog-checks-base'):
        raise WheelRefused(f'{wheel.name} must depend on datadog-checks-base alone, but depends on {needed}')


def read_metadata(wheel: Path) -> Message:
    with ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith('.dist-info/METADATA'))
        return message_from_bytes(archive.read(name))


def needed_packages(metadata: Message) -> list[str]:
    """The requirements of the wheel, those of extras left out: `datadog-checks-base>=37.33.0`."""
    return [line for line in metadata.get_all('Requires-Dist', []) if 'extra ==' not in line]


def write_bill_of_materials(wheel: Path) -> Path:
    """Write what the wheel consists of beside it, as CycloneDX 1.6, and return that file.

    The wheel holds no code of others. What it needs is the Agent's, in the version that the Agent brings.
    """
    metadata = read_metadata(wheel)
    name, version = metadata['Name'], metadata['Version']
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    component = Component(
        type=ComponentType.LIBRARY,
        name=name,
        version=version,
        bom_ref=f'{name}@{version}',
        description=metadata['Summary'],
        licenses=[LicenseExpression(LICENCE)],
        purl=PackageURL('pypi', None, name, version, {'file_name': wheel.name}),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)],
    )
    bill = Bom()
    bill.metadata.component = component
    for requirement in needed_packages(metadata):
        package = re.split('[^A-Za-z0-9._-]', requirement)[0]
        needed = Component(
            type=ComponentType.LIBRARY,
            name=package,
            bom_ref=package,
            description=f'Brought by the Agent, {requirement}',
            scope=ComponentScope.REQUIRED,
            purl=PackageURL('pypi', None, package),
        )
        bill.components.add(needed)
        bill.register_dependency(component, [needed])
    path = wheel.with_name(f'{name}-{version}.cdx.json')
    path.write_text(JsonV1Dot6(bill).output_as_string(indent=2) + '\n')
    return path


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
