"""The stand-in for Datadog's answers: points of a tag set by time first, then tag sets of a group, then formulas."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab.timeline import StreamItem, TimedSeries, Timeline, log_lines, tag_map
from tools.datadog_evaluation import Evaluation, Values, evaluate, reduced
from tools.datadog_queries import QueryError, parse_expression, parse_query

RUNNING = 'prefect.server.flow_runs.running'
FAILED = 'prefect.server.flow_runs.failed.count'
AGE = 'prefect.server.flow_runs.late.max_age'


def series(name: str, points: dict[int, float], kind: str = 'gauge', **tags: str) -> TimedSeries:
    return TimedSeries(name, kind, tags, tuple(points.items()))


# Ten checks, ten seconds apart; an interval is 15 s: checks 0 1, 2, 3 4, 5, 6 7, 8, 9.
TIMELINE = Timeline(
    times=tuple(1_000.0 + 10 * number for number in range(10)),
    series=(
        series(RUNNING, dict.fromkeys(range(10), 2.0), flow_name='orders', env='prod'),
        series(RUNNING, {0: 1.0, 1: 3.0, 2: 4.0}, flow_name='report', env='test'),
        series(FAILED, {0: 1.0, 1: 1.0, 2: 0.0, 9: 1.0}, 'count', flow_name='orders'),
        series(FAILED, {1: 2.0, 2: 0.0}, 'count', flow_name='report'),
        series(AGE, {9: 30.0}, late_reason='no_worker', flow_name='orders'),
        series(AGE, {9: 0.0}, flow_name='orders'),
    ),
)


def answer(text: str, **variables: str) -> Values:
    return Evaluation(TIMELINE, variables).over_time(parse_query(text))


def test_gauges_are_averaged_over_time_and_summed_up_over_tag_sets() -> None:
    assert answer(f'sum:{RUNNING}{{*}}') == {(): [4.0, 6.0, 2.0, 2.0, 2.0, 2.0, 2.0]}


def test_a_rollup_changes_the_method() -> None:
    assert answer(f'max:{RUNNING}{{flow_name:report}}.rollup(max)')[()][0] == 3.0
    assert answer(f'max:{RUNNING}{{flow_name:report}}')[()][0] == 2.0


def test_counts_are_summed_up() -> None:
    assert answer(f'sum:{FAILED}{{*}}.as_count()') == {(): [4.0, 0.0, None, None, None, None, 1.0]}
    assert reduced(answer(f'sum:{FAILED}{{*}}.as_count()'), 'sum') == {(): [5.0]}


def test_groups_are_told_apart_and_a_missing_tag_has_a_group_of_its_own() -> None:
    assert set(answer(f'sum:{FAILED}{{*}} by {{flow_name}}.as_count()')) == {('orders',), ('report',)}
    assert reduced(answer(f'max:{AGE}{{*}} by {{late_reason}}'), 'last') == {('no_worker',): [30.0], ('N/A',): [0.0]}


@pytest.mark.parametrize(
    ('filters', 'last'),
    [
        ('flow_name:orders', 2.0),
        ('!flow_name:report', 2.0),
        ('$flow_name', 2.0),
        ('flow_name:$flow_name.value', 2.0),
        ('$flow_name,$env', 2.0),
    ],
)
def test_filters(filters: str, last: float) -> None:
    found = answer(f'sum:{RUNNING}{{{filters}}} by {{flow_name}}', flow_name='Orders', env='*')

    assert reduced(found, 'last') == {('orders',): [last]}


def test_what_matches_nothing_has_no_value() -> None:
    assert answer(f'sum:{RUNNING}{{flow_name:nobody}}') == {}


def test_fill_and_default() -> None:
    assert answer(f'sum:{FAILED}{{*}}.as_count().fill(zero)')[()][2:4] == [0.0, 0.0]
    assert evaluate(parse_expression('default_zero(a)'), {'a': {(): [None, 3.0]}}) == {(): [0.0, 3.0]}
    assert evaluate(parse_expression('default_zero(a)'), {'a': {}}) == {(): [0.0]}


def test_formulas_go_group_by_group() -> None:
    queries: dict[str, Values] = {
        'failed': {('a',): [1.0, None], ('b',): [0.0, 2.0], ('c',): [1.0, 1.0]},
        'ended': {('a',): [4.0, 4.0], ('b',): [0.0, 4.0]},
        'total': {(): [10.0, 0.0]},
    }

    assert evaluate(parse_expression('100 * failed / ended'), queries) == {
        ('a',): [25.0, None],
        ('b',): [None, 50.0],
    }
    assert evaluate(parse_expression('total - ended'), queries) == {('a',): [6.0, -4.0], ('b',): [10.0, -4.0]}


def test_groups_are_counted_where_any_has_a_value() -> None:
    queries: dict[str, Values] = {'up': {('a',): [1.0, 0.0, None], ('b',): [0.0, None, None]}, 'one': {('a',): [0.0]}}

    assert evaluate(parse_expression('count_not_null(up)'), queries) == {(): [2.0, 1.0, None]}
    assert evaluate(parse_expression('count_nonzero(up)'), queries) == {(): [1.0, 0.0, None]}
    assert evaluate(parse_expression('count_not_null(one) - count_nonzero(one)'), queries) == {(): [1.0]}
    assert evaluate(parse_expression('count_nonzero(one)'), {'one': {}}) == {}


def test_small_values_are_cut_off_on_demand() -> None:
    queries: dict[str, Values] = {'failed': {('a',): [0.0, 1.0, None]}}

    assert evaluate(parse_expression('cutoff_min(failed, 1)'), queries) == {('a',): [None, 1.0, None]}


@pytest.mark.parametrize('text', ['top(a, 5)', "'text'"])
def test_what_is_not_evaluated_here_is_refused(text: str) -> None:
    with pytest.raises(QueryError):
        evaluate(parse_expression(text), {'a': {}})


def test_a_timeline_comes_back_from_its_file(tmp_path: Path) -> None:
    timeline = Timeline(
        TIMELINE.times, TIMELINE.series, events=(StreamItem(1.0, 'error', 'title', 'text', {'flow_name': 'orders'}),)
    )
    path = tmp_path / 'made' / 'recording.json.gz'
    timeline.save(path)

    assert Timeline.load(path) == timeline


def test_tags_are_in_lower_case_as_in_datadog() -> None:
    assert tag_map(['work_queue_status:NOT_READY', 'prefect_url:http://localhost:4200/API']) == {
        'work_queue_status': 'not_ready',
        'prefect_url': 'http://localhost:4200/api',
    }


def test_log_records_of_runs_are_those_that_the_check_sent() -> None:
    log = {
        'timestamp': 5500,
        'status': 'warn',
        'message': 'slow',
        'error': {'stack': 'Traceback'},
        'ddtags': 'flow_name:Orders,flow_id:1',
        'prefect': {'flow_run_name': 'big-bear', 'task_run_name': 'load-1', 'url': 'http://ui/runs/1'},
    }
    result: Any = SimpleNamespace(points=(), events=(), logs=(log,), began=1.0)

    assert Timeline.of_results([result]).logs == (
        StreamItem(
            5.5,
            'warning',
            'big-bear / load-1',
            'slow\nTraceback',
            {'flow_name': 'orders', 'flow_id': '1'},
            'http://ui/runs/1',
        ),
    )


def test_log_lines_are_taken_from_json_only() -> None:
    text = (
        '{"levelname": "ERROR", "created": 5.5, "name": "flow_runs", "message": "broken", "flow_name": "Orders"}\n'
        'Traceback\n'
        '{"a": 1}\n'
        '{"levelname": "ERROR", "created": 5.5, "message": "of a run", "flow_run_id": "1"}\n'
    )

    assert list(log_lines(text)) == [StreamItem(5.5, 'error', 'flow_runs', 'broken', {'flow_name': 'orders'})]
