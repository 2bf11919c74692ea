"""A real Prefect server of a version that is too old: one error, which says so."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from datadog_checks.prefect.api.versions import SUPPORTED
from datadog_checks.prefect.collectors import snapshot_collectors, stream_collectors
from datadog_checks.prefect.config_models import defaults
from lab.agent import CheckResult, CheckRunner
from lab.prefect_server import ROOT, PrefectServer
from lab.recording import OWN

VERSION = '2.20.27'
PYTHON = ROOT / '.envs' / f'prefect-{VERSION}' / 'bin' / 'python'
ERROR = f'Prefect {VERSION} is not supported, only {SUPPORTED}. Upgrade the Prefect server'


@pytest.fixture(scope='module')
def results() -> Iterator[list[CheckResult]]:
    if not PYTHON.exists():
        pytest.skip(f'{PYTHON} does not exist: make it with `make test-matrix VERSIONS={VERSION}`')
    with PrefectServer(PYTHON) as server:
        runner = CheckRunner({'prefect_url': server.api_url})
        yield [runner.run(), runner.run()]


def test_each_check_says_which_versions_are_supported(results: list[CheckResult]) -> None:
    assert [result.error for result in results] == [ERROR, ERROR]
    assert [line for result in results for line in (*result.warnings, *result.log)] == []


def test_server_is_healthy_and_nothing_is_collected(results: list[CheckResult]) -> None:
    groups = defaults.instance_collect()
    collectors = {item.name for item in (*snapshot_collectors(groups), *stream_collectors(groups))}
    for result in results:
        values = {point.name: point.value for point in result.points if point.name not in OWN}
        assert values == {'prefect.server.health': 1, 'prefect.server.ready': 1}
        success = {
            tag.removeprefix('collector:'): point.value
            for point in result.points
            for tag in point.tags
            if point.name == 'prefect.server.collector.success' and tag.startswith('collector:')
        }
        assert success == {'health': 1, **dict.fromkeys(collectors, 0)}


def test_version_is_told_as_metadata(results: list[CheckResult]) -> None:
    assert results[0].metadata['version.raw'] == VERSION
