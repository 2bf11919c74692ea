"""A replica of a Prefect server that lags behind: its database is a standby of the one that the server writes to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lab.postgres import PostgresServer
from lab.prefect_server import PrefectServer

# By default a server writes to its database when it starts.
_READ_ONLY = {
    'PREFECT_API_DATABASE_MIGRATE_ON_START': 'false',
    'PREFECT_API_BLOCKS_REGISTER_ON_START': 'false',
}


@contextmanager
def replica_behind(cluster: PostgresServer, seconds: float) -> Iterator[PrefectServer]:
    """A Prefect server that can only be read, and shows the database as it was so many seconds ago.

    The database must have Prefect's schema already.
    """
    with (
        PostgresServer(standby_of=cluster, lag_seconds=seconds) as standby,
        PrefectServer(settings=_READ_ONLY, database_url=standby.url, with_services=False) as server,
    ):
        yield server
