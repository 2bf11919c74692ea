"""The preview of the dashboards: what a widget shows, and the page that needs nothing but itself."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab.timeline import StreamItem, TimedSeries, Timeline
from tools.dashboards.files import DASHBOARDS, FOLDER
from tools.preview import __main__ as preview
from tools.preview import contents, pictures
from tools.preview.contents import NOT_IN_DEMO, Cell, Contents, empty_widgets, names, unexplained
from tools.preview.page import PADDING, Board, height_of_groups, render, text_of

FAILED = 'prefect.server.flow_runs.failed.count'
FAILURES = 'prefect.server.flow_runs.failures.count'
BY_TIMEOUT = {'flow_name': 'orders', 'deployment_name': 'hourly', 'failure_reason': 'timeout'}
AGE = 'prefect.server.work_queue.backlog.age'
OVERVIEW = json.loads((FOLDER / 'prefect_overview.json').read_text())

TIMELINE = Timeline(
    times=(0.0, 15.0, 30.0, 45.0),
    series=(
        TimedSeries('prefect.server.health', 'gauge', {}, ((0, 1.0), (1, 1.0), (2, 0.0), (3, 0.0))),
        TimedSeries(FAILED, 'count', {'flow_name': 'orders', 'deployment_name': 'hourly'}, ((0, 1.0), (3, 1.0))),
        TimedSeries(FAILED, 'count', {'flow_name': 'report', 'deployment_name': 'daily'}, ((0, 3.0),)),
        TimedSeries(FAILED, 'count', {'flow_name': 'quiet', 'deployment_name': 'daily'}, ((0, 0.0),)),
        TimedSeries(FAILURES, 'count', BY_TIMEOUT, ((0, 1.0), (3, 1.0))),
        TimedSeries(FAILURES, 'count', BY_TIMEOUT | {'failure_reason': 'killed'}, ((0, 3.0),)),
        TimedSeries(FAILURES, 'count', BY_TIMEOUT | {'flow_name': 'quiet'}, ((0, 0.0),)),
        TimedSeries(AGE, 'gauge', {'work_pool_name': 'a', 'work_queue_name': 'default'}, ((3, 90.0),)),
        TimedSeries(AGE, 'gauge', {'work_pool_name': 'b', 'work_queue_name': 'default'}, ((3, 400.0),)),
    ),
    events=(StreamItem(31.0, 'error', 'orders -> Failed', '%%% \n`boom` <b>\n %%%', {'flow_name': 'orders'}),),
    logs=(
        StreamItem(31.0, 'error', 'big-bear', 'boom\nTraceback:\n  x < y', {'flow_name': 'orders'}, 'http://ui/runs/1'),
        StreamItem(32.0, 'info', 'big-bear', 'fine', {'flow_name': 'orders'}),
        StreamItem(33.0, 'error', 'server', 'broken', {}),
    ),
)


def definition(title: str) -> Any:
    """The first widget of the overview with this title."""
    return next(
        widget['definition']
        for group in OVERVIEW['widgets']
        for widget in group['definition']['widgets']
        if widget['definition'].get('title') == title
    )


def test_a_number_has_the_colour_of_the_first_rule_that_is_true() -> None:
    (row,) = Contents(TIMELINE).of(definition('Servers down')).rows

    assert row.cells == (Cell(1.0, '', 'white_on_red'),)


def test_a_server_that_is_not_reported_on_is_not_quiet() -> None:
    late = definition('Late runs')
    without_health = replace(TIMELINE, series=tuple(one for one in TIMELINE.series if not one.name.endswith('.health')))

    assert Contents(TIMELINE).of(late).rows[0].cells[0].value == 0
    assert Contents(without_health).of(late).is_empty


def test_a_flag_says_so_in_words() -> None:
    switched_off = definition('Global and tag limits')
    limit = {'concurrency_limit_name': 'gpu', 'concurrency_limit_type': 'tag'}
    name = 'prefect.server.concurrency_limit.is_active'
    timelines = [replace(TIMELINE, series=(TimedSeries(name, 'gauge', limit, ((3, value),)),)) for value in (0.0, 1.0)]

    (row,) = Contents(timelines[0]).of(switched_off).rows
    assert text_of(row.cells[3].value, row.cells[3].unit, row.cells[3].label) == '1 yes'
    assert Contents(timelines[1]).of(switched_off).rows == ()


def test_events_are_drawn_over_a_graph() -> None:
    events = tuple(
        StreamItem(time, 'info', f'[PREFECT] [deployment] daily -> {what}', '', {})
        for time, what in ((1.0, 'updated'), (2.0, 'not-ready'), (3.0, 'ready'))
    )
    with_changes = Contents(replace(TIMELINE, events=(*TIMELINE.events, *events)))

    assert with_changes.overlays(definition('Flow runs that ended')) == [1.0, 2.0]
    assert with_changes.overlays(definition('Flow runs now')) == []


def test_a_toplist_begins_with_the_largest_and_leaves_out_what_is_zero() -> None:
    rows = Contents(TIMELINE).of(definition('Most failures by deployment and reason')).rows

    assert [(row.group, row.cells[0].value) for row in rows] == [
        (('orders', 'hourly', 'killed'), 3.0),
        (('orders', 'hourly', 'timeout'), 2.0),
    ]


def test_a_table_has_a_row_for_each_tag_set_that_any_column_has() -> None:
    content = Contents(TIMELINE).of(definition('Work queues'))

    ages = [(row.group[:2], row.cells[1].value, row.cells[1].palette) for row in content.rows]
    assert ages == [(('a', 'default'), 90.0, 'white_on_yellow'), (('b', 'default'), 400.0, 'white_on_red')]
    assert content.empty_columns == [0, 2, 3, 4, 5, 6]


def test_a_graph_has_a_line_for_each_group() -> None:
    lines = Contents(TIMELINE).of(definition('Age of the backlog by queue')).lines

    assert {line.name: line.values[-1] for line in lines} == {'a, default': 90.0, 'b, default': 400.0}


def test_streams_follow_status_and_variables() -> None:
    items = Contents(TIMELINE, {'flow_name': 'orders'}).of(definition('Errors in the logs')).items
    others = Contents(TIMELINE, {'flow_name': 'report'}).of(definition('Errors in the logs')).items

    assert [item.title for item in items] == ['server', 'big-bear']
    assert [item.title for item in others] == ['server'], 'what names no flow is of interest to each'


def test_what_shows_nothing_is_told() -> None:
    empty = empty_widgets(OVERVIEW, TIMELINE)

    assert 'Workers / Workers online by pool' in empty
    assert 'Work pools and work queues / Work queues / since the last poll' in empty
    assert 'What fails, and what takes long? / Flow runs that ended / completed' in empty
    assert not [name for name in empty if 'Servers down' in name or 'Age of the backlog' in name]


def test_what_the_demo_does_not_show_exists_and_has_a_reason() -> None:
    existing = {name for board in DASHBOARDS for name in names(json.loads((FOLDER / board).read_text()))}

    assert set(NOT_IN_DEMO) <= existing
    assert all(NOT_IN_DEMO.values())


def test_what_is_explained_is_not_complained_about(monkeypatch: pytest.MonkeyPatch) -> None:
    name = 'Workers / Workers online by pool'
    assert name in unexplained(OVERVIEW, TIMELINE)

    monkeypatch.setattr(contents, 'NOT_IN_DEMO', {name: 'nobody works'})
    assert name not in unexplained(OVERVIEW, TIMELINE)


@pytest.fixture(scope='module')
def page() -> str:
    return render([Board('overview', OVERVIEW)], TIMELINE, ['Prefect server is down'], ['99 % complete'])


def test_the_page_loads_nothing(page: str) -> None:
    ours = re.sub(r'<script>.*?</script>', '', page, flags=re.DOTALL)

    assert not re.search(r'<link|\bsrc=|@import|url\(', ours)
    assert page.count('<script') == 2


def test_the_page_has_each_widget_and_each_chart(page: str) -> None:
    titles = [
        widget['definition'].get('title') for group in OVERVIEW['widgets'] for widget in group['definition']['widgets']
    ]
    charts = set(re.findall(r'id="chart-([\w-]+)"', page))

    assert page.count('<div class="widget"') == len(titles)
    assert charts == set(json.loads(re.search(r'const figures = (.*);\n', page)[1]))  # type: ignore[index]
    assert 'Prefect server is down' in page
    assert '99 % complete' in page
    assert page.count('Not in the demo. The Agents') == 2


def test_parts_of_a_dashboard_are_as_high_as_the_whole() -> None:
    board = Board('overview', OVERVIEW)
    parts = [height_of_groups(board, *part) for part in preview.PARTS['overview']]

    assert sum(parts) - 2 * PADDING == height_of_groups(board, 1, len(OVERVIEW['widgets']))
    for key, one in preview.PARTS.items():
        numbers = [number for first, last in one for number in range(first, last + 1)]
        groups = json.loads((FOLDER / f'prefect_{key}.json').read_text())['widgets']
        assert numbers == list(range(1, len(groups) + 1)), 'the parts show each group once'


def test_a_log_record_is_shown_with_its_traceback_tags_and_link(page: str) -> None:
    assert '<a href="http://ui/runs/1">big-bear</a>' in page
    assert '<pre>boom\nTraceback:\n  x &lt; y\n\nflow_name:orders</pre>' in page


def test_texts_are_escaped(page: str) -> None:
    assert '`boom` &lt;b&gt;' in page


@pytest.mark.parametrize(
    ('value', 'unit', 'text'),
    [
        (None, 'second', ''),
        (0.0, 'second', '0 s'),
        (0.25, 'second', '250 ms'),
        (119.0, 'second', '119 s'),
        (150.0, 'second', '2.5 min'),
        (7200.0, 'second', '2 h'),
        (259200.0, 'second', '3 d'),
        (99.94, 'percent', '99.9 %'),
        (1500.0, 'byte', '1.5 kB'),
        (12345.0, 'run', '12,345'),
        (1.0, '', '1'),
    ],
)
def test_numbers_for_people(value: float | None, unit: str, text: str) -> None:
    assert text_of(value, unit) == text


def test_without_a_browser_there_is_a_page_and_a_word_about_the_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pictures, 'PROGRAMS', ('no-such-browser',))
    TIMELINE.save(tmp_path / 'recording.json.gz')

    status = preview.main(['--recording', str(tmp_path / 'recording.json.gz'), '--folder', str(tmp_path)])

    output = capsys.readouterr().out
    assert status == 1, 'this timeline leaves most widgets empty'
    assert 'No pictures: none of no-such-browser was found' in output
    assert 'shows nothing: Workers / Workers online by pool' in output
    assert sorted(path.name for path in tmp_path.iterdir()) == ['dashboards.html', 'recording.json.gz']
