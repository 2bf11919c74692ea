"""The events API: filters (`prefect/server/events/filters.py`), order and pages of a frozen query."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from datetime import datetime, time, timedelta
from random import Random
from typing import Any

from .filters import Group, InvalidValue, Operator, Predicate, compile_filter, parse_moment
from .queries import in_order
from .tables import Row, View
from .times import to_moment, to_text

PAGE_SIZE = 50
RESOURCE_ID = 'prefect.resource.id'
RESOURCE_ROLE = 'prefect.resource.role'
RETENTION = timedelta(days=180)


class InvalidToken(Exception):
    """A page token that the server answers with 403."""


class UnknownFilter(Exception):
    """A filter that the server knows and this fake does not."""


def _texts(value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InvalidValue('list_type', 'Input should be a valid list of strings')
    return value


def _pairs(value: object) -> list[list[str]]:
    if not isinstance(value, list):
        raise InvalidValue('list_type', 'Input should be a valid list')
    return [_texts(pair) for pair in value]


def _order(value: object) -> object:
    if value not in ('ASC', 'DESC'):
        raise InvalidValue('enum', "Input should be 'ASC' or 'DESC'")
    return value


def _unknown(value: object) -> object:
    raise UnknownFilter


def _if_any(values: list[Any], predicate: Predicate) -> Predicate | None:
    """An empty list is no filter."""
    return predicate if values else None


def _since(since: datetime, view: View) -> Predicate:
    return lambda event: to_moment(event['occurred']) >= since


def _until(until: datetime, view: View) -> Predicate:
    return lambda event: to_moment(event['occurred']) <= until


def _named(values: list[str], view: View) -> Predicate | None:
    return _if_any(values, lambda event: event['event'] in values)


def _not_named(values: list[str], view: View) -> Predicate | None:
    return _if_any(values, lambda event: event['event'] not in values)


def _prefixed(values: list[str], view: View) -> Predicate | None:
    return _if_any(values, lambda event: event['event'].startswith(tuple(values)))


def _not_prefixed(values: list[str], view: View) -> Predicate | None:
    return _if_any(values, lambda event: not event['event'].startswith(tuple(values)))


def _of_id(values: list[str], view: View) -> Predicate | None:
    return _if_any(values, lambda resource: resource[RESOURCE_ID] in values)


def _of_id_prefix(values: list[str], view: View) -> Predicate | None:
    return _if_any(values, lambda resource: resource[RESOURCE_ID].startswith(tuple(values)))


def _of_role(values: list[str], view: View) -> Predicate | None:
    return _if_any(values, lambda resource: resource[RESOURCE_ROLE] in values)


def _in_roles(pairs: list[list[str]], view: View) -> Predicate | None:
    return _if_any(pairs, lambda resource: [resource[RESOURCE_ID], resource[RESOURCE_ROLE]] in pairs)


def _some_resource(group: Group, resources: Callable[[Row], list[Row]]) -> Operator:
    """One filter on resources, or a list of them: for each, one resource of the event has to match the whole of it."""

    def build(value: object, view: View) -> Predicate:
        wanted = [
            compile_filter(group, item, view, ('filter',)) for item in (value if isinstance(value, list) else [value])
        ]
        return lambda event: all(any(matches(resource) for resource in resources(event)) for matches in wanted)

    return Operator(lambda value: value, build)


UNKNOWN = Operator(_unknown, lambda value, view: None)
_RESOURCE = Group({'id': Operator(_texts, _of_id), 'id_prefix': Operator(_texts, _of_id_prefix), 'labels': UNKNOWN})
_RELATED = Group(
    {
        'id': Operator(_texts, _of_id),
        'role': Operator(_texts, _of_role),
        'resources_in_roles': Operator(_pairs, _in_roles),
        'labels': UNKNOWN,
    }
)
EVENTS = Group(
    {
        'occurred': Group(
            {
                'since': Operator(parse_moment, _since),
                'until': Operator(parse_moment, _until),
            }
        ),
        'event': Group(
            {
                'name': Operator(_texts, _named),
                'exclude_name': Operator(_texts, _not_named),
                'prefix': Operator(_texts, _prefixed),
                'exclude_prefix': Operator(_texts, _not_prefixed),
            }
        ),
        'resource': _some_resource(_RESOURCE, lambda event: [event['resource']]),
        'related': _some_resource(_RELATED, lambda event: event['related']),
        'any_resource': _some_resource(_RESOURCE, lambda event: [event['resource'], *event['related']]),
        'id': Group({'id': Operator(_texts, lambda ids, view: _if_any(ids, lambda event: event['id'] in ids))}),
        'text': UNKNOWN,
        'order': Operator(_order, lambda order, view: None),
    }
)


def first_page(event_filter: Mapping[str, Any] | None, page_size: int, view: View, random: Random) -> Row:
    """Answer `POST /events/filter`, with the token instead of the URL. Raises InvalidFilter and UnknownFilter."""
    frozen = _freeze(event_filter or {}, view.now)
    return _page(frozen, len(_matches(frozen, view)), page_size, 0, view, random)


def next_page(encoded_token: str, view: View, random: Random) -> Row:
    """Answer `GET /events/filter/next`. Raises InvalidToken."""
    try:
        token = json.loads(b64decode(b64decode(encoded_token)))
    except ValueError:
        raise InvalidToken from None
    return _page(token['filter'], token['count'], token['page_size'], token['offset'], view, random)


def counts_by_resource(event_filter: Mapping[str, Any] | None, view: View) -> list[Row]:
    """Answer `POST /events/count-by/resource`: the most frequent first. Raises InvalidFilter and UnknownFilter."""
    by_resource: dict[str, list[Row]] = {}
    for event in _matches(_freeze(event_filter or {}, view.now), view):
        by_resource.setdefault(event['resource']['prefect.resource.id'], []).append(event)
    counts = []
    for identity, found in by_resource.items():
        times = [event['occurred'] for event in found]
        label = found[-1]['resource'].get('prefect.resource.name', identity)
        row = {'value': identity, 'label': label, 'count': len(found)}
        counts.append(row | {'start_time': min(times), 'end_time': max(times)})
    return sorted(counts, key=lambda count: -count['count'])


def _freeze(event_filter: Mapping[str, Any], now: datetime) -> Row:
    """Fill in the period, so that the following pages ask for the same one."""
    start_of_day = datetime.combine(now.date(), time(), now.tzinfo)
    period = {'since': to_text(start_of_day - RETENTION), 'until': to_text(now)}
    return {**event_filter, 'occurred': period | (event_filter.get('occurred') or {})}


def _matches(event_filter: Row, view: View) -> list[Row]:
    matches = compile_filter(EVENTS, event_filter, view, ('filter',))
    return [event for event in view.rows('events') if matches(event)]


def _page(event_filter: Row, count: int, page_size: int, offset: int, view: View, random: Random) -> Row:
    is_descending = event_filter.get('order', 'DESC') == 'DESC'
    by_occurred = (lambda event: to_moment(event['occurred'])), is_descending
    ordered = in_order(_matches(event_filter, view), by_occurred, nulls_are_smallest=True, random=random)
    following = {'filter': event_filter, 'count': count, 'page_size': page_size, 'offset': offset + page_size}
    token = b64encode(b64encode(json.dumps(following).encode())).decode() if offset + page_size < count else None
    return {'events': ordered[offset : offset + page_size], 'total': count, 'next_page': token}
