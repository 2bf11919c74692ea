"""What dashboards are made of: queries that follow the template variables, widgets, rows, groups.

Each function returns a part of the JSON that Datadog exports and imports. The filter of a query is not written by hand:
it names every template variable whose tag the metric has. Positions are not either: widgets fill rows of 12 columns.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, TypeAlias

from datadog_checks.prefect import tags
from datadog_checks.prefect.metrics import METRICS

Json: TypeAlias = dict[str, Any]

COLUMNS = 12
# Template variables that narrow the series of the check: name and tag are the same.
VARIABLES = (
    tags.PREFECT_URL,
    'env',
    tags.WORK_POOL_NAME,
    tags.WORK_QUEUE_NAME,
    tags.FLOW_NAME,
    tags.DEPLOYMENT_NAME,
    tags.PREFECT_TAG,
)
ON_EVERYTHING = (tags.PREFECT_URL, 'env')
# Another name than its tag: the series of the check have the host of their Agent, not that of a worker.
WORKER_HOST = ('worker_host', 'host')
# Saved choices of the variables; those that are not named are `*`.
PRESETS: Mapping[str, Mapping[str, str]] = {
    'Everything': {},
    'Production': {'env': 'prod'},
    'Staging': {'env': 'staging'},
}

BY_POOL = (tags.WORK_POOL_NAME,)
# A queue is named by its pool and its own name: each pool has one called `default`.
BY_QUEUE = (tags.WORK_POOL_NAME, tags.WORK_QUEUE_NAME)
BY_DEPLOYMENT = (tags.FLOW_NAME, tags.DEPLOYMENT_NAME)
BY_TASK = (tags.FLOW_NAME, tags.TASK_NAME)
BY_REASON = (tags.LATE_REASON,)
BY_FAILURE = (tags.FAILURE_REASON,)
# In tables, whose rows link to Prefect: names of two servers may be the same.
BY_SERVER = (tags.PREFECT_URL,)

# Forms of formulas: without what is 0; and 0 where nothing is reported, for what is only there while there are runs.
# The latter not without a report of the check: else a dead Agent would look like a quiet server.
NOT_ZERO = 'cutoff_min({}, 1)'
OR_ZERO = 'default_zero({}) + 0 * alive'
AS_PERCENT = '100 * {}'
# Of states that are 0 or 1: nothing while all is well, else `1 yes`.
IF_ONE, IF_ZERO = 'cutoff_min({}, 1)', 'cutoff_min(1 - {}, 1)'

# What is drawn over graphs of failures and durations: changes of objects, and what is no longer served.
OVERLAYS = ('(created OR updated OR deleted)', '"not-ready"')

# How far back a number of now looks: longer where its history is drawn behind it.
SPAN_OF_NOW, SPAN_OF_A_GRAPH = '5m', '15m'

# What colours mean on both dashboards.
GOOD, BAD, WARN, NEUTRAL = 'green', 'red', 'orange', 'gray'
STARTING, ACTIVE, WAITING, ENDING = 'cool', 'blue', 'purple', 'warm'
_PALETTES = {GOOD: 'white_on_green', WARN: 'white_on_yellow', BAD: 'white_on_red', NEUTRAL: 'white_on_gray'}

# The tag is the address at which people open the server.
_PAGES = '{{prefect_url.value}}'
# Never a name: Datadog keeps tags in lower case, and Prefect finds work pools and queues by their exact names only.
TO_DEPLOYMENT = ('Open the deployment in Prefect', f'{_PAGES}/deployments/deployment/{{{{deployment_id.value}}}}')
TO_FLOW = ('Open the flow in Prefect', f'{_PAGES}/flows/flow/{{{{flow_id.value}}}}')
TO_POOLS = ('Open the work pools in Prefect', f'{_PAGES}/work-pools')
TO_LIMITS = ('Open the concurrency limits in Prefect', f'{_PAGES}/concurrency-limits')
TO_AUTOMATION = ('Open the automation in Prefect', f'{_PAGES}/automations/automation/{{{{automation_id.value}}}}')

Link: TypeAlias = tuple[str, str]

# What fits into a note of one row with 1,280 pixels for the page.
CHARACTERS_OF_A_LINE, LINES_OF_A_ROW = 165, 3
# What a link does not show.
_TARGET = re.compile(r'(?<=\])\([^)]*\)')


@dataclass(frozen=True)
class Limits:
    """From where on a number is a warning and from where on it is bad; `is_low_bad` turns them round."""

    warn: float | None
    bad: float | None
    is_low_bad: bool = False

    def formats(self, *, has_good: bool) -> list[Json]:
        """Rules from the worst to the best. With `has_good` they leave no number out."""
        over, within = ('<', '>=') if self.is_low_bad else ('>', '<=')
        rules = [(over, value, color) for value, color in ((self.bad, BAD), (self.warn, WARN)) if value is not None]
        if has_good:
            rules.append((within, rules[-1][1], GOOD))
        return [{'comparator': sign, 'value': value, 'palette': _PALETTES[color]} for sign, value, color in rules]

    def markers(self) -> list[Json]:
        """The same as lines in a graph."""
        lines = [(self.warn, 'warning dashed'), (self.bad, 'error dashed')]
        return [{'value': f'y = {value:g}', 'display_type': kind} for value, kind in lines if value is not None]


ANY_IS_BAD = Limits(None, 0)
ANY_IS_WORTH_A_LOOK = Limits(0, 10)
MUST_BE_ONE = Limits(None, 1, is_low_bad=True)
# A limit that is full is normal; where work waits for it, the late runs are bad.
PERCENT_TAKEN = Limits(99.9, None)
PERCENT_OF_EXPECTED = Limits(None, 100)
SUCCESS_PERCENT = Limits(98, 90, is_low_bad=True)
MINUTES_LATE = Limits(60, 300)


@dataclass(frozen=True)
class Query:
    """One metric query; `reducer` makes one number of it where one is shown (avg, last, max, min, sum)."""

    name: str
    text: str
    reducer: str

    def as_json(self, *, is_scalar: bool) -> Json:
        query: Json = {'data_source': 'metrics', 'name': self.name, 'query': self.text}
        return query | {'aggregator': self.reducer} if is_scalar else query


def scope(metric: str, where: str = '') -> str:
    """The filter of a query: the variables whose tag the metric has, and `where`."""
    keys = (*METRICS[metric].tag_keys, *ON_EVERYTHING)
    terms = [f'${variable}' for variable in VARIABLES if variable in keys]
    return ','.join([*terms, *([where] if where else [])])


def query(
    aggregation: str, metric: str, by: Sequence[str] = (), *, name: str = '', where: str = '', reducer: str = ''
) -> Query:
    """A query of a series by its name below the namespace, named after it.

    Where one number is shown, a count is summed up over time, a duration is the longest, what is now is the last.
    """
    spec = METRICS[metric]
    grouped = f' by {{{",".join(by)}}}' if by else ''
    ending = '.as_count()' if spec.type == 'count' else ''
    text = f'{aggregation}:{spec.full_name}{{{scope(metric, where)}}}{grouped}{ending}'
    usual = 'sum' if spec.type == 'count' else 'max' if '_duration.' in metric else 'last'
    return Query(name or metric.replace('.', '_'), text, reducer or usual)


# Only there while the check reports.
ALIVE = query('min', 'health', name='alive')


@dataclass(frozen=True)
class Formula:
    """What is shown of one or more queries: `text` refers by name to them, or to those of
    another formula of the widget; `unit` is Datadog's name of it, `label` a word of our own instead."""

    text: str
    queries: tuple[Query, ...]
    alias: str = ''
    unit: str = ''
    color: str = ''
    limits: Limits | None = None
    is_bar: bool = False
    label: str = ''

    def as_json(self) -> Json:
        formula: Json = {'formula': self.text}
        if self.alias:
            formula['alias'] = self.alias
        if self.label:
            formula['number_format'] = {'unit': {'type': 'custom_unit_label', 'label': self.label}}
        elif self.unit:
            formula['number_format'] = {'unit': {'type': 'canonical_unit', 'unit_name': self.unit}}
        if self.color:
            formula['style'] = {'palette': self.color, 'palette_index': 4}
        return formula


def show(
    aggregation: str,
    metric: str,
    by: Sequence[str] = (),
    *,
    alias: str = '',
    color: str = '',
    limits: Limits | None = None,
    where: str = '',
    reducer: str = '',
    is_bar: bool = False,
    form: str = '{}',
    label: str = '',
) -> Formula:
    """The formula that shows one query, in the unit of its metric; `form` puts a function around it."""
    one = query(aggregation, metric, by, where=where, reducer=reducer)
    unit = 'percent' if form == AS_PERCENT else METRICS[metric].unit
    needed = (one, ALIVE) if form == OR_ZERO else (one,)
    return Formula(form.format(one.name), needed, alias, unit, color, limits, is_bar, label)


def flag(aggregation: str, metric: str, form: str, by: Sequence[str], alias: str, *, is_bad: bool = True) -> Formula:
    """A column that says `1 yes` where a state is so, and nothing elsewhere; `form` is IF_ONE or IF_ZERO."""
    limits = ANY_IS_BAD if is_bad else None
    return show(aggregation, metric, by, alias=alias, form=form, limits=limits, label='yes')


def number_of_zeros(metric: str, by: Sequence[str]) -> Formula:
    """How many of the tag sets have a 0, where 1 is well."""
    one = query('min', metric, by, name='states')
    return Formula('count_not_null(states) - count_nonzero(states)', (one,), limits=ANY_IS_BAD)


def of_hosts(aggregation: str, metric: str, form: str, unit: str) -> Formula:
    """A metric of the Agents on the hosts that the variable `worker_host` chooses."""
    text = f'{aggregation}:{metric}{{$env,${WORKER_HOST[0]}}} by {{host}}'
    return Formula(form.format('value'), (Query('value', text, 'last'),), unit=unit)


def starts(family: str) -> tuple[Formula, Formula]:
    """The runs that started in time, and those that did not: together all that started."""
    all_of_them = query('sum', f'{family}.throughput', name='started')
    late = query('sum', f'{family}.late_start.count', name='late')
    return (
        Formula('started - late', (all_of_them, late), alias='started in time', unit='run', color=ACTIVE),
        Formula('late', (), alias='started late', unit='run', color=WARN),
    )


def success_rate(family: str, by: Sequence[str] = (), **options: Any) -> Formula:
    """Percent of the runs that ended well, among those that ended and were not cancelled."""
    ends = ('completed', 'failed', 'crashed')
    parts = [query('sum', f'{family}.{end}.count', by, name=end) for end in ends]
    text = f'100 * completed / ({" + ".join(ends)})'
    return Formula(text, tuple(parts), unit='percent', **options)


def late_start_rate(family: str) -> Formula:
    """Percent of the runs that started, that started late."""
    parts = [
        query('sum', f'{family}.{series}', name=name)
        for series, name in (('late_start.count', 'late'), ('throughput', 'started'))
    ]
    return Formula('100 * late / started', tuple(parts), unit='percent')


@dataclass(frozen=True)
class Widget:
    """A widget and its size: columns of 12, and rows."""

    definition: Json
    width: int
    height: int


def _titled(kind: str, title: str, **more: Any) -> Json:
    return {'type': kind, 'title': title, 'title_size': '16', 'title_align': 'left', **more}


def _rules(formula: Formula, *, has_good: bool) -> Json:
    return {'conditional_formats': formula.limits.formats(has_good=has_good)} if formula.limits else {}


def _is_of_now(*formulas: Formula) -> bool:
    """Whether all of it is a state of the moment, so that an old one must not be taken for it."""
    return all(one.reducer == 'last' for formula in formulas for one in formula.queries)


def _links(links: Iterable[Link]) -> list[Json]:
    return [{'label': label, 'link': link} for label, link in links]


def note(content: str, *, color: str = 'gray') -> Widget:
    """Text in Markdown, over the whole width and as high as it needs on the screen of a laptop."""
    lines = sum(ceil(len(_TARGET.sub('', part)) / CHARACTERS_OF_A_LINE) for part in content.split('\n'))
    height = ceil(lines / LINES_OF_A_ROW)
    definition = {
        'type': 'note',
        'content': content,
        'background_color': color,
        'font_size': '14',
        'text_align': 'left',
        'vertical_align': 'center',
        'show_tick': False,
        'tick_pos': '50%',
        'tick_edge': 'left',
        'has_padding': True,
    }
    return Widget(definition, COLUMNS, height)


def number(
    title: str, formula: Formula, *, span: str = '', graph: bool = False, width: int = 2, height: int = 2
) -> Widget:
    """One number of now, in the colour of its limits; `span` is another time ('1h'), `graph` draws its history behind.

    Now is a few minutes, on any page, so that nothing stays green when the check no longer reports.
    """
    request = {
        'response_format': 'scalar',
        'queries': [one.as_json(is_scalar=True) for one in formula.queries],
        'formulas': [formula.as_json()],
        **_rules(formula, has_good=True),
    }
    definition = _titled('query_value', title, requests=[request], autoscale=True, precision=1)
    definition['time'] = {'live_span': span or (SPAN_OF_A_GRAPH if graph else SPAN_OF_NOW)}
    if graph:
        definition['timeseries_background'] = {'type': 'area', 'yaxis': {'include_zero': True}}
    return Widget(definition, width, height)


def graph(
    title: str,
    *formulas: Formula,
    display: str = 'line',
    limits: Limits | None = None,
    width: int = 4,
    height: int = 3,
    has_events: bool = False,
) -> Widget:
    """Values over time; `display` is line, area or bars; `has_events` overlays what may be the cause of a change."""
    request = {
        'response_format': 'timeseries',
        'queries': [one.as_json(is_scalar=False) for formula in formulas for one in formula.queries],
        'formulas': [formula.as_json() for formula in formulas],
        'style': {'palette': 'dog_classic', 'line_type': 'solid', 'line_width': 'normal', 'order_by': 'values'},
        'display_type': display,
    }
    has_counts = all(one.reducer == 'sum' for formula in formulas for one in formula.queries)
    definition = _titled(
        'timeseries',
        title,
        show_legend=True,
        legend_layout='auto',
        legend_columns=['sum'] if has_counts else ['value', 'max'],
        requests=[request],
        yaxis={'include_zero': True, 'min': '0'},
    )
    if limits:
        definition['markers'] = limits.markers()
    if has_events:
        definition['events'] = [{'q': f'{event_search()} {words}'} for words in OVERLAYS]
    return Widget(definition, width, height)


def top(
    title: str, formula: Formula, *, order: str = 'desc', links: Sequence[Link] = (), width: int = 4, height: int = 3
) -> Widget:
    """The ten tag sets with the largest values (`order` asc: smallest)."""
    is_of_now = _is_of_now(formula)
    request = {
        'response_format': 'scalar',
        'queries': [one.as_json(is_scalar=True) for one in formula.queries],
        'formulas': [formula.as_json()],
        'sort': {'count': 10, 'order_by': [{'type': 'formula', 'index': 0, 'order': order}]},
        **_rules(formula, has_good=is_of_now),
    }
    definition = _titled(
        'toplist', title, requests=[request], style={'display': {'type': 'stacked', 'legend': 'automatic'}}
    )
    if is_of_now:
        definition['time'] = {'live_span': SPAN_OF_NOW}
    if links:
        definition['custom_links'] = _links(links)
    return Widget(definition, width, height)


def table(
    title: str,
    *formulas: Formula,
    sort_by: int = 0,
    order: str = 'desc',
    links: Sequence[Link] = (),
    width: int = COLUMNS,
    height: int = 4,
) -> Widget:
    """One row per tag set, one column per formula, sorted by the column of the number `sort_by`.

    Only what is not good is coloured: a table of green cells hides the red one.
    """
    columns = []
    for formula in formulas:
        column = formula.as_json() | {'cell_display_mode': 'bar' if formula.is_bar else 'number'}
        columns.append(column | _rules(formula, has_good=False))
    request = {
        'response_format': 'scalar',
        'queries': [one.as_json(is_scalar=True) for formula in formulas for one in formula.queries],
        'formulas': columns,
        'sort': {'count': 50, 'order_by': [{'type': 'formula', 'index': sort_by, 'order': order}]},
    }
    definition = _titled('query_table', title, requests=[request], has_search_bar='auto')
    if _is_of_now(*formulas):
        definition['time'] = {'live_span': SPAN_OF_NOW}
    if links:
        definition['custom_links'] = _links(links)
    return Widget(definition, width, height)


def monitors(*, width: int = 4, height: int = 4) -> Widget:
    """The monitors of this integration and their states."""
    definition = _titled(
        'manage_status',
        'Monitors of the Prefect integration',
        summary_type='monitors',
        display_format='countsAndList',
        color_preference='text',
        hide_zero_counts=True,
        show_status=True,
        show_last_triggered=True,
        show_priority=True,
        query='tag:(integration:prefect)',
        sort='status,asc',
        count=50,
        start=0,
    )
    return Widget(definition, width, height)


def objectives(*, width: int = 4, height: int = 3) -> Widget:
    """The service level objectives of this integration and what is left of their budgets."""
    query = {'query_string': 'tags:"integration:prefect"', 'limit': 10}
    request = {'request_type': 'slo_list', 'query': query}
    return Widget(_titled('slo_list', 'Service level objectives', requests=[request]), width, height)


def _follows(variable: str, attribute: str) -> str:
    """Search terms: the value of the variable, and also what has no such attribute, like the log of the server."""
    return f'({attribute}:${variable}.value OR -{attribute}:*)'


def event_search() -> str:
    """Events of the check that belong to what the variables choose, or to no flow and pool at all."""
    of_objects = [one for one in VARIABLES if one not in ON_EVERYTHING]
    return ' '.join(
        ['source:prefect', f'{tags.PREFECT_URL}:$prefect_url.value', *(_follows(one, one) for one in of_objects)]
    )


def log_search() -> str:
    """Log lines of what the variables choose. Only lines in JSON name flow, deployment and pool."""
    attributes = (tags.FLOW_NAME, tags.DEPLOYMENT_NAME, tags.WORK_POOL_NAME)
    return ' '.join(['source:prefect', '$env', *(_follows(one, f'@prefect.{one}') for one in attributes)])


def events(title: str, search: str = '', *, width: int = 6, height: int = 4) -> Widget:
    """A stream of events; `search` is added to the variables."""
    stream = {'data_source': 'event_stream', 'query_string': f'{event_search()} {search}'.strip(), 'event_size': 's'}
    return _stream(title, 'event_list', stream, [], width, height)


def logs(title: str, search: str = '', *, width: int = 6, height: int = 4) -> Widget:
    """A stream of log lines; `search` is added to the variables."""
    stream = {'data_source': 'logs_stream', 'query_string': f'{log_search()} {search}'.strip(), 'indexes': []}
    columns = [
        {'field': 'status_line', 'width': 'auto'},
        {'field': 'timestamp', 'width': 'auto'},
        {'field': '@prefect.flow_run_name', 'width': 'auto'},
        {'field': 'content', 'width': 'full'},
    ]
    return _stream(title, 'event_list', stream, columns, width, height)


def _stream(title: str, form: str, stream: Json, columns: list[Json], width: int, height: int) -> Widget:
    request = {'response_format': form, 'query': stream, 'columns': columns}
    return Widget(_titled('list_stream', title, requests=[request]), width, height)


@dataclass(frozen=True)
class Group:
    """Widgets under one title. They fill rows of 12 columns from the left, in their order."""

    title: str
    color: str
    widgets: tuple[Widget, ...]

    def as_json(self, y: int) -> Json:
        placed, bottom = _placed(self.title, self.widgets)
        definition = {
            'type': 'group',
            'layout_type': 'ordered',
            'title': self.title,
            'background_color': self.color,
            'show_title': True,
            'widgets': placed,
        }
        # The title takes one row.
        layout = {'x': 0, 'y': y, 'width': COLUMNS, 'height': bottom + 1}
        return {'id': _identity(self.title), 'definition': definition, 'layout': layout}


def group(title: str, *widgets: Widget, color: str = 'gray') -> Group:
    return Group(title, color, widgets)


def _placed(where: str, widgets: Iterable[Widget]) -> tuple[list[Json], int]:
    """The widgets with their positions, and the number of rows that they take.

    A widget goes to the highest place that is free, the leftmost one among those.
    """
    placed = []
    heights = [0] * COLUMNS
    for widget in widgets:
        starts = range(COLUMNS - widget.width + 1)
        y, x = min((max(heights[start : start + widget.width]), start) for start in starts)
        heights[x : x + widget.width] = [y + widget.height] * widget.width
        layout = {'x': x, 'y': y, 'width': widget.width, 'height': widget.height}
        title = widget.definition.get('title', 'note')
        placed.append({'id': _identity(f'{where}/{title}/{x}/{y}'), 'definition': widget.definition, 'layout': layout})
    return placed, max(heights)


def _identity(text: str) -> int:
    """A number that stays the same while the widget stays where it is."""
    return zlib.crc32(text.encode())


@dataclass(frozen=True)
class Dashboard:
    title: str
    description: str
    groups: tuple[Group, ...]

    def as_json(self) -> Json:
        widgets, y = [], 0
        for one in self.groups:
            widget = one.as_json(y)
            y += widget['layout']['height']
            widgets.append(widget)
        used = set(re.findall(r'\$(\w+)', json.dumps(widgets)))
        return {
            'title': self.title,
            'description': self.description,
            'layout_type': 'ordered',
            'reflow_type': 'fixed',
            'template_variables': [
                {'name': name, 'prefix': tag, 'available_values': [], 'defaults': ['*']}
                for name, tag in (*((one, one) for one in VARIABLES), WORKER_HOST)
                if name in used
            ],
            'template_variable_presets': [
                {
                    'name': preset,
                    'template_variables': [
                        {'name': name, 'values': [values.get(name, '*')]}
                        for name in (*VARIABLES, WORKER_HOST[0])
                        if name in used
                    ],
                }
                for preset, values in PRESETS.items()
            ],
            'notify_list': [],
            'tags': [],
            'widgets': widgets,
        }
