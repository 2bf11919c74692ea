"""What a run of the check cost the server: requests, bytes and time by the kind of object that was asked for."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

from datadog_checks.prefect.metrics import API_AUTHORIZED, API_DURATION, API_REQUESTS, API_RESPONSE_BYTES
from datadog_checks.prefect.sample import Sample
from datadog_checks.prefect.tags import ENDPOINT_FAMILY, make_tags

_REFUSALS = (401, 403)


class RequestStats:
    """Adds up what is sent and received from `start_run` on."""

    def __init__(self) -> None:
        self.start_run()

    def start_run(self) -> None:
        self._requests: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._is_authorized: bool | None = None

    def add(self, path: str, received: int, seconds: float) -> None:
        """One request to `path` ('/flow_runs/filter'), and how many bytes came back in how many seconds."""
        family = path.removeprefix('/v2').split('/')[1]
        self._requests[family] += 1
        self._bytes[family] += received
        self._seconds[family] += seconds

    def judge(self, status: int) -> None:
        """The HTTP status with which an endpoint answered that asks for credentials."""
        self._is_authorized = status not in _REFUSALS and self._is_authorized is not False

    def authorization(self) -> Iterator[Sample]:
        """Whether the credentials are accepted, if anything was asked that takes some."""
        if self._is_authorized is not None:
            yield Sample(API_AUTHORIZED, self._is_authorized)

    def costs(self) -> Iterator[Sample]:
        """Requests, bytes and seconds of each kind of object, which is the first part of its path."""
        for family, requests in self._requests.items():
            family_tags = make_tags({ENDPOINT_FAMILY: family})
            yield Sample(API_REQUESTS, requests, family_tags)
            yield Sample(API_RESPONSE_BYTES, self._bytes[family], family_tags)
            yield Sample(API_DURATION, self._seconds[family], family_tags)
