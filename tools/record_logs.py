"""Record what real Prefect processes print, as samples for the tests of the log pipeline.

    .envs/dev/bin/python -m tools.record_logs [--folder prefect/tests/fixtures/logs]

It plays the demo's workload twice, printed in Prefect's `standard` and in its `json` form, and runs `logged_flows.py`
in both, with dates, with zones, with colors, and with Prefect's internal loggers, and `logged_container_worker.py` in
the first two. The lines are written to `<folder>/<process>-<form>.log` as they came, except that folders of this
machine are replaced and that records which differ from two earlier ones in nothing but numbers, ids, names of runs and
times are left out: a server prints a line for each request. A server that loses its database adds errors of its own.
What the check sends of the log records of the scripts (`collect_logs`) goes to `records-collected.log`.

Where a record begins must be known without the rule that the tests are to judge. So Prefect is told to print a mark
before each of its records, by its own settings. The marks are taken out again, and `records.json` holds, per file, the
number of lines of each record.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TextIO

from lab.agent import AgentFiles, CheckRunner
from lab.api import PrefectApiDriver
from lab.prefect_server import PREFECT_VERSION, FlowScript, PrefectServer
from lab.workload import Workload
from tools.record import FIXTURES, lose_database, without_folders

MARK = '\x1e'
KEPT_PER_SHAPE = 2
INTERNAL_RECORDS = 40
SCRIPT_SECONDS = 120
# Clients send their log records every two seconds.
API_LOG_SECONDS = 5

STAMP = f'{MARK}%(asctime)s.%(msecs)03d | %(levelname)-7s'
STANDARD = {
    'PREFECT_LOGGING_FORMATTERS_STANDARD_FORMAT': f'{STAMP} | %(name)s - %(message)s',
    'PREFECT_LOGGING_FORMATTERS_STANDARD_FLOW_RUN_FMT': f'{STAMP} | Flow run %(flow_run_name)r - %(message)s',
    'PREFECT_LOGGING_FORMATTERS_STANDARD_TASK_RUN_FMT': f'{STAMP} | Task run %(task_run_name)r - %(message)s',
    'PREFECT_LOGGING_FORMATTERS_DEBUG_FORMAT': f'{STAMP} | %(threadName)-12s | %(name)s - %(message)s',
}
ISO = STANDARD | {'PREFECT_LOGGING_FORMATTERS_STANDARD_DATEFMT': '%Y-%m-%dT%H:%M:%S'}
ZONE = STANDARD | {'PREFECT_LOGGING_FORMATTERS_STANDARD_DATEFMT': '%Y-%m-%d %H:%M:%S%z'}
# As in a terminal, or in a container that is given one.
COLORS = STANDARD | {'PREFECT_LOGGING_COLORS': 'true', 'NO_COLOR': '', 'FORCE_COLOR': '1', 'TERM': 'xterm-256color'}
INTERNAL = STANDARD | {'PREFECT_INTERNAL_LOGGING_LEVEL': 'DEBUG', 'PREFECT_LOGGING_LEVEL': 'DEBUG'}
JSON = {'PREFECT_LOGGING_HANDLERS_CONSOLE_FORMATTER': 'json'}
SERVER = {'PREFECT_SERVER_LOGGING_LEVEL': 'INFO'}
UTC = {'TZ': 'UTC'}
WITHOUT_API = {'PREFECT_LOGGING_TO_API_ENABLED': 'false'}

# Lines of dask, Python's own logging, C++ libraries, Spark and Python's warnings: records, of one or more lines each.
FOREIGN: list[str] = json.loads((FIXTURES / 'foreign_lines.json').read_text())

# What processes print past Prefect's formatters: uvicorn's lines, JSON, what the command line says of a worker.
UNMARKED_RECORD = re.compile(
    r"""[A-Z]{4,8}: {1,5}|\{"name":|Worker '|Discovered type '|Received SIG|"""
    + '|'.join(re.escape(record.partition('\n')[0]) for record in FOREIGN)
)
ALWAYS_DIFFERENT = re.compile(
    r"""(?<![\w-])[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}   # an id
    | (?<=[Rr]un\ ')[a-z]+-[a-z]+(?=')                            # the name of a flow run
    | (?<=[Rr]un\ ')[a-z_]+-[0-9a-f]{3}(?=')                      # the name of a task run
    | (?<=task_key:)[^,"]*                                        # a hash of the code of a task
    | (?<=container\ ')[a-z]+-[a-z]+(?=')                         # the name of a container
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

    def write_collected(self, name: str, logs: Iterable[Mapping[str, object]]) -> None:
        """Write log records that the check has sent, each as the line of JSON that the Agent makes of it."""
        records = without_repetitions([[without_folders(json.dumps(log, separators=(',', ':')))] for log in logs])
        (self._folder / f'{name}.log').write_text(''.join(f'{line}\n' for (line,) in records))
        self._lengths[f'{name}.log'] = [1] * len(records)
        print(f'{name}: {len(records)} records kept')

    def write_lengths(self) -> None:
        """Write the lengths of the records. Those of logs that were not recorded this time stay."""
        path = self._folder / 'records.json'
        before = json.loads(path.read_text()) if path.exists() else {}
        parts = (f'  "{name}": {json.dumps(lengths)}' for name, lengths in sorted((before | self._lengths).items()))
        path.write_text('{\n' + ',\n'.join(parts) + '\n}\n')


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


def record_collected(recorder: LogRecorder, server: PrefectServer) -> None:
    """Record what `collect_logs` makes of the records that the scripts leave on the server."""
    with tempfile.TemporaryDirectory() as folder, AgentFiles(Path(folder)).installed():
        runner = CheckRunner({'prefect_url': server.api_url, 'collect_logs': True, 'log_level': 'DEBUG'})
        logs = list(runner.run().logs)
        for name in ('flows', 'container_worker'):
            file = str(FIXTURES / f'logged_{name}.py')
            with FlowScript(server.api_url, file, settings=UTC) as script:
                script.wait(SCRIPT_SECONDS)
        time.sleep(API_LOG_SECONDS)
        logs += runner.run().logs
        runner.cancel()
    recorder.write_collected('records-collected', logs)


def record_script(
    recorder: LogRecorder,
    server: PrefectServer,
    name: str,
    settings: dict[str, str],
    *,
    limit: int | None = None,
) -> None:
    """Run `logged_<what>.py` with these settings; `name` is `<what>-<form>`."""
    file = str(FIXTURES / f'logged_{name.partition("-")[0]}.py')
    with FlowScript(server.api_url, file, settings=UTC | settings) as script, script.log_path.open() as log:
        if script.wait(SCRIPT_SECONDS) != 0:
            raise RuntimeError(f'{file} ended with an error:\n{script.process.log_tail()}')
        recorder.write(name, log, limit=limit)


def main() -> int:
    parser = argparse.ArgumentParser(description='Record what real Prefect processes print.')
    parser.add_argument('--folder', type=Path, default=FIXTURES / 'logs', help='where <process>-<form>.log are written')
    parser.add_argument('--no-demo', action='store_true', help='only the flows, not the workload of the demo')
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    recorder = LogRecorder(options.folder)
    with PrefectServer(settings=UTC) as server:
        forms = {'standard': STANDARD, 'json': JSON, 'iso': ISO, 'zone': ZONE, 'colors': COLORS}
        for form, settings in forms.items():
            record_script(recorder, server, f'flows-{form}', settings)
        record_script(recorder, server, 'flows-internal', INTERNAL, limit=INTERNAL_RECORDS)
        for form in ('standard', 'json'):
            record_script(recorder, server, f'container_worker-{form}', forms[form] | WITHOUT_API)
        record_collected(recorder, server)
    record_lost_database(recorder)
    if not options.no_demo:
        for form, settings in {'standard': STANDARD, 'json': JSON}.items():
            record_demo(recorder, form, settings)
    recorder.write_lengths()
    print(f'logs of Prefect {PREFECT_VERSION} written to {options.folder}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
