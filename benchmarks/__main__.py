"""Measure what a check costs, show a table and write JSON: `make bench`.

python -m benchmarks [--sizes tiny large] [--postgresql] [--minutes 10] [--output .benchmarks/results.json]
    [--former COMMIT]
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import results
from benchmarks.former import extract
from benchmarks.measure import Bench, Costs
from benchmarks.sizes import SIZES
from benchmarks.table import show
from lab.postgres import missing
from lab.report import make_console

_WIDTH = 165


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog='python -m benchmarks', description='Measure what a check costs.')
    parser.add_argument('--sizes', nargs='+', choices=SIZES, default=list(SIZES), help='all by default')
    parser.add_argument('--postgresql', action='store_true', help='the servers use PostgreSQL, not SQLite')
    parser.add_argument('--output', type=Path, help='for the results as JSON')
    parser.add_argument('--former', metavar='COMMIT', help='measure the check of that commit, too')
    parser.add_argument('--minutes', type=float, default=0.0, help='of steady checks, for a soak')
    options = parser.parse_args(arguments)
    # What is started here stops with this process, however it is asked to.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    console = make_console()
    if options.postgresql and (problem := missing()):
        console.print(problem, style='red', markup=False)
        return 1
    path = options.output or (results.POSTGRESQL_PATH if options.postgresql else results.PATH)
    measured: dict[str, Costs] = {}
    with tempfile.TemporaryDirectory(prefix='prefect-bench-') as folder:
        former = extract(options.former, Path(folder) / 'former') if options.former else None
        bench = Bench(Path(folder), console.print, former, minutes=options.minutes, on_postgresql=options.postgresql)
        for name in options.sizes:
            measured[name] = bench.measure(name, SIZES[name])
            results.write(path, bench.database, measured)
    if not console.is_terminal:
        console.width = _WIDTH
    show(console, results.machine(bench.database), measured)
    console.print(f'As JSON: {path}')
    return 0


if __name__ == '__main__':
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
