"""`make soak`: runs without end, faults without end, and at the end the sums are those of the server.

    python -m lab.soak [--minutes 10] [--lives 1] [--faults 0.03] [--seed 1] [--postgresql] [--lag 1] [--json PATH]

A real Prefect server; flow runs that are driven through their lives over the REST API (`lives.py`) and real flows with
tasks, dependencies and retries (`flows/exercises.py`); the check every second through a proxy that resets, delays, cuts
and answers 500 (`fault_proxy.py`), in a process that is killed and started again (`check_process.py`). During the
second half of the time the process is left alone, to see whether it grows.

It exits with 0 only if every sum over all checks, of every tag set, is what the server's own records tell, and each log
record was sent once.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from datadog_checks.prefect.api.versions import ENDS_OF_UNSTARTED_FLOW_RUNS, differences
from datadog_checks.prefect.config_models import defaults
from lab.api import TERMINAL_STATE_TYPES, PrefectApiDriver
from lab.check_process import CheckProcess
from lab.fault_proxy import ByChance, Exchange, Front
from lab.journal import Journal
from lab.lives import FLOW_NAMES, Lives
from lab.postgres import PostgresServer
from lab.prefect_server import FlowScript, PrefectServer
from lab.replica import replica_behind
from lab.report import make_console
from lab.sums import Comparison, compare
from lab.truth import EXCLUDED_LOGGER, Truth

EXERCISE_FLOWS = ('pipeline', 'regional', 'stubborn', 'hopeless')
STREAMS = (
    'flow_runs.finished',
    'flow_runs.started',
    'flow_runs.retry_gaps',
    'task_runs.finished',
    'task_runs.started',
    'events',
    'logs',
)
LATE_START_THRESHOLD_SECONDS = 1.0
# Shorter than the longest delay, so that some requests time out.
TIMEOUT_SECONDS = 2
DELAY_SECONDS = (0.1, 2.5)
# A round of the exercises takes about so long.
LAST_ROUND_SECONDS = 15.0
STEP_SECONDS = 0.02
MOST_OPEN_LIVES = 60
LOOK_SECONDS = 2.0
# The server writes task runs a moment after they ended, and events every 5 s.
SETTLE_SECONDS = 8.0
# For the lives that are open when the time is over, and for the last checks.
GRACE_SECONDS = 120.0
# Tag sets of one series that are printed where they differ.
MOST_PRINTED = 20


class SoakError(Exception):
    """Something did not come to its end in time; the text is for a person."""


@dataclass(frozen=True)
class SoakPlan:
    """`seconds` is for how long new runs begin; `kill_seconds` are the shortest and longest time between two kills.

    On a slow machine it takes longer until `least_lives` have begun and the process was killed `least_kills` times, by
    itself or from outside. `deaths` is the chance of the check's process to die while it persists a batch. Kills and
    deaths end at `kills_until`, a part of the way. `log_delay` is by how many seconds log records may show late: such
    are found when the overlap is about to leave them, which the soak waits for. `exercises` says whether real flows are
    run, too.
    """

    seconds: float
    least_lives: int = 0
    least_kills: int = 0
    # Of 3 for long, SQLite of the server gets behind ("database is locked") on a machine with two cores.
    lives_per_second: float = 1.0
    fault_rate: float = 0.03
    kill_seconds: tuple[float, float] = (10.0, 40.0)
    kills_until: float = 0.5
    deaths: float = 0.01
    log_delay: float = 20.0
    exercises: bool = True
    seed: int = 1
    prefix: str = 'soak-'


@dataclass(frozen=True)
class Result:
    """What a soak gave. `kills` are those from outside, `deaths` those of the process itself."""

    seconds: float
    comparisons: tuple[Comparison, ...]
    flow_runs: int
    task_runs: int
    lives: Counter[str]
    journal: Journal
    front: Front
    faults: Counter[str]
    kills: int
    deaths: int

    @property
    def is_exact(self) -> bool:
        return not any(comparison.differences for comparison in self.comparisons)

    @property
    def warnings(self) -> Counter[str]:
        """The lines of the check's log other than the failures that the proxy has caused."""
        lines = (line for record in self.journal.checks for line in record.log)
        return Counter(line for line in lines if 'collectors failed' not in line)


class Soak:
    """Observes one server. With `replicas`, the check asks the server and them in turn, at random.

    `report` is called now and then with a line about the progress.
    """

    def __init__(
        self,
        api_url: str,
        plan: SoakPlan,
        report: Callable[[str], None] = lambda text: None,
        *,
        replicas: Sequence[str] = (),
    ) -> None:
        self._api_url = api_url
        self._replicas = replicas
        self._plan = plan
        self._report = report
        self._random = random.Random(plan.seed)
        self._journal: Journal | None = None
        self._looked_at = 0.0

    def run(self) -> Result:
        plan = self._plan
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix='prefect-lab-soak-')))
            api = stack.enter_context(PrefectApiDriver(self._api_url))
            self._faults = ByChance(plan.fault_rate, plan.seed, DELAY_SECONDS)
            self._front = stack.enter_context(Front(self._api_url, replicas=self._replicas))
            instance = {
                'prefect_url': self._front.url,
                'late_start_threshold': LATE_START_THRESHOLD_SECONDS,
                'timeout': TIMEOUT_SECONDS,
                'collect_events': True,
                'collect_logs': True,
                'log_names': {'exclude': [f'^{EXCLUDED_LOGGER}$']},
            }
            self._checks = CheckProcess(instance, folder)
            flow_names = [f'{plan.prefix}{name}' for name in (*FLOW_NAMES, *EXERCISE_FLOWS)]
            self._truth = Truth(api, flow_names, late_start_threshold=LATE_START_THRESHOLD_SECONDS)
            self._lives = Lives(
                api,
                prefix=plan.prefix,
                seed=plan.seed,
                is_counted=lambda ended: self._reads_since(ended) > 0,
                before_deletion=self._truth.add_run,
                log_delay=plan.log_delay,
                keeps_unstarted_ends=ENDS_OF_UNSTARTED_FLOW_RUNS not in differences(api.version()),
            )
            self._lives.set_up()
            stack.enter_context(self._checks)
            self._began = time.time()
            self._wait('the first check', lambda: self._reads_since(0) > 0)
            self._play(stack)
            self._settle(api)
            return self._result(time.time() - self._began)

    def _play(self, stack: ExitStack) -> None:
        """Let runs begin and end, under faults and kills."""
        plan = self._plan
        scripts: list[FlowScript] = []
        if plan.exercises:
            settings = {
                'EXERCISE_SECONDS': str(plan.seconds - LAST_ROUND_SECONDS),
                'EXERCISE_PREFIX': plan.prefix,
                'PREFECT_CLIENT_MAX_RETRIES': '3',
            }
            scripts.append(stack.enter_context(FlowScript(self._api_url, 'exercises.py', settings=settings)))
        self._front.fault = self._faults
        self._checks.deaths = plan.deaths
        self._checks.kill()
        began = time.monotonic()
        kill_at = began + self._random.uniform(*plan.kill_seconds)
        while True:
            elapsed = time.monotonic() - began
            progress = self._progress(elapsed)
            if progress < 1:
                due = int(elapsed * plan.lives_per_second) - self._lives.opened.total()
                # On a slow machine the lives go on slowly, and more of them would make it slower.
                self._lives.open(min(due, MOST_OPEN_LIVES - self._lives.number_open))
            elif not self._lives.number_open and not any(script.is_running for script in scripts):
                break
            elif elapsed > plan.seconds + 2 * GRACE_SECONDS:
                raise SoakError(f'{self._lives.number_open} lives did not come to their end')
            self._lives.go_on()
            if progress > plan.kills_until and self._checks.deaths:
                self._checks.deaths = 0.0
                self._checks.kill()
            elif time.monotonic() > kill_at and progress < plan.kills_until:
                kill_at = time.monotonic() + self._random.uniform(*plan.kill_seconds)
                self._checks.kill()
            self._checks.keep_running()
            self._report(
                f'{elapsed:5.0f} s: {self._lives.opened.total()} lives, {self._lives.number_open} of them open;'
                f' {self._faults.met.total()} faults in {len(self._front.requests)} requests;'
                f' check started {self._checks.starts} times'
            )
            time.sleep(STEP_SECONDS)
        for script in scripts:
            if script.process.exit_status:
                raise SoakError(f'the flows failed:\n{script.process.log_tail()}')

    def _progress(self, elapsed: float) -> float:
        """How much of the way is done after so many seconds, 0 to 1."""
        if elapsed > self._plan.seconds + GRACE_SECONDS:
            return 1.0
        parts = [
            (elapsed, self._plan.seconds),
            (self._lives.opened.total(), self._plan.least_lives),
            (self._checks.starts - 1, self._plan.least_kills),
        ]
        return min(done / wanted for done, wanted in parts if wanted)

    def _settle(self, api: PrefectApiDriver) -> None:
        """Wait until the server has written all and two checks without faults have read all of that."""
        ended = {'task_runs': {'state': {'type': {'any_': sorted(TERMINAL_STATE_TYPES)}}}}
        number, unchanged_since = -1, time.monotonic()

        def is_settled() -> bool:
            nonlocal number, unchanged_since
            now = api.count_task_runs(**ended)
            if now != number:
                number, unchanged_since = now, time.monotonic()
            return time.monotonic() - unchanged_since > SETTLE_SECONDS

        self._wait('the server to write down the last task runs', is_settled)
        self._truth.add_all()
        self._truth.add_events(datetime.fromtimestamp(self._began, UTC), datetime.now(UTC))
        self._front.fault = Exchange.pass_on
        # On a busy machine any record may show so late that it is found when the overlap is about to leave it.
        settled = time.time() + defaults.instance_log_overlap()
        self._wait('two good checks at the end', lambda: self._reads_since(settled) >= 2)

    def _reads_since(self, moment: float) -> int:
        """How often each stream was read well, at least, by checks that began after that time (epoch seconds).

        The journal is looked at now and then only.
        """
        if self._journal is None or time.monotonic() - self._looked_at > LOOK_SECONDS:
            self._journal = self._checks.journal
            self._looked_at = time.monotonic()
        return self._journal.successes_since(moment, *STREAMS)

    def _wait(self, what: str, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + GRACE_SECONDS + defaults.instance_log_overlap()
        self._report(f'Waiting for {what}')
        while not condition():
            self._checks.keep_running()
            if time.monotonic() > deadline:
                raise SoakError(f'timed out waiting for {what}')
            time.sleep(0.5)

    def _result(self, seconds: float) -> Result:
        journal = self._checks.journal
        return Result(
            seconds=seconds,
            comparisons=tuple(compare(journal.sums, self._truth.sums, self._truth.flow_names)),
            flow_runs=self._truth.flow_runs,
            task_runs=self._truth.task_runs,
            lives=self._lives.opened,
            journal=journal,
            front=self._front,
            faults=self._faults.met,
            kills=self._checks.kills,
            deaths=self._checks.starts - 1 - self._checks.kills,
        )


def summary(result: Result) -> RenderableType:
    """Everything about one soak, for people."""
    return Group(_sums_table(result), *_differences(result), Text(''), _facts_table(result), _verdict(result))


def _sums_table(result: Result) -> Table:
    table = Table('series', box=None, padding=(0, 2), pad_edge=False)
    for column in ('sum over all checks', 'happened', 'tag sets that differ'):
        table.add_column(column, justify='right')
    for one in result.comparisons:
        style = 'bold red' if one.differences else ''
        table.add_row(
            one.series, f'{one.counted:,.10g}', f'{one.happened:,.10g}', str(len(one.differences)), style=style
        )
    return table


def _differences(result: Result) -> Iterable[Text]:
    for one in result.comparisons:
        for line in one.lines[:MOST_PRINTED]:
            yield Text(line, style='red')


def _facts_table(result: Result) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style='dim')
    for name, value in facts(result).items():
        table.add_row(name, _text(value))
    return table


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ', '.join(f'{name} {_text(number)}' for name, number in value.items()) or 'none'
    return f'{value:,.6g}' if isinstance(value, (int, float)) else str(value)


def _verdict(result: Result) -> Text:
    if result.is_exact:
        return Text('Every sum is what the server tells, for every tag set.', style='bold green')
    wrong = [one.series for one in result.comparisons if one.differences]
    return Text(f'{len(wrong)} of {len(result.comparisons)} sums differ: {", ".join(wrong)}', style='bold red')


def facts(result: Result) -> dict[str, Any]:
    """The figures around the sums. Memory is that of the process that ran last, from its first check to its last."""
    journal, front = result.journal, result.front
    seconds = [record.seconds for record in journal.checks]
    return {
        'seconds': round(result.seconds),
        'flow runs': result.flow_runs,
        'task runs': result.task_runs,
        'lives': dict(result.lives),
        'checks': len(journal.checks),
        'checks that read every stream': sum(set(STREAMS) <= set(record.succeeded) for record in journal.checks),
        'seconds per check': {
            'median': round(median(seconds), 3),
            '95%': round(sorted(seconds)[len(seconds) * 95 // 100], 3),
            'max': round(max(seconds), 3),
        },
        'requests per check': round(len(front.requests) / len(journal.checks), 1),
        'kilobytes per check': round(front.answer_bytes / len(journal.checks) / 1000, 1),
        'connections': front.connections_made,
        'requests': len(front.requests),
        'faults': dict(result.faults),
        'kills': {'from outside': result.kills, 'while a batch was persisted': result.deaths},
        'batches': {'persisted': journal.batches, 'repeated after a kill': journal.repeated_batches},
        'log records repeated after a kill': {'all': journal.repeated_logs, 'most': journal.most_repeated_logs},
        'states lost': journal.lost_states,
        'memory in MB': _course([record.resident_bytes / 1e6 for record in journal.latest_checks]),
        'state in kB': _course([record.state_bytes / 1e3 for record in journal.checks]),
        'warnings': dict(result.warnings),
    }


def _course(values: Sequence[float]) -> dict[str, float]:
    return {
        'first': round(values[0], 1),
        'middle': round(values[len(values) // 2], 1),
        'max': round(max(values), 1),
        'last': round(values[-1], 1),
    }


class Progress:
    """Says how far it is: on a terminal all the time, elsewhere now and then."""

    def __init__(self, console: Console, plain_seconds: float) -> None:
        self._console = console
        self._status = console.status('')
        self._plain_seconds = plain_seconds
        self._told_at = -math.inf

    def __call__(self, text: str) -> None:
        if self._console.is_terminal:
            self._status.start()
            self._status.update(text)
        elif time.monotonic() - self._told_at > self._plain_seconds:
            self._told_at = time.monotonic()
            self._console.print(text)

    def close(self) -> None:
        self._status.stop()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog='python -m lab.soak', description='Runs and faults without end; exact sums.')
    parser.add_argument('--minutes', type=float, default=10.0, help='for how long runs begin (default: 10)')
    parser.add_argument('--lives', type=float, default=1.0, help='flow runs that begin per second (default: 1)')
    parser.add_argument('--faults', type=float, default=0.03, help='part of the requests that meet one (default: 0.03)')
    parser.add_argument('--seed', type=int, default=1, help='of all that is left to chance (default: 1)')
    parser.add_argument('--postgresql', action='store_true', help='the server uses PostgreSQL, not SQLite')
    parser.add_argument(
        '--lag',
        type=float,
        metavar='SECONDS',
        help='use PostgreSQL, and send half of the requests to a replica that is so far behind',
    )
    parser.add_argument('--json', type=Path, metavar='PATH', help='write the figures to a file, too')
    options = parser.parse_args(arguments)
    plan = SoakPlan(
        seconds=60 * options.minutes, lives_per_second=options.lives, fault_rate=options.faults, seed=options.seed
    )
    console = make_console()
    progress = Progress(console, plain_seconds=30)
    try:
        progress('Starting a Prefect server')
        with ExitStack() as stack:
            cluster = stack.enter_context(PostgresServer()) if options.postgresql or options.lag else None
            server = stack.enter_context(PrefectServer(database_url=cluster.url if cluster else None))
            replicas = []
            if cluster and options.lag:
                replicas.append(stack.enter_context(replica_behind(cluster, options.lag)).api_url)
            result = Soak(server.api_url, plan, progress, replicas=replicas).run()
    except (SoakError, RuntimeError, OSError) as error:
        console.print(f'The soak did not come to its end: {error}', style='red', markup=False)
        return 1
    except KeyboardInterrupt:
        console.print('Interrupted. Everything that was started has been stopped.')
        return 130
    finally:
        progress.close()
    console.print(summary(result))
    if options.json:
        figures = {**facts(result), 'sums': [asdict(one) for one in result.comparisons], 'exact': result.is_exact}
        options.json.write_text(json.dumps(figures, indent=2) + '\n')
    return 0 if result.is_exact else 1


if __name__ == '__main__':
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
