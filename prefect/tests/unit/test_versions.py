from __future__ import annotations

import pytest

from datadog_checks.prefect.errors import UnsupportedVersion
from datadog_checks.prefect.versions import require_supported


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
