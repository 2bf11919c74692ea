from __future__ import annotations

import pytest

from datadog_checks.prefect.api.time_range import TimeRange
from tests.unit.harness import at


@pytest.mark.parametrize(('seconds', 'is_held'), [(0.9, False), (1, True), (1.9, True), (2, False)])
def test_end_is_not_in_the_range(seconds: float, is_held: bool) -> None:
    assert TimeRange(at(1), at(2)).holds(at(seconds)) is is_held
    assert TimeRange(at(1), at(2)).is_empty is False


def test_open_range_has_no_end() -> None:
    assert TimeRange(at(1)).holds(at(10**9))
    assert TimeRange(at(1)).is_empty is False
    assert TimeRange(at(1), at(1)).is_empty
