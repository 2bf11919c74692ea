"""Record what real Prefect processes print, as samples for the tests of the log pipeline.

    .envs/dev/bin/python -m tools.record_logs [--folder prefect/tests/fixtures/logs]

It plays the demo's workload twice, printed in Prefect's `standard` and in its `json` form, and runs `logged_flows.py`
in both, with dates, and with Prefect's internal loggers. The lines are written to `<folder>/<process>-<form>.log` as
they came, except that folders of this machine are replaced and that records which differ from two earlier ones in
nothing but numbers, ids, names of runs and times are left out: a server prints a line for each request. A server that
loses its database adds errors of its own.

Where a record begins must be known without the rule that the tests are to judge. So Prefect is told to print a mark
before each of its records, by its own settings. The marks are taken out again, and `records.json` holds, per file, the
number of lines of each record.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TextIO

from lab.api import PrefectApiDriver
from lab.prefect_server import PREFECT_VERSION, FlowScript, PrefectServer
from lab.workload import Workload
from tools.record import FIXTURES, lose_database, without_folders

MARK = '\x1e'
KEPT_PER_SHAPE = 2
INTERNAL_RECORDS = 40
SCRIPT_SECONDS = 120

STAMP = f'{MARK}%(asctime)s.%(msecs)03d | %(levelname)-7s'
STANDARD = {
    'PREFECT_LOGGING_FORMATTERS_STANDARD_FORMAT': f'{STAMP} | %(name)s - %(message)s',
    'PREFECT_LOGGING_FORMATTERS_STANDARD_FLOW_RUN_FMT': f'{STAMP} | Flow run %(flow_run_name)r - %(message)s',
    'PREFECT_LOGGING_FORMATTERS_STANDARD_TASK_RUN_FMT': f'{STAMP} | Task run %(task_run_name)r - %(message)s',
    'PREFECT_LOGGING_FORMATTERS_DEBUG_FORMAT': f'{STAMP} | %(threadName)-12s | %(name)s - %(message)s',
}
ISO = STANDARD | {'PREFECT_LOGGING_FORMATTERS_STANDARD_DATEFMT': '%Y-%m-%dT%H:%M:%S'}
INTERNAL = STANDARD | {'PREFECT_INTERNAL_LOGGING_LEVEL': 'DEBUG', 'PREFECT_LOGGING_LEVEL': 'DEBUG'}
JSON = {'PREFECT_LOGGING_HANDLERS_CONSOLE_FORMATTER': 'json'}
SERVER = {'PREFECT_SERVER_LOGGING_LEVEL': 'INFO'}
UTC = {'TZ': 'UTC'}

# What processes print past Prefect's formatters: uvicorn's lines, JSON, what the command line says of a worker.
UNMARKED_RECORD = re.compile(r"""(?:[A-Z]{4,8}: {1,5}|\{"name":|Worker '|Discovered type '|Received SIG)""")
ALWAYS_DIFFERENT = re.compile(
    r"""(?<![\w-])[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}   # an id
    | (?<=[Rr]un\ ')[a-z]+-[a-z]+(?=')                            # the name of a flow run
    | (?<=[Rr]un\ ')[a-z_]+-[0-9a-f]{3}(?=')                      # the name of a task run
    | "(?:created|msecs|relativeCreated|thread|process|threadName|taskName|args|flow_run_name|task_run_name)":[^,]*
    | \d+""",
    re.VERBOSE,
)


def in_records(lines: Sequence[str]) -> list[list[str]]:
    """Split a log with marks into records. What comes before the first one is a record too: the Agent makes it one."""
    records: list[list[str]] = []
    for line in lines:
        if not records or line.startswith(MARK) or UNMARKED_RECORD.match(line):
            records.append([])
        records[-1].append(line.removeprefix(MARK))
    return records


def shape(record: Sequence[str]) -> str:
    """Return the record without what differs each time."""
    return ALWAYS_DIFFERENT.sub('*', '\n'.join(record))


def without_repetitions(records: Sequence[list[str]]) -> list[list[str]]:
    """Keep the first records of each shape."""
    shapes: Counter[str] = Counter()
    kept = []
    for record in records:
        shapes[shape(record)] += 1
        if shapes[shape(record)] <= KEPT_PER_SHAPE:
            kept.append(record)
    return kept


class LogRecorder:
    """Follows logs of processes and writes them, without their marks, to one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lengths: dict[str, list[int]] = {}

    def write(self, name: str, log: TextIO, *, limit: int | None = None) -> None:
        """Write a log, which may be that of a process that has ended and left no file behind; `limit` is in records."""
        log.seek(0)
        # The mark would end a line for splitlines().
        lines = without_folders(log.read()).removesuffix('\n').split('\n')
        records = without_repetitions(in_records(lines))[:limit]
        text = '\n'.join(line for record in records for line in record)
        (self._folder / f'{name}.log').write_text(f'{text}\n')
        self._lengths[f'{name}.log'] = [len(record) for record in records]
        print(f'{name}: {len(lines)} lines, {len(records)} records kept')

    def write_lengths(self) -> None:
        parts = (f'  "{name}": {json.dumps(lengths)}' for name, lengths in sorted(self._lengths.items()))
        (self._folder / 'records.json').write_text('{\n' + ',\n'.join(parts) + '\n}\n')


def record_demo(recorder: LogRecorder, form: str, settings: dict[str, str]) -> None:
    """Play the workload on a server of its own. What the processes print while they are stopped belongs to it."""
    with ExitStack() as logs:
        opened: dict[str, TextIO] = {}
        with PrefectServer(settings=SERVER | UTC | settings) as server:
            opened['server'] = logs.enter_context(server.log_path.open())
            with Workload(server.api_url, settings=UTC | settings) as workload:
                workload.set_up()
                workload.start()
                workload.run()
                for name, path in workload.log_paths.items():
                    opened[name] = logs.enter_context(path.open())
        for name, log in opened.items():
            recorder.write(f'{name}-{form}', log)


def record_lost_database(recorder: LogRecorder) -> None:
    """Record what a server says when its database is away."""
    with PrefectServer(settings=SERVER | UTC | STANDARD) as server, server.log_path.open() as log:
        lose_database(PrefectApiDriver(server.api_url), server)
        recorder.write('server-lost-database', log)


def record_flows(
    recorder: LogRecorder,
    server: PrefectServer,
    form: str,
    settings: dict[str, str],
    *,
    limit: int | None = None,
) -> None:
    """Run `logged_flows.py` with these settings."""
    file = str(FIXTURES / 'logged_flows.py')
    with FlowScript(server.api_url, file, settings=UTC | settings) as script, script.log_path.open() as log:
        if script.wait(SCRIPT_SECONDS) != 0:
            raise RuntimeError(f'the flows ended with an error:\n{script.process.log_tail()}')
        recorder.write(f'flows-{form}', log, limit=limit)


def main() -> int:
    parser = argparse.ArgumentParser(description='Record what real Prefect processes print.')
    parser.add_argument('--folder', type=Path, default=FIXTURES / 'logs', help='where <process>-<form>.log are written')
    parser.add_argument('--no-demo', action='store_true', help='only the flows, not the workload of the demo')
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    recorder = LogRecorder(options.folder)
    with PrefectServer(settings=UTC) as server:
        for form, settings in {'standard': STANDARD, 'json': JSON, 'iso': ISO}.items():
            record_flows(recorder, server, form, settings)
        record_flows(recorder, server, 'internal', INTERNAL, limit=INTERNAL_RECORDS)
    record_lost_database(recorder)
    if not options.no_demo:
        for form, settings in {'standard': STANDARD, 'json': JSON}.items():
            record_demo(recorder, form, settings)
    recorder.write_lengths()
    print(f'logs of Prefect {PREFECT_VERSION} written to {options.folder}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
