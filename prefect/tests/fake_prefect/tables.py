"""Rows with versions: what a reader sees of them at a moment of the server's time."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from datetime import datetime
from typing import Any

Row = dict[str, Any]
# From when on a version shows (None: always) and the row.
Version = tuple[datetime | None, Row]


class Table:
    """Rows by id. A row is the dictionary that was added: whoever holds it may change it."""

    def __init__(self) -> None:
        self._versions: dict[str, list[Version]] = {}

    def __contains__(self, identity: str) -> bool:
        return identity in self._versions

    def add(self, row: Row, visible_from: datetime | None = None) -> None:
        self._versions[row['id']] = [(visible_from, row)]

    def remove(self, row: Row) -> None:
        del self._versions[row['id']]

    def get(self, identity: str) -> Row:
        """Return a row, whether it shows yet or not. Raises KeyError."""
        return self._versions[identity][-1][1]

    def before_change(self, row: Row, visible_from: datetime | None) -> None:
        """Keep showing the row as it is now until `visible_from`; None: the change shows as soon as the row does."""
        if visible_from is not None:
            versions = self._versions[row['id']]
            shown_from, current = versions.pop()
            versions += [(shown_from, deepcopy(current)), (visible_from, row)]

    def newest(self) -> list[Row]:
        """Return all rows, also those that do not show yet."""
        return [versions[-1][1] for versions in self._versions.values()]

    def visible(self, now: datetime) -> list[Row]:
        rows: list[Row] = []
        for versions in self._versions.values():
            for visible_from, row in reversed(versions):
                if visible_from is None or visible_from <= now:
                    rows.append(row)
                    break
        return rows


class View:
    """What all tables show at one moment; each table is read once."""

    def __init__(self, tables: Mapping[str, Table], now: datetime) -> None:
        self._tables = tables
        self._rows: dict[str, list[Row]] = {}
        self.now = now

    def rows(self, table: str) -> list[Row]:
        if table not in self._rows:
            self._rows[table] = self._tables[table].visible(self.now)
        return self._rows[table]
