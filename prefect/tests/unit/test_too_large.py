"""One object that is too large to read, in any list, blinds none of the others."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from datadog_checks.base.stubs.aggregator import AggregatorStub
from datadog_checks.prefect import PrefectCheck
from datadog_checks.prefect.api import decoding
from tests.fake_prefect import FakePrefect
from tests.unit.harness import Row, at, run_task_through, run_through

NewCheck = Callable[..., PrefectCheck]
RunCheck = Callable[[PrefectCheck], AggregatorStub]
Series = set[tuple[str, frozenset[str]]]


def build(fake: FakePrefect) -> dict[str, tuple[Row, set[str]]]:
    """Two of everything. The second of each table, and the ids of what hangs on it."""
    made: list[dict[str, Row]] = []
    for name in ('good', 'large'):
        pool = fake.add_work_pool(f'{name}-pool')
        queue = fake.add_work_queue(pool, f'{name} queue')
        flow = fake.add_flow(f'{name} flow')
        deployment = fake.add_deployment(name=f'{name} deployment', work_queue=queue, flow=flow)
        live = fake.add_flow_run(deployment=deployment, state=('RUNNING', 'Running'))
        made.append(
            {
                'work_pools': pool,
                'workers': fake.add_worker(pool),
                'work_queues': queue,
                'flows': flow,
                'deployments': deployment,
                'concurrency_limits': fake.add_concurrency_limit(f'{name} limit', 2, 1),
                'flow_runs': live,
                'task_runs': fake.add_task_run(flow_run=live, state=('RUNNING', 'Running')),
            }
        )
    good, large = made
    return {table: (row, {item['id'] for item in good.values()}) for table, row in large.items()}


def sent(aggregator: AggregatorStub, ids: set[str]) -> Series:
    """The series of these objects, but for those that go by the runs of the past, which grow during the test."""
    found = set()
    for name in aggregator.metric_names:
        if '.expectation.max_run_time' in name:
            continue
        for metric in aggregator.metrics(name):
            if ids & {tag.partition(':')[2] for tag in metric.tags}:
                found.add((name, frozenset(metric.tags)))
    return found


@pytest.mark.parametrize(
    'table',
    [
        'work_pools',
        'workers',
        'work_queues',
        'flows',
        'deployments',
        'concurrency_limits',
        'flow_runs',
        'task_runs',
        'ended flow run',
        'ended task run',
    ],
)
def test_all_others_are_reported(
    fake: FakePrefect,
    new_check: NewCheck,
    run_check: RunCheck,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    table: str,
) -> None:
    caplog.set_level(logging.WARNING)
    world = build(fake)
    ids = world['flows'][1]
    deployment = next(row for row in fake.tables['deployments'].newest() if row['id'] in ids)
    monkeypatch.setattr(decoding, 'MAX_PAGE_BYTES', 30_000)
    reports: list[Series] = []
    for fills in (False, True):
        check = new_check(collect_events=True, tags=[f'fills:{fills}'])
        if fills and table in world:
            world[table][0]['filler'] = 'x' * 30_000
        run_check(check)
        for _ in range(2):
            start = fake.now
            for number in range(2):
                run = run_through(fake, deployment=deployment, start=start, seconds=number + 1)
                task = run_task_through(fake, flow_run=run, start=start, seconds=number + 1)
                if fills and number:
                    row = {'ended flow run': run, 'ended task run': task}.get(table, {})
                    row['filler'] = 'x' * 30_000
            fake.now = start.replace(second=start.second + 15)
            aggregator = run_check(check)
        reports.append({(name, tags - {f'fills:{fills}'}) for name, tags in sent(aggregator, ids)})
        fake.now = at(0).replace(minute=1)
        counted = sum(metric.value for metric in aggregator.metrics('prefect.server.flow_runs.completed.count'))
        assert counted == (1 if fills and table == 'ended flow run' else 2)
        check.cancel()

    assert reports[0] == reports[1]
    problems = {record.getMessage() for record in caplog.records}
    assert problems
    assert all('malformed objects' in problem and 'too large to read' in problem for problem in problems)
