"""`make demo`: a real Prefect server at work, and what the Datadog Agent would receive from it.

    python -m lab.demo [--no-collect-events] [--json] [--svg PATH] [--seconds 400]

It starts a Prefect server, gives it work (see `workload.py`), runs the check every few seconds as the Agent would, and
ends with a report. It exits with 0 only if every documented series was seen, no check failed, and the sums, events
and log records that the check sent are those that the server tells at the end. All processes are stopped and all files
removed, also on Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from datadog_checks.prefect.config_models import defaults
from lab.agent import CheckResult, CheckRunner
from lab.api import PrefectApiDriver
from lab.prefect_server import PrefectServer
from lab.recording import DOCUMENTED, Recording
from lab.report import as_json, full_report, make_console, overview, write_svg
from lab.sums import Comparison, compare
from lab.truth import Truth
from lab.workload import LIMIT_SECONDS, TICK_SECONDS, Workload, WorkloadError

CHECK_INTERVAL_SECONDS = 3.0
LATE_START_THRESHOLD_SECONDS = 2
PREFECT_TAGS = {'include': ['^team:']}
EXPECTATIONS = [{'deployment_names': {'include': ['^one-at-a-time$']}, 'max_age': '1h'}]
PLAIN_PROGRESS_SECONDS = 10.0
# The server writes events down every 5 s.
EVENT_DELAY_SECONDS = 6
# Clients send log records every 2 s.
LOG_DELAY_SECONDS = 4
# How long after its overlap a log record must have been sent.
LOG_GRACE_SECONDS = 30.0
# Of a failed comparison.
SHOWN_DIFFERENCES = 10


def compare_with_server(recording: Recording, api: PrefectApiDriver) -> list[Comparison]:
    """Compare what the check counted with what the server's own records of runs and states say, for every tag set."""
    truth = Truth(api, late_start_threshold=LATE_START_THRESHOLD_SECONDS)
    truth.add_all()
    return list(compare(recording.sums, truth.sums))


# Name, resource and second of an event: what the check sends carries no id of it.
EventKey = tuple[str, str, int]


@dataclass(frozen=True)
class EventComparison:
    """How often each transition was sent beside how often it happened."""

    sent: Counter[EventKey]
    happened: Counter[EventKey]

    @property
    def is_equal(self) -> bool:
        return self.sent == self.happened

    @property
    def differences(self) -> list[str]:
        return [
            f'{name} of {resource}: sent {self.sent[key]} times, happened {self.happened[key]} times'
            for key in sorted(self.sent.keys() | self.happened.keys())
            if self.sent[key] != self.happened[key]
            for name, resource, _ in [key]
        ]


def compare_events(recording: Recording, runner: CheckRunner, api: PrefectApiDriver) -> EventComparison:
    """Compare the events that were sent with those of the server, up to the last that the last check must have read."""
    since, until = runner.read('events')
    last = int(until.timestamp()) - EVENT_DELAY_SECONDS
    sent = Counter(
        (event['event_type'], event['aggregation_key'], event['timestamp'])
        for event in recording.events
        if event['timestamp'] <= last
    )
    happened: Counter[EventKey] = Counter()
    for event in api.events(since, until):
        name = event['event']
        second = int(datetime.fromisoformat(event['occurred']).timestamp())
        is_of_run = name.startswith(('prefect.flow-run.', 'prefect.task-run.')) and not name.endswith('.heartbeat')
        is_of_object = name.endswith(('.ready', '.not-ready', '.automation.action.failed'))
        if second <= last and (is_of_run or is_of_object):
            happened[name, event['resource']['prefect.resource.id'], second] += 1
    return EventComparison(sent, happened)


@dataclass(frozen=True)
class LogComparison:
    """How often each log record was sent, by its id, beside those that the server has."""

    sent: Counter[str]
    kept: Counter[str]

    @property
    def is_equal(self) -> bool:
        return self.sent == self.kept


def compare_logs(recording: Recording, runner: CheckRunner, api: PrefectApiDriver) -> LogComparison:
    """Compare the log records that were sent with those of the server, up to what the last check must have read."""
    since, until = runner.read('logs')
    last = until.replace(microsecond=0) - timedelta(seconds=LOG_DELAY_SECONDS)
    first, end = since + timedelta(microseconds=1), last - timedelta(microseconds=1)
    sent = Counter(log['prefect']['log_id'] for log in recording.logs if log['timestamp'] < last.timestamp() * 1000)
    return LogComparison(sent, Counter(record['id'] for record in api.logs(logging.INFO, first, end)))


def last_checks(recording: Recording, runner: CheckRunner, api: PrefectApiDriver) -> tuple[CheckResult, LogComparison]:
    """Run the check until it has sent every log record, once at least. Return its last result, and the comparison.

    On a busy machine a record may show up later than a check looks back. It is sent by the time it leaves the overlap.
    """
    api.wait_for_events()
    deadline = time.monotonic() + defaults.instance_log_overlap() + LOG_GRACE_SECONDS
    while True:
        result = runner.run()
        recording.add(result)
        logs = compare_logs(recording, runner, api)
        if logs.is_equal or time.monotonic() > deadline:
            return result, logs
        time.sleep(CHECK_INTERVAL_SECONDS)


def log_comparison_line(comparison: LogComparison) -> RenderableType:
    """Say that each record was sent once, or how many were not."""
    sent, kept = comparison.sent, comparison.kept
    if comparison.is_equal:
        return Text(f'{sent.total()} of {kept.total()} log records were sent, each once', style='bold green')
    wrong = [identity for identity in sent.keys() | kept.keys() if sent[identity] != kept[identity]]
    return Text(f'log records: {sent.total()} sent, {kept.total()} kept, {len(wrong)} not once', style='bold red')


def event_comparison_line(comparison: EventComparison) -> RenderableType:
    """Say that each event was sent once, or which were not."""
    if comparison.is_equal:
        return Text(
            f'{comparison.sent.total()} of {comparison.happened.total()} events of the server were sent, each once',
            style='bold green',
        )
    lines = [f'events: {comparison.sent.total()} sent, {comparison.happened.total()} happened']
    return Text('\n'.join([*lines, *comparison.differences[:SHOWN_DIFFERENCES]]), style='bold red')


def comparison_line(comparisons: Sequence[Comparison]) -> RenderableType:
    """Say that all sums agree, or which do not."""
    lines = [line for one in comparisons for line in one.lines[:SHOWN_DIFFERENCES]]
    if lines:
        return Text('\n'.join(lines), style='bold red')
    sums = ', '.join(f'{one.series} {round(one.counted, 1):,.10g}' for one in comparisons)
    number = len(comparisons)
    text = f'{number} of {number} sums equal what the server tells about its runs, for every tag set'
    return Group(Text(text, style='bold green'), Text(f'  {sums}', style='dim'))


class Progress:
    """Shows what goes on: a live display on a terminal, a line now and then elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._spinner = Spinner('dots')
        self._live: Live | None = None
        self._told: set[str] = set()
        self._told_at = 0.0

    @contextmanager
    def open(self) -> Iterator[None]:
        if not self._console.is_terminal:
            yield
            return
        with Live(console=self._console, refresh_per_second=8, transient=True) as self._live:
            yield

    def stage(self, text: str) -> None:
        """Say what is done before and after the stories."""
        self._spinner.update(text=Text(text))
        if self._live:
            self._live.update(self._spinner)
        else:
            self._console.print(text)

    def show(self, workload: Workload, recording: Recording) -> None:
        """Show the stories that go on and what the check has sent so far."""
        if self._live:
            self._spinner.update(text=Text(f'Prefect at work, {workload.seconds:.0f} s'))
            self._live.update(self._display(workload, recording))
            return
        if time.monotonic() - self._told_at > PLAIN_PROGRESS_SECONDS or workload.is_done:
            self._told_at = time.monotonic()
            self._console.print(
                f'{workload.seconds:4.0f} s: {len(recording.seen)} of {len(DOCUMENTED)} series seen;'
                f' checks run: {len(recording.results)}, failed: {recording.errors.total()};'
                f' scenarios still going on: {len(workload.activities)}'
            )

    def _display(self, workload: Workload, recording: Recording) -> RenderableType:
        now = Table.grid(padding=(0, 1))
        for activity in workload.activities:
            now.add_row('  -', activity)
        last = recording.results[-1]
        failed = recording.errors.total()
        numbers = Table.grid(padding=(0, 2))
        numbers.add_row(
            '  series seen',
            ProgressBar(total=len(DOCUMENTED), completed=len(recording.seen), width=40),
            f'{len(recording.seen)} of {len(DOCUMENTED)}',
        )
        numbers.add_row(
            '  checks run',
            f'{len(recording.results)}, every {CHECK_INTERVAL_SECONDS:.0f} s; the last one took {last.seconds:.2f} s',
            Text(f'{failed} failed', style='red' if failed else 'green'),
        )
        return Group(self._spinner, now, numbers, Text(f'  {last.error}' if last.error else '', style='red'))


def observe(workload: Workload, runner: CheckRunner, recording: Recording, progress: Progress) -> None:
    """Play the workload to its end and run the check meanwhile, once before it and once after."""
    recording.add(runner.run())
    workload.start()
    check_at = time.monotonic() + CHECK_INTERVAL_SECONDS
    while not workload.is_done:
        workload.tick()
        if time.monotonic() >= check_at:
            check_at = time.monotonic() + CHECK_INTERVAL_SECONDS
            recording.add(runner.run())
        progress.show(workload, recording)
        time.sleep(TICK_SECONDS)
    recording.add(runner.run())
    progress.show(workload, recording)


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='python -m lab.demo', description='A real Prefect server, and the check.')
    parser.add_argument(
        '--collect-events', action=argparse.BooleanOptionalAction, default=True, help='send events too (default: yes)'
    )
    parser.add_argument('--json', action='store_true', help='print the report as JSON')
    parser.add_argument('--svg', type=Path, metavar='PATH', help='draw the report as a picture, too')
    parser.add_argument(
        '--seconds',
        type=float,
        default=LIMIT_SECONDS,
        help=f'give up when the work takes longer (default: {LIMIT_SECONDS:.0f})',
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    console = make_console(json_output=options.json)
    progress = Progress(console)
    recording = Recording()
    started_at = time.monotonic()
    try:
        with progress.open():
            progress.stage('Starting a Prefect server')
            with PrefectServer() as server:
                progress.stage(f'Prefect listens on {server.api_url}; making work pools, queues and deployments')
                with Workload(server.api_url, limit_seconds=options.seconds) as workload:
                    workload.set_up()
                    runner = CheckRunner(
                        {
                            'prefect_url': server.api_url,
                            'collect_events': options.collect_events,
                            'collect_logs': True,
                            'late_start_threshold': LATE_START_THRESHOLD_SECONDS,
                            'prefect_tags': PREFECT_TAGS,
                            'expectations': EXPECTATIONS,
                        }
                    )
                    observe(workload, runner, recording, progress)
                    progress.stage('Waiting until the server has written down its last events')
                    with PrefectApiDriver(server.api_url) as api:
                        _, logs = last_checks(recording, runner, api)
                progress.stage('Asking the server for its own numbers')
                with PrefectApiDriver(server.api_url) as api:
                    comparisons = compare_with_server(recording, api)
                    events = compare_events(recording, runner, api) if options.collect_events else None
                    version = api.version()
                progress.stage('Stopping Prefect')
    except (WorkloadError, RuntimeError, OSError) as error:
        console.print(f'The demo did not come to its end: {error}', style='red', markup=False)
        return 1
    except KeyboardInterrupt:
        console.print('Interrupted. Everything that was started has been stopped.')
        return 130

    title = f'Prefect {version} at {server.api_url}, observed for {time.monotonic() - started_at:.0f} s'
    lines = [comparison_line(comparisons)]
    numbers = {one.series: {'check': one.counted, 'server': one.happened} for one in comparisons}
    if events is not None:
        lines.append(event_comparison_line(events))
        numbers['events'] = {'check': events.sent.total(), 'server': events.happened.total()}
    lines.append(log_comparison_line(logs))
    numbers['logs'] = {'check': logs.sent.total(), 'server': logs.kept.total()}
    if options.json:
        print(json.dumps(as_json(recording) | {'compared_with_server': numbers}, indent=2))
    else:
        console.print(full_report(recording, title=title, wants_all=True), *lines, sep='\n')
    if options.svg:
        write_svg(options.svg, overview(recording, title=title), *lines)
        console.print(f'The picture is in {options.svg}')
    are_equal = not any(one.differences for one in comparisons) and (events is None or events.is_equal)
    are_equal = are_equal and logs.is_equal
    is_good = not recording.missing and not recording.errors and are_equal
    return 0 if is_good else 1


if __name__ == '__main__':
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
