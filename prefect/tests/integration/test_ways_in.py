"""Every way in that real servers use, each on a real server."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from datadog_checks.prefect.api import csrf
from datadog_checks.prefect.api.times import parse_time
from lab.agent import CheckResult, CheckRunner
from lab.api import PrefectApiDriver
from lab.fault_proxy import Exchange, Front
from lab.postgres import PostgresServer
from lab.prefect_server import PrefectServer
from lab.replica import replica_behind
from lab.waiting import wait_until
from tests.integration.certificates import Authority

# With what a URL would take for its own. (To credentials beyond ASCII the server itself answers 500, 3.8.8.)
USER, PASSWORD = 'reader', 'pa:ss/w@rd#%'
AUTH_STRING = f'{USER}:{PASSWORD}'
IN_URL = 'reader:pa%3Ass%2Fw%40rd%23%25@'
BASIC = 'Basic ' + b64encode(AUTH_STRING.encode()).decode()
SUCCESS = 'prefect.server.collector.success'
TOKEN = 'pnu_0123456789'
WORKSPACE = '/api/accounts/9a6f0000-0000-4000-8000-000000000001/workspaces/9a6f0000-0000-4000-8000-000000000002'
# A busy machine is no fault of the way in.
TIMEOUT = 60
HOUR = 3600

# What the second replica is started with: its clock is a second ahead.
AHEAD = r"""
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *now) {
    long result = syscall(SYS_clock_gettime, clock, now);
    now->tv_sec += clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE;
    return (int) result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec spec;
    clock_gettime(CLOCK_REALTIME, &spec);
    *now = (struct timeval){spec.tv_sec, spec.tv_nsec / 1000};
    return 0;
}

time_t time(time_t *now) {
    struct timespec spec;
    clock_gettime(CLOCK_REALTIME, &spec);
    return now ? (*now = spec.tv_sec) : spec.tv_sec;
}
"""


@pytest.fixture(scope='module')
def guarded_server() -> Iterator[PrefectServer]:
    """A server with credentials and CSRF protection, whose tokens live for an hour.

    It writes a token down before it gives it away, and answers 503 if another write is in the way of SQLite: without
    its background services, nothing else writes.
    """
    settings = {'PREFECT_SERVER_API_AUTH_STRING': AUTH_STRING, 'PREFECT_SERVER_CSRF_PROTECTION_ENABLED': 'true'}
    with PrefectServer(settings=settings, with_services=False) as server:
        yield server


@pytest.fixture
def replica(prefect_server: PrefectServer, tmp_path: Path) -> Iterator[PrefectServer]:
    """Another server on the database of the first, with a clock that is a second ahead."""
    compiler = shutil.which('cc')
    if compiler is None or sys.platform != 'linux':
        pytest.skip('the clock of the second replica is set with a library that a C compiler on Linux makes')
    source, library = tmp_path / 'ahead.c', tmp_path / 'ahead.so'
    source.write_text(AHEAD)
    subprocess.run([compiler, '-O1', '-shared', '-fPIC', '-o', library, source], check=True)
    database_url = f'sqlite+aiosqlite:///{prefect_server.folder}/prefect.db'
    with PrefectServer(settings={'LD_PRELOAD': str(library)}, database_url=database_url) as server:
        yield server


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def new_check(url: str, **options: Any) -> CheckRunner:
    return CheckRunner({'prefect_url': url, 'timeout': TIMEOUT, **options})


def good_run(check: CheckRunner) -> CheckResult:
    """A run in which every collector succeeds and nothing is said."""
    result = check.run()
    assert result.error is None
    assert {point.value for point in result.points if point.name == SUCCESS} == {1}
    assert (result.log, result.warnings) == ((), ())
    return result


def good_runs(url: str, **options: Any) -> CheckResult:
    """The second of two runs of a new check: on connections, tokens and a state that it has already."""
    check = new_check(url, **options)
    good_run(check)
    result = good_run(check)
    check.cancel()
    return result


def error_of(url: str, **options: Any) -> str:
    check = new_check(url, **options)
    error = check.run().error or ''
    check.cancel()
    return error


def test_without_credentials(prefect_server: PrefectServer) -> None:
    result = good_runs(prefect_server.api_url)
    assert {f'prefect_url:{prefect_server.url}'} == urls(result)


def urls(result: CheckResult) -> set[str]:
    return {tag for point in result.points for tag in point.tags if tag.startswith('prefect_url:')}


@pytest.mark.parametrize(
    ('options', 'user_info'),
    [
        pytest.param({'username': USER, 'password': PASSWORD}, '', id='username and password'),
        pytest.param({'auth_string': AUTH_STRING}, '', id='auth_string'),
        pytest.param({}, IN_URL, id='user info of the URL'),
        pytest.param({'extra_headers': {'Authorization': BASIC}}, '', id='header'),
        pytest.param({'auth_string': AUTH_STRING}, 'another:user@', id='auth_string wins over the user info'),
    ],
)
def test_basic_authorization_and_csrf_protection(
    guarded_server: PrefectServer, options: dict[str, Any], user_info: str
) -> None:
    result = good_runs(guarded_server.api_url.replace('//', f'//{user_info}'), **options)
    assert {f'prefect_url:{guarded_server.url}'} == urls(result)


def test_token_from_a_file_that_changes(guarded_server: PrefectServer, tmp_path: Path) -> None:
    path = tmp_path / 'token'
    path.write_text('wrong')
    options = {
        'reader': {'type': 'file', 'path': str(path)},
        'writer': {'type': 'header', 'name': 'Authorization', 'value': 'Basic <TOKEN>', 'placeholder': '<TOKEN>'},
    }
    check = new_check(guarded_server.api_url, auth_token=options)
    assert 'HTTP 401, not authorized' in (check.run().error or '')
    path.write_text(BASIC.removeprefix('Basic '))
    good_run(check)


@pytest.mark.parametrize('options', [{}, {'auth_string': f'{USER}:wrong'}], ids=['none', 'wrong'])
def test_wrong_credentials_are_an_error_though_the_health_is_open(
    guarded_server: PrefectServer, options: dict[str, Any]
) -> None:
    result = new_check(guarded_server.api_url, **options).run()
    assert 'GET /csrf-token: HTTP 401, not authorized. Check auth_string' in (result.error or '')
    assert [point.value for point in result.points if point.name == 'prefect.server.health'] == [1]


def test_csrf_token_is_fetched_once_and_renewed_before_it_expires_or_when_it_is_refused(
    guarded_server: PrefectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients: list[str] = []
    refused: list[str] = []

    def watch(exchange: Exchange) -> None:
        answer = exchange.ask()
        if exchange.endpoint == csrf.PATH and answer.status == 200:
            clients.extend(parse_qs(urlsplit(exchange.path).query)['client'])
        if answer.status == 403:
            refused.append(exchange.endpoint)
        exchange.answer(answer.status, answer.content, answer.headers)

    with Front(guarded_server.api_url) as front:
        front.fault = watch
        check = new_check(front.url, auth_string=AUTH_STRING)
        good_run(check)
        good_run(check)
        assert (len(clients), len(refused)) == (1, 1)

        # Before it expires: an hour has nearly passed.
        with monkeypatch.context() as patch:
            patch.setattr(csrf, 'time', SimpleNamespace(monotonic=lambda: time.monotonic() + 0.95 * HOUR))
            good_run(check)
            good_run(check)
        assert (len(clients), len(refused)) == (2, 1)

        # When it is refused: somebody else took the name of this client, which makes its token invalid.
        with PrefectApiDriver(guarded_server.api_url) as api:
            api._session.auth = (USER, PASSWORD)
            api.request('GET', f'csrf-token?client={clients[0]}')
        good_run(check)
        assert (len(clients), len(refused), len(set(clients))) == (3, 2, 1)


def test_bearer_token_and_further_headers(prefect_server: PrefectServer) -> None:
    def guard(exchange: Exchange) -> None:
        if exchange.headers['Authorization'] != f'Bearer {TOKEN}' or exchange.headers['X-Team'] != 'data':
            exchange.answer(401, b'{"detail": "Unauthorized"}')
        else:
            exchange.pass_on()

    with Front(prefect_server.api_url) as front:
        front.fault = guard
        good_runs(front.url, extra_headers={'Authorization': f'Bearer {TOKEN}', 'X-Team': 'data'})
        assert 'HTTP 401, not authorized' in error_of(front.url, extra_headers={'Authorization': 'Bearer wrong'})


def test_url_of_prefect_cloud(prefect_server: PrefectServer) -> None:
    """What it lacks is answered with 404, its health is outside of the workspace."""
    lacking = ('/health', '/ready', '/admin/version', '/csrf-token', '/flow_runs/paginate')

    def cloud(exchange: Exchange) -> None:
        if exchange.path == '/api/health':
            exchange.answer(200, b'true')
        elif exchange.headers['Authorization'] != f'Bearer {TOKEN}':
            exchange.answer(401, b'{"detail": "Unauthorized"}')
        elif exchange.endpoint in lacking:
            exchange.answer(404, b'{"detail": "Not Found"}')
        else:
            exchange.pass_on()

    with Front(prefect_server.api_url, path=WORKSPACE) as front:
        front.fault = cloud
        result = good_runs(front.url, extra_headers={'Authorization': f'Bearer {TOKEN}'})
        values = {point.name: point.value for point in result.points}
        assert values['prefect.server.health'] == values['prefect.server.ready'] == 1
        assert {'GET /ready', 'GET /admin/version', 'POST /flow_runs/paginate'} <= set(front.requests)
        assert result.metadata == {}
        assert 'HTTP 401, not authorized' in error_of(front.url)


@pytest.mark.filterwarnings('ignore::urllib3.exceptions.InsecureRequestWarning')
def test_private_authority(prefect_server: PrefectServer, authority: Authority) -> None:
    tls = authority.server_context(authority.issue('server'))
    with Front(prefect_server.api_url, tls=tls) as front:
        good_runs(front.url, tls_ca_cert=str(authority.certificate))
        assert 'unable to get local issuer certificate. Check tls_verify, tls_ca_cert' in error_of(front.url)
        good_runs(front.url, tls_verify=False, tls_ignore_warning=True)


def test_client_certificate(prefect_server: PrefectServer, authority: Authority) -> None:
    tls = authority.server_context(authority.issue('server'), demands_client=True)
    client = authority.issue('client')
    trusted = {'tls_ca_cert': str(authority.certificate)}
    with Front(prefect_server.api_url, tls=tls) as front:
        good_runs(front.url, tls_cert=str(client), tls_private_key=str(client), **trusted)
        good_runs(front.url, tls_cert=str(client), **trusted)
        assert 'TLS with localhost' in error_of(front.url, **trusted)


@pytest.mark.parametrize('path', ['/prefect/api', ''], ids=['another path', 'no path'])
def test_reverse_proxy_that_rewrites_host_and_path(
    prefect_server: PrefectServer, authority: Authority, path: str
) -> None:
    tls = authority.server_context(authority.issue('server'))
    with Front(prefect_server.api_url, tls=tls, path=path) as front:
        result = good_runs(f'{front.url}/', tls_ca_cert=str(authority.certificate))
        assert {f'prefect_url:{front.url.removesuffix("/api")}'} == urls(result)


def test_http_proxy_that_asks_for_credentials(prefect_server: PrefectServer) -> None:
    def proxy(exchange: Exchange) -> None:
        if exchange.headers['Proxy-Authorization'] != BASIC:
            exchange.answer(407)
        else:
            exchange.pass_on()

    # To a proxy the whole URL is sent.
    with Front(prefect_server.api_url, path=prefect_server.api_url) as front:
        front.fault = proxy
        address = f'127.0.0.1:{front.port}'
        result = good_runs(prefect_server.api_url, proxy={'http': f'http://{IN_URL}{address}'})
        assert {f'prefect_url:{prefect_server.url}'} == urls(result)
        assert front.requests
        error = error_of(prefect_server.api_url, proxy={'http': f'http://{address}'})
        assert 'GET /health: HTTP 407' in error


def test_two_replicas_whose_clocks_differ_by_a_second(prefect_server: PrefectServer, replica: PrefectServer) -> None:
    """Each run is counted once, whichever replica answers and whichever wrote a state, and no age is negative."""
    with (
        PrefectApiDriver(prefect_server.api_url) as one,
        PrefectApiDriver(replica.api_url) as other,
        Front(prefect_server.api_url, replicas=[replica.api_url]) as front,
    ):
        assert ahead(one, other) == pytest.approx(1, abs=0.9)
        assert_each_run_counts_once(front, [one, other], other)


@pytest.mark.postgresql
def test_replica_that_is_a_second_behind(cluster: PostgresServer) -> None:
    """Each run is counted once, although a request may not see what the one before it saw."""
    with (
        PrefectServer(database_url=cluster.url, with_services=False) as server,
        replica_behind(cluster, 1) as replica,
        PrefectApiDriver(server.api_url) as api,
        PrefectApiDriver(replica.api_url) as reader,
        Front(server.api_url, replicas=[replica.api_url]) as front,
    ):
        assert_each_run_counts_once(front, [api], reader)
        assert reader.count_flow_runs() == api.count_flow_runs()
        api.complete_flow_run(api.create_flow('behind'))
        assert reader.count_flow_runs() < api.count_flow_runs()


@pytest.mark.postgresql
def test_work_queues_of_one_name_on_several_pages(cluster: PostgresServer) -> None:
    """PostgreSQL sorts every page anew, so some queues show on none. The check remembers them from the time before."""
    settings = {'PREFECT_SERVER_API_DEFAULT_LIMIT': '20'}
    with (
        PrefectServer(settings=settings, database_url=cluster.url, with_services=False) as server,
        PrefectApiDriver(server.api_url) as api,
        Front(server.api_url) as front,
    ):
        names = {f'pool-{number:03}' for number in range(100)}
        for name in sorted(names):
            api.create_work_pool(name)
        check = new_check(front.url)
        for _ in range(5):
            good_run(check)
        front.requests.clear()
        queues = [point for point in good_run(check).points if point.name == 'prefect.server.work_queue.is_paused']
        assert len(queues) == len(names)
        # Six pages, of which the last is empty. Those that are missing are asked for by id, twenty in a request.
        assert front.requests.count('POST /work_queues/filter') <= 6 + 5


def assert_each_run_counts_once(front: Front, writers: Sequence[PrefectApiDriver], reader: PrefectApiDriver) -> None:
    """Play runs that begin and end between checks. `reader` asks the replica that sees them last."""
    check = new_check(front.url)
    flow_id, in_turn = writers[0].create_flow('replicas'), cycle(writers)
    mine = {'flows': {'id': {'any_': [flow_id]}}}
    wait_until(lambda: reader.read_all('flows/filter', mine), 'the replica to show the flow')
    points = list(good_run(check).points)
    for _ in range(7):
        flow_run = next(in_turn).request('POST', 'flow_runs/', {'flow_id': flow_id, 'state': None})
        for state in ('RUNNING', 'COMPLETED'):
            next(in_turn).set_flow_run_state(flow_run['id'], state, force=True)
        points += good_run(check).points
    ended = mine | {'flow_runs': {'state': {'type': {'any_': ['COMPLETED']}}}}
    wait_until(lambda: reader.count_flow_runs(**ended) == 7, 'the replica to show all runs')
    # The last ones are visible, and nothing comes twice while the overlap is read again.
    for _ in range(3):
        points += good_run(check).points
    assert min(point.value for point in points) >= 0
    for name in ('completed.count', 'throughput', 'execution_duration.count', 'queue_wait_duration.count'):
        series = [point for point in points if point.name == f'prefect.server.flow_runs.{name}']
        assert sum(point.value for point in series if 'flow_name:replicas' in point.tags) == 7, name


def test_no_credentials_for_the_target_of_a_redirect(prefect_server: PrefectServer) -> None:
    with Front(prefect_server.api_url) as elsewhere, Front(prefect_server.api_url) as front:
        location = f'{elsewhere.url}/health?token=secret'
        front.fault = lambda exchange: exchange.answer(307, json.dumps({}).encode(), {'Location': location})
        error = error_of(front.url, auth_string=AUTH_STRING)
        assert f'redirected to {elsewhere.url}/health. Not followed.' in error
        assert elsewhere.requests == []


def ahead(one: PrefectApiDriver, other: PrefectApiDriver) -> float:
    """By how many seconds the clock of the other server is ahead, as the states that it writes tell."""
    flow_id = one.create_flow('clocks')
    times = []
    for driver in (one, other):
        flow_run = driver.request('POST', 'flow_runs/', {'flow_id': flow_id, 'state': {'type': 'SCHEDULED'}})
        times.append(flow_run['state']['timestamp'])
    return (parse_time(times[1]) - parse_time(times[0])).total_seconds()
