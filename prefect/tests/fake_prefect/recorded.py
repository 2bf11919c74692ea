"""The fixtures that `tools/record.py` wrote from a real Prefect server."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

RECORDED_VERSION = '3.8.8'
FOLDER = Path(__file__).resolve().parent.parent / 'fixtures' / RECORDED_VERSION


def exchange(endpoint: str, case: str) -> dict[str, Any]:
    """Return a new copy of a recorded exchange: `request` (method, path, body), `status`, `content_type`, `body`."""
    loaded: dict[str, Any] = json.loads(_text(endpoint, case))
    return loaded


def body(endpoint: str, case: str) -> Any:
    return json.loads(_body_text(endpoint, case))


@cache
def cases(endpoint: str) -> tuple[str, ...]:
    return tuple(sorted(file.stem for file in (FOLDER / endpoint).glob('*.json')))


def row(endpoint: str, case: str) -> dict[str, Any]:
    """Return the single object of a recorded answer to `/filter`."""
    (only,) = body(endpoint, case)
    return dict(only)


def row_named(endpoint: str, case: str, **name: str) -> dict[str, Any]:
    """Return the object of that name of a recorded list."""
    (only,) = [row for row in body(endpoint, case) if name.items() <= row.items()]
    return dict(only)


@cache
def _text(endpoint: str, case: str) -> str:
    return (FOLDER / endpoint / f'{case}.json').read_text()


@cache
def _body_text(endpoint: str, case: str) -> str:
    return json.dumps(json.loads(_text(endpoint, case))['body'])
