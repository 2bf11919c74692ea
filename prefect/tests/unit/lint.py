"""One test of many items: it names all that is wrong with any of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

T = TypeVar('T')


def for_each(items: Mapping[str, T]) -> Callable[[Callable[[T], None]], Callable[[], None]]:
    """Make a test of a function that asserts something of one item. `items` are the items by their names."""

    def decorate(function: Callable[[T], None]) -> Callable[[], None]:
        def test() -> None:
            assert items, 'there is nothing to look at'
            faults: list[str] = []
            for name, item in items.items():
                try:
                    function(item)
                except Exception as error:
                    faults.append(f'{name}: {type(error).__name__}: {error}')
            assert not faults, f'{len(faults)} of {len(items)}:\n' + '\n'.join(faults)

        # Not functools.wraps: pytest would take the item for a fixture.
        test.__name__, test.__doc__, test.__module__ = function.__name__, function.__doc__, function.__module__
        return test

    return decorate
