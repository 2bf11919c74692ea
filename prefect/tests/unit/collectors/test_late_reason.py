from __future__ import annotations

from dataclasses import fields
from itertools import product
from pathlib import Path

import pytest

from datadog_checks.prefect.collectors.late_reason import Circumstances, LateReason, late_reason

PAGE = Path(__file__).parents[4] / 'docs' / 'series.md'

# Each circumstance alone, and the reason that it gives.
ALONE = {
    ('is_pool_paused', True): LateReason.POOL_PAUSED,
    ('is_queue_paused', True): LateReason.QUEUE_PAUSED,
    ('is_queue_gone', True): LateReason.QUEUE_DELETED,
    ('is_deployment_paused', True): LateReason.DEPLOYMENT_PAUSED,
    ('is_attended', False): LateReason.NO_WORKER,
    ('is_pool_full', True): LateReason.POOL_LIMIT,
    ('is_queue_full', True): LateReason.QUEUE_LIMIT,
    ('is_deployment_full', True): LateReason.DEPLOYMENT_LIMIT,
    ('is_attended', True): LateReason.WORK_NOT_PICKED_UP,
}
# All that can be, which is 3 * 2**7 combinations.
TABLE = [
    dict(zip(['is_attended', *names], values, strict=True))
    for names in [[field.name for field in fields(Circumstances) if field.name != 'is_attended']]
    for values in product([None, False, True], *[[False, True]] * len(names))
]


@pytest.mark.parametrize(('circumstance', 'reason'), ALONE.items(), ids=str)
def test_circumstance_alone_is_the_reason(circumstance: tuple[str, bool], reason: LateReason) -> None:
    assert late_reason(Circumstances(**dict([circumstance]))) is reason


def test_without_anything_known_the_reason_is_unknown() -> None:
    assert late_reason(Circumstances()) is LateReason.UNKNOWN


def test_first_circumstance_that_holds_is_the_reason_in_every_combination() -> None:
    assert len(TABLE) == 384
    for row in TABLE:
        expected = next((reason for (name, value), reason in ALONE.items() if row[name] is value), LateReason.UNKNOWN)
        assert late_reason(Circumstances(**row)) is expected


def test_reasons_are_told_in_the_order_in_which_they_are_documented() -> None:
    assert list(LateReason) == [*ALONE.values(), LateReason.UNKNOWN]
    cells = [line.split('|')[1].strip(' `') for line in PAGE.read_text().splitlines() if line.startswith('|')]
    assert [cell for cell in cells if cell in set(LateReason)] == list(LateReason)
