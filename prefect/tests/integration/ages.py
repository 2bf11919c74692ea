"""Ages that a check may tell."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from lab.agent import CheckResult

# The server's clock is known to a second.
CLOCK_SECONDS = 1.0


def age_in(result: CheckResult, since: datetime, clock_seconds: float = CLOCK_SECONDS) -> Any:
    """The seconds since then, as `result` may tell them: it read the server at any moment between its start and end.

    On a busy machine the server lets a check wait for many seconds, so the time after the check says little.
    """
    middle = result.began + result.seconds / 2 - since.timestamp()
    return pytest.approx(middle, abs=result.seconds / 2 + clock_seconds)
