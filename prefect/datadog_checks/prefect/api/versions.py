"""The versions of Prefect server that the check supports, and what the older of them do not have."""

from __future__ import annotations

import re
from dataclasses import dataclass

from datadog_checks.prefect.api.errors import UnsupportedVersion

Release = tuple[int, ...]

# The first that filters flow runs by their end; 2.20 refuses most of what is asked.
OLDEST: Release = (3, 0, 4)
# The last release that the tests have met. A newer one is read, too: nothing is known to be wrong with it.
NEWEST: Release = (3, 9, 1)
SUPPORTED = f'{".".join(map(str, OLDEST))} to {".".join(map(str, NEWEST[:2]))}'

_RELEASE = re.compile(r'(\d{1,4})\.(\d{1,4})\.(\d{1,4})')


@dataclass(frozen=True)
class Difference:
    """What servers before a release do not have, and what the check makes of it. Rows of a table of the README."""

    before: Release
    lacking: str
    consequence: str

    def __str__(self) -> str:
        return f'Prefect before {".".join(map(str, self.before))} lacks {self.lacking}: {self.consequence}'


TASK_RUN_END_FILTER = Difference(
    (3, 6, 22),
    'a filter on the end of task runs',
    'the check lists those that ended last, at each run one page at least',
)
ENDS_OF_UNSTARTED_FLOW_RUNS = Difference(
    (3, 6, 14),
    'the end of flow runs that were cancelled or crashed before they started, and of such task runs',
    'the time of their last state counts, if they were due a day ago or later. If a person retries one, its end and '
    'the wait for the next attempt count if a check has seen it before it starts. Such task runs are left out',
)
START_FILTER_OF_UNSTARTED_FLOW_RUNS = Difference(
    (3, 4, 1),
    'a filter on the start of flow runs that goes by the expected start of those that have none',
    'nothing that shows: the check goes by the expected start of all',
)
ENDS_OF_TIMED_OUT_TASK_RUNS = Difference(
    (3, 1, 0),
    'the end of task runs that exceeded their timeout',
    'they are left out of `task_runs.failed.count` and `task_runs.execution_duration.*`',
)
DIFFERENCES = (
    TASK_RUN_END_FILTER,
    ENDS_OF_UNSTARTED_FLOW_RUNS,
    START_FILTER_OF_UNSTARTED_FLOW_RUNS,
    ENDS_OF_TIMED_OUT_TASK_RUNS,
)


def parse_release(version: str) -> Release | None:
    """The release that a version belongs to, or None: a server run from its sources says '0+untagged.1.g1a2b3c4'."""
    release = _RELEASE.match(version)
    return tuple(map(int, release.groups())) if release else None


def require_supported(version: str) -> None:
    """Raise UnsupportedVersion for a release that is too old. What is no release may be anything, and passes."""
    release = parse_release(version)
    if release is not None and release < OLDEST:
        raise UnsupportedVersion('.'.join(map(str, release)), SUPPORTED)


def differences(version: str) -> list[Difference]:
    """What a server of this version is known not to have."""
    release = parse_release(version)
    return [item for item in DIFFERENCES if release is not None and release < item.before]
