"""The Prefect server's time, by which all ages and windows go, not by the Agent's own clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

# `Date` leaves out the fraction of a second, so on average the server's time is half a second later.
_DATE_RESOLUTION = timedelta(seconds=1)
# uvicorn renews its `Date` once in ten turns of its loop, each of 0.1 s and as much longer as the server is busy: 1.9 s
# old was seen on a Prefect 3.8.8 that had nothing else to do. It is never early.
_LATENESS = timedelta(seconds=5)
# An offset below this is within what `Date` and the way of the request blur: the clocks are taken to agree.
_AGREEMENT = timedelta(seconds=2)
# More than any clock is wrong that anybody lives with: one of the two tells nonsense.
_MOST = timedelta(hours=1)


def local_now() -> datetime:
    """The Agent's own clock."""
    return datetime.now(UTC)


class ServerClock:
    """The offset of the server's clock from the Agent's, estimated from the `Date` headers of its answers."""

    def __init__(self) -> None:
        self.offset = timedelta()
        # Between which offsets the server's clock is by an answer that contradicts the estimate.
        self._doubt: tuple[timedelta, timedelta] | None = None

    @property
    def is_in_doubt(self) -> bool:
        """Whether the last answer contradicted the estimate, so that the next one decides."""
        return self._doubt is not None

    def observe(self, date_header: str | None, sent: datetime, received: datetime) -> timedelta | None:
        """Take the offset from an answer, once a second one agrees with it; without a usable header the last one stays.

        It also stays where the answer does not contradict it: of one that took 20 s nobody knows when the server
        wrote its time, and ages and windows must not move by 10 s for that. So does it for a server that is up to 5 s
        behind: a busy one writes an old time. An offset above an hour is returned and not believed: the Agent's own
        clock is used then.
        """
        try:
            server_time = parsedate_to_datetime(date_header or '')
            if server_time.tzinfo is None:
                server_time = server_time.replace(tzinfo=UTC)
            least, most = server_time - received, server_time - sent + _DATE_RESOLUTION + _LATENESS
        except (ValueError, TypeError, OverflowError):
            return None
        doubt, self._doubt = self._doubt, None
        if least <= self.offset <= most:
            return None
        if doubt is None or least > doubt[1] or most < doubt[0]:
            # One answer may come from anywhere: a cache, another server behind the same name.
            self._doubt = least, most
            return None
        offset = (least + most - _LATENESS) / 2
        if abs(offset) > _MOST:
            self.offset = timedelta()
            return offset
        self.offset = offset if abs(offset) >= _AGREEMENT else timedelta()
        return None

    def local_now(self) -> datetime:
        return local_now()

    def now(self) -> datetime:
        """The server's time."""
        return self.local_now() + self.offset
