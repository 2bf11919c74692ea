"""What a run of the check asked of the server: requests, bytes and time by the kind of object that was asked for."""

from __future__ import annotations

from collections import Counter, defaultdict

_REFUSALS = (401, 403)


class RequestStats:
    """Adds up what is sent and received from `start_run` on.

    `requests`, `received_bytes` and `seconds` go by the kind of object, which is the first part of the path.
    `is_authorized` says whether the credentials are accepted, None if nothing was asked that takes some.
    """

    def __init__(self) -> None:
        self.start_run()

    def start_run(self) -> None:
        self.requests: Counter[str] = Counter()
        self.received_bytes: Counter[str] = Counter()
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.is_authorized: bool | None = None

    def add(self, path: str, received: int, seconds: float) -> None:
        """One request to `path` ('/flow_runs/filter'), and how many bytes came back in how many seconds."""
        family = path.removeprefix('/v2').split('/')[1]
        self.requests[family] += 1
        self.received_bytes[family] += received
        self.seconds[family] += seconds

    def judge(self, status: int) -> None:
        """The HTTP status with which an endpoint answered that asks for credentials."""
        self.is_authorized = status not in _REFUSALS and self.is_authorized is not False
