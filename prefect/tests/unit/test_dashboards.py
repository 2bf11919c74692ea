"""The dashboards, without a Datadog at hand: their form, their queries, and what a reader finds on them."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from itertools import chain, combinations, pairwise
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import yaml
from datadog_api_client import Configuration
from datadog_api_client.model_utils import UnparsedObject, validate_and_convert_types
from datadog_api_client.v1.model.dashboard import Dashboard

from tests.log_pipeline.query import RESERVED, Query
from tests.unit.lint import for_each
from tools.dashboards.files import DASHBOARDS, FOLDER, wanted
from tools.datadog_queries import HOST_METRICS, Reference, parse_expression, parse_query, problems, references

ASSETS = FOLDER.parent
VARIABLE = re.compile(r'\$(\w+)')
# The comparison that is true where the other is not.
OTHERWISE = {'>': '<=', '<': '>='}
EVALUATED_FUNCTION = re.compile(r'([a-z_]+)\(')


class Placed(NamedTuple):
    """A widget with the dashboard and the group that it is on."""

    board: str
    group: str
    widget: Any

    @property
    def definition(self) -> Any:
        return self.widget['definition']

    def __str__(self) -> str:
        return f'{self.board} / {self.group} / {self.definition.get("title", "note")}'


BOARDS = {name: json.loads((FOLDER / name).read_text()) for name in DASHBOARDS}
WIDGETS = [
    Placed(name, group['definition']['title'], widget)
    for name, board in BOARDS.items()
    for group in board['widgets']
    for widget in group['definition']['widgets']
]
WITH_QUERIES = [
    one for one in WIDGETS if one.definition['type'] in {'query_value', 'timeseries', 'toplist', 'query_table'}
]
STREAMS = [one for one in WIDGETS if one.definition['type'] == 'list_stream']

every_board = for_each(BOARDS)
every_widget_with_queries = for_each({str(one): one for one in WITH_QUERIES})


def widgets_of(board: Any) -> Iterator[Any]:
    for group in board['widgets']:
        yield from group['definition']['widgets']


def variables(board: Any) -> dict[str, str]:
    return {variable['name']: variable['prefix'] for variable in board['template_variables']}


def queries(placed: Placed) -> Iterator[Any]:
    for request in placed.definition['requests']:
        yield from request['queries']


@for_each({path.name: path for path in wanted()})
def test_files_are_as_described(path: Path) -> None:
    assert path.read_text() == wanted()[path], 'run `make generate`'


@every_board
def test_datadogs_own_client_understands_each_part(board: Any) -> None:
    assert list(not_understood(board)) == []


def test_a_part_that_datadog_does_not_know_is_found() -> None:
    board = json.loads(json.dumps(BOARDS['prefect_overview.json']))
    board['widgets'][1]['definition']['widgets'][1]['definition']['requests'][0]['response_format'] = 'number'

    assert list(not_understood(board))


def not_understood(board: Any) -> Iterator[Any]:
    """What the client could read as none of the forms that it knows."""
    parts = [validate_and_convert_types(board, (Dashboard,), ['dashboard'], True, True, Configuration())]
    while parts:
        part = parts.pop()
        if isinstance(part, UnparsedObject) or getattr(part, '_unparsed', False):
            yield part
        elif isinstance(part, list):
            parts += part
        elif hasattr(part, '_data_store'):
            parts += part._data_store.values()


@every_board
def test_a_dashboard_is_complete(board: Any) -> None:
    assert set(board) == {
        *('title', 'description', 'layout_type', 'reflow_type'),
        *('template_variables', 'template_variable_presets', 'notify_list', 'tags', 'widgets'),
    }
    assert board['layout_type'] == 'ordered'
    assert board['reflow_type'] == 'fixed'
    assert all(board[key].isascii() and board[key] for key in ('title', 'description'))
    assert len(board['description']) <= 180, 'one line of the preview, whose pictures are as high as that'


@every_board
def test_a_preset_chooses_of_each_variable(board: Any) -> None:
    presets = board['template_variable_presets']

    assert [preset['name'] for preset in presets] == ['Everything', 'Production', 'Staging']
    for preset in presets:
        assert [one['name'] for one in preset['template_variables']] == list(variables(board))
    chosen = [
        {one['name']: one['values'] for one in preset['template_variables'] if one['values'] != ['*']}
        for preset in presets
    ]
    assert chosen == [{}, {'env': ['prod']}, {'env': ['staging']}]


def test_the_dashboards_lead_to_each_other() -> None:
    titles = {name: board['title'] for name, board in BOARDS.items()}
    for name, board in BOARDS.items():
        others = {title for other, title in titles.items() if other != name}
        links = set(re.findall(r'\(/dashboard/lists\?q=([^)]+)\)', json.dumps(board)))
        assert {unquote(link) for link in links} == others


@every_board
def test_a_note_fits_its_box_on_a_laptop(board: Any) -> None:
    for one in widgets_of(board):
        if one['definition']['type'] == 'note':
            text = re.sub(r'\]\([^)]+\)', '', one['definition']['content'])
            lines = sum(ceil(len(part) / 165) for part in text.split('\n'))
            assert lines <= 3 * one['layout']['height'], text


@every_board
def test_the_title_of_a_number_fits_its_box_on_a_laptop(board: Any) -> None:
    for one in widgets_of(board):
        if one['definition']['type'] == 'query_value':
            assert len(one['definition']['title']) <= 13 * one['layout']['width'], one['definition']['title']


@every_board
def test_identities_are_unique(board: Any) -> None:
    groups = board['widgets']
    identities = Counter(one['id'] for one in (*groups, *chain(*(group['definition']['widgets'] for group in groups))))

    assert identities.most_common(1)[0][1] == 1


@every_board
def test_groups_lie_below_each_other(board: Any) -> None:
    layouts = [group['layout'] for group in board['widgets']]

    assert layouts[0]['y'] == 0
    assert all(layout['x'] == 0 and layout['width'] == 12 for layout in layouts)
    assert all(below['y'] == above['y'] + above['height'] for above, below in pairwise(layouts))


@every_board
def test_widgets_fill_their_group_and_do_not_overlap(board: Any) -> None:
    for group in board['widgets']:
        cells: Counter[tuple[int, int]] = Counter()
        for widget in group['definition']['widgets']:
            layout = widget['layout']
            xs, ys = (
                range(layout['x'], layout['x'] + layout['width']),
                range(layout['y'], layout['y'] + layout['height']),
            )
            cells.update((x, y) for x in xs for y in ys)
        assert set(cells.values()) == {1}, group['definition']['title']
        assert set(cells) == {(x, y) for x in range(12) for y in range(group['layout']['height'] - 1)}


@for_each({f'{name} / {one["definition"]["title"]}': one for name, board in BOARDS.items() for one in board['widgets']})
def test_a_group_says_what_to_look_at_and_what_to_do(group: Any) -> None:
    (note,) = [one['definition'] for one in group['definition']['widgets'] if one['definition']['type'] == 'note']

    if group['definition']['title'] == 'About this dashboard':
        assert 'Read from the top' in note['content']
    else:
        assert '**Do**: ' in note['content']
        assert '**Look at** ' in note['content'] or 'Choose **flow_name**' in note['content']


def test_notes_name_groups_and_widgets_that_exist() -> None:
    for name, board in BOARDS.items():
        titles = {one.group for one in WIDGETS} | {one.definition.get('title') for one in WIDGETS if one.board == name}
        notes = ' '.join(
            one.definition['content'] for one in WIDGETS if one.board == name and 'content' in one.definition
        )
        named = set(re.findall(r'(?<![*\w])\*([A-Z][^*]+)\*', notes))
        assert named
        assert {one for one in named if not any(str(title).startswith(one) for title in titles)} == set(), board[
            'title'
        ]


@every_widget_with_queries
def test_queries_are_right_for_their_metrics(placed: Placed) -> None:
    known = variables(BOARDS[placed.board])

    assert [problem for one in queries(placed) for problem in problems(parse_query(one['query']), known)] == []


@every_widget_with_queries
def test_a_query_follows_every_variable_that_its_metric_knows(placed: Placed) -> None:
    for one in queries(placed):
        query = parse_query(one['query'])
        assert query.spec is not None
        # The host of the series of the check is that of its Agent, not that of a worker.
        known = query.known_tags if query.metric in HOST_METRICS else query.known_tags - {'host'}
        assert query.variables == {name for name, tag in variables(BOARDS[placed.board]).items() if tag in known}


@every_board
def test_every_variable_narrows_something(board: Any) -> None:
    assert variables(board).keys() == set(VARIABLE.findall(json.dumps(board['widgets'])))
    assert 'prefect_tag' in variables(board)
    assert all(variable['defaults'] == ['*'] for variable in board['template_variables'])


@every_widget_with_queries
def test_formulas_refer_to_the_queries_of_their_request(placed: Placed) -> None:
    for request in placed.definition['requests']:
        names = [one['name'] for one in request['queries']]
        formulas = [parse_expression(one['formula']) for one in request['formulas']]
        assert len(set(names)) == len(names)
        assert set(chain(*map(references, formulas))) == set(names), 'all are defined, and none for nothing'
        functions = {name for one in request['formulas'] for name in EVALUATED_FUNCTION.findall(one['formula'])}
        assert functions <= {'count_not_null', 'count_nonzero', 'cutoff_min', 'default_zero'}


@every_widget_with_queries
def test_nothing_is_zero_without_a_report_of_the_check(placed: Placed) -> None:
    for request in placed.definition['requests']:
        for one in request['formulas']:
            if 'default_zero' in one['formula']:
                assert one['formula'].endswith(' + 0 * alive')
                assert any(query['query'].startswith('min:prefect.server.health{') for query in request['queries'])


@every_widget_with_queries
def test_what_is_green_is_of_now(placed: Placed) -> None:
    """With the Agent dead for an hour nothing stays green, no matter what time the page shows."""
    if 'white_on_green' in json.dumps(placed.definition):
        assert placed.definition['time']['live_span'] in {'5m', '15m', '1h'}
    is_snapshot = all(one.get('aggregator') == 'last' for one in queries(placed))
    assert not is_snapshot or 'live_span' in placed.definition['time']


@every_widget_with_queries
def test_a_coloured_number_has_limits(placed: Placed) -> None:
    if placed.definition['type'] != 'timeseries':
        assert all('style' not in one for request in placed.definition['requests'] for one in request['formulas'])


def test_no_flag_has_to_be_explained() -> None:
    assert [str(one) for one in WIDGETS if '1 =' in json.dumps(one.definition)] == []


@every_board
def test_graphs_of_failures_and_durations_show_what_changed(board: Any) -> None:
    for one in widgets_of(board):
        definition = one['definition']
        is_graph = definition['type'] == 'timeseries'
        if is_graph and re.search(r'failures\.count|_runs\.failed|execution_duration', json.dumps(definition)):
            assert [search['q'].rpartition(') ')[2] for search in definition['events']] == [
                *('(created OR updated OR deleted)', '"not-ready"'),
            ], definition['title']


@every_widget_with_queries
def test_one_number_says_how_it_is_made_of_many(placed: Placed) -> None:
    for request in placed.definition['requests']:
        is_scalar = request['response_format'] == 'scalar'
        assert is_scalar == (placed.definition['type'] != 'timeseries')
        for one in request['queries']:
            assert (one.get('aggregator') in {'last', 'max', 'min', 'sum'}) == is_scalar
            if is_scalar:
                assert (one['aggregator'] == 'sum') == one['query'].endswith('.as_count()')


@every_widget_with_queries
def test_a_number_has_the_unit_of_its_metric(placed: Placed) -> None:
    for request in placed.definition['requests']:
        units = {one['name']: getattr(parse_query(one['query']).spec, 'unit', '') for one in request['queries']}
        for one in request['formulas']:
            shown = one.get('number_format', {}).get('unit', {}).get('unit_name', '')
            formula = parse_expression(one['formula'])
            if '/' in one['formula'] or one['formula'].startswith('100 * '):
                assert shown == 'percent'
            elif 'count_' in one['formula']:
                assert shown == ''
            elif isinstance(formula, Reference):
                assert shown == units[formula.name]
            else:
                of_queries = {units[name] for name in references(formula) - {'alive'}}
                assert shown == (of_queries.pop() if len(of_queries) == 1 else '')


@every_widget_with_queries
def test_rules_go_from_the_worst_to_the_best_and_leave_nothing_out(placed: Placed) -> None:
    for request in placed.definition['requests']:
        for holder in (request, *request['formulas']):
            rules = holder.get('conditional_formats', [])
            if not rules:
                continue
            palettes = [rule['palette'] for rule in rules]
            if placed.definition['type'] == 'query_table':
                bad = rules
            else:
                bad = [rule for rule in rules if rule['palette'] != 'white_on_green']
                for good in rules[len(bad) :]:
                    assert palettes.pop() == 'white_on_green'
                    assert (good['comparator'], good['value']) == (OTHERWISE[bad[-1]['comparator']], bad[-1]['value'])
            values = [rule['value'] for rule in bad]
            (sign,) = {rule['comparator'] for rule in bad}
            assert palettes in (['white_on_red'], ['white_on_red', 'white_on_yellow'], ['white_on_yellow'])
            assert sign in OTHERWISE
            assert values == sorted(set(values), reverse=sign == '>')


def test_only_what_is_counted_is_summed_up_in_a_legend() -> None:
    for placed in WITH_QUERIES:
        if placed.definition['type'] == 'timeseries':
            are_counts = {one['query'].endswith('.as_count()') for one in queries(placed)}
            assert len(are_counts) == 1, str(placed)
            assert placed.definition['legend_columns'] == (['sum'] if are_counts == {True} else ['value', 'max'])


def test_lines_in_graphs_warn_before_they_alarm() -> None:
    markers = [one.definition['markers'] for one in WITH_QUERIES if one.definition.get('markers')]

    assert markers
    for lines in markers:
        values = [float(line['value'].removeprefix('y = ')) for line in lines]
        assert values == sorted(values)
        kinds = [line['display_type'] for line in lines]
        assert kinds in (['warning dashed', 'error dashed'], ['warning dashed'], ['error dashed'])


def test_a_colour_means_one_thing() -> None:
    palettes: dict[str, set[str]] = {}
    for placed in WITH_QUERIES:
        for request in placed.definition['requests']:
            for formula in request['formulas']:
                if 'alias' in formula and 'style' in formula:
                    palettes.setdefault(formula['alias'], set()).add(formula['style']['palette'])

    assert palettes['completed'] == {'green'}
    assert palettes['failed'] == {'red'}
    assert {alias: found for alias, found in palettes.items() if len(found) > 1} == {}


@every_widget_with_queries
def test_work_queues_are_told_apart_by_pool_and_name(placed: Placed) -> None:
    for one in queries(placed):
        group_by = parse_query(one['query']).group_by
        assert 'work_queue_name' not in group_by or 'work_pool_name' in group_by
        assert 'deployment_name' not in group_by or 'flow_name' in group_by


@every_widget_with_queries
def test_links_lead_to_prefect_by_tags_that_the_row_has(placed: Placed) -> None:
    links = placed.definition.get('custom_links', [])
    group_by = set(parse_query(next(queries(placed))['query']).group_by)

    assert bool(links) == (placed.definition['type'] == 'query_table')
    for link in links:
        assert link['link'].startswith('{{prefect_url.value}}/')
        assert '..' not in link['link']
        tags = set(re.findall(r'{{(\w+)\.value}}', link['link']))
        assert tags <= group_by
        assert all(tag == 'prefect_url' or tag.endswith('_id') for tag in tags), 'Datadog writes names in lower case'


@every_widget_with_queries
def test_all_columns_of_a_table_have_the_same_rows(placed: Placed) -> None:
    for request in placed.definition['requests']:
        if placed.definition['type'] in {'toplist', 'query_table'}:
            assert len({parse_query(one['query']).group_by for one in request['queries']}) == 1
            if 'sort' in request:
                assert request['sort']['order_by'][0]['index'] < len(request['formulas'])


@for_each({str(one): one for one in STREAMS})
def test_streams_search_for_what_the_assets_know(placed: Placed) -> None:
    query = placed.definition['requests'][0]['query']
    search = query['query_string']

    assert search.startswith('source:prefect ')
    if query['data_source'] == 'logs_stream':
        facets = {facet['path'] for facet in yaml.safe_load((ASSETS / 'logs' / 'prefect.yaml').read_text())['facets']}
        fields = Query.parse(search.replace('$env ', '').replace('$', '').replace('.value', '')).fields
        assert {field.removeprefix('@') for field in fields if field not in RESERVED} <= facets
        columns = {column['field'] for column in placed.definition['requests'][0]['columns']}
        assert {column.removeprefix('@') for column in columns if column.startswith('@')} <= facets
    else:
        assert set(VARIABLE.findall(search)) == variables(BOARDS[placed.board]).keys() - {'env', 'worker_host'}


def test_nothing_is_shown_twice() -> None:
    for board in BOARDS:
        shown = [
            (one.definition['type'], json.dumps(one.definition['requests']))
            for one in WITH_QUERIES
            if one.board == board
        ]
        assert [pair for pair in combinations(shown, 2) if pair[0] == pair[1]] == []
