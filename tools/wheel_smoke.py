"""Run the installed check against a Prefect server: `python -I tools/wheel_smoke.py http://host:4200/api`.

For an environment that has what an Agent has and the wheel, and nothing of this repository. Reads the example
configuration that the wheel brings, runs the check twice, and fails unless it reports health and the server's version.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from importlib.resources import files

import yaml

import datadog_checks.prefect
from datadog_checks.base.stubs import aggregator, datadog_agent
from datadog_checks.prefect import PrefectCheck, __version__

CHECK_ID = 'prefect:smoke'


def main(prefect_url: str) -> int:
    if version('datadog-prefect') != __version__:
        return fail(f'the wheel says {version("datadog-prefect")}, the package {__version__}')

    example = files('datadog_checks.prefect').joinpath('data', 'conf.yaml.example').read_text()
    (instance,) = yaml.safe_load(example)['instances']
    check = PrefectCheck('prefect', {}, [{**instance, 'prefect_url': prefect_url}])
    check.check_id = CHECK_ID
    for _ in range(2):
        error = check.run()
        if error:
            return fail(error)

    health = [sample.value for sample in aggregator.metrics('prefect.server.health')]
    prefect_version = datadog_agent._metadata.get((CHECK_ID, 'version.raw'))
    if health != [1, 1]:
        return fail(f'health is {health}')
    if not prefect_version:
        return fail('no version in the metadata')
    print(
        f'datadog-prefect {__version__} in {sys.prefix}, Python {sys.version.split()[0]}: '
        f'{len(aggregator.metric_names)} series from Prefect {prefect_version}'
    )
    return 0


def fail(message: str) -> int:
    print(f'{datadog_checks.prefect.__file__}: {message}', file=sys.stderr)
    return 1


if __name__ == '__main__':
    sys.exit(main(sys.argv[1]))
