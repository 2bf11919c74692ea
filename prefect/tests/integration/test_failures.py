"""What the check does when something breaks, each fault in front of a real server; written down in docs/failures.md.

Every fault meets a check that ran well before, and is followed by a good check: what ended meanwhile is counted
exactly once, and no secret was said. `UPDATE_FAILURES=1 pytest` writes docs/failures.md anew.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import socket
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from unittest import mock

import pytest

from datadog_checks.prefect.collectors import snapshot_collectors, stream_collectors
from datadog_checks.prefect.config_models import defaults
from datadog_checks.prefect.metrics import CHECK_COST, METRICS
from lab.agent import CheckResult, CheckRunner
from lab.api import PrefectApiDriver
from lab.fault_proxy import JSON, Exchange, Fault, Front, answers, cut_in_half, reset
from lab.prefect_server import ROOT, PrefectServer
from lab.waiting import wait_until
from tests.integration.certificates import Authority
from tests.integration.error_texts import shown
from tests.integration.leaks import leaks, listening

DOCUMENT = ROOT / 'docs' / 'failures.md'
HEALTH = 'prefect.server.health'
READY = 'prefect.server.ready'
SUCCESS = 'prefect.server.collector.success'
COMPLETED = 'prefect.server.flow_runs.completed.count'
# What the check says of its own requests, failed or not.
COSTS = {spec.full_name for spec in METRICS.values() if spec.group == CHECK_COST}
GROUPS = defaults.instance_collect()
COLLECTORS = {'health', *(item.name for item in (*snapshot_collectors(GROUPS), *stream_collectors(GROUPS)))}
# The option `timeout`, seconds; the default is what the page tells.
DEFAULT_TIMEOUT = 10.0
# What hangs is tried with a short one, which a good answer of a busy machine takes no longer than. All else that a
# check does takes less than one more.
SHORT_TIMEOUT = 4.0
SLACK = 3.5
# A server is waited for until it answers at once.
AT_ONCE_SECONDS = 0.3
FLOW = 'something broke'
FLOW_RUNS = '/flow_runs/filter'
TASK_RUNS = '/task_runs/filter'
WORK_POOLS = '/work_pools/filter'
CSRF_TOKEN = '/csrf-token'
HTML = {'Content-Type': 'text/html; charset=utf-8'}
SECRETS = {
    'auth_string': 'sesame-string',
    'Authorization': b64encode(b'bob:sesame-string').decode(),
    'extra_headers': 'sesame-header',
    'user info': 'sesame-url',
    'proxy': 'sesame-proxy',
}

Middle = Callable[['Stage'], AbstractContextManager[None]]


@dataclass(frozen=True)
class Stage:
    """The fronts before one server, and what can be done to it."""

    server: PrefectServer
    api: PrefectApiDriver
    authority: Authority
    stranger: Authority
    http: Front
    https: Front

    def new_check(self, front: Front, **options: Any) -> CheckRunner:
        """With the state of the one before, as after a restart of the Agent."""
        instance = {
            'prefect_url': front.url.replace('//', f'//bob:{SECRETS["user info"]}@'),
            'auth_string': f'bob:{SECRETS["auth_string"]}',
            'extra_headers': {'X-Team': SECRETS['extra_headers']},
            'tls_ca_cert': str(self.authority.certificate),
        }
        return CheckRunner(instance | options)


@dataclass(frozen=True)
class Case:
    """A fault. `begin` lets it be there; `message` must be in the error; `timeouts` is how many the check takes.

    `is_down`: the server counts as unreachable. `is_good`: the check has no error. `up_to`: it may take less time.
    `restarted_with`: the Agent is restarted before, with these options. `depends_on_speed`: how far the check comes,
    and so which collectors fail beside, differs from one run to the next.
    """

    name: str
    begin: Middle
    message: str
    is_down: bool = False
    timeouts: int = 0
    is_tls: bool = False
    is_good: bool = False
    up_to: bool = False
    restarted_with: Mapping[str, Any] | None = None
    depends_on_speed: bool = False

    @property
    def seconds(self) -> str:
        if not self.timeouts:
            return 'less than 1 timeout'
        return f'{"up to " if self.up_to else ""}{self.timeouts} timeout{"s" * (self.timeouts > 1)}'


def every(fault: Fault, *endpoints: str) -> Middle:
    """Meet the requests for these endpoints with a fault, all requests if none is named."""

    def meet(exchange: Exchange) -> None:
        if not endpoints or exchange.endpoint in endpoints:
            fault(exchange)
        else:
            exchange.pass_on()

    return lambda stage: stage.http.having(meet)


def says(document: object, status: int = 200) -> Fault:
    return answers(status, json.dumps(document).encode(), JSON)


def hang(exchange: Exchange) -> None:
    exchange.wait()
    exchange.close()


def banner(exchange: Exchange) -> None:
    """What another service says to whoever comes."""
    exchange.wfile.write(b'SSH-2.0-OpenSSH_9.2p1\r\n')
    exchange.close()


def drip(*, body: bool) -> Fault:
    """A byte now and then: of the body, or already of the headers."""

    def fault(exchange: Exchange) -> None:
        exchange.wfile.write(b'HTTP/1.1 200 OK\r\n')
        if body:
            exchange.wfile.write(b'Content-Length: 1000000\r\n\r\n')
        while not exchange.wait(0.1):
            exchange.wfile.write(b' ' if body else b'X')
        exchange.close()

    return fault


def cut_compressed(exchange: Exchange) -> None:
    """The first half of an answer in gzip, as long as it says."""
    content = gzip.compress(exchange.ask().content)
    exchange.answer(200, content[: len(content) // 2], {**JSON, 'Content-Encoding': 'gzip'})


def in_chunks(exchange: Exchange) -> None:
    """A good answer in chunks of a few bytes."""
    answer = exchange.ask()
    exchange.head(answer.status, {**answer.headers, 'Transfer-Encoding': 'chunked'})
    parts = [answer.content[start : start + 100] for start in range(0, len(answer.content), 100)]
    exchange.wfile.write(b''.join(b'%x\r\n' % len(part) + part + b'\r\n' for part in (*parts, b'')))


def changed(change: Callable[[Any], Any]) -> Fault:
    """The server's answer, changed."""

    def fault(exchange: Exchange) -> None:
        answer = exchange.ask()
        content = gzip.decompress(answer.content) if 'gzip' in str(answer.headers) else answer.content
        headers = {name: value for name, value in answer.headers.items() if name.lower() != 'content-encoding'}
        exchange.answer(answer.status, json.dumps(change(json.loads(content))).encode(), headers)

    return fault


def each(**fields: object) -> Fault:
    """The server's rows with these fields."""
    return changed(lambda rows: [row | fields for row in rows])


def without(*fields: str) -> Fault:
    return changed(lambda rows: [{key: value for key, value in row.items() if key not in fields} for row in rows])


def full_pages(*, repeating: bool, **fields: str) -> Fault:
    """A list that does not end: the same page again and again, or always a new one."""
    pages = iter(range(10**9))

    def fault(exchange: Exchange) -> None:
        limit, page = json.loads(exchange.content)['limit'], 0 if repeating else next(pages)
        rows = [{'id': f'{page}-{number}', 'name': 'x', 'type': 'process', **fields} for number in range(limit)]
        exchange.answer(200, json.dumps(rows).encode())

    return fault


def dated(date: str) -> Fault:
    """The server's answers, from another time."""

    def fault(exchange: Exchange) -> None:
        answer = exchange.ask()
        headers = {name: value for name, value in answer.headers.items() if name.lower() != 'date'}
        exchange.answer(answer.status, answer.content, headers | {'Date': date})

    return fault


def csrf_protection(token: Fault) -> Fault:
    """Every POST is refused for its CSRF token, which can be had like this."""

    def fault(exchange: Exchange) -> None:
        if exchange.command == 'POST':
            says({'detail': 'Invalid CSRF token or client identifier.'}, 403)(exchange)
        elif exchange.endpoint == CSRF_TOKEN:
            token(exchange)
        else:
            exchange.pass_on()

    return fault


def large(megabytes: int) -> Fault:
    row = b'{"id": "1", "name": "large", "type": "process", "status": "READY", "base_job_template": "%s"}'
    return lambda exchange: exchange.answer(200, b'[' + row % (b'x' * (megabytes * 2**20)) + b']')


def dies_after(requests: int) -> Middle:
    """The server is shut down when it has answered so many requests."""

    @contextmanager
    def begin(stage: Stage) -> Iterator[None]:
        # A server that serves cannot wait for its own end.
        shutdown = threading.Thread(target=stage.http.stop)
        served = len(stage.http.requests) + requests

        def fault(exchange: Exchange) -> None:
            exchange.pass_on()
            if len(stage.http.requests) == served:
                shutdown.start()
                shutdown.join()

        with stage.http.having(fault):
            yield
        stage.http.restart()

    return begin


@contextmanager
def refused(stage: Stage) -> Iterator[None]:
    stage.http.stop()
    yield
    stage.http.restart()


@contextmanager
def full_backlog(stage: Stage) -> Iterator[None]:
    """The port takes no connection and refuses none, as behind a firewall that drops packets."""
    stage.http.stop()
    with ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket())
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(('127.0.0.1', stage.http.port))
        listener.listen(0)
        for _ in range(4):
            waiting = sockets.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(('127.0.0.1', stage.http.port))
        yield
    stage.http.restart()


def resolver(*, hangs: bool) -> Middle:
    """The resolver knows no name, or does not answer."""

    @contextmanager
    def begin(stage: Stage) -> Iterator[None]:
        is_over = threading.Event()

        def getaddrinfo(*arguments: object, **options: object) -> None:
            if hangs:
                is_over.wait(60)
            raise socket.gaierror(socket.EAI_NONAME, 'Name or service not known')

        stage.http.cut()
        with mock.patch.object(socket, 'getaddrinfo', getaddrinfo):
            yield
        is_over.set()

    return begin


@contextmanager
def suspended(stage: Stage) -> Iterator[None]:
    """The processes of the server itself are stopped, and go on afterwards."""
    os.killpg(stage.server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.killpg(stage.server.pid, signal.SIGCONT)


def certificate(*, is_known: bool = True, **options: Any) -> Middle:
    """The server has this certificate, of an authority that the check knows or not."""

    @contextmanager
    def begin(stage: Stage) -> Iterator[None]:
        good = stage.https.tls
        authority = stage.authority if is_known else stage.stranger
        stage.https.tls = authority.server_context(authority.issue('wrong', **options))
        stage.https.cut()
        yield
        stage.https.tls = good

    return begin


@contextmanager
def client_certificate(stage: Stage) -> Iterator[None]:
    good = stage.https.tls
    stage.https.tls = stage.authority.server_context(stage.authority.issue('good'), demands_client=True)
    stage.https.cut()
    yield
    stage.https.tls = good


@contextmanager
def no_tls(stage: Stage) -> Iterator[None]:
    good, stage.https.tls = stage.https.tls, None
    stage.https.cut()
    yield
    stage.https.tls = good


@contextmanager
def only_tls(stage: Stage) -> Iterator[None]:
    stage.http.tls = stage.https.tls
    stage.http.cut()
    yield
    stage.http.tls = None


NOON = '2026-11-23T12:00:00Z'
NO_CONNECTION = 'health: GET /health: no connection to HOST:PORT'
CASES = [
    # No connection
    Case('Nothing listens on the port', refused, f'{NO_CONNECTION}: Connection refused. Is the server', is_down=True),
    Case('The name of the host is not known', resolver(hangs=False), f'{NO_CONNECTION}: Name or', is_down=True),
    Case(
        'The resolver hangs',
        resolver(hangs=True),
        'GET /health: no complete answer from HOST:PORT within 10 s',
        is_down=True,
        timeouts=1,
    ),
    Case('The connection hangs', full_backlog, f'{NO_CONNECTION} within 10 s', is_down=True, timeouts=1),
    Case('The connection is reset, at each request', every(reset), f'{NO_CONNECTION}: Connection reset', is_down=True),
    # TLS
    Case('TLS: expired certificate', certificate(days=-2), 'certificate has expired', is_down=True, is_tls=True),
    Case('TLS: another host', certificate(host='x.example'), 'Hostname mismatch', is_down=True, is_tls=True),
    Case(
        'TLS: an authority that is not known',
        certificate(is_known=False),
        'unable to get local issuer certificate. Check tls_verify, tls_ca_cert',
        is_down=True,
        is_tls=True,
    ),
    Case(
        'TLS: self-signed certificate',
        certificate(self_signed=True),
        'self-signed certificate. Check tls_verify, tls_ca_cert',
        is_down=True,
        is_tls=True,
    ),
    Case(
        'TLS: the server demands a client certificate',
        client_certificate,
        'TLS with HOST:PORT failed: the server demands a client certificate. Set tls_cert',
        is_down=True,
        is_tls=True,
    ),
    Case(
        '`https://` for a server that speaks plain HTTP',
        no_tls,
        'the answer is not TLS. Is prefect_url https:// for a server that speaks http://?',
        is_down=True,
        is_tls=True,
    ),
    Case('`http://` for a server that speaks TLS', only_tls, 'HOST:PORT closed the connection', is_down=True),
    Case('Another service listens on the port', every(banner), 'the answer of HOST:PORT is not HTTP', is_down=True),
    Case(
        'The HTTP proxy refuses connections',
        lambda stage: stage.http.having(Exchange.pass_on),
        'GET /health: the HTTP proxy gave no connection. Check proxy',
        is_down=True,
        restarted_with={'proxy': {'http': f'http://bob:{SECRETS["proxy"]}@127.0.0.1:9'}},
    ),
    Case('The HTTP proxy wants credentials', every(answers(407)), 'HTTP 407, the HTTP proxy requires', is_down=True),
    # No answer
    Case('The processes of the server are suspended', suspended, 'GET /health: no answer', is_down=True, timeouts=1),
    Case('Every request hangs', every(hang), 'health: GET /health: no answer', is_down=True, timeouts=1),
    Case('Each answer drips in, byte by byte', every(drip(body=True)), 'GET /health: no', is_down=True, timeouts=1),
    Case(
        'The headers drip in, byte by byte',
        every(drip(body=False)),
        'GET /health: no complete answer',
        is_down=True,
        timeouts=1,
    ),
    Case('`/ready` hangs', every(hang, '/ready'), 'health: GET /ready: no answer', timeouts=1),
    Case('One endpoint hangs', every(hang, WORK_POOLS), 'POST /work_pools/filter: no answer', timeouts=1),
    Case(
        'All but the health hangs',
        lambda stage: stage.http.having(lambda item: item.pass_on() if item.endpoint == '/health' else hang(item)),
        'skipped: the 30 s limit of this run was spent on POST /flow_runs/count',
        timeouts=3,
        up_to=True,
        depends_on_speed=True,
    ),
    Case(
        'An answer drips in',
        every(drip(body=True), FLOW_RUNS),
        FLOW_RUNS,
        timeouts=3,
        up_to=True,
        depends_on_speed=True,
    ),
    Case(
        'The server is shut down in the middle',
        dies_after(6),
        'no connection to HOST:PORT: Connection refused',
        depends_on_speed=True,
    ),
    Case('A proxy answers 503 while the server starts', every(answers(503)), 'HTTP 503, unav', is_down=True),
    Case('One endpoint resets the connection', every(reset, FLOW_RUNS), 'no connection to HOST:PORT: Connection reset'),
    # Answers that are damaged
    Case('An answer is cut off', every(cut_in_half(chunked=False), FLOW_RUNS), 'closed in the middle of an answer'),
    Case('An answer is cut off between chunks', every(cut_in_half(chunked=True), WORK_POOLS), 'in the middle'),
    Case(
        'The compression of an answer is damaged',
        every(answers(200, b'no gzip', {'Content-Encoding': 'gzip'}), WORK_POOLS),
        'cannot be decompressed',
    ),
    Case('A compressed answer is cut off', every(cut_compressed, WORK_POOLS), 'not JSON (application/json)'),
    Case('JSON that is cut off', every(answers(200, b'[{"id": "1', JSON), FLOW_RUNS), 'Does a proxy cut or change it?'),
    Case('Answers come in chunks', every(in_chunks), '', is_good=True),
    # Statuses
    *(
        Case(f'HTTP {status}', every(says({'detail': detail} if detail else {}, status), FLOW_RUNS), message)
        for status, detail, message in (
            (400, 'Invalid X-PREFECT-API-VERSION', 'POST /flow_runs/filter: HTTP 400'),
            (401, '', 'HTTP 401, not authorized. Check auth_string, username and password'),
            (403, 'No access', 'HTTP 403, forbidden. Check the credentials and their permissions'),
            (404, 'Not Found', 'HTTP 404, not found. Is /api missing'),
            (409, 'Conflict', 'HTTP 409, '),
            (422, 'Extra inputs are not permitted', 'HTTP 422, the server rejected the request as invalid. Is'),
            (500, '', 'HTTP 500, the server failed. Check its log'),
            (502, '', 'HTTP 502, bad gateway'),
            (503, '', 'HTTP 503, unavailable'),
            (504, '', 'HTTP 504, gateway timeout'),
        )
    ),
    Case(
        'HTTP 429 with `Retry-After`: nothing more is asked in this check',
        every(answers(429, b'{}', {'Retry-After': '17'}), WORK_POOLS),
        'HTTP 429, too many requests. Raise min_collection_interval, or filter by names (Retry-After: 17)',
    ),
    Case(
        'Wrong credentials: every endpoint but the health answers 401',
        lambda stage: stage.http.having(
            lambda item: item.pass_on() if item.endpoint in ('/health', '/ready') else says({}, 401)(item)
        ),
        'POST /flow_runs/count: HTTP 401, not authorized',
    ),
    Case(
        'The CSRF token is none',
        every(csrf_protection(says([]))),
        'GET /csrf-token: the answer has no token with an expiration',
    ),
    Case(
        'The CSRF token is refused though it is new',
        every(csrf_protection(says({'token': 'new', 'expiration': '2999-01-01T00:00:00Z'}))),
        '(the server says: Invalid CSRF token or client identifier.)',
    ),
    Case('The database is away: `/ready` answers 503', every(answers(503), '/ready'), 'health: GET /ready: HTTP 503'),
    Case(
        'A redirect to another host',
        every(answers(302, b'', {'Location': 'http://user:pw@elsewhere.example/login?to=x'})),
        'GET /health: HTTP 302, redirected to http://elsewhere.example/login. Not followed.',
        is_down=True,
    ),
    Case(
        'A redirect of one endpoint to https://',
        every(answers(308, b'', {'Location': 'https://elsewhere.example/api/flow_runs/filter'}), FLOW_RUNS),
        'HTTP 308, redirected to https://elsewhere.example/api/flow_runs/filter. Not followed.',
    ),
    # Answers of another kind
    Case('A web page with status 200', every(answers(200, b'<html>', HTML)), 'not JSON (text/html', is_down=True),
    Case('A web page with status 200, in the middle', every(answers(200, b'<html>', HTML), FLOW_RUNS), 'not JSON'),
    Case('A web page with status 404', every(answers(404, b'<html>', HTML)), 'HTTP 404, not found.', is_down=True),
    Case(
        '`/health` says something else than `true`', every(says({'status': 'ok'}), '/health'), 'not true', is_down=True
    ),
    Case(
        'An object instead of a list', every(says({'detail': 'x'}), WORK_POOLS), 'the answer is not a list of objects'
    ),
    Case('A list of something else', every(says([None, 1]), WORK_POOLS), 'the answer is not a list of objects'),
    Case('A text instead of a number', every(says('7'), '/flow_runs/count'), 'the answer is not a number'),
    Case('A number beyond reason', every(says(10**30), '/flow_runs/count'), 'the answer is not a number'),
    Case(
        'No page limit, after a restart of the Agent',
        every(says([]), '/flow_runs/paginate'),
        'the answer has no page limit',
        restarted_with={},
    ),
    Case('Rows without their id and name', every(without('id', 'name'), WORK_POOLS), '', is_good=True),
    Case(
        'Rows with null in every field',
        every(changed(lambda rows: [dict.fromkeys(row) for row in rows]), WORK_POOLS, FLOW_RUNS),
        '',
        is_good=True,
    ),
    Case(
        'Rows with texts for objects and objects for texts',
        every(each(state='x', state_name={}, state_type=[], task_inputs=7, start_time={}), FLOW_RUNS, TASK_RUNS),
        '',
        is_good=True,
    ),
    Case('Rows with unknown fields', every(each(unknown={'a': [1]}), WORK_POOLS, FLOW_RUNS), '', is_good=True),
    Case(
        'Rows with absurd values',
        every(each(total_run_time=-1, run_count=10**400, estimated_run_time=1e308), FLOW_RUNS),
        '',
        is_good=True,
    ),
    Case('Rows with a text of 10 MB', every(each(type='x' * 10**7), WORK_POOLS), '', is_good=True),
    Case('Times in the year 9999', every(each(start_time='9999-12-31T23:59:59Z'), FLOW_RUNS), '', is_good=True),
    Case(
        'Pages that repeat', every(full_pages(repeating=True), WORK_POOLS), 'POST /work_pools/filter: the pages repeat'
    ),
    Case(
        'Pages of runs that repeat',
        every(full_pages(repeating=True, end_time=NOON, start_time=NOON, expected_start_time=NOON), FLOW_RUNS),
        'POST /flow_runs/filter: the pages repeat',
    ),
    Case(
        'Pages that never end',
        every(full_pages(repeating=False), WORK_POOLS),
        'POST /work_pools/filter',
        timeouts=3,
        up_to=True,
        depends_on_speed=True,
    ),
    Case(
        'An answer of 70 MB',
        every(large(70), WORK_POOLS),
        'POST /work_pools/filter',
        timeouts=3,
        up_to=True,
        depends_on_speed=True,
    ),
    Case('`Date` says the year 9999', every(dated('Fri, 31 Dec 9999 23:59:59 GMT')), '', is_good=True),
]


@pytest.fixture(scope='module')
def stage(server: PrefectServer, api: PrefectApiDriver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    authority, stranger = (Authority(tmp_path_factory.mktemp('ca'), name) for name in ('A private CA', 'A stranger'))
    tls = authority.server_context(authority.issue('good'))
    # What else there is on a server decides which collectors a fault meets.
    api.create_work_pool('faults')
    with Front(server.api_url) as http, Front(server.api_url, tls=tls) as https:
        yield Stage(server, api, authority, stranger, http, https)


ROWS: dict[str, str] = {}


@pytest.mark.parametrize('case', CASES, ids=lambda case: re.sub(r'\W+', ' ', case.name).strip())
def test_fault(stage: Stage, case: Case) -> None:
    ROWS[case.name] = row_of(stage, case, SHORT_TIMEOUT if case.timeouts else DEFAULT_TIMEOUT)


def row_of(stage: Stage, case: Case, timeout: float) -> str:
    """Let the fault happen to a check that has this `timeout`; what the page says of it."""
    front = stage.https if case.is_tls else stage.http
    check = stage.new_check(front, timeout=timeout)
    good_run(stage, check)
    stage.api.complete_flow_run(stage.api.create_flow(FLOW))
    if case.restarted_with is not None:
        check.cancel()
        check = stage.new_check(front, timeout=timeout, **case.restarted_with)
    with case.begin(stage), listening() as log:
        broken = check.run()
    if case.restarted_with is not None:
        check.cancel()
        check = stage.new_check(front, timeout=timeout)
    after = good_run(stage, check)

    message = anonymous(broken.error or '', timeout)
    success = {tag(point.tags, 'collector'): point.value for point in broken.points if point.name == SUCCESS}
    failed = {name for name, value in success.items() if not value}
    assert case.message in message
    assert bool(message) is not case.is_good
    assert failed == named(message)
    if case.is_down:
        assert values(broken, HEALTH) == values(broken, READY) == [0]
        assert {point.name for point in broken.points} - COSTS == {HEALTH, READY, SUCCESS}
        assert set(success) == {'health'}
    else:
        assert values(broken, HEALTH) == [1]
        assert values(broken, READY) == ['health' not in failed]
        assert set(success) == COLLECTORS
    assert case.up_to or 0.8 * case.timeouts * timeout <= broken.seconds
    assert broken.seconds <= (case.timeouts * timeout + SLACK if case.timeouts else timeout)
    assert leaks(SECRETS, broken, log) == []
    # The Agent base looks for a missing intermediate certificate, and says so.
    warnings = [line for line in broken.log if 'AIA chasing' not in line]
    assert all(line.startswith(('WARNING Skipped ', "WARNING The server's Date header ")) for line in warnings)
    assert broken.warnings == ()

    assert values(after, HEALTH) == values(after, READY) == [1]
    assert sum(completed(result) for result in (broken, after)) == 1
    return f'| {case.name} | {shown(message)} | {series_of(case, failed, warnings)} | {case.seconds} |'


def good_run(stage: Stage, check: CheckRunner) -> CheckResult:
    """A run without an error, when the server has nothing else to do that it would wait for."""

    def answers_at_once() -> bool:
        asked_at = time.monotonic()
        answer = stage.api.call('POST', 'flow_runs/filter', {'limit': 50})
        return answer.status == HTTPStatus.OK and time.monotonic() - asked_at <= AT_ONCE_SECONDS

    wait_until(answers_at_once, f'an answer of the server within {AT_ONCE_SECONDS} s')
    result = check.run()
    assert result.error is None
    return result


def test_document_says_what_the_tests_found() -> None:
    if list(ROWS) != [case.name for case in CASES]:
        pytest.skip('not every fault was tested')
    # What comes after the table is written by hand: `test_hostile_server.py` holds it.
    written, begin, by_hand = DOCUMENT.read_text().partition('\n## A hostile server\n')
    if os.environ.get('UPDATE_FAILURES'):
        written = document()
        DOCUMENT.write_text(written + begin + by_hand)
    # What stands outside of the rows, and the names of the faults.
    assert [line.split(' | ')[0] for line in written.splitlines()] == [
        line.split(' | ')[0] for line in document().splitlines()
    ], HOW_TO_WRITE

    rows = [line for line in written.splitlines() if line.startswith('| ')]
    pairs = [(case, row, ROWS[case.name]) for case, row in zip(CASES, [r for r in rows if r != HEAD[0]], strict=True)]
    rotten = [f'{found}\nis written as\n{row}' for case, row, found in pairs if held(case, row) != held(case, found)]
    assert rotten == [], HOW_TO_WRITE
    assert [case.name for case, row, _ in pairs if case.message not in row] == [], HOW_TO_WRITE


def document() -> str:
    lines = [INTRODUCTION.rstrip()]
    for case in CASES:
        if case.name in SECTIONS:
            lines += ['', f'## {SECTIONS[case.name]}', '', *HEAD]
        lines.append(ROWS[case.name])
    return '\n'.join(lines) + '\n'


def held(case: Case, row: str) -> list[str]:
    """What must not differ between a row of the page and what was found: all of it, but for numbers that vary."""
    name, message, series, seconds = row.removeprefix('| ').removesuffix(' |').split(' | ')
    if case.depends_on_speed:
        return [name, seconds]
    return [name, re.sub(r'\d+ of M collectors', 'N of M collectors', message), series, seconds]


HOW_TO_WRITE = 'UPDATE_FAILURES=1 pytest writes docs/failures.md anew'
HEAD = ('| Fault | The error of the check | Series | Time |', '|---|---|---|---|')
# Titles, by the first fault of each section.
SECTIONS = {
    'Nothing listens on the port': 'No connection to the server',
    'TLS: expired certificate': 'TLS, proxies, and another service at the address',
    'The processes of the server are suspended': 'Slow or stopped in the middle',
    'An answer is cut off': 'Damaged answers',
    'HTTP 400': 'HTTP errors and redirects',
    'A web page with status 200': 'Answers of another kind',
    'Rows without their id and name': 'Malformed objects',
    'Pages that repeat': 'Lists without end, large answers, wrong clocks',
}
INTRODUCTION = """# What happens when something breaks

`prefect/tests/integration/test_failures.py` wrote this page. It puts each fault in front of a real Prefect server.
Answers that try to hurt the Agent are in [hostile-server.md](hostile-server.md).

How to read the tables:

- **Error** is the line that `datadog-agent status` shows. `HOST:PORT` is the address of `prefect_url`. `N` and `M`
  are numbers that differ from run to run. A long list of collectors is cut here ("and others"); the real error names
  all of them.
- **Series**: "only health" means that the check sends `health`, `ready` and `collector.success`, and nothing else. "All
  but theirs" means that `collector.success` is 0 for the collectors in the error, that their other series are not sent,
  and that everything else is sent as usual.
- **Time**: a timeout is the option `timeout` (10 s by default). A check never takes longer than three timeouts.

After each fault the next check succeeded without a restart, and a flow run that ended during the fault was counted
once.
"""


def tag(tags: tuple[str, ...], key: str) -> str:
    return next(value for name, _, value in (item.partition(':') for item in tags) if name == key)


def values(result: CheckResult, series: str) -> list[float]:
    return [point.value for point in result.points if point.name == series]


def completed(result: CheckResult) -> float:
    """How many flow runs of these tests the check counted."""
    return sum(point.value for point in result.points if point.name == COMPLETED and f'flow_name:{FLOW}' in point.tags)


def named(message: str) -> set[str]:
    """The collectors that an error names."""
    parts = re.split(r'; (?=[a-z_., ]+: )', message.partition(' failed: ')[2])
    return {name for part in parts if part for name in part.partition(': ')[0].split(', ')}


def anonymous(message: str, timeout: float) -> str:
    """The message without what differs from one run of the tests to the next, as with the default timeout."""
    message = re.sub(r'(127\.0\.0\.1|localhost):\d+', 'HOST:PORT', message)
    message = re.sub(r'\(\d+\.\d s\)', '(N s)', message)
    message = message.replace(f'the {3 * timeout:g} s limit', f'the {3 * DEFAULT_TIMEOUT:g} s limit')
    message = message.replace(f'within {timeout:g} s', f'within {DEFAULT_TIMEOUT:g} s')
    return re.sub(r'within \d\.\d+ s', 'within N s', message)


def series_of(case: Case, failed: set[str], warnings: list[str]) -> str:
    if case.is_good:
        lines = (re.sub('[0-9][0-9,.]*', 'N', line.removeprefix('WARNING '), count=1) for line in warnings)
        said = '; '.join(f'`{line}`' for line in lines)
        return f'all but those of the malformed objects; the log warns: {said}' if said else 'all'
    if case.is_down:
        return 'only health: `health` 0, `ready` 0'
    return 'all but theirs; `ready` 0' if 'health' in failed else 'all but theirs'
