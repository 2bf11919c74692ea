"""What the widgets of a dashboard show for one timeline: numbers, rows, lines, without any drawing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from lab.timeline import StreamItem, Timeline
from tools.datadog_evaluation import Evaluation, Group, Value, Values, Variables, evaluate, reduced
from tools.datadog_queries import metric_queries, parse_expression

Json: TypeAlias = Mapping[str, Any]
# Widgets that show neither series nor streams of ours.
WITHOUT_DATA = ('note', 'manage_status', 'slo_list')
_NO_AGENT = 'The Agents on the hosts of workers send it; the demo runs only the check.'
# What is empty in a demo, and why.
NOT_IN_DEMO: Mapping[str, str] = {
    'Workers / Load per processor, by host': _NO_AGENT,
    'Workers / Memory in use, by host': _NO_AGENT,
    'Are deployments up to date? / Freshness by deployment / schedule without run': (
        'All schedules of the demo have runs: it says `1 yes` where one has none.'
    ),
    'Concurrency limits / Global and tag limits / switched off': (
        'All limits of the demo are enforced: it says `1 yes` where one is not.'
    ),
    'Automations / Automations by name / switched off': (
        'The automation of the demo is enabled: it says `1 yes` where one is not.'
    ),
}

# Of a search: `(created OR updated)` or `"not-ready"`.
_LAST_WORDS = re.compile(r'(?<=[("\s])[a-z-]+(?=(?: OR [a-z ORa-z]+)?[)"]$)')

_COMPARATORS = {
    '>': lambda value, limit: value > limit,
    '>=': lambda value, limit: value >= limit,
    '<': lambda value, limit: value < limit,
    '<=': lambda value, limit: value <= limit,
}


@dataclass(frozen=True)
class Cell:
    """A number with its unit or a word of ours; `palette` is the colour that a rule gives it, '' if none does."""

    value: Value
    unit: str = ''
    palette: str = ''
    label: str = ''


@dataclass(frozen=True)
class Row:
    group: Group
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Line:
    """One line, area or stack of bars of a graph; `palette` is '' where the graph chooses a colour by itself."""

    name: str
    unit: str
    palette: str
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Content:
    """What one widget shows. Only what its type needs is filled in."""

    rows: tuple[Row, ...] = ()
    lines: tuple[Line, ...] = ()
    items: tuple[StreamItem, ...] = ()

    @property
    def is_empty(self) -> bool:
        cells = (cell.value for row in self.rows for cell in row.cells)
        points = (value for line in self.lines for value in line.values)
        return not self.items and all(value is None for value in (*cells, *points))

    @property
    def empty_columns(self) -> list[int]:
        """The numbers of the columns without any value."""
        columns = zip(*(row.cells for row in self.rows), strict=True)
        return [number for number, cells in enumerate(columns) if all(cell.value is None for cell in cells)]


def widgets(dashboard: Json) -> Iterator[tuple[str, Json]]:
    """The title of its group and each widget, in the order of the page."""
    for group in dashboard['widgets']:
        for widget in group['definition']['widgets']:
            yield group['definition']['title'], widget


class Contents:
    """Answers what widgets show, for one timeline and these values of the template variables."""

    def __init__(self, timeline: Timeline, variables: Variables | None = None) -> None:
        self._timeline = timeline
        self._variables = variables or {}
        self._evaluation = Evaluation(timeline, variables)

    @property
    def times(self) -> tuple[float, ...]:
        """The beginnings of the intervals of each line."""
        return self._evaluation.intervals.starts

    def of(self, definition: Json) -> Content:
        match definition['type']:
            case 'timeseries':
                return Content(lines=tuple(self._lines(definition['requests'])))
            case 'query_value' | 'toplist' | 'query_table':
                return Content(rows=tuple(self._rows(definition['requests'][0])))
            case 'list_stream':
                return Content(items=tuple(self._items(definition['requests'][0]['query'])))
            case kind if kind in WITHOUT_DATA:
                return Content()
        raise ValueError(f'widgets of the type {definition["type"]} are not drawn')

    def background(self, definition: Json) -> Line | None:
        """The history behind a single number."""
        if 'timeseries_background' not in definition:
            return None
        return next(iter(self._lines(definition['requests'])), None)

    def overlays(self, definition: Json) -> list[float]:
        """The times of the events that are drawn over a graph. Of their searches, the words at the end are applied."""
        words = {word for search in definition.get('events', ()) for word in _LAST_WORDS.findall(search['q'])}
        return [item.time for item in self._timeline.events if item.title.rpartition(' ')[2] in words]

    def _lines(self, requests: Iterable[Json]) -> Iterator[Line]:
        for request in requests:
            queries = {query['name']: self._values(query) for query in request['queries']}
            for formula in request['formulas']:
                palette = formula.get('style', {}).get('palette', '')
                for group, values in evaluate(parse_expression(formula['formula']), queries).items():
                    name = ', '.join([*([formula['alias']] if 'alias' in formula else []), *group])
                    yield Line(name or formula['formula'], _unit(formula), palette, tuple(values))

    def _rows(self, request: Json) -> Iterator[Row]:
        queries = {query['name']: reduced(self._values(query), query['aggregator']) for query in request['queries']}
        columns = [evaluate(parse_expression(formula['formula']), queries) for formula in request['formulas']]
        rows = [
            Row(group, tuple(self._cells(request, columns, group)))
            for group in dict.fromkeys(group for column in columns for group in column)
        ]
        order = request.get('sort', {'count': 1, 'order_by': [{'index': 0, 'order': 'desc'}]})
        by, is_descending = order['order_by'][0]['index'], order['order_by'][0]['order'] == 'desc'
        known = [row for row in rows if row.cells[by].value is not None]
        known.sort(key=lambda row: (row.cells[by].value or 0.0, row.group), reverse=is_descending)
        unknown = [row for row in rows if row.cells[by].value is None and any(c.value is not None for c in row.cells)]
        yield from [*known, *unknown][: order['count']]

    @staticmethod
    def _cells(request: Json, columns: Sequence[Values], group: Group) -> Iterator[Cell]:
        for formula, column in zip(request['formulas'], columns, strict=True):
            value = column.get(group, [None])[0]
            rules = formula.get('conditional_formats', request.get('conditional_formats', ()))
            yield Cell(value, _unit(formula), _palette(value, rules), _unit(formula, 'label'))

    def _values(self, query: Json) -> Values:
        (metric_query,) = metric_queries(parse_expression(query['query']))
        return self._evaluation.over_time(metric_query)

    def _items(self, query: Json) -> Iterator[StreamItem]:
        """The newest first. Of the search, its `status:` and the variables are applied."""
        stream = self._timeline.events if query['data_source'] == 'event_stream' else self._timeline.logs
        statuses = re.search(r'(?<!-)status:\(?([a-z ORV]+)\)?', query['query_string'])
        wanted = set(statuses[1].split(' OR ')) if statuses else set()
        for item in sorted(stream, key=lambda one: -one.time):
            if wanted and item.status not in wanted:
                continue
            if all(value == '*' or item.tags.get(key, value) == value for key, value in self._variables.items()):
                yield item


def columns_of(request: Json) -> list[str]:
    """The tags that a table or toplist is grouped by."""
    (query, *_) = metric_queries(parse_expression(request['queries'][0]['query']))
    return list(query.group_by)


def _unit(formula: Json, kind: str = 'unit_name') -> str:
    return str(formula.get('number_format', {}).get('unit', {}).get(kind, ''))


def _palette(value: Value, rules: Iterable[Json]) -> str:
    """The colour of the first rule that is true."""
    if value is None:
        return ''
    return next((rule['palette'] for rule in rules if _COMPARATORS[rule['comparator']](value, rule['value'])), '')


def names(dashboard: Json) -> Iterator[str]:
    """Every part that can be empty: 'group / widget', and 'group / widget / column' of tables and graphs."""
    for group, widget in widgets(dashboard):
        definition = widget['definition']
        if definition['type'] not in WITHOUT_DATA:
            yield f'{group} / {definition["title"]}'
            yield from (f'{group} / {definition["title"]} / {alias}' for alias in _aliases(definition))


def empty_widgets(dashboard: Json, timeline: Timeline) -> list[str]:
    """The names of the parts that show nothing for this timeline."""
    contents = Contents(timeline)
    found = []
    for group, widget in widgets(dashboard):
        definition = widget['definition']
        if definition['type'] in WITHOUT_DATA:
            continue
        content = contents.of(definition)
        name = f'{group} / {definition["title"]}'
        if content.is_empty:
            found.append(name)
        elif definition['type'] == 'query_table':
            aliases = _aliases(definition)
            found += [f'{name} / {aliases[number]}' for number in content.empty_columns]
        elif definition['type'] == 'timeseries':
            shown = {line.name for line in content.lines if any(value is not None for value in line.values)}
            found += [f'{name} / {alias}' for alias in _aliases(definition) if alias not in shown]
    return found


def unexplained(dashboard: Json, timeline: Timeline) -> list[str]:
    """The parts that show nothing, although the demo has what they are about."""
    return [name for name in empty_widgets(dashboard, timeline) if name not in NOT_IN_DEMO]


def _aliases(definition: Json) -> list[str]:
    formulas = definition['requests'][0].get('formulas', ())
    return [formula['alias'] for formula in formulas if 'alias' in formula]
