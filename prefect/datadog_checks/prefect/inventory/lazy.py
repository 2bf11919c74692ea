"""A value that is fetched at most once, and an error that is met at most once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar('T')


class Lazy(Generic[T]):
    """Calls `fetch` on the first use only. Each later use gets the same value, or the same error raised again.

    (functools.cached_property would ask a server that fails again for each user of the value.)
    """

    def __init__(self, fetch: Callable[[], T]) -> None:
        self._fetch: Callable[[], T] | None = fetch
        self._error: Exception | None = None
        self._value: T

    def __call__(self) -> T:
        if self._fetch is not None:
            fetch, self._fetch = self._fetch, None
            try:
                self._value = fetch()
            except Exception as error:
                self._error = error
        if self._error is not None:
            raise self._error
        return self._value
