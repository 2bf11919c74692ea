"""What a run of the check cost: requests of the server, series to pay for. Whether its credentials are accepted."""

from __future__ import annotations

from collections.abc import Iterator

from datadog_checks.prefect.api.request_stats import RequestStats
from datadog_checks.prefect.metrics import API_AUTHORIZED, API_DURATION, API_REQUESTS, API_RESPONSE_BYTES, CHECK_SERIES
from datadog_checks.prefect.sample import Sample
from datadog_checks.prefect.submitted import SubmittedSeries
from datadog_checks.prefect.tags import ENDPOINT_FAMILY, FAMILY, make_tags


def authorization(stats: RequestStats) -> Iterator[Sample]:
    """Whether the credentials are accepted, if anything was asked that takes some."""
    if stats.is_authorized is not None:
        yield Sample(API_AUTHORIZED, stats.is_authorized)


def costs(stats: RequestStats) -> Iterator[Sample]:
    """Requests, bytes and seconds of each kind of object."""
    for family, requests in stats.requests.items():
        family_tags = make_tags({ENDPOINT_FAMILY: family})
        yield Sample(API_REQUESTS, requests, family_tags)
        yield Sample(API_RESPONSE_BYTES, stats.received_bytes[family], family_tags)
        yield Sample(API_DURATION, stats.seconds[family], family_tags)


def series(submitted: SubmittedSeries) -> Iterator[Sample]:
    """How many series of each family were sent, these included."""
    numbers = submitted.by_family()
    numbers[CHECK_SERIES.family] += len(numbers.keys() | {CHECK_SERIES.family})
    for family, number in numbers.items():
        yield Sample(CHECK_SERIES, number, make_tags({FAMILY: family}))
