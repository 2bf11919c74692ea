"""What Datadog would answer to a query, computed from a timeline of the lab.

The part of it that the assets use, with these limits:

- A gauge is not interpolated: a tag set counts in the intervals in which it was sent. An interval in which no check
  ran is left out.
- The interval is the same for all queries of an evaluation; `.rollup()` changes the method, not the interval, and
  `.fill()` only knows zero.
- Functions: `default_zero`, `cutoff_min`, `clamp_min`, `clamp_max`, `count_nonzero`, `count_not_null`. Anything else
  raises QueryError.
- A query without `by` whose filter matches nothing has no value at all, as in Datadog.
"""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import TypeAlias

from lab.timeline import TimedSeries, Timeline
from tools.datadog_queries import Expression, Function, MetricQuery, Number, Operation, QueryError, Reference

NOT_AVAILABLE = 'N/A'
# A bar per interval: more than this are too thin to see.
MOST_INTERVALS = 60

Group: TypeAlias = tuple[str, ...]
Value: TypeAlias = float | None
# By group: one value per interval.
Values: TypeAlias = dict[Group, list[Value]]
# Template variable -> its value, '*' for any.
Variables: TypeAlias = Mapping[str, str]

_METHODS: Mapping[str, Callable[[Sequence[float]], float]] = {
    'avg': lambda values: sum(values) / len(values),
    'last': lambda values: values[-1],
    'max': max,
    'min': min,
    'sum': sum,
}
_OPERATORS: Mapping[str, Callable[[float, float], float]] = {
    '+': operator.add,
    '-': operator.sub,
    '*': operator.mul,
    '/': operator.truediv,
}


@dataclass(frozen=True)
class Intervals:
    """The stretches of time in which points are put together, those without a check left out.

    `starts` in seconds since 1970; `of_checks` has the number of its interval for each check.
    """

    starts: tuple[float, ...]
    of_checks: tuple[int, ...]

    @classmethod
    def of(cls, timeline: Timeline, most: int) -> Intervals:
        """At most so many, of a length in which there is a check."""
        times = timeline.times
        between = median([after - before for before, after in pairwise(times)]) if len(times) > 1 else 1.0
        seconds = max(1.5 * between, (times[-1] - times[0]) / most)
        starts = [times[0] + seconds * ((time - times[0]) // seconds) for time in times]
        distinct = sorted(set(starts))
        return cls(tuple(distinct), tuple(distinct.index(start) for start in starts))


class Evaluation:
    """Answers queries about one timeline, with these values of the template variables (by default all are `*`)."""

    def __init__(
        self, timeline: Timeline, variables: Variables | None = None, *, most_intervals: int = MOST_INTERVALS
    ) -> None:
        self._variables = variables or {}
        self._by_name: dict[str, list[TimedSeries]] = defaultdict(list)
        for series in timeline.series:
            self._by_name[series.name].append(series)
        self.intervals = Intervals.of(timeline, most_intervals)

    def over_time(self, query: MetricQuery) -> Values:
        """The values of a metric query: points of a tag set by time first, then the tag sets of a group."""
        parts: dict[Group, list[list[float]]] = {}
        for series in self._by_name[query.metric]:
            if not self._passes(series.tags, query):
                continue
            group = tuple(series.tags.get(key, NOT_AVAILABLE) for key in query.group_by)
            intervals = parts.setdefault(group, [[] for _ in self.intervals.starts])
            for number, value in self._rolled_up(series, query):
                intervals[number].append(value)
        together = _METHODS[query.space_aggregation]
        empty = 0.0 if query.fill == 'zero' else None
        return {
            group: [together(values) if values else empty for values in intervals] for group, intervals in parts.items()
        }

    def _passes(self, tags: Mapping[str, str], query: MetricQuery) -> bool:
        for term in query.filters:
            key, value = term.key or term.variable, term.value
            if term.key and value == '*':
                if (key in tags) == term.is_negated:
                    return False
                continue
            variable = term.variable or value.removeprefix('$').removesuffix('.value')
            if term.variable or value.startswith('$'):
                value = self._variables.get(variable, '*')
            if value != '*' and (tags.get(key, '').lower() == value.lower()) == term.is_negated:
                return False
        return True

    def _rolled_up(self, series: TimedSeries, query: MetricQuery) -> Iterable[tuple[int, float]]:
        points: dict[int, list[float]] = defaultdict(list)
        for check, value in series.points:
            points[self.intervals.of_checks[check]].append(value)
        method = _METHODS[query.rollup[0] if query.rollup else 'sum' if query.is_as_count else 'avg']
        return ((number, method(values)) for number, values in points.items())


def reduced(values: Values, method: str) -> Values:
    """One value per group, over all intervals: what a widget with one number shows."""
    together = _METHODS[method]
    return {
        group: [together(known)] if (known := [value for value in line if value is not None]) else [None]
        for group, line in values.items()
    }


def evaluate(formula: Expression, queries: Mapping[str, Values]) -> Values:
    """The values of a formula, by the groups that the queries in it have in common or that one of them has."""
    match formula:
        case Reference(name):
            return queries[name]
        case Number(value):
            return {(): [value]}
        case Operation(sign, left, right):
            return _combined(_OPERATORS[sign], evaluate(left, queries), evaluate(right, queries))
        case Function('default_zero', (inner,)):
            return {group: [value or 0.0 for value in line] for group, line in evaluate(inner, queries).items()} or {
                (): [0.0]
            }
        case Function('cutoff_min', (inner, Number(least))):
            return {
                group: [None if value is None or value < least else value for value in line]
                for group, line in evaluate(inner, queries).items()
            }
        case Function('clamp_min' | 'clamp_max' as name, (inner, Number(limit))):
            clamp = max if name == 'clamp_min' else min
            return {
                group: [None if value is None else clamp(value, limit) for value in line]
                for group, line in evaluate(inner, queries).items()
            }
        case Function('count_nonzero' | 'count_not_null' as name, (inner,)):
            lines = evaluate(inner, queries).values()
            length = max(map(len, lines), default=0)
            columns = zip(*(_stretched(line, length) for line in lines), strict=True)
            is_all = name == 'count_not_null'
            return {(): [_number_of(column, is_all=is_all) for column in columns]} if lines else {}
    raise QueryError(f'this is not evaluated here: {formula}')


def _number_of(column: Sequence[Value], *, is_all: bool) -> Value:
    """How many groups have a value, all or those that are not 0; nothing where none has."""
    known = [value for value in column if value is not None]
    return float(sum(is_all or value != 0 for value in known)) if known else None


def _combined(calculate: Callable[[float, float], float], left: Values, right: Values) -> Values:
    """Group by group; what has no groups (a number, a query without `by`) goes with each group of the other side."""
    if left.keys() == {()}:
        left = dict.fromkeys(right, left[()])
    elif right.keys() == {()}:
        right = dict.fromkeys(left, right[()])
    return {group: _pointwise(calculate, left[group], right[group]) for group in left if group in right}


def _pointwise(calculate: Callable[[float, float], float], left: list[Value], right: list[Value]) -> list[Value]:
    length = max(len(left), len(right))
    pairs = zip(_stretched(left, length), _stretched(right, length), strict=True)
    return [None if a is None or b is None else _safely(calculate, a, b) for a, b in pairs]


def _stretched(line: list[Value], length: int) -> list[Value]:
    return line * length if len(line) == 1 else line


def _safely(calculate: Callable[[float, float], float], left: float, right: float) -> Value:
    try:
        return calculate(left, right)
    except ZeroDivisionError:
        return None
