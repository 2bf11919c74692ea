"""Values and pages that are fetched at most once, and errors that are met at most once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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


class LazyPages(Generic[T]):
    """Pages that several may read, each from the first on; each page is fetched when it is first needed, by whomever.

    An error is raised again to each who gets that far.
    """

    def __init__(self, pages: Iterator[T]) -> None:
        self._pages = pages
        self._fetched: list[T] = []
        self._error: Exception | None = None

    def __iter__(self) -> Iterator[T]:
        number = 0
        while number < len(self._fetched) or self._fetch():
            yield self._fetched[number]
            number += 1

    def _fetch(self) -> bool:
        """Whether there was another page."""
        if self._error is not None:
            raise self._error
        try:
            self._fetched.append(next(self._pages))
        except StopIteration:
            return False
        except Exception as error:
            self._error = error
            raise
        return True
