"""Datadog's metric queries as dashboards and monitors write them: parsed, and judged by what the integration declares.

The part of the language that the assets use, and nothing else: metric queries with `{...}` filters joined by commas,
`by {...}`, `.as_count()`, `.rollup()` and `.fill()`; numbers, references to other queries (`query1`), functions and
`+ - * /`; and the frame of a monitor, `sum(last_1h):EXPRESSION > 5`. `key:*` means any
value, `!key:*` none at all. Boolean filters (`a AND b`, `IN`), wildcards within values and `.as_rate()` are refused.
Raises QueryError, which names the place.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from datadog_checks.prefect import tags
from datadog_checks.prefect.metrics import METRICS, NAMESPACE, MetricSpec

SPACE_AGGREGATIONS = ('avg', 'max', 'min', 'sum')
COMPARATORS = ('>=', '<=', '>', '<')
# Tags that every series has without the check: the instance's own, and those of the Agent's host.
COMMON_TAGS = frozenset({tags.PREFECT_URL, 'env', 'host'})
# What the Agent itself sends of each host, shown beside what workers do; they know no server of Prefect.
HOST_METRICS: Mapping[str, MetricSpec] = {
    'system.load.norm.1': MetricSpec('system.load.norm.1', 'gauge', '', 'Load per processor.', ()),
    'system.mem.pct_usable': MetricSpec('system.mem.pct_usable', 'gauge', 'fraction', 'Share of usable memory.', ()),
}
# Percentiles and maxima of several tag sets have no sum and no mean.
_STATISTICS = ('95percentile', 'median', 'max')
# Times that add up: what the check spent.
_ADDITIVE_SECONDS = ('collector.duration_seconds', 'api.duration_seconds')

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<query>(?:avg|max|min|sum):(?P<metric>[a-z][\w.]*)\{(?P<filter>[^{}]*)\}(?:\s*by\s*\{(?P<by>[^{}]*)\})?)
        |(?P<number>\d+(?:\.\d+)?)
        |(?P<text>'[^']*')
        |(?P<modifier>\.(?:as_count|rollup|fill)\()
        |(?P<name>[a-z_]\w*)
        |(?P<sign>>=|<=|[-+*/(),=<>])
    )""",
    re.VERBOSE,
)
_FILTER = re.compile(r'(?P<not>!)?(?:\$(?P<variable>\w+)|(?P<key>[a-z]\w*):(?P<value>\$\w+\.value|\*|[^\s,*$:!]+))')
_MONITOR = re.compile(r'(?P<method>avg|max|min|sum)\((?P<window>last_\d+[mhdw])\):')


class QueryError(ValueError):
    """A query that is not understood, or not of the part of the language that is read here."""


@dataclass(frozen=True)
class Filter:
    """One term of a filter: a template variable (`$flow_name`), or a tag and its value (`*` is any), maybe negated."""

    key: str
    value: str = ''
    variable: str = ''
    is_negated: bool = False


@dataclass(frozen=True)
class MetricQuery:
    """`metric` is the full name; `rollup` is (method, seconds or 0), `fill` the method, '' if there is none."""

    space_aggregation: str
    metric: str
    filters: tuple[Filter, ...]
    group_by: tuple[str, ...]
    is_as_count: bool = False
    rollup: tuple[str, int] | None = None
    fill: str = ''

    @property
    def spec(self) -> MetricSpec | None:
        """What the integration declares of this metric, or what is known of the Agent's own; None for another one."""
        return HOST_METRICS.get(self.metric) or METRICS.get(self.metric.removeprefix(f'{NAMESPACE}.'))

    @property
    def known_tags(self) -> frozenset[str]:
        """The tag keys that a series of this metric may have."""
        if self.metric in HOST_METRICS:
            return COMMON_TAGS - {tags.PREFECT_URL}
        return COMMON_TAGS.union(self.spec.tag_keys if self.spec else ())

    @property
    def variables(self) -> set[str]:
        """The template variables that the filter refers to."""
        of_values = {one.value.removesuffix('.value').removeprefix('$') for one in self.filters if '$' in one.value}
        return of_values | {one.variable for one in self.filters if one.variable}


@dataclass(frozen=True)
class Number:
    value: float


@dataclass(frozen=True)
class Reference:
    """The name of another query of the same request, or a word that a function takes."""

    name: str


@dataclass(frozen=True)
class Text:
    value: str


@dataclass(frozen=True)
class Function:
    name: str
    arguments: tuple[Expression, ...]
    options: tuple[tuple[str, Expression], ...] = ()


@dataclass(frozen=True)
class Operation:
    operator: Literal['+', '-', '*', '/']
    left: Expression
    right: Expression


Expression: TypeAlias = MetricQuery | Number | Reference | Text | Function | Operation


@dataclass(frozen=True)
class MonitorQuery:
    """`METHOD(WINDOW):EXPRESSION COMPARATOR THRESHOLD`; `window_seconds` is the length of the window."""

    method: str
    window: str
    expression: Expression
    comparator: str
    threshold: float

    @property
    def window_seconds(self) -> int:
        number, unit = self.window.removeprefix('last_')[:-1], self.window[-1]
        return int(number) * {'m': 60, 'h': 3600, 'd': 86400, 'w': 604800}[unit]


def parse_expression(text: str) -> Expression:
    """Read a query or a formula."""
    parser = _Parser(text)
    expression = parser.expression()
    parser.end()
    return expression


def parse_query(text: str) -> MetricQuery:
    """Read what has to be one metric query, with nothing around it."""
    expression = parse_expression(text)
    if not isinstance(expression, MetricQuery):
        raise QueryError(f'not one metric query: {text}')
    return expression


def parse_monitor(text: str) -> MonitorQuery:
    """Read the query of a monitor of the type `query alert`."""
    head = _MONITOR.match(text)
    if head is None:
        raise QueryError(f'does not begin with METHOD(last_WINDOW): {text}')
    parser = _Parser(text, head.end())
    expression = parser.expression()
    comparator = parser.take(*COMPARATORS)
    sign = -1 if parser.take('-') else 1
    threshold = parser.expression()
    parser.end()
    if not comparator or not isinstance(threshold, Number):
        raise QueryError(f'does not end with a comparison with a number: {text}')
    return MonitorQuery(head['method'], head['window'], expression, comparator, sign * threshold.value)


def walk(expression: Expression) -> Iterator[Expression]:
    """The expression and all that it is made of."""
    yield expression
    parts: tuple[Expression, ...] = ()
    if isinstance(expression, Operation):
        parts = (expression.left, expression.right)
    elif isinstance(expression, Function):
        parts = (*expression.arguments, *(value for _, value in expression.options))
    for part in parts:
        yield from walk(part)


def metric_queries(expression: Expression) -> list[MetricQuery]:
    return [part for part in walk(expression) if isinstance(part, MetricQuery)]


def references(expression: Expression) -> set[str]:
    """The names of the queries that a formula refers to."""
    return {part.name for part in walk(expression) if isinstance(part, Reference)}


def problems(query: MetricQuery, variables: Mapping[str, str] | None = None) -> list[str]:
    """What is wrong with a query, judged by the declared metrics; `variables` is template variable -> tag key.

    Beside names: a count needs `sum` and `.as_count()`; nothing is averaged over tag sets, since a mean over queues or
    deployments hides the one in trouble, and one that adds a 0 for each of many deployments says nothing; percentiles,
    ages and shares are not summed up.
    """
    spec = query.spec
    if spec is None:
        return [f'{query.metric} is not declared']
    return [
        f'{query.metric}: {problem}'
        for problem in (*_tag_problems(query, variables or {}), *_aggregation_problems(query, spec))
    ]


def _tag_problems(query: MetricQuery, variables: Mapping[str, str]) -> Iterator[str]:
    for variable in sorted(query.variables - variables.keys()):
        yield f'${variable} is not defined'
    in_filters = {one.key or variables.get(one.variable, '') for one in query.filters} - {''}
    for key in sorted(in_filters - query.known_tags):
        yield f'has no tag {key} to filter by'
    for key in sorted(set(query.group_by) - query.known_tags):
        yield f'has no tag {key} to group by'
    if len(set(query.group_by)) < len(query.group_by):
        yield 'is grouped by one tag twice'


def _aggregation_problems(query: MetricQuery, spec: MetricSpec) -> Iterator[str]:
    statistic = spec.name.rsplit('.', 1)[-1]
    if spec.type == 'count':
        if not query.is_as_count:
            yield 'a count needs .as_count()'
        if query.space_aggregation != 'sum':
            yield 'a count is summed up over its tag sets'
        return
    if query.is_as_count:
        yield 'a gauge has no .as_count()'
    if query.space_aggregation == 'avg':
        yield 'a mean over tag sets hides the one in trouble: use max, min or sum'
    elif query.space_aggregation == 'sum':
        if statistic in _STATISTICS or spec.unit == 'percent':
            yield f'the {statistic} of several tag sets has no sum'
        elif spec.unit == 'second' and spec.name not in _ADDITIVE_SECONDS:
            yield 'ages and durations of several tag sets have no sum'


class _Parser:
    """Recursive descent: `+ -` bind less than `* /`."""

    def __init__(self, text: str, position: int = 0) -> None:
        self._text = text
        self._position = position
        self._token = self._next()

    def expression(self) -> Expression:
        left = self._product()
        while operator := self.take('+', '-'):
            left = Operation('+' if operator == '+' else '-', left, self._product())
        return left

    def take(self, *signs: str) -> str:
        """Step over one of these signs and return it, '' if none of them comes next."""
        token = self._token
        if token is None or token['sign'] not in signs:
            return ''
        self._token = self._next()
        return token['sign']

    def end(self) -> None:
        if self._token is not None:
            raise self._error()

    def _next(self) -> re.Match[str] | None:
        if not self._text[self._position :].strip():
            return None
        token = _TOKEN.match(self._text, self._position)
        if token is None:
            raise QueryError(f'not understood at {self._text[self._position :]!r}: {self._text}')
        self._position = token.end()
        return token

    def _error(self) -> QueryError:
        found = repr(self._token[0].strip()) if self._token else 'the end'
        return QueryError(f'{found} was not expected: {self._text}')

    def _expect(self, sign: str) -> None:
        if not self.take(sign):
            raise self._error()

    def _product(self) -> Expression:
        left = self._operand()
        while operator := self.take('*', '/'):
            left = Operation('*' if operator == '*' else '/', left, self._operand())
        return left

    def _operand(self) -> Expression:
        if self.take('('):
            inner = self.expression()
            self._expect(')')
            return inner
        token = self._token
        if token is None or token['sign'] or token['modifier']:
            raise self._error()
        self._token = self._next()
        if token['query']:
            return self._query(token)
        if token['number']:
            return Number(float(token['number']))
        if token['text']:
            return Text(token['text'][1:-1])
        return self._function(token['name']) if self.take('(') else Reference(token['name'])

    def _function(self, name: str) -> Function:
        arguments: list[Expression] = []
        options: list[tuple[str, Expression]] = []
        while not self.take(')'):
            if arguments or options:
                self._expect(',')
            argument = self.expression()
            if isinstance(argument, Reference) and self.take('='):
                options.append((argument.name, self.expression()))
            else:
                arguments.append(argument)
        return Function(name, tuple(arguments), tuple(options))

    def _query(self, token: re.Match[str]) -> MetricQuery:
        is_as_count, rollup, fill = False, None, ''
        while self._token is not None and self._token['modifier']:
            name = self._token['modifier'][1:-1]
            self._token = self._next()
            arguments = self._function(name).arguments
            method = arguments[0].name if arguments and isinstance(arguments[0], Reference) else ''
            if name == 'as_count' and not arguments:
                is_as_count = True
            elif (
                name == 'rollup' and method in SPACE_AGGREGATIONS and all(isinstance(x, Number) for x in arguments[1:])
            ):
                seconds = arguments[1] if len(arguments) > 1 else Number(0)
                rollup = (method, int(seconds.value) if isinstance(seconds, Number) else 0)
            elif name == 'fill' and method in {'zero', 'null', 'last', 'linear'}:
                fill = method
            else:
                raise QueryError(f'.{name}() with other arguments than are read here: {self._text}')
        return MetricQuery(
            space_aggregation=token['query'].partition(':')[0],
            metric=token['metric'],
            filters=tuple(self._filters(token['filter'])),
            group_by=tuple(key.strip() for key in (token['by'] or '').split(',') if key.strip()),
            is_as_count=is_as_count,
            rollup=rollup,
            fill=fill,
        )

    def _filters(self, text: str) -> Iterator[Filter]:
        if text.strip() == '*':
            return
        for term in text.split(','):
            found = _FILTER.fullmatch(term.strip())
            if found is None:
                raise QueryError(f'filter term {term.strip()!r} not understood: {self._text}')
            yield Filter(found['key'] or '', found['value'] or '', found['variable'] or '', bool(found['not']))
