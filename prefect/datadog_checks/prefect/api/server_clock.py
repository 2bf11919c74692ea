"""The Prefect server's time, by which all ages and windows go, whatever the Agent's own clock says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

# `Date` leaves out the fraction of a second, so on average the server's time is half a second later.
_DATE_RESOLUTION = timedelta(seconds=1)
# An offset below this is within what `Date` and the way of the request blur: the clocks are taken to agree.
_AGREEMENT = timedelta(seconds=2)
# A clock that tells another year is broken; times near the ends of the calendar cannot be reckoned with.
_PLAUSIBLE_YEARS = (2000, 2999)


def local_now() -> datetime:
    """The Agent's own clock."""
    return datetime.now(UTC)


class ServerClock:
    """The offset of the server's clock from the Agent's, estimated from the `Date` header of one answer."""

    def __init__(self) -> None:
        self.offset = timedelta()

    def observe(self, date_header: str | None, sent: datetime, received: datetime) -> None:
        """Take the offset from one answer; without a usable header the last estimate stays.

        It also stays where the answer does not contradict it: of one that took 20 s nobody knows when the server
        wrote its time, and ages and windows must not move by 10 s for that.
        """
        try:
            server_time = parsedate_to_datetime(date_header or '')
        except (ValueError, TypeError, OverflowError):
            return
        if server_time.tzinfo is None:
            server_time = server_time.replace(tzinfo=UTC)
        if not _PLAUSIBLE_YEARS[0] <= server_time.year <= _PLAUSIBLE_YEARS[1]:
            return
        least, most = server_time - received, server_time + _DATE_RESOLUTION - sent
        if least <= self.offset <= most:
            return
        offset = (least + most) / 2
        self.offset = offset if abs(offset) >= _AGREEMENT else timedelta()

    def local_now(self) -> datetime:
        return local_now()

    def now(self) -> datetime:
        """The server's time."""
        return self.local_now() + self.offset
