"""Each request rests on the index that its function in `queries` names, on the database of a real version."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path

import pytest

from datadog_checks.prefect.api import queries
from datadog_checks.prefect.api.paging import FLOW_RUNS_BY_END
from datadog_checks.prefect.api.queries import NO_FILTER, ServerFilter
from datadog_checks.prefect.api.time_range import TimeRange
from lab.queries import Objects, Request, counted, explain, listed, of_all, of_flow_runs

IDENTITY = '00000000-0000-4000-8000-000000000000'
OBJECTS = Objects(IDENTITY, IDENTITY, IDENTITY, [IDENTITY], [IDENTITY], [IDENTITY])
NOW = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)
RANGE = TimeRange(NOW - timedelta(minutes=2), NOW)
REQUESTS = of_all(OBJECTS, NOW)
BY_DEPLOYMENT = ServerFilter(deployment_ids=[IDENTITY])
BY_WORK_QUEUE = ServerFilter(work_queue_ids=[IDENTITY])
BY_FLOW = ServerFilter(flow_ids=[IDENTITY])
OF_DEPLOYMENT = of_flow_runs(OBJECTS, NOW, BY_DEPLOYMENT)
# Of whom SQLite reads the past with a filter on deployments.
BY_THEIR_DEPLOYMENT = ('live_flow_runs', 'due_flow_runs', 'started_flow_runs', 'ended_flow_runs', 'future_flow_runs')
VARIANTS: Mapping[str, tuple[Request, str]] = {
    'logs of some flow runs': (
        Request('/logs/filter', queries.logs(20, RANGE, [IDENTITY]) | {'sort': 'TIMESTAMP_ASC', 'limit': 200}),
        'ix_log__flow_run_id_timestamp',
    ),
    'heartbeats': (
        Request('/events/count-by/resource', queries.events({'name': ['prefect.flow-run.heartbeat']}, RANGE)),
        'ix_events__event_occurred_id',
    ),
    'events by whole names': (
        Request('/events/filter', queries.events({'name': ['prefect.flow-run.Failed']}, RANGE) | {'limit': 50}),
        'ix_events__event_occurred_id',
    ),
    'one state of some deployments': (
        listed('flow_runs', queries.flow_runs_ended_of(NO_FILTER, [IDENTITY], ['COMPLETED']), FLOW_RUNS_BY_END)[0],
        'ix_flow_run__state_type_coalesce_start_time',
    ),
    **{
        f'number of {what} of some {kind}': (counted('flow_runs', query(where, RANGE))[0], index)
        for kind, where, index in (
            ('work queues', BY_WORK_QUEUE, 'ix_flow_run__work_queue_id'),
            ('flows', BY_FLOW, 'ix_flow_run__flow_id'),
        )
        for what, query in (
            ('started', queries.started_flow_runs),
            ('ended', queries.ended_flow_runs),
            ('future', queries.future_flow_runs),
        )
    },
}


class Plans:
    """How a real database looks up what is asked for."""

    def __init__(self, home: Path) -> None:
        of_variants = [request for request, _ in VARIANTS.values()]
        requests = [*chain(*REQUESTS.values(), of_variants, *OF_DEPLOYMENT.values())]
        self._plans = dict(zip(map(json.dumps, requests), explain(requests, home), strict=True))

    def statements(self, requests: list[Request]) -> list[Sequence[str]]:
        """The steps of each statement."""
        statements = [plan.steps for request in requests for plan in self._plans[json.dumps(request)]]
        assert statements
        return statements

    def indexes(self, requests: list[Request]) -> list[set[str]]:
        """The indexes of each statement."""
        return [
            {index for step in steps for index in re.findall(r'INDEX (\w+_\w+)', step)}
            for steps in self.statements(requests)
        ]


@pytest.fixture(scope='module')
def plans(tmp_path_factory: pytest.TempPathFactory) -> Plans:
    return Plans(tmp_path_factory.mktemp('prefect'))


def begins_alike(index: str, named: str) -> bool:
    """Whether an index begins with the column of another one, as `uq_flow_run__flow_id_idempotency_key` does.

    Of such two SQLite takes the one or the other, for the migrations make them in an order of chance.
    """
    return index.partition('_')[2].startswith(named.partition('_')[2])


def named_indexes(name: str) -> list[str]:
    """The indexes that the docstring of a function names before it explains."""
    text = inspect.getdoc(getattr(queries, name)) or ''
    claim = re.split('[.,:;]', text.partition('\nIndex: ')[2])[0]
    names: list[str] = re.findall(r'(?:ix|uq)_\w+|primary key', claim)
    return ['sqlite_autoindex_' if item == 'primary key' else item for item in names]


@pytest.mark.parametrize('name', REQUESTS)
def test_request_rests_on_the_index_that_its_function_names(plans: Plans, name: str) -> None:
    named = named_indexes(name)
    assert named or name == 'narrowed'
    for used in plans.indexes(REQUESTS[name]):
        assert all(any(begins_alike(index, wanted) for index in used) for wanted in named), used


def test_each_function_is_tried() -> None:
    public = {
        name
        for name, function in vars(queries).items()
        if inspect.isfunction(function) and function.__module__ == queries.__name__ and not name.startswith('_')
    }
    assert public == REQUESTS.keys()


@pytest.mark.parametrize(('request_of_it', 'index'), VARIANTS.values(), ids=list(VARIANTS))
def test_request_rests_on_another_index_where_the_docstring_says_so(
    plans: Plans, request_of_it: Request, index: str
) -> None:
    assert all(any(begins_alike(item, index) for item in used) for used in plans.indexes([request_of_it]))


@pytest.mark.parametrize('name', BY_THEIR_DEPLOYMENT)
def test_filter_on_deployments_makes_sqlite_read_their_past(plans: Plans, name: str) -> None:
    assert all('ix_flow_run__deployment_id' in used for used in plans.indexes(OF_DEPLOYMENT[name]))


def test_a_page_of_log_records_costs_what_it_holds(plans: Plans) -> None:
    """They come in the order of the index, so the server stops after a page, however many are stored."""
    assert not [step for steps in plans.statements(REQUESTS['logs']) for step in steps if 'TEMP B-TREE' in step]
