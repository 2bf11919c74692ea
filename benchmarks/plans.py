"""How the databases look up what a check asks for, on the huge server: `make plans` writes it into docs/scale.md."""

from __future__ import annotations

import re
import signal
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from benchmarks import postgres, results, seed
from benchmarks.activity import Activity, Connect
from benchmarks.measure import PAST_SECONDS
from benchmarks.sizes import SIZES, Size
from lab.postgres import PostgresServer, missing
from lab.prefect_server import ROOT
from lab.queries import Objects, Plan, Request, explain, of_all
from tools.marked import table, with_part

PAGE = ROOT / 'docs' / 'scale.md'
WRITER = 'make plans'
# With a longer past, of which some requests read a part.
SIZE = replace(SIZES['huge'], history=200_000)
# As many ids as the check asks for in one request.
_FLOW_RUNS, _TASK_RUNS, _DEPLOYMENTS = 1_000, 5_000, 1_000
# In the words of SQLite and of PostgreSQL.
_INDEX = re.compile(r'(?:USING (?:COVERING )?INDEX|Scan using) (\w+)')
_WHOLE_TABLE = re.compile(r'(?:^SCAN|^Seq Scan on) (\w+)$')
_PRIMARY_KEYS = ('sqlite_autoindex_', 'pk_')
# The server has no events and no log records.
_NOT_SEEDED = ('events', 'events_of_ids', 'logs')
_COLUMNS = ('asked for', 'SQLite', 'ms', 'PostgreSQL', 'ms')


def objects(size: Size) -> Objects:
    """Objects of the seed, the live runs among them."""

    def ids(kind: str, number: int, most: int) -> list[str]:
        return [seed.python_id(kind, one) for one in range(min(number, most))]

    return Objects(
        work_pool=seed.python_id(seed.POOL, 1),
        work_queue=seed.python_id(seed.QUEUE, 1),
        flow=seed.python_id(seed.FLOW, 1),
        deployments=ids(seed.DEPLOYMENT, size.deployments, _DEPLOYMENTS),
        flow_runs=ids(seed.LIVE, size.live_flow_runs, _FLOW_RUNS),
        task_runs=ids(seed.LIVE_TASK, size.live_task_runs, _TASK_RUNS),
    )


def labels(requests: Mapping[str, Sequence[Request]]) -> Iterator[str]:
    """Name each request: the function that makes it, and what is asked of it where there are several."""
    for name, some in requests.items():
        for number, request in enumerate(some):
            endpoint = request.path.strip('/')
            is_one_of_many = sum(other.path == request.path for other in some) > 1
            yield f'`{name}` {endpoint}' + (f', {number + 1}' if is_one_of_many else '')


def means(plan: Plan) -> Iterator[str]:
    """By what the rows are found."""
    for step in plan.steps:
        if index := _INDEX.search(step):
            is_primary = index[1].startswith(_PRIMARY_KEYS)
            yield 'primary key' if is_primary else f'`{index[1]}`'
        elif whole := _WHOLE_TABLE.search(step):
            yield f'all of `{whole[1]}`'


def cells(plans: Sequence[Plan]) -> tuple[str, str]:
    """What finds the rows, which is what the first statement asks for, and the milliseconds of all statements."""
    return ', '.join(dict.fromkeys(means(plans[0]))), f'{sum(plan.milliseconds for plan in plans):.1f}'


def table_of(names: Iterable[str], *databases: Sequence[Sequence[Plan]]) -> str:
    rows = zip(names, *databases, strict=True)
    return table(_COLUMNS, ([name, *(cell for found in plans for cell in cells(found))] for name, *plans in rows))


def main() -> int:
    if problem := missing():
        print(problem, file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory(prefix='prefect-bench-') as name, PostgresServer() as cluster:
        folder = Path(name)
        path = folder / 'prefect.db'
        seed.make_template(path)
        with seed.connected(path) as database:
            samples = seed.seed(database, SIZE)
        connect: Connect = partial(seed.connected, path)
        Activity(connect, samples, SIZE).play_back(PAST_SECONDS)
        postgres.fill(cluster, path)
        examples = of_all(objects(SIZE), datetime.now(UTC))
        requests = {name: some for name, some in examples.items() if name not in _NOT_SEEDED}
        all_of_them = [request for some in requests.values() for request in some]
        on_sqlite = explain(all_of_them, folder)
        on_postgresql = explain(all_of_them, folder, cluster.url)
        machine = results.machine(f'SQLite and {postgres.name(cluster)}')
    part = f'{table_of(labels(requests), on_sqlite, on_postgresql)}\n\nMeasured on {machine}.'
    PAGE.write_text(with_part(PAGE.read_text(), WRITER, part))
    return 0


if __name__ == '__main__':
    sys.exit(main())
