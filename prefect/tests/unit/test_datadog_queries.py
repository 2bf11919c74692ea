"""The parser of Datadog's metric queries, and its judgement of them."""

from __future__ import annotations

import pytest

from tools.datadog_queries import (
    Filter,
    Function,
    MetricQuery,
    Number,
    Operation,
    QueryError,
    Reference,
    Text,
    metric_queries,
    parse_expression,
    parse_monitor,
    parse_query,
    problems,
    references,
)


def test_a_query_with_everything() -> None:
    query = parse_query(
        'sum:prefect.server.flow_runs.failed.count{$env,flow_name:orders,!work_pool_name:$pool.value}'
        ' by {flow_name, deployment_name}.as_count().rollup(sum, 60).fill(zero)'
    )

    assert query == MetricQuery(
        space_aggregation='sum',
        metric='prefect.server.flow_runs.failed.count',
        filters=(
            Filter('', variable='env'),
            Filter('flow_name', 'orders'),
            Filter('work_pool_name', '$pool.value', is_negated=True),
        ),
        group_by=('flow_name', 'deployment_name'),
        is_as_count=True,
        rollup=('sum', 60),
        fill='zero',
    )
    assert query.variables == {'env', 'pool'}


def test_a_metric_name_may_hold_digits() -> None:
    query = parse_query('max:prefect.server.flow_runs.execution_duration.95percentile{*}')

    assert query.metric == 'prefect.server.flow_runs.execution_duration.95percentile'
    assert query.filters == ()


def test_products_bind_more_than_sums() -> None:
    assert parse_expression('a - b / (c + 2) * 100') == Operation(
        '-',
        Reference('a'),
        Operation('*', Operation('/', Reference('b'), Operation('+', Reference('c'), Number(2.0))), Number(100.0)),
    )


def test_functions_take_expressions_texts_and_options() -> None:
    expression = parse_expression("anomalies(max:prefect.server.health{*}, 'basic', 2, direction='above')")

    assert isinstance(expression, Function)
    assert expression.arguments[1:] == (Text('basic'), Number(2.0))
    assert expression.options == (('direction', Text('above')),)
    assert [query.metric for query in metric_queries(expression)] == ['prefect.server.health']


def test_references_of_a_formula() -> None:
    assert references(parse_expression('default_zero(ended) / (ended + 2 * lost)')) == {'ended', 'lost'}


def test_a_monitor() -> None:
    monitor = parse_monitor('min(last_15m):max:prefect.server.health{*} by {prefect_url} / 2 <= -0.5')

    assert (monitor.method, monitor.window_seconds, monitor.comparator, monitor.threshold) == ('min', 900, '<=', -0.5)
    assert isinstance(monitor.expression, Operation)


@pytest.mark.parametrize(
    'text',
    [
        '',
        'avg:prefect.server.health',
        'avg:prefect.server.health{*',
        'p95:prefect.server.health{*}',
        'avg:prefect.server.health{env:prod AND host:a}',
        'avg:prefect.server.health{env:pr*}',
        'avg:prefect.server.health{*}.as_rate()',
        'avg:prefect.server.health{*}.rollup(p95)',
        'a +',
        '(a',
        'a b',
        'f(a,',
    ],
)
def test_what_is_not_understood_is_refused(text: str) -> None:
    with pytest.raises(QueryError):
        parse_expression(text)


@pytest.mark.parametrize(
    'text',
    [
        'max:prefect.server.health{*} > 1',
        'max(last_5m):max:prefect.server.health{*}',
        'max(last_5m):max:prefect.server.health{*} > a',
        'max(5m):max:prefect.server.health{*} > 1',
    ],
)
def test_a_monitor_has_a_window_and_a_threshold(text: str) -> None:
    with pytest.raises(QueryError):
        parse_monitor(text)


@pytest.mark.parametrize(
    ('text', 'problem'),
    [
        ('sum:prefect.server.nothing{*}', 'is not declared'),
        ('max:system.load.1{*}', 'is not declared'),
        ('sum:prefect.server.flow_runs.failed.count{*}', 'a count needs .as_count()'),
        ('max:prefect.server.flow_runs.failed.count{*}.as_count()', 'a count is summed up over its tag sets'),
        ('sum:prefect.server.flow_runs.running{*}.as_count()', 'a gauge has no .as_count()'),
        ('avg:prefect.server.work_queue.backlog.age{*}', 'hides the one in trouble'),
        ('sum:prefect.server.work_queue.backlog.age{*}', 'have no sum'),
        ('sum:prefect.server.flow_runs.execution_duration.95percentile{*}', 'the 95percentile of several tag sets'),
        ('sum:prefect.server.work_queue.concurrency.in_use{*}', 'has no sum'),
        ('max:prefect.server.work_pool.is_ready{flow_name:orders}', 'has no tag flow_name to filter by'),
        ('max:prefect.server.work_pool.is_ready{*} by {task_key}', 'has no tag task_key to group by'),
        ('max:prefect.server.work_pool.is_ready{*} by {env,env}', 'grouped by one tag twice'),
        ('max:prefect.server.work_pool.is_ready{$flow}', 'has no tag flow_name to filter by'),
        ('max:prefect.server.work_pool.is_ready{$nobody}', '$nobody is not defined'),
    ],
)
def test_judgement_names_what_is_wrong(text: str, problem: str) -> None:
    found = problems(parse_query(text), {'flow': 'flow_name'})

    assert len(found) == 1
    assert problem in found[0]


@pytest.mark.parametrize(
    'text',
    [
        'sum:prefect.server.flow_runs.failed.count{$flow,$env} by {deployment_name}.as_count()',
        'sum:prefect.server.flow_runs.running{*} by {flow_name,prefect_url,host}',
        'max:prefect.server.work_queue.backlog.age{*} by {work_pool_name,work_queue_name}',
        'sum:prefect.server.collector.duration_seconds{*}',
    ],
)
def test_nothing_is_wrong_with_these(text: str) -> None:
    assert problems(parse_query(text), {'flow': 'flow_name', 'env': 'env'}) == []
