"""What the integration tests share. A module that needs its server in another way has a fixture `server` of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.agent import CheckRunner
from lab.api import PrefectApiDriver
from lab.prefect_server import PrefectServer


@pytest.fixture(scope='module')
def server() -> Iterator[PrefectServer]:
    """A server on which nothing runs but what the tests of the module start."""
    with PrefectServer() as server:
        yield server


@pytest.fixture(scope='module')
def api(server: PrefectServer) -> Iterator[PrefectApiDriver]:
    with PrefectApiDriver(server.api_url) as api:
        yield api


@pytest.fixture
def runner(server: PrefectServer) -> CheckRunner:
    return CheckRunner({'prefect_url': server.api_url})
