"""Runs where Prefect is installed: how its database looks up what requests ask for.

Reads `[[path, body], ...]` from the standard input and writes, for each, the plans of the statements that the server
sends, as `[[{"steps": [...], "milliseconds": 0.1}, ...], ...]`. Steps are those of EXPLAIN QUERY PLAN for SQLite, and
the scans of EXPLAIN for PostgreSQL, in its words; the time is what the statement takes in the database.
The database is that of PREFECT_API_DATABASE_CONNECTION_URL, which the migrations of that version make if it is new.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import httpx
import sqlalchemy
from prefect.server.api.server import create_app
from prefect.server.database.dependencies import provide_database_interface
from sqlalchemy.ext.asyncio import AsyncConnection

# A statement is tried so often; the least time counts.
TRIES = 3

statements: list[tuple[str, Any]] = []


@sqlalchemy.event.listens_for(sqlalchemy.Engine, 'before_cursor_execute')
def note(_: object, __: object, statement: str, parameters: Any, *___: object) -> None:
    if statement.lstrip().upper().startswith(('SELECT', 'WITH')):
        statements.append((statement, parameters))


async def plan_of(connection: AsyncConnection, statement: str, parameters: Any) -> dict[str, Any]:
    if connection.dialect.name == 'sqlite':
        found = await connection.exec_driver_sql(f'EXPLAIN QUERY PLAN {statement}', parameters)
        steps = [step for *_, step in found]
        times = []
        for _ in range(TRIES):
            began = time.perf_counter()
            (await connection.exec_driver_sql(statement, parameters)).fetchall()
            times.append(1000 * (time.perf_counter() - began))
        return {'steps': steps, 'milliseconds': min(times)}
    plans = []
    for _ in range(TRIES):
        found = await connection.exec_driver_sql(f'EXPLAIN (ANALYZE, FORMAT JSON) {statement}', parameters)
        (plan,) = found.scalar_one()
        plans.append(plan)
    return {'steps': [*scans(plans[0]['Plan'])], 'milliseconds': min(plan['Execution Time'] for plan in plans)}


def scans(node: dict[str, Any]) -> Iterator[str]:
    """The nodes of a plan of PostgreSQL that read rows, except those that it never came to."""
    if node.get('Actual Loops', 1):
        if 'Index Name' in node:
            yield f'{node["Node Type"]} using {node["Index Name"]}'
        elif 'Relation Name' in node and node['Node Type'] != 'Bitmap Heap Scan':
            yield f'{node["Node Type"]} on {node["Relation Name"]}'
        for child in node.get('Plans', ()):
            yield from scans(child)


async def explain(requests: list[tuple[str, Any]]) -> list[list[dict[str, Any]]]:
    database = provide_database_interface()
    await database.create_db()
    engine = await database.engine()
    transport = httpx.ASGITransport(app=create_app(ephemeral=True))
    plans = []
    async with httpx.AsyncClient(transport=transport, base_url='http://prefect/api', timeout=60) as client:
        for path, body in requests:
            statements.clear()
            answer = await client.post(path, json=body)
            answer.raise_for_status()
            sent = [*statements]
            async with engine.connect() as connection:
                plans.append([await plan_of(connection, *statement) for statement in sent])
    return plans


if __name__ == '__main__':
    json.dump(asyncio.run(explain(json.load(sys.stdin))), sys.stdout)
