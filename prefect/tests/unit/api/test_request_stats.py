from __future__ import annotations

import pytest

from datadog_checks.prefect.api.request_stats import RequestStats


def test_requests_are_added_up_by_the_first_part_of_their_path() -> None:
    stats = RequestStats()
    stats.add('/flow_runs/filter', 100, 0.5)
    stats.add('/flow_runs/count', 1, 0.25)
    stats.add('/v2/concurrency_limits/filter', 10, 0.125)
    assert stats.requests == {'flow_runs': 2, 'concurrency_limits': 1}
    assert stats.received_bytes == {'flow_runs': 101, 'concurrency_limits': 10}
    assert stats.seconds == {'flow_runs': 0.75, 'concurrency_limits': 0.125}
    stats.start_run()
    assert not stats.requests


@pytest.mark.parametrize(
    ('statuses', 'is_authorized'),
    [((), None), ((200, 500), True), ((401,), False), ((403, 200), False), ((200, 403), False)],
)
def test_one_refusal_tells_that_the_credentials_are_not_accepted(
    statuses: tuple[int, ...], is_authorized: bool | None
) -> None:
    stats = RequestStats()
    for status in statuses:
        stats.judge(status)
    assert stats.is_authorized is is_authorized
