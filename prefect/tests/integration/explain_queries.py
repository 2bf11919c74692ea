"""Runs where Prefect is installed: how its SQLite database would look up what requests ask for.

Reads `[[path, body], ...]` from the standard input and writes, for each, the plans of the statements that the server
sends, as `[[step, ...], ...]` in the words of EXPLAIN QUERY PLAN. The database is a new one, made by the migrations
of that version in PREFECT_HOME; plans do not depend on its rows, for Prefect gathers no statistics.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import sys
from pathlib import Path
from typing import Any

DATABASE = Path(os.environ['PREFECT_HOME']) / 'prefect.db'
os.environ['PREFECT_API_DATABASE_CONNECTION_URL'] = f'sqlite+aiosqlite:///{DATABASE}'

import httpx  # noqa: E402
import sqlalchemy  # noqa: E402
from prefect.server.api.server import create_app  # noqa: E402
from prefect.server.database.dependencies import provide_database_interface  # noqa: E402

statements: list[tuple[str, Any]] = []


@sqlalchemy.event.listens_for(sqlalchemy.Engine, 'before_cursor_execute')
def note(_: object, __: object, statement: str, parameters: Any, *___: object) -> None:
    if statement.lstrip().upper().startswith(('SELECT', 'WITH')):
        statements.append((statement, parameters))


async def explain(requests: list[tuple[str, Any]]) -> list[list[list[str]]]:
    await provide_database_interface().create_db()
    transport = httpx.ASGITransport(app=create_app(ephemeral=True))
    plans: list[list[list[str]]] = []
    async with httpx.AsyncClient(transport=transport, base_url='http://prefect/api', timeout=60) as client:
        for path, body in requests:
            statements.clear()
            answer = await client.post(path, json=body)
            answer.raise_for_status()
            with sqlite3.connect(DATABASE) as database:
                plans.append(
                    [
                        [step for *_, step in database.execute(f'EXPLAIN QUERY PLAN {statement}', parameters)]
                        for statement, parameters in statements
                    ]
                )
    return plans


if __name__ == '__main__':
    json.dump(asyncio.run(explain(json.load(sys.stdin))), sys.stdout)
