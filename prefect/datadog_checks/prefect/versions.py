"""The versions of Prefect server that the check supports: the one place where the range stands."""

from __future__ import annotations

import re

from datadog_checks.prefect.errors import UnsupportedVersion

# The first that filters flow runs by their end; 2.20 refuses most of what is asked.
OLDEST = (3, 0, 4)
# The last release that the tests have met. A newer one is read, too: nothing is known to be wrong with it.
NEWEST = (3, 9, 1)
SUPPORTED = f'{".".join(map(str, OLDEST))} to {".".join(map(str, NEWEST[:2]))}'

_RELEASE = re.compile(r'(\d{1,4})\.(\d{1,4})\.(\d{1,4})')


def require_supported(version: str) -> None:
    """Raise UnsupportedVersion for a release before the oldest that is supported.

    What is no release (a server run from its sources says '0+untagged.1.g1a2b3c4') passes: it may be anything.
    """
    release = _RELEASE.match(version)
    if release and tuple(map(int, release.groups())) < OLDEST:
        raise UnsupportedVersion(release[0], SUPPORTED)
