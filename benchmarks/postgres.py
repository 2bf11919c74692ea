"""A seeded database once more, in PostgreSQL: its rows are copied into the schema that a real server makes there."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from psycopg import Connection, Cursor, connect
from psycopg.adapt import Dumper
from psycopg.rows import dict_row
from psycopg.types.string import TextLoader

from benchmarks import seed
from lab.postgres import HOST, PostgresServer
from lab.prefect_server import PrefectServer

# Times of SQLite are in UTC. Its connections do not check foreign keys either: states are written before their runs.
_OPTIONS = '-c TimeZone=UTC -c session_replication_role=replica'


class _UntypedDumper(Dumper):
    """A number is what its column makes of it: SQLite has 0 and 1 for booleans."""

    def dump(self, number: int) -> bytes:
        return str(number).encode()


class Database:
    """An `activity.Database`."""

    def __init__(self, connection: Connection[dict[str, Any]]) -> None:
        self._connection = connection
        connection.adapters.register_dumper(int, _UntypedDumper)
        for type_name in ('uuid', 'timestamptz'):
            connection.adapters.register_loader(type_name, TextLoader)

    def execute(self, sql: str, parameters: tuple[Any, ...] = (), /) -> Cursor[dict[str, Any]]:
        return self._connection.execute(sql.replace('?', '%s').encode(), parameters)


@contextmanager
def connected(cluster: PostgresServer) -> Iterator[Database]:
    """A connection to the database of the Prefect server, committed at the end."""
    with _connection(cluster) as connection:
        yield Database(connection)


def name(cluster: PostgresServer) -> str:
    """Its name and version: `PostgreSQL 15`."""
    return f'PostgreSQL {(cluster.folder / "data" / "PG_VERSION").read_text().strip()}'


def process_id(cluster: PostgresServer) -> int:
    """That of the process whose children do the work."""
    return int((cluster.folder / 'data' / 'postmaster.pid').read_text().split()[0])


def fill(cluster: PostgresServer, path: Path) -> None:
    """Have a real server make its schema, and copy all rows of the SQLite database into it."""
    with PrefectServer(settings=seed.SETTINGS, database_url=cluster.url):
        pass
    with seed.connected(path) as source, _connection(cluster) as target:
        tables = _tables(target)
        target.execute(f'TRUNCATE {", ".join(tables)}'.encode())
        for table, columns in tables.items():
            _copy(source, target, table, columns)
        target.commit()
        # As on a server that runs for long; and what is done here is not done while it is measured.
        target.autocommit = True
        target.execute('VACUUM ANALYZE')


def _connection(cluster: PostgresServer) -> Connection[dict[str, Any]]:
    return connect(
        host=HOST, port=cluster.port, user='prefect', dbname='postgres', options=_OPTIONS, row_factory=dict_row
    )


def _tables(target: Connection[dict[str, Any]]) -> dict[str, dict[str, str]]:
    """The type of each column of each table of the server. Each kind of database has migrations of its own."""
    rows = target.execute(
        'SELECT table_name, column_name, data_type FROM information_schema.columns '
        "WHERE table_schema = 'public' AND table_name <> 'alembic_version'"
    )
    tables: dict[str, dict[str, str]] = {}
    for row in rows:
        tables.setdefault(row['table_name'], {})[row['column_name']] = row['data_type']
    return tables


def _copy(
    source: sqlite3.Connection, target: Connection[dict[str, Any]], table: str, columns: Mapping[str, str]
) -> None:
    """Copy a table. PostgreSQL reads all types from SQLite's text but intervals, for which it takes seconds."""
    names = ', '.join(f'"{column}"' for column in columns)
    # With the table before it: a column in quotation marks that SQLite does not know is a text.
    sources = {f'{table}."{column}"': kind for column, kind in columns.items()}
    values = ', '.join(
        f"strftime('%s', {column}) || substr({column}, 20)" if kind == 'interval' else column
        for column, kind in sources.items()
    )
    with target.cursor() as cursor, cursor.copy(f'COPY {table} ({names}) FROM STDIN'.encode()) as copy:
        for row in source.execute(f'SELECT {values} FROM {table}'):
            copy.write_row(tuple(row))
