from __future__ import annotations

from pathlib import Path

import pytest

from datadog_checks.prefect.api.errors import UnsupportedVersion
from datadog_checks.prefect.api.versions import (
    DIFFERENCES,
    NEWEST,
    SUPPORTED,
    Difference,
    differences,
    require_supported,
)
from lab.prefect_server import ROOT, release
from tools.matrix import known_versions, supported_versions

INTEGRATION_README = (ROOT / 'prefect' / 'README.md').read_text()


@pytest.mark.parametrize('version', ['3.0.4', '3.0.11', '3.8.8', '3.9.1.dev5', '3.10.0', '4.0.0rc1'])
def test_versions_from_the_oldest_on_pass(version: str) -> None:
    require_supported(version)


@pytest.mark.parametrize('version', ['0+untagged.31.g1a2b3c4', '', 'unknown', '9' * 5000 + '.1.1'])
def test_what_is_no_release_passes(version: str) -> None:
    require_supported(version)


@pytest.mark.parametrize('version', ['0.8.4', '2.20.27', '2.20.27+1.g1a2b3c4', '3.0.0rc20', '3.0.3'])
def test_older_version_is_refused(version: str) -> None:
    with pytest.raises(UnsupportedVersion, match=r'Prefect \d+\.\d+\.\d+ is not supported, only 3\.0\.4 to 3\.9\. '):
        require_supported(version)


def test_what_a_version_lacks_is_what_later_ones_brought() -> None:
    versions = ('unknown', '3.9.1', '3.6.21', '3.6.13', '3.4.0', '3.0.11')
    assert [len(differences(version)) for version in versions] == [0, 0, 1, 2, 3, 4]


@pytest.mark.parametrize('readme', [ROOT / 'README.md', ROOT / 'prefect' / 'README.md'], ids=['root', 'integration'])
def test_readme_tells_the_supported_range(readme: Path) -> None:
    assert f'Prefect {SUPPORTED}' in ' '.join(readme.read_text().replace('Prefect server', 'Prefect').split())


def test_readme_tells_on_which_versions_the_tests_run() -> None:
    *others, last = supported_versions()
    assert f'run on {", ".join(others)} and {last};' in ' '.join(INTEGRATION_README.split())


def test_newest_version_of_the_tests_is_the_newest_supported_one() -> None:
    assert release(supported_versions()[-1]) == NEWEST


def test_there_is_a_version_to_refuse() -> None:
    assert set(known_versions()) > set(supported_versions())


@pytest.mark.parametrize('difference', DIFFERENCES, ids=lambda item: item.lacking)
def test_readme_has_a_row_for_what_older_versions_lack(difference: Difference) -> None:
    texts = (text[0].upper() + text[1:] for text in (difference.lacking, difference.consequence))
    before = '.'.join(map(str, difference.before))
    assert f'| {" | ".join([before, *texts])} |\n' in INTEGRATION_README
