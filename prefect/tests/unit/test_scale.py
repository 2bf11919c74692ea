"""What a check costs in requests and rows, on servers with little and with much on them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from itertools import pairwise
from typing import Any

import pytest

from datadog_checks.base.stubs import aggregator, datadog_agent
from datadog_checks.prefect import PrefectCheck
from datadog_checks.prefect.api import server_clock
from datadog_checks.prefect.collectors import stream_collectors
from datadog_checks.prefect.event_names import COUNTED_EVENTS
from datadog_checks.prefect.metrics import HEARTBEATS
from tests.fake_prefect import FakePrefect
from tests.unit.harness import Row, after_restart, let_requests_take, run_task_through, run_through

INTERVAL = timedelta(seconds=15)
PAGE = 20
SCHEDULE = {'id': '5b1c0f3e-0b7b-4c6f-8f2e-5b8a4b5c7d11', 'active': True, 'schedule': {'cron': '0 * * * *'}}
# Requests of a steady check besides those for the workers of each pool, while each list has one page.
STEADY_REQUESTS = 38
# What of them is about runs and deployments: those that are live, due, restarting, that started, that ended.
# And the task runs that wait for a task worker.
STEADY_PAGES = {'/deployments/filter': 2, '/flow_runs/filter': 6, '/task_runs/filter': 5, '/task_runs/count': 4}
# The total of future runs, and some groups of deployments in turn; what started, and which of it is known; what ended.
FUTURE_COUNTS = 5
STREAM_COUNTS = 3

Contexts = dict[tuple[str, frozenset[str]], float]


class Server:
    """A fake server with pools, deployments, future runs and a history, on which runs start and end."""

    def __init__(
        self, fake: FakePrefect, *, pools: int = 4, deployments: int = 40, future: int = 0, past: int = 0
    ) -> None:
        self.fake = fake
        fake.default_limit = PAGE
        self.queues = [fake.default_queue(fake.add_work_pool(f'pool-{number:02}')) for number in range(pools)]
        for pool in fake.tables['work_pools'].newest():
            fake.add_worker(pool, f'worker of {pool["name"]}')
        # No two are edited at the same moment, as on a real server.
        self.deployments = [self._add_deployment(number) for number in range(deployments)]
        for number in range(future):
            due = fake.now + timedelta(hours=1, seconds=number)
            fake.add_flow_run(deployment=self.deployment(number), scheduled_time=due, auto_scheduled=True)
        for number in range(past):
            self.run(number, fake.now - timedelta(days=1, seconds=60 * number))

    def deployment(self, number: int) -> Row:
        return self.deployments[number % len(self.deployments)]

    def run(self, number: int, start: Any) -> None:
        """A flow run of some deployment with two task runs, of five seconds."""
        flow_run = run_through(self.fake, deployment=self.deployment(number), start=start, seconds=5)
        for key in ('extract', 'load'):
            run_task_through(self.fake, flow_run=flow_run, task_key=key, start=start, seconds=4)

    def live(self, runs: int = 5) -> None:
        """An interval passes, in which that many runs come and go; workers ask for work."""
        for number in range(runs):
            self.run(7 * number, self.fake.now + timedelta(seconds=1 + number))
        self.fake.now += INTERVAL
        for queue in self.queues:
            queue['last_polled'] = self.fake.now.strftime('%Y-%m-%dT%H:%M:%S.%fZ')

    def _add_deployment(self, number: int) -> Row:
        queue = self.queues[number % len(self.queues)]
        edited = self.fake.now - timedelta(days=1, seconds=number)
        return self.fake.add_deployment(
            name=f'deployment-{number:02}', work_queue=queue, updated=edited, schedules=[SCHEDULE]
        )


class Cost:
    """What a run of the check asked for."""

    def __init__(self, fake: FakePrefect) -> None:
        self.paths = Counter(request.path.removeprefix('/api') for request in fake.requests)
        self.bytes = sum(request.response_bytes for request in fake.requests)
        self.run_bytes = sum(
            request.response_bytes for request in fake.requests if request.path.endswith('_runs/filter')
        )

    @property
    def requests(self) -> int:
        return self.paths.total()


@contextmanager
def installed(**size: int) -> Iterator[tuple[Server, Callable[..., PrefectCheck]]]:
    """A server of that size, and what makes a check of it with certain options."""
    fake = FakePrefect()
    datadog_agent.reset()
    with pytest.MonkeyPatch.context() as patch, fake.install() as url:
        patch.setattr(server_clock, 'local_now', lambda: fake.now)

        yield Server(fake, **size), partial(after_restart, url)
    fake.assert_all_known()


def cost_of(server: Server, check: PrefectCheck) -> Cost:
    server.fake.requests.clear()
    error = check.run()
    assert not error, error
    return Cost(server.fake)


def steady_cost(server: Server, check: PrefectCheck, intervals: int = 12) -> Cost:
    """The cost of a check when the ones before have read all that is to be remembered, and the overlap is full."""
    for _ in range(intervals):
        cost = cost_of(server, check)
        server.live()
    return cost


def cost(**size: int) -> Cost:
    with installed(**size) as (server, make):
        return steady_cost(server, make())


def test_a_steady_check_asks_for_what_happens() -> None:
    cost_of_all = cost(pools=4, deployments=40, future=200)
    assert sum(number for path, number in cost_of_all.paths.items() if path.endswith('/workers/filter')) == 4
    assert cost_of_all.requests <= STEADY_REQUESTS + 4
    assert {path: cost_of_all.paths[path] for path in STEADY_PAGES} == STEADY_PAGES
    assert cost_of_all.paths['/flow_runs/count'] <= FUTURE_COUNTS + STREAM_COUNTS


def test_workers_of_many_pools_cost_thirty_requests() -> None:
    with installed(pools=60, deployments=60) as (server, make):
        check = make()
        costs = [steady_cost(server, check, intervals=1) for _ in range(4)]
    assert [
        sum(number for path, number in item.paths.items() if path.endswith('/workers/filter')) for item in costs
    ] == [60, 30, 30, 30]


def test_future_runs_cost_some_counts() -> None:
    without, few, many = (cost(future=number) for number in (0, 40, 400))
    assert many.requests <= without.requests + 4
    assert many.requests == few.requests
    assert many.run_bytes <= without.run_bytes


def test_expectations_cost_two_requests_at_most() -> None:
    """Once the last successes of what runs are read: while runs fail, are cancelled, run on, are late."""
    with installed(pools=4, deployments=40, future=200) as (server, make):
        with_them, without = make(), make(collect={'expectations': False}, tags=['without:them'])
        for number in range(8):
            server.fake.add_flow_run(deployment=server.deployment(number), state=('RUNNING', 'Running'))
            server.fake.add_flow_run(deployment=server.deployment(number), auto_scheduled=True)
        more: list[int] = []
        for number in range(32):
            for end in ('FAILED', 'CANCELLED'):
                run_through(server.fake, deployment=server.deployment(number), seconds=1, end=(end, None))
            server.live()
            more.append(cost_of(server, with_them).requests - cost_of(server, without).requests)
        assert max(more[12:]) <= 2
        assert max(more) <= 2 + 5


def test_history_costs_nothing() -> None:
    assert cost(past=500).paths == cost(past=0).paths


@pytest.mark.parametrize('deployments', [20, 100])
def test_deployments_cost_nothing_in_a_steady_check(deployments: int) -> None:
    found = cost(deployments=deployments, future=deployments)
    assert {path: found.paths[path] for path in STEADY_PAGES} == STEADY_PAGES
    assert found.requests <= STEADY_REQUESTS + 4


def test_the_first_check_reads_each_page_once() -> None:
    deployments, future = 50, 130
    with installed(deployments=deployments, future=future) as (server, make):
        found = cost_of(server, make())
    assert found.paths['/deployments/filter'] == math.ceil(deployments / PAGE)
    assert found.paths['/flows/filter'] == math.ceil(deployments / PAGE)
    # Each page of future runs begins with the last row of the one before; and there are those that are due, or live, or
    # wait for another attempt, and the last ends of each deployment; and of three, how their plan was made.
    assert found.paths['/flow_runs/filter'] <= 4 + math.ceil(future / (PAGE - 1)) + 1 + 3


ONE_OF_HUNDRED = {'include': ['^deployment-42$']}


def test_deployments_that_are_filtered_out_are_not_downloaded() -> None:
    """A filter that keeps 1 % of the deployments: nothing of the runs of the others comes over the wire."""
    with installed(deployments=100, future=400) as (server, make):
        all_of_them, one = make(), make(deployment_names=ONE_OF_HUNDRED)
        whole_first, part_first = cost_of(server, all_of_them), cost_of(server, one)
        assert part_first.paths['/flow_runs/filter'] < whole_first.paths['/flow_runs/filter'] / 4
        assert part_first.run_bytes < whole_first.run_bytes / 20
        for _ in range(12):
            server.live()
            whole, part = cost_of(server, all_of_them), cost_of(server, one)
        assert part.run_bytes < whole.run_bytes / 20


def test_work_pools_that_are_filtered_out_are_not_asked_about() -> None:
    with installed(pools=20, deployments=100, future=400) as (server, make):
        all_of_them, one = make(), make(work_pool_names={'include': ['^pool-07$']})
        whole_first, part_first = cost_of(server, all_of_them), cost_of(server, one)
        assert part_first.paths['/deployments/filter'] == 1
        assert part_first.bytes < whole_first.bytes / 4
        for _ in range(12):
            server.live()
            whole, part = cost_of(server, all_of_them), cost_of(server, one)
        assert [path for path in part.paths if path.endswith('/workers/filter')] == [
            '/work_pools/pool-07/workers/filter'
        ]
        assert part.requests <= whole.requests - 19 + 6
        assert part.run_bytes < whole.run_bytes / 4


HALVES = {
    'deployments': ('deployment_names', '^deployment-.[02468]$'),
    'work pools': ('work_pool_names', '^pool-0[02]$'),
}


@pytest.mark.parametrize(('option', 'pattern'), HALVES.values(), ids=HALVES.keys())
def test_the_sums_of_two_halves_are_the_whole(option: str, pattern: str) -> None:
    """Two instances share a server: one includes what the other excludes, which also has all without such a name."""
    with installed(deployments=20, future=60) as (server, make):
        whole = make()
        halves = [make(**{option: {'include': [pattern]}}), make(**{option: {'exclude': [pattern]}})]
        fake = server.fake
        ad_hoc = fake.add_flow('ad hoc')
        for check in (whole, *halves):
            contexts(check)
        seen: set[str] = set()
        for number in range(12):
            run_through(fake, flow=ad_hoc, seconds=2, end=('FAILED', 'Failed'))
            run_task_through(fake, flow_run=None, task_key='background', seconds=2)
            failed = run_through(fake, deployment=server.deployment(number), seconds=3, end=('CRASHED', 'Crashed'))
            fake.add_task_run(flow_run=failed, state=('RUNNING', 'Running'))
            live = fake.add_flow_run(deployment=server.deployment(number), state=('RUNNING', 'Running'))
            fake.add_task_run(flow_run=live, state=('RUNNING', 'Running'))
            server.live()
            expected = runs_of(contexts(whole))
            first, second = (runs_of(contexts(half)) for half in halves)
            assert not first.keys() & second.keys()
            assert first | second == expected
            assert first
            assert second
            seen |= {name.removeprefix('prefect.server.') for (name, _), value in expected.items() if value}
        counts = {'flow_runs.failed.count', 'flow_runs.crashed.count', 'task_runs.completed.count'}
        assert counts | {'flow_runs.scheduled', 'flow_runs.running', 'task_runs.running'} <= seen


def contexts(check: PrefectCheck) -> Contexts:
    """What a run of the check submits, by series and tags."""
    aggregator.reset()
    error = check.run()
    assert not error, error
    return {
        (metric.name, frozenset(metric.tags)): metric.value
        for name in aggregator.metric_names
        for metric in aggregator.metrics(name)
    }


def runs_of(found: Contexts) -> Contexts:
    """The part of it that belongs to deployments and runs."""
    parts = ('.deployment.', '.flow_runs.', '.task_runs.')
    return {key: value for key, value in found.items() if any(part in key[0] for part in parts)}


def added_requests(groups: tuple[str, ...], checks: int = 20) -> tuple[float, int]:
    """How many requests these groups add to a check, in the mean and at the most, on a server on which nothing happens.

    Without a first check, and over as many as five minutes have.
    """
    with installed(deployments=20, future=40) as (server, make):
        for _ in range(3):
            server.fake.add_automation()
        both, without = make(tags=['all']), make(tags=['without'], collect=dict.fromkeys(groups, False))
        counts: list[int] = []
        for number in range(checks + 1):
            added = cost_of(server, both).requests - cost_of(server, without).requests
            counts += [added] if number else []
            server.live(runs=0)
    return sum(counts) / len(counts), max(counts)


def test_events_cost_little_on_an_idle_server() -> None:
    """Those of events share one request; automations are listed each minute, beats read while a flow run is RUNNING."""
    mean, most = added_requests((*COUNTED_EVENTS, HEARTBEATS))
    assert 1 <= mean <= 1.3
    assert most <= 2


@pytest.mark.parametrize('options', [{}, {'deployment_names': {'exclude': ['-07$']}}], ids=['all', 'with a filter'])
def test_deployments_of_a_large_server_appear_as_they_are_listed(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    """A check has time for few pages here. What has runs is complete from the first check on, and nothing fails."""
    with installed(deployments=480, future=480) as (server, make):
        fake, check = server.fake, make(**options)
        let_requests_take(fake, 2.0, monkeypatch, '/deployments/filter')
        live = server.deployment(0)
        fake.add_flow_run(deployment=live, state=('RUNNING', 'Running'))
        excluded = server.deployment(7)
        fake.add_flow_run(deployment=excluded, state=('RUNNING', 'Running'))
        # The last edited are listed first, these are the last.
        for number, row in enumerate((live, excluded)):
            row['updated'] = (fake.now - timedelta(days=9, seconds=number)).strftime('%Y-%m-%dT%H:%M:%S.%fZ')
        listed, ended, are_scheduled = [], 0.0, []
        for number in range(8):
            found = contexts(check)
            tags = {f'deployment_name:{row["name"]}': row for row in (live, excluded)}
            running = {
                tag
                for (name, own), value in found.items()
                if name.endswith('flow_runs.running') and value
                for tag in own & tags.keys()
            }
            assert running == ({*tags} if not options else {'deployment_name:deployment-00'})
            listed.append(sum(name.endswith('.deployment.is_ready') for name, _ in found))
            are_scheduled.append(any(name.endswith('flow_runs.scheduled') for name, _ in found))
            ended += sum(value for (name, _), value in found.items() if name.endswith('flow_runs.completed.count'))
            if number == 2:
                run_through(fake, deployment=live, seconds=1)
            fake.now += INTERVAL
    assert listed[0] < listed[1] < listed[2] == listed[-1] == 480 - bool(options)
    assert (are_scheduled[0], are_scheduled[-1]) == (False, True)
    assert ended == 1


def test_over_a_slow_network_a_large_server_is_read_in_each_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """50 work pools, 50 rows on a page, 300 ms for each request."""
    with installed(pools=50, deployments=100, future=400) as (server, make):
        fake, check = server.fake, make()
        fake.default_limit = 50
        let_requests_take(fake, 0.3, monkeypatch)
        for _ in range(12):
            cost_of(server, check)
            server.live(runs=50)


def test_over_a_slow_network_the_lists_of_a_huge_server_are_read_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts are sent by each check; what is skipped for want of time is not skipped twice in a row."""
    with installed(pools=60, deployments=100, future=400) as (server, make):
        fake, check = server.fake, make()
        for number in range(900):
            server.fake.add_flow_run(deployment=server.deployment(number), state=('RUNNING', 'Running'))
        fake.default_limit = 50
        let_requests_take(fake, 0.3, monkeypatch)
        skipped: list[set[str]] = []
        for _ in range(12):
            aggregator.reset()
            check.run()
            points = aggregator.metrics('prefect.server.collector.success')
            skipped.append({tag for point in points if not point.value for tag in point.tags if 'collector' in tag})
            server.live()
    assert any(skipped)
    assert not any(one & other for one, other in pairwise(skipped))
    assert not {f'collector:{item.name}' for item in stream_collectors(())} & set().union(*skipped)
