from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.fake_prefect import FakePrefect
from tests.unit.harness import Bench


@pytest.fixture
def new_bench(fake: FakePrefect, prefect_url: str) -> Callable[..., Bench]:
    """Make a bench with these options, in front of the fake server."""
    return lambda **changes: Bench(fake, prefect_url, **changes)


@pytest.fixture
def bench(new_bench: Callable[..., Bench]) -> Bench:
    return new_bench()
