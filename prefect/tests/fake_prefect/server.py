"""The fake server: from a request to an answer, without a socket."""

from __future__ import annotations

import json
import re
import uuid
from base64 import b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from email.utils import format_datetime
from typing import Any

from . import events, fronts, queries, recorded
from .filters import InvalidFilter
from .tables import Row, View
from .times import to_text
from .world import SLOT_STATE_TYPES, World

API = '/api'
JSON = 'application/json'
COLLECTION_PATH = re.compile('/(flow_runs|task_runs|deployments|flows|work_pools)/(filter|count|paginate)')
WORK_POOL_PATH = re.compile('/work_pools/([^/]+)/(workers|queues)/filter')
PAGING_KEYS: Mapping[str, frozenset[str]] = {
    'filter': frozenset(['limit', 'offset']),
    'paginate': frozenset(['limit', 'page']),
    'count': frozenset(),
}
# What each collection takes as filters: the server ignores another top-level key, so that it is a mistake to send it.
RUN_KEYS = frozenset(['flows', 'flow_runs', 'task_runs', 'deployments', 'work_pools', 'work_pool_queues'])
FILTER_KEYS: Mapping[str, frozenset[str]] = {
    'flow_runs': RUN_KEYS,
    'deployments': RUN_KEYS,
    'task_runs': RUN_KEYS - {'work_pools', 'work_pool_queues'},
    'flows': RUN_KEYS - {'work_pool_queues'},
    'work_pools': frozenset(['work_pools']),
    'logs': frozenset(['logs']),
}


@dataclass(frozen=True)
class FakeRequest:
    """A request as the server gets it. `path` begins with `/api`; the names of `headers` are in lower case."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes = b''

    @property
    def body(self) -> Any:
        """The decoded JSON; None where there is none. Raises json.JSONDecodeError."""
        return json.loads(self.content) if self.content else None


@dataclass(frozen=True)
class FakeResponse:
    status: int = 200
    body: bytes = b''
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, value: object, status: int = 200) -> FakeResponse:
        return cls(status, json.dumps(value, separators=(',', ':')).encode(), {'Content-Type': JSON})


@dataclass(frozen=True)
class FakeExchange:
    """A request and what became of it: no status where a fault answered with an exception."""

    method: str
    path: str
    query: Mapping[str, str]
    body: Any
    status: int | None
    response_bytes: int


Fault = Callable[[FakeRequest], FakeResponse | Exception | None]


class Refusal(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, value: object) -> None:
        super().__init__(f'{status}: {value}')
        self.response = FakeResponse.of(value, status)


class FakePrefect(World):
    """A world that answers requests.

    `default_limit` is both the default and the maximum of `limit`. `database` is 'sqlite' or 'postgresql', which put
    nulls at different ends. `auth_string` ('user:password') and `is_csrf_protected` guard the API as the server's
    settings do. `fault` is asked before each request: it may answer itself, return an exception (the connection
    breaks), or let the server answer. `requests` logs them all; `unknown_requests` tells what the fake does not know.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.default_limit = 200
        self.database = 'sqlite'
        self.is_ready = True
        self.auth_string: str | None = None
        self.is_csrf_protected = False
        self.fault: Fault | None = None
        self.requests: list[FakeExchange] = []
        self.unknown_requests: list[str] = []
        self._csrf_tokens: dict[str, Row] = {}

    def serve(self) -> fronts.Front:
        """Listen on a loopback port: `with fake.serve() as url`, the value for `prefect_url`."""
        return fronts.serve(self)

    def install(self) -> fronts.Front:
        """Answer every `requests.Session` of this process without sockets: `with fake.install() as url`."""
        return fronts.install(self)

    def assert_all_known(self) -> None:
        assert not self.unknown_requests, 'the fake server does not know:\n' + '\n'.join(self.unknown_requests)

    def handle(
        self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], content: bytes
    ) -> FakeResponse:
        """Answer one request. Raises what the fault returned, if that is an exception."""
        request = FakeRequest(method, path, query, {name.lower(): value for name, value in headers.items()}, content)
        outcome = (self.fault(request) if self.fault else None) or self._answer(request)
        if isinstance(outcome, Exception):
            self._log(request, None, 0)
            raise outcome
        self._log(request, outcome.status, len(outcome.body))
        date = format_datetime(self.now.replace(microsecond=0), usegmt=True)
        return FakeResponse(outcome.status, outcome.body, {'Date': date, 'Server': 'uvicorn', **outcome.headers})

    def _log(self, request: FakeRequest, status: int | None, response_bytes: int) -> None:
        try:
            body = request.body
        except ValueError:
            body = request.content
        self.requests.append(FakeExchange(request.method, request.path, request.query, body, status, response_bytes))

    def _answer(self, request: FakeRequest) -> FakeResponse:
        try:
            if not request.path.startswith(f'{API}/') or request.path.startswith(f'{API}{API}/'):
                return self._outside_of_the_api(request)
            self._check_csrf(request)
            self._check_credentials(request)
            return FakeResponse.of(self._route(request))
        except Refusal as refusal:
            return refusal.response
        except InvalidFilter as error:
            self._unknown(request, str(error))
            return self._invalid(request, error.detail)
        except events.UnknownFilter:
            self._unknown(request, f'a filter of {request.body}')
            return FakeResponse.of('the fake server does not know this filter', 501)

    # Access

    @staticmethod
    def _outside_of_the_api(request: FakeRequest) -> FakeResponse:
        """Below another path than `/api` is the UI, which answers browsers only."""
        if request.method == 'GET' and 'text/html' in request.headers.get('accept', ''):
            return FakeResponse(200, b'<!DOCTYPE html><html></html>', {'Content-Type': 'text/html; charset=utf-8'})
        return FakeResponse.of({'detail': 'Not Found'}, 404)

    def _check_csrf(self, request: FakeRequest) -> None:
        if not self.is_csrf_protected or request.method == 'GET':
            return
        if 'prefect-csrf-token' not in request.headers:
            raise Refusal(403, {'detail': 'Missing CSRF token.'})
        if 'prefect-csrf-client' not in request.headers:
            raise Refusal(403, {'detail': 'Missing client identifier.'})
        token = self._csrf_tokens.get(request.headers['prefect-csrf-client'])
        is_valid = token is not None and token['token'] == request.headers['prefect-csrf-token']
        if not is_valid or to_text(self.now) > str(token and token['expiration']):
            raise Refusal(403, {'detail': 'Invalid CSRF token or client identifier.'})

    def _check_credentials(self, request: FakeRequest) -> None:
        if self.auth_string is None or request.path in (f'{API}/health', f'{API}/ready'):
            return
        scheme, _, credentials = request.headers.get('authorization', '').partition(' ')
        try:
            is_right = scheme == 'Basic' and b64decode(credentials).decode() == self.auth_string
        except ValueError:
            is_right = False
        if not is_right:
            raise Refusal(401, {'exception_message': 'Unauthorized'})

    # Routes

    def _route(self, request: FakeRequest) -> object:
        path = request.path.removeprefix(API)
        match request.method, path:
            case 'GET', '/health':
                return True
            case 'GET', '/ready':
                return self._ready()
            case 'GET', '/version':
                return recorded.body('version', 'ok')
            case 'GET', '/admin/version':
                return self.version
            case 'GET', '/admin/settings':
                return self._admin_settings()
            case 'GET', '/csrf-token':
                return self._csrf_token(request)
            case 'GET', '/flow_run_states/':
                return self._flow_run_states(request)
            case 'GET', '/events/filter/next':
                return self._next_events(request)
            case 'POST', '/logs/filter':
                return self._collection(request, 'logs', 'filter')
            case 'POST', '/events/filter':
                return self._first_events(request)
            case 'POST', '/events/count-by/resource':
                body = self._body(request, frozenset(['filter']), frozenset())
                return events.counts_by_resource(body.get('filter'), self.view())
            case 'POST', '/v2/concurrency_limits/filter':
                return self._unfiltered(request, 'concurrency_limits', queries.BY_NAME)
            case 'POST', '/concurrency_limits/filter':
                return self._unfiltered(request, 'tag_limits', queries.BY_TAG)
            case 'POST', '/automations/filter':
                return self._unfiltered(request, 'automations', queries.BY_NAME)
            case 'POST', '/task_workers/filter':
                # All of them, with any limit.
                self._body(request, frozenset(), frozenset())
                rows = self.view().rows('task_workers')
                return [{key: value for key, value in row.items() if key != 'id'} for row in rows]
            case 'POST', '/work_queues/filter':
                return self._listing(request, 'work_queues', queries.BY_NAME)
            case 'POST', _ if found := COLLECTION_PATH.fullmatch(path):
                return self._collection(request, *found.groups())
            case 'POST', _ if found := WORK_POOL_PATH.fullmatch(path):
                return self._part_of_work_pool(request, *found.groups())
        self._unknown(request, 'no such path')
        raise Refusal(404, {'detail': 'Not Found'})

    def _collection(self, request: FakeRequest, collection: str, action: str) -> object:
        keys = FILTER_KEYS[collection]
        body = self._body(request, keys, PAGING_KEYS[action] | ({'sort'} if collection in queries.SORTS else set()))
        if self.release < (3, 6, 22) and 'end_time' in body.get('task_runs', {}):
            raise Refusal(422, {'exception_message': 'Invalid request received.'})
        view = self.view()
        rows = queries.select(collection, queries.compile_filters(body, keys, view), view)
        if self.release < (3, 4, 1) and {'after_', 'before_'} & body.get('flow_runs', {}).get('start_time', {}).keys():
            rows = [row for row in rows if row['start_time'] is not None]
        if action == 'count':
            return len(rows)
        sort = queries.sort_of(collection, body) if collection in queries.SORTS else queries.BY_NAME
        if action == 'filter':
            return self._rendered(collection, self._page(body, rows, sort), view)
        limit, page = self._limit(body), self._integer(body, 'page', 1, minimum=1)
        results = self._ordered(rows, sort)[(page - 1) * limit : page * limit]
        return {
            'results': self._rendered(collection, results, view),
            'count': len(rows),
            'limit': limit,
            'pages': -(-len(rows) // limit) if limit else 0,
            'page': page,
        }

    def _part_of_work_pool(self, request: FakeRequest, work_pool_name: str, part: str) -> object:
        work_pool = next((row for row in self.view().rows('work_pools') if row['name'] == work_pool_name), None)
        if work_pool is None:
            raise Refusal(404, {'detail': f'Work pool "{work_pool_name}" not found.'})
        if part == 'workers':
            return self._listing(request, 'workers', queries.BY_HEARTBEAT, work_pool)
        return self._listing(request, 'work_queues', queries.BY_PRIORITY, work_pool)

    def _listing(self, request: FakeRequest, table: str, sort: queries.Sort, work_pool: Row | None = None) -> object:
        """Answer for a table that takes no filter but the one on itself, of one work pool or of all."""
        keys = frozenset([table])
        body = self._body(request, keys, PAGING_KEYS['filter'])
        view = self.view()
        conditions = list(queries.compile_filters(body, keys, view).values())
        if work_pool:
            conditions.append(lambda row: row['work_pool_id'] == work_pool['id'])
        rows = [row for row in view.rows(table) if all(condition(row) for condition in conditions)]
        page = self._page(body, rows, sort)
        if table == 'workers':
            return page
        # The list of all queues counts CANCELLING runs too, that of one work pool does not.
        states = SLOT_STATE_TYPES if work_pool else SLOT_STATE_TYPES | {'CANCELLING'}
        return queries.with_active_slots(page, 'work_queue_id', states, view)

    def _unfiltered(self, request: FakeRequest, table: str, sort: queries.Sort) -> object:
        """Answer for a table that takes no filter."""
        body = self._body(request, frozenset(), PAGING_KEYS['filter'])
        return self._page(body, self.view().rows(table), sort)

    def _first_events(self, request: FakeRequest) -> object:
        body = self._body(request, frozenset(['filter']), frozenset(['limit']))
        limit = self._integer(body, 'limit', events.PAGE_SIZE, maximum=events.PAGE_SIZE)
        return self._with_link(request, events.first_page(body.get('filter'), limit, self.view(), self.random))

    def _next_events(self, request: FakeRequest) -> object:
        token = self._parameter(request, 'page-token')
        try:
            return self._with_link(request, events.next_page(token, self.view(), self.random))
        except events.InvalidToken:
            raise Refusal(403, {'detail': 'Forbidden'}) from None

    @staticmethod
    def _with_link(request: FakeRequest, page: Row) -> Row:
        """The link follows the request's Host header and knows of no path prefix."""
        host = request.headers.get('host', 'localhost:4200')
        token = page['next_page']
        return page | {'next_page': token and f'http://{host}{API}/events/filter/next?page-token={token}'}

    def _flow_run_states(self, request: FakeRequest) -> object:
        flow_run_id = str(uuid.UUID(self._parameter(request, 'flow_run_id')))
        states = self.view().rows('flow_run_states')
        return self._ordered(
            [state for state in states if state['state_details']['flow_run_id'] == flow_run_id], queries.BY_TIMESTAMP
        )

    def _ready(self) -> object:
        if not self.is_ready:
            raise Refusal(503, recorded.body('ready', 'database_lost'))
        return recorded.body('ready', 'ok')

    def _admin_settings(self) -> object:
        settings = recorded.body('admin_settings', 'ok')
        settings['server']['api']['default_limit'] = self.default_limit
        return settings

    def _csrf_token(self, request: FakeRequest) -> object:
        if not self.is_csrf_protected:
            raise Refusal(422, {'detail': 'CSRF protection is disabled.'})
        client = self._parameter(request, 'client')
        token = recorded.body('csrf-token', 'ok') | {'client': client, 'token': f'{self.random.getrandbits(256):064x}'}
        token |= {'id': self._random_id(), 'created': to_text(self.now), 'updated': to_text(self.now)}
        self._csrf_tokens[client] = token | {'expiration': to_text(self.now + timedelta(hours=1))}
        return self._csrf_tokens[client]

    # Parts of requests and answers

    def _body(self, request: FakeRequest, filter_keys: frozenset[str], other_keys: frozenset[str] | set[str]) -> Row:
        try:
            body = {} if request.body is None else request.body
        except json.JSONDecodeError:
            raise InvalidFilter('json_invalid', 'JSON decode error', (), {}) from None
        if not isinstance(body, dict):
            raise InvalidFilter('missing', 'Field required', ('limit',), None)
        # The server ignores these: no error, and no effect.
        for key in body.keys() - filter_keys - other_keys:
            self._unknown(request, f'the key {key} has no effect')
        return body

    def _parameter(self, request: FakeRequest, name: str) -> str:
        if name not in request.query:
            raise InvalidFilter('missing', 'Field required', (name,), None)
        return request.query[name]

    def _integer(self, body: Row, key: str, default: int, *, minimum: int = 0, maximum: int | None = None) -> int:
        value = body.get(key, default)
        if not isinstance(value, int):
            raise InvalidFilter('int_type', 'Input should be a valid integer', (key,), value)
        if value < minimum:
            message = f'Input should be greater than or equal to {minimum}'
            raise InvalidFilter('greater_than_equal', message, (key,), value)
        if maximum is not None and value > maximum:
            raise InvalidFilter('less_than_equal', f'Input should be less than or equal to {maximum}', (key,), value)
        return value

    def _limit(self, body: Row) -> int:
        limit = body.get('limit')
        if limit is None:
            return self.default_limit
        if limit < 0:
            raise Refusal(422, {'detail': 'Invalid limit: must be greater than or equal to 0.'})
        if limit > self.default_limit:
            raise Refusal(422, {'detail': f'Invalid limit: must be less than or equal to {self.default_limit}.'})
        return int(limit)

    def _page(self, body: Row, rows: list[Row], sort: queries.Sort) -> list[Row]:
        limit, offset = self._limit(body), self._integer(body, 'offset', 0)
        return self._ordered(rows, sort)[offset : offset + limit]

    def _ordered(self, rows: list[Row], sort: queries.Sort) -> list[Row]:
        return queries.in_order(rows, sort, nulls_are_smallest=self.database == 'sqlite', random=self.random)

    def _rendered(self, collection: str, rows: list[Row], view: View) -> list[Row]:
        if collection in ('flow_runs', 'task_runs'):
            return [queries.with_estimates(row, self.now) for row in rows]
        if collection == 'work_pools':
            return queries.with_active_slots(rows, 'work_pool_id', SLOT_STATE_TYPES, view)
        if collection == 'deployments' and self.release <= (3, 6, 1):
            return [{key: value for key, value in row.items() if key != 'work_queue_id'} for row in rows]
        return rows

    @staticmethod
    def _invalid(request: FakeRequest, detail: Row) -> FakeResponse:
        answer = {'exception_message': 'Invalid request received.', 'exception_detail': [detail]}
        return FakeResponse.of(answer | {'request_body': request.body}, 422)

    def _unknown(self, request: FakeRequest, what: str) -> None:
        self.unknown_requests.append(f'{request.method} {request.path}: {what}')
