from __future__ import annotations

from datadog_checks.prefect.api.client import PrefectClient
from datadog_checks.prefect.api.paging import FLOW_RUNS_BY_END
from datadog_checks.prefect.api.time_range import TimeRange
from tests.fake_prefect import FakePrefect
from tests.unit.harness import LOG, at, new_transport, run_through


def test_open_span_has_no_end() -> None:
    assert TimeRange(at(1)).criterion() == {'after_': '2026-11-23T08:00:01.000000Z'}


def test_end_is_not_in_the_span() -> None:
    """The server takes both bounds as inclusive."""
    assert TimeRange(at(1), at(2)).criterion() == {
        'after_': '2026-11-23T08:00:01.000000Z',
        'before_': '2026-11-23T08:00:01.999999Z',
    }


def test_time_ranges_side_by_side_hold_each_row_once(fake: FakePrefect, prefect_url: str) -> None:
    runs = [run_through(fake, start=at(index / 4), seconds=0)['id'] for index in range(40)]
    client = PrefectClient(new_transport(prefect_url), LOG)
    found = [
        run.id
        for time_range in (TimeRange(at(0), at(3)), TimeRange(at(3), at(3.5)), TimeRange(at(3.5)))
        for run in client.flow_runs({'flow_runs': {'end_time': time_range.criterion()}}, FLOW_RUNS_BY_END)
    ]
    assert sorted(found) == sorted(runs)
