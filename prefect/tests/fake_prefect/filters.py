"""The filter objects of Prefect 3.8.8 (`prefect/server/schemas/filters.py`), compiled to predicates on rows.

A filter object is a `Group`: its keys are operators (`any_`, `before_`) or further groups (`state`), and an unknown key
is refused as the server refuses it. SQL's NULL matches no comparison, and there is no negation around one, so that
False stands for it everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from .tables import Row, View
from .times import to_moment

Predicate = Callable[[Row], bool]
Parser = Callable[[Any], Any]
Path = tuple[str, ...]

STATE_TYPES = frozenset(
    ['SCHEDULED', 'PENDING', 'RUNNING', 'COMPLETED', 'FAILED', 'CANCELLED', 'CRASHED', 'PAUSED', 'CANCELLING']
)
WORKER_STATUSES = frozenset(['ONLINE', 'OFFLINE'])


class InvalidFilter(Exception):
    """A filter that the server answers with 422. `detail` is an item of its `exception_detail`."""

    def __init__(self, error_type: str, message: str, location: Path, value: object) -> None:
        super().__init__(f'{".".join(location)}: {message}')
        self.detail = {'type': error_type, 'loc': ['body', *location], 'msg': message, 'input': value}


class InvalidValue(Exception):
    """Raised by parsers: the type and the message of the server's validation error."""

    def __init__(self, error_type: str, message: str) -> None:
        super().__init__(message)
        self.error_type = error_type
        self.message = message


@dataclass(frozen=True)
class Operator:
    """One key with a value. `build` returns None where the server adds no clause, as for an empty `not_any_`."""

    parse: Parser
    build: Callable[[Any, View], Predicate | None]


@dataclass(frozen=True)
class Group:
    """An object of operators and groups.

    `combinable`: takes `operator` (and_, or_). `drops_compound`: a member that is not exactly one clause is ignored,
    the server's trap for `state.type` and `state.name`. `rewrite` turns the keys into those that count.
    """

    members: Mapping[str, Group | Operator]
    combinable: bool = False
    drops_compound: bool = False
    rewrite: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict


def compile_filter(group: Group, value: object, view: View, location: Path) -> Predicate:
    """Return the predicate of a filter object. Raises InvalidFilter."""
    return _combined(group, _clauses(group, value, view, location), value)


def _clauses(group: Group, value: object, view: View, location: Path) -> list[Predicate]:
    if not isinstance(value, dict):
        raise InvalidFilter('model_attributes_type', 'Input should be a valid dictionary', location, value)
    known = {*group.members, 'operator'} if group.combinable else set(group.members)
    for key, item in value.items():
        if key not in known:
            raise InvalidFilter('extra_forbidden', 'Extra inputs are not permitted', (*location, key), item)
    if value.get('operator', 'and_') not in ('and_', 'or_'):
        expected = "Input should be 'and_' or 'or_'"
        raise InvalidFilter('enum', expected, (*location, 'operator'), value['operator'])
    clauses: list[Predicate] = []
    for key, item in group.rewrite(value).items():
        if item is None or key == 'operator':
            continue
        member = group.members[key]
        if isinstance(member, Operator):
            clause = member.build(_parsed(member, item, (*location, key)), view)
            clauses += [clause] if clause else []
        else:
            parts = _clauses(member, item, view, (*location, key))
            if len(parts) == 1 or not group.drops_compound:
                clauses.append(_combined(member, parts, item))
    return clauses


def _combined(group: Group, clauses: list[Predicate], value: Any) -> Predicate:
    if len(clauses) == 1:
        return clauses[0]
    if group.combinable and clauses and value.get('operator') == 'or_':
        return lambda row: any(clause(row) for clause in clauses)
    return lambda row: all(clause(row) for clause in clauses)


def _parsed(operator: Operator, value: object, location: Path) -> Any:
    try:
        return operator.parse(value)
    except InvalidValue as error:
        raise InvalidFilter(error.error_type, error.message, location, value) from None


# Parsers


def _each(value: object, parse: Parser) -> list[Any]:
    if not isinstance(value, list):
        raise InvalidValue('list_type', 'Input should be a valid list')
    return [parse(item) for item in value]


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise InvalidValue('string_type', 'Input should be a valid string')
    return value


def _texts(value: object) -> list[str]:
    return _each(value, _text)


def _identity(value: object) -> str:
    try:
        return str(UUID(_text(value)))
    except ValueError:
        raise InvalidValue('uuid_parsing', 'Input should be a valid UUID') from None


def _identities(value: object) -> list[str]:
    return _each(value, _identity)


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidValue('bool_type', 'Input should be a valid boolean')
    return value


def parse_moment(value: object) -> datetime:
    try:
        return to_moment(_text(value))
    except ValueError:
        raise InvalidValue('datetime_from_date_parsing', 'Input should be a valid datetime or date') from None


def _one_of(allowed: frozenset[str]) -> Parser:
    def member(value: object) -> object:
        if value not in allowed:
            raise InvalidValue('enum', f'Input should be one of {sorted(allowed)}')
        return value

    return lambda value: _each(value, member)


# Operators


def _any(column: str, parse: Parser = _texts) -> Operator:
    def build(values: Iterable[str], view: View) -> Predicate:
        wanted = frozenset(values)
        return lambda row: row[column] in wanted

    return Operator(parse, build)


def _not_any(column: str, parse: Parser = _texts) -> Operator:
    def build(values: Iterable[str], view: View) -> Predicate | None:
        unwanted = frozenset(values)
        return (lambda row: row[column] is not None and row[column] not in unwanted) if unwanted else None

    return Operator(parse, build)


def _is_null(column: str) -> Operator:
    return Operator(_flag, lambda wanted, view: lambda row: (row[column] is None) is wanted)


def _named_queue(row: Row) -> str | None:
    """The column `work_queue_name`: null where only a work pool was named, although answers show its default queue.

    The fake has no such column: it takes everything in a default queue for something that named only the pool.
    """
    name: str | None = row['work_queue_name']
    return name if name != 'default' else None


def _any_named_queue(values: Iterable[str], view: View) -> Predicate:
    wanted = frozenset(values)
    return lambda row: _named_queue(row) in wanted


def _has_no_named_queue(wanted: bool, view: View) -> Predicate:
    return lambda row: (_named_queue(row) is None) is wanted


def _is(column: str) -> Operator:
    return Operator(_flag, lambda wanted, view: lambda row: bool(row[column]) is wanted)


def _integer(value: object) -> int:
    if not isinstance(value, int):
        raise InvalidValue('int_type', 'Input should be a valid integer')
    return value


def _at_least(level: int, view: View) -> Predicate:
    return lambda row: bool(row['level'] >= level)


def _at_most(level: int, view: View) -> Predicate:
    return lambda row: bool(row['level'] <= level)


def _like(*columns: str) -> Operator:
    """A case-insensitive SQL LIKE '%value%' on one of the columns: % and _ in the value are wildcards."""

    def build(value: str, view: View) -> Predicate | None:
        pattern = _like_pattern(f'%{value}%')
        return (lambda row: any(pattern.fullmatch(row[column]) for column in columns)) if value else None

    return Operator(_text, build)


def _starts_with(column: str) -> Operator:
    def build(values: Iterable[str], view: View) -> Predicate:
        patterns = [_like_pattern(f'{value}%') for value in values]
        return lambda row: any(pattern.fullmatch(row[column]) for pattern in patterns)

    return Operator(_texts, build)


def _like_pattern(expression: str) -> re.Pattern[str]:
    parts = ('.*' if char == '%' else '.' if char == '_' else re.escape(char) for char in expression)
    return re.compile(''.join(parts), re.IGNORECASE | re.DOTALL)


def _period(*columns: str) -> dict[str, Operator]:
    """`before_` and `after_`, both inclusive, on the first of the columns that is not null."""

    def moment(row: Row) -> datetime | None:
        text = next((row[column] for column in columns if row[column] is not None), None)
        return to_moment(text) if text is not None else None

    def before(limit: datetime, view: View) -> Predicate:
        return lambda row: (value := moment(row)) is not None and value <= limit

    def after(limit: datetime, view: View) -> Predicate:
        return lambda row: (value := moment(row)) is not None and value >= limit

    return {'before_': Operator(parse_moment, before), 'after_': Operator(parse_moment, after)}


def _has_all(values: Iterable[str], view: View) -> Predicate | None:
    wanted = frozenset(values)
    return (lambda row: wanted.issubset(row['tags'])) if wanted else None


def _has_any(values: Iterable[str], view: View) -> Predicate:
    wanted = frozenset(values)
    return lambda row: not wanted.isdisjoint(row['tags'])


def _is_untagged(wanted: bool, view: View) -> Predicate:
    return lambda row: (not row['tags']) is wanted


def _created_by(key: str, parse: Parser) -> Operator:
    def build(values: Iterable[str], view: View) -> Predicate:
        wanted = frozenset(values)
        return lambda row: row['created_by'] is not None and row['created_by'][key] in wanted

    return Operator(parse, build)


def _subflows_of(flow_run_ids: Iterable[str], view: View) -> Predicate:
    wanted = frozenset(flow_run_ids)
    dummies = {task_run['id'] for task_run in view.rows('task_runs') if task_run['flow_run_id'] in wanted}
    return lambda row: row['parent_task_run_id'] in dummies


def _stands_for_a_subflow(wanted: bool, view: View) -> Predicate:
    dummies = {flow_run['parent_task_run_id'] for flow_run in view.rows('flow_runs')}
    return lambda row: (row['id'] in dummies) is wanted


def _has_no_deployment(wanted: bool, view: View) -> Predicate:
    deployed = {deployment['flow_id'] for deployment in view.rows('deployments')}
    return lambda row: (row['id'] not in deployed) is wanted


def _flow_or_deployment_like(value: str, view: View) -> Predicate | None:
    pattern = _like_pattern(f'%{value}%')
    flows = {flow['id'] for flow in view.rows('flows') if pattern.fullmatch(flow['name'])}
    return (lambda row: bool(pattern.fullmatch(row['name'])) or row['flow_id'] in flows) if value else None


def _flow_run_id_keys(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """`is_null_` is false when it is left out: a filter here excludes background task runs, which have no flow run."""
    is_null = value.get('is_null_', False)
    if is_null is True or (is_null is False and value.get('any_') is None):
        return {'is_null_': is_null}
    return {'any_': value.get('any_')}


# Filter objects

_ID = Group({'any_': _any('id', _identities)})
_ID_OR_NOT = Group({'any_': _any('id', _identities), 'not_any_': _not_any('id', _identities)})
_NAME = Group({'any_': _any('name')})
_NAME_LIKE = Group({'any_': _any('name'), 'like_': _like('name')})
_TAGS = Group({'all_': Operator(_texts, _has_all), 'is_null_': Operator(_flag, _is_untagged)}, combinable=True)
_TAGS_ANY = Group({**_TAGS.members, 'any_': Operator(_texts, _has_any)}, combinable=True)
_STATE_TYPES = _one_of(STATE_TYPES)

FLOWS = Group(
    {
        'id': _ID_OR_NOT,
        'deployment': Group({'is_null_': Operator(_flag, _has_no_deployment)}, combinable=True),
        'name': _NAME_LIKE,
        'tags': _TAGS,
    },
    combinable=True,
)
FLOW_RUNS = Group(
    {
        'id': _ID_OR_NOT,
        'name': _NAME_LIKE,
        'tags': _TAGS_ANY,
        'deployment_id': Group(
            {'any_': _any('deployment_id', _identities), 'is_null_': _is_null('deployment_id')}, combinable=True
        ),
        'work_queue_name': Group(
            {
                'any_': Operator(_texts, _any_named_queue),
                'is_null_': Operator(_flag, _has_no_named_queue),
            },
            combinable=True,
        ),
        'state': Group(
            {
                'type': Group(
                    {'any_': _any('state_type', _STATE_TYPES), 'not_any_': _not_any('state_type', _STATE_TYPES)}
                ),
                'name': Group({'any_': _any('state_name'), 'not_any_': _not_any('state_name')}),
            },
            combinable=True,
            drops_compound=True,
        ),
        'flow_version': Group({'any_': _any('flow_version')}),
        'start_time': Group({**_period('start_time', 'expected_start_time'), 'is_null_': _is_null('start_time')}),
        'end_time': Group({**_period('end_time'), 'is_null_': _is_null('end_time')}),
        'expected_start_time': Group(_period('expected_start_time')),
        'next_scheduled_start_time': Group(_period('next_scheduled_start_time')),
        'parent_flow_run_id': Group({'any_': Operator(_identities, _subflows_of)}, combinable=True),
        'parent_task_run_id': Group(
            {'any_': _any('parent_task_run_id', _identities), 'is_null_': _is_null('parent_task_run_id')},
            combinable=True,
        ),
        'idempotency_key': Group({'any_': _any('idempotency_key'), 'not_any_': _not_any('idempotency_key')}),
        'created_by': Group(
            {
                'id_': _created_by('id', _identities),
                'type_': _created_by('type', _texts),
                'is_null_': _is_null('created_by'),
            },
            combinable=True,
        ),
    },
    combinable=True,
)
TASK_RUNS = Group(
    {
        'id': _ID,
        'name': _NAME_LIKE,
        'tags': _TAGS,
        'state': Group(
            {
                'type': Group({'any_': _any('state_type', _STATE_TYPES)}),
                'name': Group({'any_': _any('state_name')}),
            },
            combinable=True,
            drops_compound=True,
        ),
        'start_time': Group({**_period('start_time'), 'is_null_': _is_null('start_time')}),
        'end_time': Group({**_period('end_time'), 'is_null_': _is_null('end_time')}),
        'expected_start_time': Group(_period('expected_start_time')),
        'subflow_runs': Group({'exists_': Operator(_flag, _stands_for_a_subflow)}),
        'flow_run_id': Group(
            {'any_': _any('flow_run_id', _identities), 'is_null_': _is_null('flow_run_id')},
            combinable=True,
            rewrite=_flow_run_id_keys,
        ),
    },
    combinable=True,
)
DEPLOYMENTS = Group(
    {
        'id': _ID_OR_NOT,
        'name': _NAME_LIKE,
        'flow_or_deployment_name': Group({'like_': Operator(_text, _flow_or_deployment_like)}),
        'paused': Group({'eq_': _is('paused')}),
        'tags': _TAGS_ANY,
        'work_queue_name': Group({'any_': Operator(_texts, _any_named_queue)}),
    },
    combinable=True,
)
WORK_POOLS = Group({'id': _ID, 'name': _NAME, 'type': Group({'any_': _any('type')})}, combinable=True)
WORK_QUEUES = Group(
    {'id': _ID, 'name': Group({'any_': _any('name'), 'startswith_': _starts_with('name')})}, combinable=True
)
LOGS = Group(
    {
        'level': Group({'ge_': Operator(_integer, _at_least), 'le_': Operator(_integer, _at_most)}),
        'timestamp': Group(_period('timestamp')),
        'flow_run_id': Group({'any_': _any('flow_run_id', _identities)}),
        'task_run_id': Group({'any_': _any('task_run_id', _identities), 'is_null_': _is_null('task_run_id')}),
    },
    combinable=True,
)
WORKERS = Group(
    {
        'last_heartbeat_time': Group(_period('last_heartbeat_time')),
        'status': Group(
            {
                'any_': _any('status', _one_of(WORKER_STATUSES)),
                'not_any_': _not_any('status', _one_of(WORKER_STATUSES)),
            }
        ),
    },
    combinable=True,
)
