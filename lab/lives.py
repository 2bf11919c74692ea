"""Flow runs that are driven through their lives over the REST API, many at a time and without a process of their own.

The server does not care who reports a state: to it, and to a check that looks on, these are runs like any other. What a
run goes through is chosen by chance from a seed.
"""

from __future__ import annotations

import heapq
import random
import time
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from lab.api import PrefectApiDriver
from lab.truth import EXCLUDED_LOGGER

# A life yields the seconds until it goes on.
Life = Generator[float, None, None]
# A task run as input of another.
Input = dict[str, str]

# Two with deployments, one without, one of subflows.
FLOW_NAMES = ('billing', 'import', 'desk', 'child')
TASK_OUTCOMES = ('COMPLETED', 'COMPLETED', 'COMPLETED', 'FAILED', 'CRASHED', 'CANCELLED')

# A server does not collect more and more of them, and each check reads all.
MOST_LEFT_RUNNING = 5
# By which a client's clock is ahead.
AHEAD_SECONDS = 20.0
# What shows later than `log_overlap`, two minutes, is not promised to be sent.
MOST_LATE_SECONDS = 100
# In one request. Of five such requests the check leaves some to its next run.
FLOOD_RECORDS = 500


@dataclass(frozen=True)
class Deployment:
    name: str
    flow_name: str
    work_pool_name: str
    work_queue_name: str


class Lives:
    """Opens lives at a rate and lets each go on when its time has come; one request at a time.

    `prefix` comes before every name, so that several observers may use one server. `is_counted(moment)` tells whether a
    run that has ended by then (epoch seconds) has been counted, and `before_deletion(flow_run_id)` is called when it is
    about to go. `log_delay` is by how many seconds log records may show late, 0 for none of them.
    `keeps_unstarted_ends` says whether the server still shows that a run ended without a start once it is retried.
    """

    def __init__(
        self,
        api: PrefectApiDriver,
        *,
        prefix: str,
        seed: int,
        is_counted: Callable[[float], bool],
        before_deletion: Callable[[str], None],
        log_delay: float,
        keeps_unstarted_ends: bool,
    ) -> None:
        self._api = api
        self._random = random.Random(seed)
        self._prefix = prefix
        self._is_counted = is_counted
        self._before_deletion = before_deletion
        self._log_delay = log_delay
        # The server drops the log records of these with them.
        self._to_be_deleted: set[str] = set()
        self._deployment_ids: list[str] = []
        self._flow_ids: list[str] = []
        self._numbers = count()
        # (when it goes on, a number against ties, the life)
        self._waiting: list[tuple[float, int, Life]] = []
        self._left_running: list[str] = []
        self._began: datetime | None = None
        self.opened: Counter[str] = Counter()
        self._kinds: Sequence[Callable[[], Life]] = (
            # Most runs of a real server have a plain life.
            *[self._completes] * 5,
            *[self._fails] * 2,
            self._crashes,
            self._is_cancelled_while_scheduled,
            self._is_cancelled_while_running,
            self._crashes_while_pending,
            self._is_retried_by_itself,
            self._is_retried_by_itself,
            self._is_retried_by_hand,
            # Of this one no check may have seen the end, or one that was killed.
            *([self._is_retried_by_hand_without_having_run] if keeps_unstarted_ends else []),
            self._pauses,
            self._has_a_subflow,
            self._logs_late,
            self._logs_a_flood,
            self._is_deleted,
            self._is_left_running,
        )

    @property
    def number_open(self) -> int:
        """How many lives have not come to their end."""
        return len(self._waiting)

    def set_up(self) -> None:
        """Create flows, work pools, queues and deployments."""
        pools = (f'{self._prefix}east', f'{self._prefix}west')
        for pool in pools:
            self._api.create_work_pool(pool)
        self._api.create_work_queue(pools[0], 'fast', priority=1)
        flow_names = [f'{self._prefix}{name}' for name in FLOW_NAMES]
        billing, imports, *_ = flow_names
        for deployment in (
            Deployment(f'{self._prefix}monthly', billing, pools[0], 'default'),
            Deployment(f'{self._prefix}hourly', billing, pools[0], 'fast'),
            Deployment(f'{self._prefix}nightly', imports, pools[1], 'default'),
        ):
            self._deployment_ids.append(
                self._api.create_deployment(
                    flow_name=deployment.flow_name,
                    name=deployment.name,
                    entrypoint='outcomes.py:succeeds',
                    work_pool_name=deployment.work_pool_name,
                    work_queue_name=deployment.work_queue_name,
                )
            )
        self._flow_ids = [self._api.create_flow(name) for name in flow_names]

    def open(self, number: int) -> None:
        """Begin so many lives now."""
        self._began = self._began or datetime.now(UTC)
        for _ in range(number):
            # Each kind once in a row, in an order that differs from row to row.
            kind = self._kinds[self.opened.total() % len(self._kinds)]
            self.opened[(kind.__doc__ or '').strip()] += 1
            self._wait(0, kind())

    def go_on(self) -> None:
        """Take one step of each life whose time has come."""
        due = time.monotonic()
        while self._waiting and self._waiting[0][0] <= due:
            life = heapq.heappop(self._waiting)[2]
            seconds = next(life, None)
            if seconds is not None:
                self._wait(seconds, life)

    def _wait(self, seconds: float, life: Life) -> None:
        heapq.heappush(self._waiting, (time.monotonic() + seconds, next(self._numbers), life))

    # What lives are made of

    def _some(self, shortest: float, longest: float) -> float:
        return self._random.uniform(shortest, longest)

    def _create(self, **body: Any) -> str:
        """A new flow run: of a deployment, or of none for about every third."""
        chosen = self._random.randrange(len(self._deployment_ids) + 1)
        if chosen < len(self._deployment_ids):
            path = f'deployments/{self._deployment_ids[chosen]}/create_flow_run'
            return str(self._api.request('POST', path, body)['id'])
        return self._create_without_deployment(2, **body)

    def _create_without_deployment(self, flow: int, **body: Any) -> str:
        scheduled = {'type': 'SCHEDULED', 'state_details': {'scheduled_time': datetime.now(UTC).isoformat()}}
        body = {'flow_id': self._flow_ids[flow], 'state': scheduled, **body}
        return str(self._api.request('POST', 'flow_runs/', body)['id'])

    def _set(self, flow_run_id: str, state_type: str, *, name: str | None = None) -> None:
        self._api.set_flow_run_state(flow_run_id, state_type, name=name, force=True)

    def _propose(self, flow_run_id: str, state_type: str) -> tuple[str, float]:
        """Propose a state as the engine does; return the type that the server answers with and seconds to wait."""
        answer = self._api.request('POST', f'flow_runs/{flow_run_id}/set_state', {'state': {'type': state_type}})
        if answer['status'] == 'WAIT':
            return 'WAIT', float(answer['details']['delay_seconds'])
        return str(answer['state']['type']), 0.0

    def _start(self, flow_run_id: str) -> Life:
        """From SCHEDULED to RUNNING, late for some, by way of PENDING for some."""
        yield self._some(0, 2)
        if self._random.random() < 0.4:
            self._set(flow_run_id, 'PENDING')
            yield self._some(0, 0.5)
        self._set(flow_run_id, 'RUNNING')

    def _work(self, flow_run_id: str) -> Life:
        """Some task runs, each of which waits for those before it or for none."""
        done: list[Input] = []
        for number in range(self._random.choice((0, 0, 0, 1, 2))):
            inputs = list(done) if self._random.random() < 0.7 else []
            task_run_id = self._create_task_run(flow_run_id, f'step_{number}', inputs)
            if self._random.random() < 0.9:
                self._api.set_task_run_state(task_run_id, 'RUNNING')
                self._log_by_a_clock(flow_run_id, task_run_id=task_run_id)
                yield self._some(0, 1)
            self._api.set_task_run_state(task_run_id, self._random.choice(TASK_OUTCOMES))
            done.append({'input_type': 'task_run', 'id': task_run_id})
        yield self._some(0, 1)

    def _create_task_run(self, flow_run_id: str, task_key: str, inputs: Sequence[Input]) -> str:
        # As the engine does: the same key would be the same task run once more.
        return self._api.create_task_run(flow_run_id, task_key, dynamic_key=str(next(self._numbers)), inputs=inputs)

    def _log(self, flow_run_id: str, records: Sequence[tuple[datetime, int, str, str]], **more: str) -> None:
        """Send log records in one request: time, level, logger and message of each."""
        self._api.create_logs(
            [
                {
                    'timestamp': at.isoformat(),
                    'level': level,
                    'name': logger,
                    'message': message,
                    'flow_run_id': flow_run_id,
                    **more,
                }
                for at, level, logger, message in records
            ]
        )

    def _log_by_a_clock(self, flow_run_id: str, **more: str) -> None:
        """Log as a client whose clock may be wrong, also what is not to be sent."""
        late = 0.0 if flow_run_id in self._to_be_deleted else self._log_delay
        at = datetime.now(UTC) + timedelta(seconds=self._random.choice((0, 0, -late, AHEAD_SECONDS)))
        # Nothing older than the first check.
        at = max(at, self._began or at)
        levels = (10, self._random.choice((20, 30, 40)), 40)
        loggers = ('prefect.flow_runs', 'prefect.flow_runs', EXCLUDED_LOGGER)
        self._log(
            flow_run_id, [(at, level, logger, 'by hand') for level, logger in zip(levels, loggers, strict=True)], **more
        )

    def _run_to(self, flow_run_id: str, state_type: str) -> Life:
        yield from self._start(flow_run_id)
        self._log_by_a_clock(flow_run_id)
        yield from self._work(flow_run_id)
        self._set(flow_run_id, state_type)

    def _retry_by_hand(self, flow_run_id: str) -> Life:
        """At once, so that most checks never see that the run had ended, or after a while."""
        yield self._random.choice((0, self._some(0.1, 4)))
        self._api.retry_flow_run(flow_run_id)
        yield self._some(0, 1.5)
        yield from self._run_to(flow_run_id, self._random.choice(('COMPLETED', 'FAILED')))

    # The lives

    def _completes(self) -> Life:
        """completed"""
        yield from self._run_to(self._create(), 'COMPLETED')

    def _fails(self) -> Life:
        """failed"""
        yield from self._run_to(self._create(), 'FAILED')

    def _crashes(self) -> Life:
        """crashed"""
        yield from self._run_to(self._create(), 'CRASHED')

    def _is_cancelled_while_scheduled(self) -> Life:
        """cancelled while scheduled"""
        flow_run = self._create()
        yield self._some(0, 2)
        self._set(flow_run, 'CANCELLED')

    def _is_cancelled_while_running(self) -> Life:
        """cancelled while running"""
        flow_run = self._create()
        yield from self._start(flow_run)
        yield self._some(0, 1)
        self._api.cancel_flow_run(flow_run)
        yield self._some(0, 2)
        self._set(flow_run, 'CANCELLED')

    def _crashes_while_pending(self) -> Life:
        """crashed while pending"""
        flow_run = self._create()
        yield self._some(0, 1)
        self._set(flow_run, 'PENDING')
        yield self._some(0, 1)
        self._set(flow_run, 'CRASHED')

    def _is_retried_by_itself(self) -> Life:
        """retried by its own policy"""
        flow_run = self._create(empirical_policy={'retries': 2, 'retry_delay': self._random.choice((0, 1, 2))})
        yield from self._start(flow_run)
        for outcome in ('FAILED', self._random.choice(('COMPLETED', 'FAILED')), 'COMPLETED'):
            yield from self._work(flow_run)
            answer, seconds = self._propose(flow_run, outcome)
            if answer == outcome:
                return
            answer, seconds = self._propose(flow_run, 'RUNNING')
            while answer == 'WAIT':
                yield seconds
                answer, seconds = self._propose(flow_run, 'RUNNING')

    def _is_retried_by_hand(self) -> Life:
        """retried by hand"""
        flow_run = self._create()
        yield from self._run_to(flow_run, self._random.choice(('FAILED', 'CRASHED', 'CANCELLED')))
        yield from self._retry_by_hand(flow_run)

    def _is_retried_by_hand_without_having_run(self) -> Life:
        """retried by hand without having run"""
        flow_run = self._create()
        yield self._some(0, 1)
        self._set(flow_run, self._random.choice(('CRASHED', 'CANCELLED')))
        yield from self._retry_by_hand(flow_run)

    def _pauses(self) -> Life:
        """paused and resumed"""
        flow_run = self._create()
        yield from self._start(flow_run)
        yield self._some(0, 1)
        self._set(flow_run, 'PAUSED')
        yield self._some(0, 3)
        self._set(flow_run, 'RUNNING')
        yield self._some(0, 1)
        self._set(flow_run, 'COMPLETED')

    def _has_a_subflow(self) -> Life:
        """with a subflow"""
        parent = self._create()
        yield from self._start(parent)
        stand_in = self._create_task_run(parent, 'child', ())
        child = self._create_without_deployment(3, parent_task_run_id=stand_in)
        yield from self._run_to(child, 'COMPLETED')
        self._set(parent, 'COMPLETED')

    def _logs_late(self) -> Life:
        """with log records that show late"""
        flow_run = self._create()
        yield from self._start(flow_run)
        written = []
        for number in range(self._random.choice((1, 5, 30))):
            written.append((datetime.now(UTC), 20, 'prefect.flow_runs', f'late {number}'))
            yield self._some(0, 0.2)
        self._set(flow_run, 'COMPLETED')
        yield self._some(0, self._log_delay)
        # On a server that stood still meanwhile, some would show later than the check reads back.
        oldest = datetime.now(UTC) - timedelta(seconds=MOST_LATE_SECONDS)
        if records := [record for record in written if record[0] > oldest]:
            self._log(flow_run, records)

    def _logs_a_flood(self) -> Life:
        """with a flood of log records"""
        flow_run = self._create()
        yield from self._start(flow_run)
        gap = timedelta(milliseconds=self._random.choice((0, 0.1, 1)))
        size = self._random.choice((10, 100, 2_000))
        for _ in range(self._random.choice((1, 1, 5))):
            at = datetime.now(UTC)
            messages = (f'{number} ' + 'x' * size for number in range(FLOOD_RECORDS))
            records = [(at + number * gap, 20, 'prefect.flow_runs', text) for number, text in enumerate(messages)]
            self._log(flow_run, records)
            yield self._some(0, 0.5)
        self._set(flow_run, 'COMPLETED')

    def _is_deleted(self) -> Life:
        """deleted after it was counted"""
        flow_run = self._create()
        self._to_be_deleted.add(flow_run)
        yield from self._run_to(flow_run, self._random.choice(('COMPLETED', 'FAILED')))
        ended = time.time()
        while not self._is_counted(ended):
            yield 1.0
        self._before_deletion(flow_run)
        self._api.delete_flow_run(flow_run)

    def _is_left_running(self) -> Life:
        """left running"""
        flow_run = self._create()
        yield from self._start(flow_run)
        self._create_task_run(flow_run, 'hangs', ())
        self._left_running.append(flow_run)
        if len(self._left_running) > MOST_LEFT_RUNNING:
            self._set(self._left_running.pop(0), 'COMPLETED')
