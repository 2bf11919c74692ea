"""One HTML page of dashboards: positions as in Datadog, colours in light and dark, nothing loaded from the network."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from plotly.offline import get_plotlyjs

from lab.timeline import StreamItem, Timeline
from tools.datadog_evaluation import Value
from tools.preview.contents import NOT_IN_DEMO, WITHOUT_DATA, Cell, Content, Contents, Json, Line, columns_of

WIDTH = 1500
PADDING = 16
COLUMN = (WIDTH - 2 * PADDING) / 12
ROW = 88
TITLE_OF_GROUP = 34
GAP = 8
HEAD = 92
MOST_ROWS = 40

# Datadog's palettes that the dashboards name, as the colours of the page.
COLORS = {
    'green': 'green',
    'red': 'red',
    'orange': 'orange',
    'gray': 'gray',
    'blue': 'blue',
    'purple': 'purple',
    'cool': 'cool',
    'warm': 'pink',
}
# For what a graph is grouped by: no red and no green, which mean something.
BY_GROUP = ('blue', 'purple', 'cool', 'orange', 'pink', 'lime', 'brown', 'navy', 'gray', 'yellow')
MARKERS = {'warning': 'yellow', 'error': 'red'}

View = dict[str, Any]


@dataclass
class Board:
    """One dashboard to draw, with the values of its template variables."""

    key: str
    dashboard: Json
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def height(self) -> int:
        """The height of its part of the page, in pixels."""
        groups = self.dashboard['widgets']
        return HEAD + 2 * PADDING + sum(map(_height, groups))


def height_of_groups(board: Board, first: int, last: int) -> int:
    """The height of the groups of these numbers, counted from 1, with the head of the page above the first one."""
    head = HEAD if first == 1 else 0
    return PADDING + head + sum(map(_height, board.dashboard['widgets'][first - 1 : last]))


def _height(group: Json) -> int:
    rows = int(group['layout']['height']) - 1
    return rows * ROW + TITLE_OF_GROUP + GAP


def render(
    boards: Iterable[Board], timeline: Timeline, monitors: Sequence[str] = (), objectives: Sequence[str] = ()
) -> str:
    """The page of these dashboards for this timeline; `monitors` and `objectives` are what Datadog would list."""
    page = _Page(timeline, monitors, objectives)
    views = [page.board(board) for board in boards]
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template('page.html.jinja').render(
        boards=views,
        figures=page.figures,
        plotly=get_plotlyjs(),
        width=WIDTH,
        colors=sorted({*COLORS.values(), *BY_GROUP}),
    )


class _Page:
    def __init__(self, timeline: Timeline, monitors: Sequence[str], objectives: Sequence[str]) -> None:
        self._timeline = timeline
        self._monitors = monitors
        self._objectives = objectives
        self._markdown = MarkdownIt()
        self.figures: dict[str, View] = {}

    def board(self, board: Board) -> View:
        contents = Contents(self._timeline, board.variables)
        names = [variable['name'] for variable in board.dashboard['template_variables']]
        return {
            'key': board.key,
            'title': board.dashboard['title'],
            'description': board.dashboard['description'],
            'variables': [(name, board.variables.get(name, '*')) for name in names],
            'groups': [
                {
                    'title': group['definition']['title'],
                    'color': group['definition']['background_color'],
                    'height': (group['layout']['height'] - 1) * ROW,
                    'widgets': [
                        self._widget(board.key, group['definition']['title'], widget, contents)
                        for widget in group['definition']['widgets']
                    ],
                }
                for group in board.dashboard['widgets']
            ],
        }

    def _widget(self, key: str, group: str, widget: Json, contents: Contents) -> View:
        definition, layout = widget['definition'], widget['layout']
        view: View = {
            'x': layout['x'] * COLUMN,
            'y': layout['y'] * ROW,
            'width': layout['width'] * COLUMN,
            'height': layout['height'] * ROW,
        }
        if definition['type'] == 'note':
            html = self._markdown.render(definition['content'])
            return view | {'kind': 'note', 'color': definition['background_color'], 'html': html}
        content = contents.of(definition)
        kind, inner = self._drawn(f'{key}-{widget["id"]}', definition, content, contents)
        is_empty = content.is_empty and definition['type'] not in WITHOUT_DATA
        reason = NOT_IN_DEMO.get(f'{group} / {definition["title"]}', '')
        return view | {
            'kind': kind,
            'title': definition['title'],
            'view': inner,
            'is_empty': is_empty,
            'reason': reason,
            'span': definition.get('time', {}).get('live_span', ''),
        }

    def _drawn(self, identity: str, definition: Json, content: Content, contents: Contents) -> tuple[str, View]:
        match definition['type']:
            case 'query_value':
                return 'number', _number(content, contents.background(definition))
            case 'timeseries':
                if not content.is_empty:
                    overlays = contents.overlays(definition)
                    self.figures[identity] = _figure(definition, content.lines, contents.times, overlays)
                return 'chart', {'id': identity, 'legend': _legend(definition, content.lines)}
            case 'toplist':
                return 'toplist', _toplist(content)
            case 'query_table':
                return 'table', _table(definition, content)
            case 'list_stream':
                return 'stream', {'rows': [_item(item) for item in content.items[:MOST_ROWS]]}
            case kind:
                rows = self._objectives if kind == 'slo_list' else self._monitors
                return 'status', {'rows': rows, 'hint': "Their states are Datadog's, not drawn here."}


def text_of(value: Value, unit: str, label: str = '') -> str:
    """A number as Datadog writes it: three digits, and the unit that fits, or a word of ours."""
    if value is None:
        return ''
    if unit == 'second':
        for size, symbol in ((86400, 'd'), (3600, 'h'), (60, 'min')):
            if value >= 2 * size:
                return f'{_digits(value / size)} {symbol}'
        return f'{_digits(value)} s' if value >= 1 or value == 0 else f'{_digits(value * 1000)} ms'
    if unit == 'byte':
        for size, symbol in ((1000000, 'MB'), (1000, 'kB')):
            if value >= size:
                return f'{_digits(value / size)} {symbol}'
        return f'{_digits(value)} B'
    return f'{_digits(value)} %' if unit == 'percent' else f'{_digits(value)} {label}'.rstrip()


def _digits(value: float) -> str:
    return f'{value:,.0f}' if value >= 100 or value == int(value) else f'{value:.1f}'


def _number(content: Content, history: Line | None) -> View:
    cell = content.rows[0].cells[0] if content.rows else Cell(None)
    return {
        'text': text_of(cell.value, cell.unit, cell.label),
        'palette': cell.palette,
        'background': _polygon(history.values) if history else '',
    }


def _polygon(values: Sequence[Value]) -> str:
    """The area below a line, in a box of 100 x 40."""
    top = max((value for value in values if value is not None), default=0) or 1
    step = 100 / max(len(values) - 1, 1)
    points = [(number * step, 40 - 30 * (value or 0) / top) for number, value in enumerate(values)]
    return ' '.join(f'{x:.1f},{y:.1f}' for x, y in [(0, 40), *points, (100, 40)])


def _colors(lines: Sequence[Line]) -> Iterator[str]:
    free = cycle(BY_GROUP)
    for line in lines:
        yield COLORS[line.palette] if line.palette else next(free)


def _legend(definition: Json, lines: Sequence[Line]) -> list[View]:
    is_sum = 'sum' in definition['legend_columns']
    entries = []
    for line, color in zip(lines, _colors(lines), strict=True):
        known = [value for value in line.values if value is not None]
        if known:
            value = text_of(sum(known) if is_sum else known[-1], line.unit)
            entries.append({'name': line.name, 'color': color, 'value': value, 'rank': sum(known)})
    return sorted(entries, key=lambda entry: -entry['rank'])


def _figure(definition: Json, lines: Sequence[Line], times: Sequence[float], overlays: Iterable[float]) -> View:
    display = definition['requests'][0]['display_type']
    moments = [_moment(time) for time in times]
    data = []
    for line, color in zip(lines, _colors(lines), strict=True):
        trace: View = {'name': line.name, 'x': moments, 'y': line.values, 'color': color, 'hoverinfo': 'name+y'}
        if display == 'bars':
            trace |= {'type': 'bar'}
        elif display == 'area':
            trace |= {'type': 'scatter', 'mode': 'lines', 'stackgroup': 'one', 'fillalpha': True}
        else:
            has_gaps = any(value is None for value in line.values)
            trace |= {'type': 'scatter', 'mode': 'lines+markers' if has_gaps else 'lines', 'connectgaps': True}
        data.append(trace)
    known = [[value or 0.0 for value in line.values] for line in lines]
    peaks = map(sum, zip(*known, strict=True)) if display in ('bars', 'area') else (max(line) for line in known)
    top = 1.12 * max(peaks, default=0.0) or 1.0
    markers = [
        (float(marker['value'].removeprefix('y = ')), MARKERS[marker['display_type'].split()[0]])
        for marker in definition.get('markers', ())
    ]
    units = {line.unit for line in lines}
    return {
        'data': data,
        # A limit far above all values would press them flat.
        'markers': [{'y': y, 'color': color} for y, color in markers if y <= top],
        'overlays': [_moment(time) for time in overlays],
        'range': [moments[0], moments[-1]],
        'top': top,
        'suffix': {'second': ' s', 'percent': ' %', 'byte': 'B'}.get(min(units, default=''), ''),
    }


def _moment(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).strftime('%Y-%m-%d %H:%M:%S.%f')


def _toplist(content: Content) -> View:
    largest = max((row.cells[0].value or 0.0 for row in content.rows), default=0.0) or 1.0
    return {
        'rows': [
            {
                'name': ', '.join(row.group),
                'text': text_of(row.cells[0].value, row.cells[0].unit, row.cells[0].label),
                'palette': row.cells[0].palette,
                'percent': round(100 * (row.cells[0].value or 0.0) / largest, 1),
            }
            for row in content.rows
        ]
    }


def _table(definition: Json, content: Content) -> View:
    request = definition['requests'][0]
    is_bar = [formula['cell_display_mode'] == 'bar' for formula in request['formulas']]
    largest = [
        max((row.cells[number].value or 0.0 for row in content.rows), default=0.0) or 1.0
        for number in range(len(is_bar))
    ]
    return {
        'tag_keys': columns_of(request),
        'columns': [formula['alias'] for formula in request['formulas']],
        'is_linked': 'custom_links' in definition,
        'rows': [
            {
                'group': row.group,
                'cells': [
                    {
                        'text': text_of(cell.value, cell.unit, cell.label),
                        'palette': cell.palette,
                        'percent': round(100 * (cell.value or 0.0) / top, 1) if has_bar else None,
                    }
                    for cell, has_bar, top in zip(row.cells, is_bar, largest, strict=True)
                ],
            }
            for row in content.rows
        ],
    }


def _item(item: StreamItem) -> View:
    text = ' '.join(line for line in item.text.splitlines() if line.strip('% `'))
    return {
        'time': datetime.fromtimestamp(item.time, UTC).strftime('%H:%M:%S'),
        'status': item.status,
        'title': item.title,
        'text': text[:300],
        'url': item.url,
        'whole': '\n'.join([item.text, '', *(f'{key}:{value}' for key, value in item.tags.items())]),
    }


def load(path: Path) -> Json:
    return dict(json.loads(path.read_text()))
