"""The results as JSON: what was measured, and on which machine."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.measure import Cost, Costs
from benchmarks.sizes import SIZES
from lab.prefect_server import PREFECT_VERSION

# Where `make bench` leaves them.
PATH = Path(__file__).resolve().parent.parent / '.benchmarks' / 'results.json'
POSTGRESQL_PATH = PATH.with_name('results-postgresql.json')


def machine(database: str) -> str:
    """The machine, and the server with its database, that the figures come from, in one line."""
    name = platform.processor() or platform.machine()
    for line in Path('/proc/cpuinfo').read_text().splitlines():
        if line.startswith('model name'):
            name = line.partition(':')[2].strip()
            break
    return (
        f'{os.cpu_count()} cores ({name}), Linux, Python {platform.python_version()}, '
        f'Prefect {PREFECT_VERSION} on {database}, all on one machine'
    )


def write(path: Path, database: str, results: Mapping[str, Costs]) -> None:
    """Write down what was measured; other sizes stay as they were measured before on this machine and server."""
    path.parent.mkdir(parents=True, exist_ok=True)
    former = json.loads(path.read_text()) if path.exists() else {}
    sizes = former['sizes'] if former.get('machine') == machine(database) else {}
    sizes |= {name: asdict(costs) for name, costs in results.items()}
    document = {'machine': machine(database), 'sizes': {name: sizes[name] for name in SIZES if name in sizes}}
    path.write_text(json.dumps(document, indent=1) + '\n')


def read(path: Path) -> tuple[str, dict[str, Costs]]:
    document = json.loads(path.read_text())
    return document['machine'], {name: _costs(row) for name, row in document['sizes'].items()}


def _costs(row: Mapping[str, Any]) -> Costs:
    costs: dict[str, Any] = {name: Cost(**row[name]) for name in ('steady', 'floor')}
    costs |= {name: [Cost(**cost) for cost in row[name]] for name in ('start', 'far')}
    costs |= {name: Cost(**row[name]) if row[name] else None for name in ('naive', 'former')}
    return Costs(**{**row, **costs})
