"""When a monitor would have alerted over a timeline of the lab, played in fast motion.

A recording lasts minutes and monitors look at hours, so every second of the recording stands for `speed` seconds:
windows are shortened by it, and values in seconds grow with it. The limits are those of `datadog_evaluation.py`, and:

- A window is judged as soon as the recording is as long as the window, from the values that there are in it.
- A series without one of the tags that a monitor groups by is in none of its groups.
- A window without data: the sum of a count is 0; for anything else `on_missing_data` decides. With `resolve` the group
  recovers, else it keeps the status that it had. Nothing is said of groups before their first value.
"""

from __future__ import annotations

import operator
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from enum import Enum
from typing import Any

from lab.timeline import Timeline
from tools.datadog_evaluation import NOT_AVAILABLE, Evaluation, Group, Value, Values, evaluate
from tools.datadog_queries import (
    Expression,
    Function,
    MetricQuery,
    MonitorQuery,
    Operation,
    QueryError,
    Reference,
    parse_monitor,
)

_METHODS: Mapping[str, Callable[[Sequence[float]], float]] = {
    'avg': lambda values: sum(values) / len(values),
    'max': max,
    'min': min,
    'sum': sum,
}
_COMPARATORS: Mapping[str, Callable[[float, float], bool]] = {
    '>': operator.gt,
    '>=': operator.ge,
    '<': operator.lt,
    '<=': operator.le,
}


class Status(Enum):
    OK = 'ok'
    WARN = 'warn'
    ALERT = 'alert'


def courses(monitor: Mapping[str, Any], timeline: Timeline, speed: float) -> dict[Group, list[Status]]:
    """The status of each group of a monitor (as in its file) at each interval from the first full window on."""
    query = parse_monitor(monitor['definition']['query'])
    values = _Windows(query, timeline, speed).values()
    options = monitor['definition']['options']
    is_resolved_without_data = options['on_missing_data'] == 'resolve'
    return {
        group: _statuses(line, query.comparator, options['thresholds'], is_resolved_without_data)
        for group, line in values.items()
    }


def values_now(query: MonitorQuery, timeline: Timeline) -> dict[Group, float]:
    """The value of each group at the last check of a timeline of at least one, not over the window of the monitor."""
    windows = _Windows(query, timeline, speed=1.0)
    return {group: line[-1] for group, line in windows.formula().items() if line[-1] is not None}


def status_of(value: float, comparator: str, thresholds: Mapping[str, float]) -> Status:
    """What a value means to a group that was well before."""
    return _next_status(Status.OK, value, comparator, thresholds)


class _Windows:
    """The value of a monitor's query for the window that ends at each interval."""

    def __init__(self, query: MonitorQuery, timeline: Timeline, speed: float) -> None:
        self._query = query
        self._speed = speed
        self._evaluation = Evaluation(timeline, most_intervals=len(timeline.times))
        self._starts = self._evaluation.intervals.starts
        self._seconds = query.window_seconds / speed

    def formula(self) -> Values:
        """The values of the query's expression at each interval."""
        queries: dict[str, Values] = {}
        return evaluate(self._with_references(self._query.expression, queries), queries)

    def values(self) -> Values:
        if self._seconds > self._starts[-1] - self._starts[0]:
            raise QueryError(f'the recording is shorter than {self._query.window} at a speed of {self._speed:g}')
        if self._query.method == 'sum':
            # Each count is summed up over the window first; without data its sum is 0.
            queries: dict[str, Values] = {}
            formula = self._with_references(self._query.expression, queries)
            return evaluate(formula, {name: self._sums(values) for name, values in queries.items()})
        return self._over_windows(self.formula(), _METHODS[self._query.method])

    def _with_references(self, expression: Expression, queries: dict[str, Values]) -> Expression:
        """The expression with a name in the place of each query, whose values are put into `queries`."""
        match expression:
            case MetricQuery():
                name = f'query{len(queries)}'
                queries[name] = self._values_of(expression)
                return Reference(name)
            case Operation():
                left = self._with_references(expression.left, queries)
                return replace(expression, left=left, right=self._with_references(expression.right, queries))
            case Function():
                arguments = tuple(self._with_references(item, queries) for item in expression.arguments)
                return replace(expression, arguments=arguments)
        return expression

    def _values_of(self, query: MetricQuery) -> Values:
        values = self._evaluation.over_time(query)
        values = {group: line for group, line in values.items() if NOT_AVAILABLE not in group}
        factor = self._speed if query.spec is not None and query.spec.unit == 'second' else 1.0
        return {group: [None if item is None else item * factor for item in line] for group, line in values.items()}

    def _over_windows(self, values: Values, aggregate: Callable[[Sequence[float]], float]) -> Values:
        return {group: [_of(window, aggregate) for window in self._windows(line)] for group, line in values.items()}

    def _sums(self, values: Values) -> Values:
        return {
            group: [sum(item for item in window if item is not None) for window in self._windows(line)]
            for group, line in values.items()
        }

    def _windows(self, line: list[Value]) -> list[list[Value]]:
        """What the line holds in each full window, the present at its end."""
        starts, seconds = self._starts, self._seconds
        ends = (end for end, start in enumerate(starts) if start - starts[0] >= seconds)
        return [line[self._first_after(starts[end] - seconds) : end + 1] for end in ends]

    def _first_after(self, time: float) -> int:
        return bisect_right(self._starts, time)


def _of(window: Sequence[Value], aggregate: Callable[[Sequence[float]], float]) -> Value:
    known = [item for item in window if item is not None]
    return aggregate(known) if known else None


def _statuses(
    line: Sequence[Value], comparator: str, thresholds: Mapping[str, float], is_resolved_without_data: bool
) -> list[Status]:
    """With hysteresis: what has alerted recovers when it reaches the threshold of recovery, where there is one."""
    statuses: list[Status] = []
    status = Status.OK
    for value in line:
        if value is not None:
            status = _next_status(status, value, comparator, thresholds)
        elif is_resolved_without_data:
            status = Status.OK
        statuses.append(status)
    return statuses


def _next_status(status: Status, value: float, comparator: str, thresholds: Mapping[str, float]) -> Status:
    is_beyond, is_short_of_recovery = _COMPARATORS[comparator], _COMPARATORS[comparator[0]]
    if is_beyond(value, thresholds['critical']):
        return Status.ALERT
    recovery = thresholds.get('critical_recovery')
    if status is Status.ALERT and recovery is not None and is_short_of_recovery(value, recovery):
        return Status.ALERT
    if 'warning' not in thresholds:
        return Status.OK
    if is_beyond(value, thresholds['warning']):
        return Status.WARN
    if status is not Status.OK and 'warning_recovery' in thresholds:
        return Status.WARN if is_short_of_recovery(value, thresholds['warning_recovery']) else Status.OK
    return Status.OK
