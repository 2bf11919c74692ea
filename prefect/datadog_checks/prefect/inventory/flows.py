"""The names of the server's flows, remembered between the runs of the check: for tags, and for a filter on them.

For tags the flows that are met are asked for by id, once. For a filter all are listed: the server matches no regular
expressions, so that the names must be known here. A flow is made when it is first run or deployed and never renamed; so
the newest flows tell what is new, and now and then all are listed again, for what was deleted.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta

from datadog_checks.prefect.api.client import PrefectClient
from datadog_checks.prefect.api.times import is_due

# Flows that are looked at for new ones. Of several servers one may show a flow later than a younger one.
_NEWEST = 10
_LISTED_ANEW = timedelta(hours=1)


class FlowDirectory:
    """The names of flows by id. `names` are all that were ever met."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        self._listed: dict[str, str] = {}
        self._listed_at: datetime | None = None

    def load(self, client: PrefectClient, ids: Collection[str]) -> None:
        """Ask for those of these flows that are not known yet."""
        missing = sorted(set(ids) - self.names.keys())
        if missing:
            self.names.update((flow.id, flow.name) for flow in client.flows(missing))

    def refresh(self, client: PrefectClient, now: datetime) -> Mapping[str, str]:
        """All flows as they are now. Raises a PrefectApiError, and then what is known stays as it is."""
        is_known = not is_due(self._listed_at, now, _LISTED_ANEW)
        known = self._listed if is_known else {}
        self._listed = known | self._list_newest(client, known)
        if not is_known:
            self._listed_at = now
        self.names.update(self._listed)
        return self._listed

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
