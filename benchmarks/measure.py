"""One server of a size: the check on it, the floor of its requests, and the naive plan."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import fmean

from benchmarks import postgres, seed
from benchmarks.activity import Activity, Connect
from benchmarks.changes import LiveChanges, ScheduledChanges
from benchmarks.floor import replay
from benchmarks.process import Subject, cpu_seconds
from benchmarks.sizes import CHANGING, FAR, INTERVAL_SECONDS, LIVING, Size
from benchmarks.subject import Run
from lab.postgres import PostgresServer
from lab.prefect_server import PrefectServer

# How far a check ever reads back: the overlap of its streams, and the interval before it.
PAST_SECONDS = 120 + 3 * INTERVAL_SECONDS
_LEAST_STEADY_CHECKS = 11
_DISTURBED_CHECKS = 2
_FORMER_CHECKS = 7
# A server on another continent, and how many checks of it are measured.
DELAY_SECONDS = 0.3
_FAR_CHECKS = 8
# A server that reads its future for the first time may take some of this.
_PATIENCE_SECONDS = 600.0

Changes = ScheduledChanges | LiveChanges


@dataclass
class Cost:
    """What one check costs. Bytes are those on the wire; `own_` and `server_` seconds are those of a processor.

    `failed` are the collectors that failed, or for which there was no time.
    """

    requests: int
    wire_bytes: int
    connections: int
    seconds: float
    server_seconds: float
    own_seconds: float = 0.0
    peak_bytes: int = 0
    resident_bytes: int = 0
    state_bytes: int = 0
    samples: int = 0
    failed: list[str] = field(default_factory=list)

    @property
    def processor_seconds(self) -> float:
        """That of both sides. What else the machine does is not in it, while it is in `seconds`."""
        return self.server_seconds + self.own_seconds


def typical(costs: Sequence[Cost]) -> Cost:
    """The cost in the middle by its seconds, with the mean seconds of all but the two fastest and the two slowest.

    A server pauses for 0.13 s about once in 1.5 s of its work (3.8.8), which is as long as a large check takes. So one
    check has such a pause and the next has none: the mean has the share of it, which a median has or has not. What
    else goes on at the machine disturbs a few checks by much more: they are left out.
    """
    ordered = sorted(costs, key=lambda cost: cost.seconds)
    kept = ordered[_DISTURBED_CHECKS:-_DISTURBED_CHECKS]
    return replace(
        ordered[len(ordered) // 2],
        seconds=fmean(cost.seconds for cost in kept),
        server_seconds=fmean(cost.server_seconds for cost in kept),
        own_seconds=fmean(cost.own_seconds for cost in kept),
    )


@dataclass
class Costs:
    """The costs on one server.

    `start` are the checks after a start, up to the one that reports all there is. `requests` are those of each steady
    check, `memory` what the process has after each of them, `counted` what they counted of the flow runs and task runs
    that `ended`. `naive` is None where it takes more than five minutes. `former` is a steady check of another commit.
    `changes` are the seconds until all numbers of runs were right again, by what happened. `far` are steady checks
    when each request takes `DELAY_SECONDS` more.
    """

    start: list[Cost]
    requests: list[int]
    counted: dict[str, int]
    ended: dict[str, int]
    steady: Cost
    floor: Cost
    naive: Cost | None
    former: Cost | None = None
    changes: dict[str, float] = field(default_factory=dict)
    memory: list[int] = field(default_factory=list)
    far: list[Cost] = field(default_factory=list)

    @property
    def far_line(self) -> str:
        """What a far server costs, and what a check had no time for, in a sentence."""
        rows = [set(cost.failed) for cost in self.far]
        failed = [len(row) for row in rows]
        again = set().union(*(one & next_one for one, next_one in pairwise(rows)))
        left_out = f'{min(failed)} to {max(failed)} collectors were left out in each, '
        left_out += f'{", ".join(sorted(again))} twice in a row' if again else 'none twice in a row'
        seconds = [cost.seconds for cost in self.far]
        return (
            f'{fmean(seconds):.1f} s for a check, {max(seconds):.1f} s at most. In {len(rows)} checks '
            f'{left_out if any(failed) else "no collector was left out"}.'
        )

    @property
    def naive_times(self) -> tuple[float, ...]:
        """The naive plan takes as long as so many steady checks, by the clock and by the processor; () if given up."""
        if self.naive is None:
            return ()
        seconds, processor_seconds = self.naive.seconds, self.naive.processor_seconds
        return seconds / self.steady.seconds, processor_seconds / self.steady.processor_seconds

    @property
    def time_to_floor(self) -> float:
        """The time of a check in that of its floor, if the server's processor works as long for both.

        The requests are the same, and the work for them is: 0.97 s for bare ones and 0.95 s for those of a check (mean
        of 24 rounds, 3.8.8). In a few rounds it differs by as much as a check does of its own, as the pauses fall.
        """
        return (self.steady.seconds - self.steady.server_seconds + self.floor.server_seconds) / self.floor.seconds


class Bench:
    """Measures servers of different sizes, one after the other.

    `report` gets a line of text at each step. `former` is the folder with the package of another commit, to measure its
    check, too. Steady checks are measured for so many `minutes`, at least eleven of them. `database` is what the
    servers use, with the version of PostgreSQL once a server has been measured.
    """

    def __init__(
        self,
        folder: Path,
        report: Callable[[str], None],
        former: Path | None = None,
        *,
        minutes: float = 0.0,
        on_postgresql: bool = False,
    ) -> None:
        self._steady_checks = max(_LEAST_STEADY_CHECKS, round(60 * minutes / INTERVAL_SECONDS))
        self._on_postgresql = on_postgresql
        self.database = 'PostgreSQL' if on_postgresql else 'SQLite'
        self._former = former
        self._template = folder / 'template.db'
        self._database = folder / 'server.db'
        self._report = report

    def measure(self, name: str, size: Size) -> Costs:
        """The costs of a server of that size, which is made and stopped again. Changes are for SQLite only."""
        if not self._template.exists():
            self._report('a real server makes its schema')
            seed.make_template(self._template)
        self._report(f'{name}: rows for {size}')
        self._put(self._template)
        with seed.connected(self._database) as database:
            samples = seed.seed(database, size)
        with ExitStack() as stack:
            connect: Connect = partial(seed.connected, self._database)
            url = f'sqlite+aiosqlite:///{self._database}'
            databases = []
            if self._on_postgresql:
                self._report(f'{name}: PostgreSQL starts and takes the rows')
                cluster = stack.enter_context(PostgresServer())
                postgres.fill(cluster, self._database)
                connect, url = partial(postgres.connected, cluster), cluster.url
                databases.append(postgres.process_id(cluster))
                self.database = postgres.name(cluster)
            self._report(f'{name}: the server starts')
            server = stack.enter_context(PrefectServer(settings=seed.SETTINGS, database_url=url))
            activity = Activity(connect, samples, size)
            measurement = _Measurement(
                server.api_url,
                lambda: [server.pid, *databases],
                activity,
                lambda text: self._report(f'{name}: {text}'),
            )

            def put_back(backup: Path) -> None:
                server.stop()
                self._put(backup)
                server.start()
                activity.begin_anew()

            changes: Changes | None = None
            if name == CHANGING and not self._on_postgresql:
                changes = ScheduledChanges(self._database, samples, size)
            elif name == LIVING and not self._on_postgresql:
                changes = LiveChanges(self._database, put_back)
            costs = measurement.costs(self._steady_checks, changes, is_far=name in FAR)
            return replace(costs, former=measurement.former_cost(self._former)) if self._former else costs

    def _put(self, database: Path) -> None:
        """Have a copy of it in the place of the server's, without the log of changes that was beside that."""
        for path in self._database.parent.glob(f'{self._database.name}*'):
            path.unlink()
        shutil.copy(database, self._database)


class _Measurement:
    """On one server; `processes` gives the ids of its process, and of PostgreSQL's first one where it has that."""

    def __init__(
        self, api_url: str, processes: Callable[[], Sequence[int]], activity: Activity, report: Callable[[str], None]
    ) -> None:
        self._api_url = api_url
        self._processes = processes
        self._activity = activity
        self._report = report
        self._next_interval = 0.0
        # The last run of a check.
        self._last = Run()

    def costs(self, steady_checks: int, changes: Changes | None, *, is_far: bool) -> Costs:
        with Subject('check', self._api_url) as check, Subject('naive', self._api_url) as naive:
            self._activity.play_back(PAST_SECONDS)
            self._next_interval = time.monotonic() + INTERVAL_SECONDS
            start = self._start(check)
            counted, ended = self._last.ended, self._activity.ended()
            pairs = [self._steady(check, number, steady_checks) for number in range(steady_checks)]
            steady, floor = (typical(side) for side in zip(*pairs, strict=True))
            counted = {kind: number - counted[kind] for kind, number in self._last.ended.items()}
            ended = self._activity.ended() - ended
            far = self._far(check) if is_far else []
            self._report('the naive plan')
            self._live()
            run, cost = self._measured(naive)
            everything = None if run.error else cost
            requests = [cost.requests for cost, _ in pairs]
            memory = [cost.resident_bytes for cost, _ in pairs]
            costs = Costs(start, requests, counted, dict(ended), steady, floor, everything, memory=memory, far=far)
            return replace(costs, changes=self._changes(check, changes)) if changes else costs

    def former_cost(self, package: Path) -> Cost:
        """A steady check of that package."""
        self._report('the check of the other commit')
        with Subject('check', self._api_url, package) as check:
            self._start(check)
            costs = []
            for number in range(_FORMER_CHECKS):
                self._report(f'its steady check {number + 1} of {_FORMER_CHECKS}')
                self._live()
                costs.append(self._cost(check))
            return typical(costs)

    def _start(self, check: Subject) -> list[Cost]:
        """The checks until all is reported, and one more at least, which reads back as far as it ever does."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        costs: list[Cost] = []
        is_right = False
        while not is_right or len(costs) == 1:
            if costs:
                self._live()
            run, cost = self._measured(check)
            costs.append(cost)
            is_right = self._is_right(run) and not run.error
            self._report(
                f'check {len(costs)} after the start: {cost.seconds:.1f} s, {cost.requests} requests, '
                f'{cost.samples:,} samples, {len(run.scheduled):,} deployments with scheduled runs'
            )
            if len(costs) == 1:
                check.age()
            if time.monotonic() > deadline:
                raise RuntimeError(f'the numbers of runs are not right after {_PATIENCE_SECONDS:.0f} s')
        return costs

    def _steady(self, check: Subject, number: int, of_them: int) -> tuple[Cost, Cost]:
        self._report(f'steady check {number + 1} of {of_them}')
        self._work_a_while()
        self._live()
        run, cost = self._measured(check)
        self._work_a_while()
        # After a write the server's connections have to read the database anew, as they had for the check.
        self._activity.poll()
        began, busy = time.perf_counter(), self._server_cpu()
        replay(self._api_url, run.requests)
        seconds = time.perf_counter() - began
        floor = Cost(len(run.requests), cost.wire_bytes, 1, seconds, self._server_cpu() - busy)
        return cost, floor

    def _far(self, check: Subject) -> list[Cost]:
        check.delay(DELAY_SECONDS)
        costs = []
        for number in range(_FAR_CHECKS):
            self._report(f'check {number + 1} of {_FAR_CHECKS} with {DELAY_SECONDS} s more for each request')
            self._live()
            costs.append(self._cost(check))
        check.delay(0)
        return costs

    def _work_a_while(self) -> None:
        """Some requests of the last steady check once more; how many is left to chance.

        The server pauses after so much work. The same work each time would have each pause fall on the same side.
        """
        requests = self._last.requests
        replay(self._api_url, requests[: random.randint(0, len(requests))])

    def _changes(self, check: Subject, changes: Changes) -> dict[str, float]:
        """How long it takes until the numbers are right again, in seconds."""
        return {what: self._seconds_until_right(check, what, change) for what, change in changes.all().items()}

    def _seconds_until_right(self, check: Subject, what: str, change: Callable[[], None]) -> float:
        self._report(what)
        change()
        began = time.monotonic()
        while True:
            self._live()
            is_right = self._is_right(check.run())
            seconds = time.monotonic() - began
            if is_right:
                return seconds
            if seconds > _PATIENCE_SECONDS:
                raise RuntimeError(f'{what}: the numbers of runs are not right after {seconds:.0f} s')

    def _live(self) -> None:
        """Let the interval pass; what happened in it is there at once, and a check comes right after it."""
        time.sleep(max(0.0, self._next_interval - time.monotonic()))
        self._next_interval = time.monotonic() + INTERVAL_SECONDS
        self._activity.play()

    def _is_right(self, run: Run) -> bool:
        return run.scheduled == self._activity.scheduled_by_deployment() and run.live == self._activity.live()

    def _cost(self, subject: Subject) -> Cost:
        return self._measured(subject)[1]

    def _measured(self, subject: Subject) -> tuple[Run, Cost]:
        busy = self._server_cpu()
        run = self._last = subject.run()
        cost = Cost(
            requests=len(run.requests),
            wire_bytes=run.wire_bytes,
            connections=run.connections,
            seconds=run.seconds,
            server_seconds=self._server_cpu() - busy,
            own_seconds=run.own_cpu_seconds,
            peak_bytes=run.peak_bytes,
            resident_bytes=run.resident_bytes,
            state_bytes=run.state_bytes,
            samples=run.samples,
            failed=run.failed,
        )
        if run.error:
            self._report(f'{subject.kind} says: {run.error}')
        return run, cost

    def _server_cpu(self) -> float:
        return sum(map(cpu_seconds, self._processes()))
