"""A memory of limited size and age: what was not used for the longest time is forgotten."""

from __future__ import annotations

from collections import OrderedDict
from datetime import UTC, datetime, timedelta
from typing import Generic, TypeVar

K = TypeVar('K')
V = TypeVar('V')


class RecentCache(Generic[K, V]):
    """The last `capacity` values by key that were set or asked for within `lifetime` before `go_on`."""

    def __init__(self, capacity: int, lifetime: timedelta) -> None:
        self._capacity = capacity
        self._lifetime = lifetime
        self._now = datetime.min.replace(tzinfo=UTC)
        # In the order of their last use.
        self._values: OrderedDict[K, tuple[datetime, V]] = OrderedDict()

    def __contains__(self, key: K) -> bool:
        return key in self._values

    def __getitem__(self, key: K) -> V:
        value = self._values[key][1]
        self[key] = value
        return value

    def __setitem__(self, key: K, value: V) -> None:
        self._values[key] = (self._now, value)
        self._values.move_to_end(key)
        if len(self._values) > self._capacity:
            self._values.popitem(last=False)

    def values(self) -> list[V]:
        """All values; to look at them so is not to ask for them."""
        return [value for _, value in self._values.values()]

    def items(self) -> list[tuple[K, V]]:
        """The same with their keys."""
        return [(key, value) for key, (_, value) in self._values.items()]

    def go_on(self, now: datetime) -> None:
        """It is `now`: forget what was not used for longer than the lifetime."""
        self._now = now
        while self._values:
            used_at, _ = next(iter(self._values.values()))
            if now - used_at <= self._lifetime:
                return
            self._values.popitem(last=False)
