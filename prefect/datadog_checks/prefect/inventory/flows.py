"""The flows of the server, remembered between the runs of the check: what a filter on their names needs.

The server matches no regular expressions, so that the names must be known here. A flow is made when it is first run or
deployed and never renamed; so the newest flows tell what is new, and now and then all are listed again, for what was
deleted.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from datadog_checks.prefect.api.client import PrefectClient
from datadog_checks.prefect.api.times import is_due

# Flows that are looked at for new ones. Of several servers one may show a flow later than a younger one.
_NEWEST = 10
_LISTED_ANEW = timedelta(hours=1)


class FlowDirectory:
    """The names of all flows by id."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._listed_at: datetime | None = None

    def refresh(self, client: PrefectClient, now: datetime) -> Mapping[str, str]:
        """The names as they are now. Raises a PrefectApiError, and then what is known stays as it is."""
        is_known = not is_due(self._listed_at, now, _LISTED_ANEW)
        known = self._names if is_known else {}
        self._names = known | self._list_newest(client, known)
        if not is_known:
            self._listed_at = now
        return self._names

    @staticmethod
    def _list_newest(client: PrefectClient, known: Mapping[str, str]) -> dict[str, str]:
        """List from the newest on until a page brings nothing new. What is made meanwhile moves rows back, not past."""
        found: dict[str, str] = {}
        offset = 0
        page_size = min(_NEWEST, client.page_size()) if known else client.page_size()
        while True:
            page, number_of_rows = client.flow_page(offset, page_size)
            is_new = any(flow.id not in known for flow in page)
            found.update((flow.id, flow.name) for flow in page)
            if number_of_rows < page_size or (page and not is_new):
                return found
            offset += number_of_rows
            page_size = client.page_size()
