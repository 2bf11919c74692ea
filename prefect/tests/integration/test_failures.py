"""What the check does when something breaks, each fault in front of a real server; written down in docs/failures.md.

Every fault meets a check that ran well before, and is followed by a good check: whatever ended meanwhile is counted
exactly once. `UPDATE_FAILURES=1 pytest` writes docs/failures.md anew.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import pytest

from datadog_checks.prefect.collectors import snapshot_collectors, stream_collectors
from datadog_checks.prefect.config_models import defaults
from lab.agent import CheckResult, CheckRunner
from lab.api import PrefectApiDriver
from lab.prefect_server import ROOT, PrefectServer
from tests.integration.certificates import Authority
from tests.integration.front import Exchange, Fault, Front

DOCUMENT = ROOT / 'docs' / 'failures.md'
HEALTH = 'prefect.server.health'
READY = 'prefect.server.ready'
SUCCESS = 'prefect.server.collector.success'
COMPLETED = 'prefect.server.flow_runs.completed.count'
GROUPS = defaults.instance_collect()
COLLECTORS = {'health', *(item.name for item in (*snapshot_collectors(GROUPS), *stream_collectors()))}
# The option `timeout` in these tests, seconds. What is no hang is over long before.
TIMEOUT = 1.0
SLACK = 2.0
FLOW = 'something broke'
FLOW_RUNS = '/flow_runs/filter'
WORK_POOLS = '/work_pools/filter'
HTML = {'Content-Type': 'text/html; charset=utf-8'}

Middle = Callable[['Stage'], AbstractContextManager[None]]


@dataclass
class Stage:
    """The fronts before one server, and the check behind each of them."""

    api: PrefectApiDriver
    authority: Authority
    http: Front
    https: Front
    checks: dict[Front, CheckRunner] = field(default_factory=dict)

    def new_check(self, front: Front, timeout: float = TIMEOUT) -> CheckRunner:
        """With the state of the one before, as after a restart of the Agent."""
        certificate = str(self.authority.certificate)
        return CheckRunner({'prefect_url': front.url, 'timeout': timeout, 'tls_ca_cert': certificate})

    def end_a_flow_run(self) -> None:
        flow_run = self.api.request('POST', 'flow_runs/', {'flow_id': self.api.create_flow(FLOW), 'state': None})
        for state in ('RUNNING', 'COMPLETED'):
            self.api.set_flow_run_state(flow_run['id'], state, force=True)


@dataclass(frozen=True)
class Case:
    """A fault. `begin` lets it be there; `message` must be in the error; `timeouts` is how many the check takes.

    `is_down`: the server counts as unreachable. `is_good`: the check has no error. `up_to`: it may take less time.
    `restarted_with`: the Agent is restarted before, with that timeout.
    """

    name: str
    begin: Middle
    message: str
    is_down: bool = False
    timeouts: int = 0
    is_tls: bool = False
    is_good: bool = False
    up_to: bool = False
    restarted_with: float | None = None

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


def answers(status: int, content: bytes = b'', headers: Mapping[str, str] | None = None) -> Fault:
    return lambda exchange: exchange.answer(status, content, headers)


def says(document: object, status: int = 200) -> Fault:
    return answers(status, json.dumps(document).encode(), {'Content-Type': 'application/json'})


def hang(exchange: Exchange) -> None:
    exchange.wait()
    exchange.close()


def reset(exchange: Exchange) -> None:
    exchange.close(reset=True)


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


def cut_in_half(*, chunked: bool) -> Fault:
    def fault(exchange: Exchange) -> None:
        answer = exchange.ask()
        half = answer.content[: len(answer.content) // 2 + 1]
        if chunked:
            exchange.head(answer.status, {**answer.headers, 'Transfer-Encoding': 'chunked'})
            half = b'%x\r\n' % len(half) + half + b'\r\n'
        else:
            exchange.head(answer.status, {**answer.headers, 'Content-Length': str(len(answer.content) + 1)})
        exchange.wfile.write(half)
        exchange.close()

    return fault


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


def full_pages(*, repeating: bool) -> Fault:
    """A list that does not end: the same page again and again, or always a new one."""
    pages = iter(range(10**9))

    def fault(exchange: Exchange) -> None:
        limit, page = json.loads(exchange.content)['limit'], 0 if repeating else next(pages)
        rows = [{'id': f'{page}-{number}', 'name': 'x', 'type': 'process'} for number in range(limit)]
        exchange.answer(200, json.dumps(rows).encode())

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


def resolver(answer: Callable[[], None]) -> Middle:
    """The resolver does this to every question."""

    @contextmanager
    def begin(stage: Stage) -> Iterator[None]:
        def getaddrinfo(*arguments: object, **options: object) -> None:
            answer()
            raise socket.gaierror(socket.EAI_NONAME, 'Name or service not known')

        stage.http.cut()
        with mock.patch.object(socket, 'getaddrinfo', getaddrinfo):
            yield

    return begin


def certificate(**options: Any) -> Middle:
    """The server has this certificate."""

    @contextmanager
    def begin(stage: Stage) -> Iterator[None]:
        good = stage.https.tls
        stage.https.tls = stage.authority.server_context(stage.authority.issue('wrong', **options))
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


NO_CONNECTION = 'health: GET /health: no connection to HOST:PORT'
CASES = [
    # No connection
    Case('Nothing listens on the port', refused, f'{NO_CONNECTION}: Connection refused. Is the server', is_down=True),
    Case('The name of the host is not known', resolver(lambda: None), f'{NO_CONNECTION}: Name or', is_down=True),
    Case(
        'The resolver hangs',
        resolver(lambda: time.sleep(2.5 * TIMEOUT)),
        'GET /health: no complete answer from HOST:PORT within 1 s',
        is_down=True,
        timeouts=1,
    ),
    Case('The connection hangs', full_backlog, f'{NO_CONNECTION} within 1 s', is_down=True, timeouts=1),
    Case('The connection is reset, at each request', every(reset), f'{NO_CONNECTION}: Connection reset', is_down=True),
    # TLS
    Case('TLS: expired certificate', certificate(days=-2), 'certificate has expired', is_down=True, is_tls=True),
    Case('TLS: another host', certificate(host='x.example'), 'Hostname mismatch', is_down=True, is_tls=True),
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
        'GET /health: TLS with HOST:PORT failed',
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
    Case('`http://` for a server that speaks TLS', only_tls, 'HOST:PORT: closed without an answer', is_down=True),
    # No answer
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
        "not run: the check's time of 3 s is used up by GET /ready",
        timeouts=3,
        up_to=True,
    ),
    Case('An answer drips in', every(drip(body=True), FLOW_RUNS), FLOW_RUNS, timeouts=3, up_to=True),
    Case('The server is shut down in the middle', dies_after(6), 'no connection to HOST:PORT: Connection refused'),
    Case('The server starts up: it answers 503', every(answers(503)), 'GET /health: HTTP 503, unav', is_down=True),
    Case('One endpoint resets the connection', every(reset, FLOW_RUNS), 'no connection to HOST:PORT: Connection reset'),
    # Answers that are damaged
    Case('An answer is cut off', every(cut_in_half(chunked=False), FLOW_RUNS), 'the answer of HOST:PORT broke off'),
    Case('An answer is cut off between chunks', every(cut_in_half(chunked=True), WORK_POOLS), 'broke off'),
    Case(
        'The compression of an answer is damaged',
        every(answers(200, b'no gzip', {'Content-Encoding': 'gzip'}), WORK_POOLS),
        'it cannot be decompressed',
    ),
    Case('Answers come in chunks', every(in_chunks), '', is_good=True),
    # Statuses
    *(
        Case(f'HTTP {status}', every(says({'detail': detail} if detail else {}, status), FLOW_RUNS), message)
        for status, detail, message in (
            (400, 'Invalid X-PREFECT-API-VERSION', 'POST /flow_runs/filter: HTTP 400'),
            (401, '', 'HTTP 401, not authorized. Check auth_string, username and password'),
            (403, 'No access', 'HTTP 403, forbidden. Check the credentials and what they allow'),
            (404, 'Not Found', 'HTTP 404, not found. Is /api missing'),
            (409, 'Conflict', 'HTTP 409, '),
            (422, 'Extra inputs are not permitted', 'HTTP 422, refused as invalid. Is this version'),
            (500, '', 'HTTP 500, the server failed. Look at its log'),
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
        'POST /work_pools/filter: HTTP 401, not authorized',
    ),
    Case('The database is away: `/ready` answers 503', every(answers(503), '/ready'), 'health: GET /ready: HTTP 503'),
    Case(
        'A redirect to another host',
        every(answers(302, b'', {'Location': 'http://user:pw@elsewhere.example/login?to=x'})),
        'GET /health: HTTP 302, redirected to http://elsewhere.example/login. Not followed.',
        is_down=True,
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
    Case(
        'No page limit, after a restart of the Agent',
        every(says([]), '/flow_runs/paginate'),
        'the answer does not tell the page limit',
        restarted_with=TIMEOUT,
    ),
    Case('Rows without their id and name', every(without('id', 'name'), WORK_POOLS), '', is_good=True),
    Case(
        'Rows with null in every field',
        every(changed(lambda rows: [dict.fromkeys(row) for row in rows]), WORK_POOLS, FLOW_RUNS),
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
        'Pages that never end',
        every(full_pages(repeating=False), WORK_POOLS),
        "the check's time of 3 s is used up by POST /work_pools/filter",
        timeouts=3,
    ),
    Case('An answer of 50 MB', every(large(50), WORK_POOLS), '', is_good=True, restarted_with=10.0),
    Case('An answer of 70 MB', every(large(70), WORK_POOLS), 'the answer is larger than 64 MB', restarted_with=10.0),
]


@pytest.fixture(scope='module')
def stage(prefect_server: PrefectServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    authority = Authority(tmp_path_factory.mktemp('certificates'))
    tls = authority.server_context(authority.issue('good'))
    with (
        PrefectApiDriver(prefect_server.api_url) as api,
        Front(prefect_server.api_url) as http,
        Front(prefect_server.api_url, tls=tls) as https,
    ):
        api.create_work_pool('faults')
        stage = Stage(api, authority, http, https)
        for front in (http, https):
            # The first answers of a new server take their time.
            stage.new_check(front, timeout=30).run()
            stage.checks[front] = stage.new_check(front)
        yield stage
        api.delete_work_pool('faults')


ROWS: dict[str, str] = {}


@pytest.mark.parametrize('case', CASES, ids=lambda case: re.sub(r'\W+', ' ', case.name).strip())
def test_fault(stage: Stage, case: Case) -> None:
    front = stage.https if case.is_tls else stage.http
    check = stage.checks[front]
    # On a busy machine a good answer may take more than the short timeout of these tests.
    assert any(check.run().error is None for _ in range(3)), 'before the fault'
    stage.end_a_flow_run()
    if case.restarted_with is not None:
        check = stage.new_check(front, case.restarted_with)
    with case.begin(stage):
        broken = check.run()
    good = check.run()

    message = broken.error or ''
    success = {tag(point.tags, 'collector'): point.value for point in broken.points if point.name == SUCCESS}
    failed = {name for name, value in success.items() if not value}
    assert case.message in anonymous(message)
    assert bool(message) is not case.is_good
    assert failed == named(message)
    if case.is_down:
        assert values(broken, HEALTH) == values(broken, READY) == [0]
        assert {point.name for point in broken.points} == {HEALTH, READY, SUCCESS}
        assert set(success) == {'health'}
    else:
        assert values(broken, HEALTH) == [1]
        assert values(broken, READY) == ['health' not in failed]
        assert set(success) == COLLECTORS
    assert case.up_to or 0.8 * case.timeouts * TIMEOUT <= broken.seconds
    assert broken.seconds <= max(case.timeouts, 0.5) * (case.restarted_with or TIMEOUT) + SLACK

    assert good.error is None
    assert values(good, HEALTH) == values(good, READY) == [1]
    assert completed(broken) + completed(good) == 1
    is_malformed = any('malformed' in line for line in broken.log)
    series = series_of(case, failed, is_malformed=is_malformed)
    ROWS[case.name] = f'| {case.name} | {shown(message)} | {series} | {case.seconds} |'


def test_document_says_what_the_tests_found() -> None:
    if list(ROWS) != [case.name for case in CASES]:
        pytest.skip('not every fault was tested')
    if os.environ.get('UPDATE_FAILURES'):
        DOCUMENT.write_text(INTRODUCTION + '\n'.join([HEAD, *ROWS.values()]) + '\n')
    written = DOCUMENT.read_text()

    # What else fails beside depends on how far a check comes, so a row is only held to its fault.
    assert written.startswith(INTRODUCTION), 'UPDATE_FAILURES=1 pytest writes docs/failures.md anew'
    assert [row.split(' | ')[0].removeprefix('| ') for row in written.splitlines()[-len(ROWS) :]] == list(ROWS)


HEAD = '| Fault | The error of the check | Series | Time |\n|---|---|---|---|'
INTRODUCTION = """# What happens when something breaks

Written by `prefect/tests/integration/test_failures.py`, which lets each fault happen in front of a real Prefect server.
The error is the line that `datadog-agent status` shows; `HOST:PORT` stands for those of `prefect_url`, and some numbers
for what they happen to be. A timeout is the option `timeout`, 10 s unless configured otherwise (1 s in the tests, so
that a message says `within 1 s`); a check takes three of them at most, whatever hangs.

"Nothing else" means that only `health`, `ready` and `collector.success` are sent. Series of a collector that failed are
not sent; all others are as ever. After each fault the next check was good, and a flow run that ended while the fault
lasted was counted exactly once: what could not be read is read then. Nothing has to be restarted or reset.

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
    parts = re.split(r'; (?=[a-z_., ]+: )', message.partition(' failed. ')[2])
    return {name for part in parts if part for name in part.partition(': ')[0].split(', ')}


def anonymous(message: str) -> str:
    """The message without what differs from one run of the tests to the next."""
    message = re.sub(r'(127\.0\.0\.1|localhost):\d+', 'HOST:PORT', message)
    message = re.sub(r'\(\d+\.\d s\)', '(N s)', message)
    return re.sub(r'within 0\.\d+ s', 'within N s', message)


def shown(message: str) -> str:
    return f'`{anonymous(message)}`' if message else 'none'


def series_of(case: Case, failed: set[str], *, is_malformed: bool) -> str:
    if case.is_good:
        return 'all but those of the objects that are malformed, of which one warning tells' if is_malformed else 'all'
    if case.is_down:
        return '`health` 0, `ready` 0, `collector.success` 0 for `health`; nothing else'
    ready = '`ready` 0, ' if 'health' in failed else ''
    names = ', '.join(f'`{name}`' for name in sorted(failed))
    return f'{ready}`collector.success` 0 for {names}'
