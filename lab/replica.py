"""A replica of a Prefect server that is behind: it reads a standby of the PostgreSQL that the server writes to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lab.postgres import PostgresServer
from lab.prefect_server import PrefectServer

# What a server writes when it starts.
_READ_ONLY = {
    'PREFECT_API_DATABASE_MIGRATE_ON_START': 'false',
    'PREFECT_API_BLOCKS_REGISTER_ON_START': 'false',
}


@contextmanager
def replica_behind(cluster: PostgresServer, seconds: float) -> Iterator[PrefectServer]:
    """A Prefect server that shows what is in the database with so many seconds of delay, and can only be read.

    A server that has made its schema in the database must run by then.
    """
    with (
        PostgresServer(standby_of=cluster, lag_seconds=seconds) as standby,
        PrefectServer(settings=_READ_ONLY, database_url=standby.url, with_services=False) as server,
    ):
        yield server
