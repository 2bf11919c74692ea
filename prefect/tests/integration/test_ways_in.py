"""Every way in that real servers use, each on a real server."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator
from datetime import timedelta
from email.utils import format_datetime, parsedate_to_datetime
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from datadog_checks.prefect import csrf
from lab.agent import CheckResult, CheckRunner
from lab.api import PrefectApiDriver
from lab.prefect_server import PrefectServer
from tests.integration.certificates import Authority
from tests.integration.front import Answer, Exchange, Front

# Not in Latin-1, and with what a URL would take for its own.
USER, PASSWORD = 'reader', 'pa:ss/wörd€'
IN_URL = 'reader:pa%3Ass%2Fw%C3%B6rd%E2%82%AC@'
SUCCESS = 'prefect.server.collector.success'
TOKEN = 'pnu_0123456789'
WORKSPACE = '/api/accounts/9a6f0000-0000-4000-8000-000000000001/workspaces/9a6f0000-0000-4000-8000-000000000002'


@pytest.fixture(scope='module')
def guarded_server() -> Iterator[PrefectServer]:
    """A server with credentials and CSRF protection, whose tokens live for three seconds."""
    settings = {
        'PREFECT_SERVER_API_AUTH_STRING': f'{USER}:{PASSWORD}',
        'PREFECT_SERVER_CSRF_PROTECTION_ENABLED': 'true',
        'PREFECT_SERVER_CSRF_TOKEN_EXPIRATION': 'PT3S',
    }
    with PrefectServer(settings=settings) as server:
        yield server


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def run(url: str, times: int = 2, **options: Any) -> CheckResult:
    check = CheckRunner({'prefect_url': url, **options})
    results = [check.run() for _ in range(times)]
    assert_good(*results)
    return results[-1]


def assert_good(*results: CheckResult) -> None:
    for result in results:
        assert result.error is None
        assert {point.value for point in result.points if point.name == SUCCESS} == {1}
        assert not result.log


def error_of(url: str, **options: Any) -> str:
    return CheckRunner({'prefect_url': url, **options}).run().error or ''


def test_without_credentials(prefect_server: PrefectServer) -> None:
    run(prefect_server.api_url)


@pytest.mark.parametrize(
    ('options', 'user_info'),
    [
        pytest.param({'username': USER, 'password': PASSWORD}, '', id='username and password'),
        pytest.param({'auth_string': f'{USER}:{PASSWORD}'}, '', id='auth_string'),
        pytest.param({}, IN_URL, id='user info of the URL'),
        pytest.param(
            {'extra_headers': {'Authorization': 'Basic ' + b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}},
            '',
            id='header',
        ),
    ],
)
def test_basic_authorization_and_csrf_protection(
    guarded_server: PrefectServer, options: dict[str, Any], user_info: str
) -> None:
    run(guarded_server.api_url.replace('//', f'//{user_info}'), **options)


def test_token_from_a_file_that_changes(guarded_server: PrefectServer, tmp_path: Path) -> None:
    path = tmp_path / 'token'
    path.write_text('wrong')
    options = {
        'reader': {'type': 'file', 'path': str(path)},
        'writer': {'type': 'header', 'name': 'Authorization', 'value': 'Basic <TOKEN>', 'placeholder': '<TOKEN>'},
    }
    check = CheckRunner({'prefect_url': guarded_server.api_url, 'auth_token': options})
    assert 'HTTP 401' in (check.run().error or '')
    path.write_text(b64encode(f'{USER}:{PASSWORD}'.encode()).decode())
    assert check.run().error is None


@pytest.mark.parametrize('options', [{}, {'auth_string': f'{USER}:wrong'}], ids=['none', 'wrong'])
def test_wrong_credentials_are_an_error_though_the_health_is_open(
    guarded_server: PrefectServer, options: dict[str, Any]
) -> None:
    assert 'GET /csrf-token: HTTP 401, not authorized. Check auth_string' in error_of(guarded_server.api_url, **options)


def test_csrf_token_is_fetched_once_and_renewed_before_it_expires_or_when_it_is_refused(
    guarded_server: PrefectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched, refused = f'GET {csrf.PATH}', []

    def watch(exchange: Exchange) -> None:
        answer = exchange.ask()
        if answer.status == 403:
            refused.append(exchange.endpoint)
        exchange.answer(answer.status, answer.content, answer.headers)

    with Front(guarded_server.api_url) as front:
        front.fault = watch
        check = CheckRunner({'prefect_url': front.url, 'auth_string': f'{USER}:{PASSWORD}'})
        assert_good(check.run())
        assert (front.requests.count(fetched), len(refused)) == (1, 1)

        # Before it expires.
        clock = csrf.time.monotonic
        with monkeypatch.context() as patch:
            patch.setattr(csrf.time, 'monotonic', lambda: clock() + 2.8)
            check_transport(check).budget.seconds = 300
            assert_good(check.run())
        assert (front.requests.count(fetched) > 1, len(refused)) == (True, 1)

        # Somebody else took the name of this client, which makes its token invalid.
        client = check_transport(check)._csrf.client
        with PrefectApiDriver(guarded_server.api_url) as api:
            api._session.auth = (USER.encode(), PASSWORD.encode())
            api.request('GET', f'csrf-token?client={client}')
        assert_good(check.run())
        assert len(refused) == 2


def check_transport(check: CheckRunner) -> Any:
    return check._check._transport


def test_bearer_token_and_further_headers(prefect_server: PrefectServer) -> None:
    def guard(exchange: Exchange) -> None:
        if exchange.headers['Authorization'] != f'Bearer {TOKEN}' or exchange.headers['X-Team'] != 'data':
            exchange.answer(401, b'{"detail": "Unauthorized"}')
        else:
            exchange.pass_on()

    with Front(prefect_server.api_url) as front:
        front.fault = guard
        run(front.url, extra_headers={'Authorization': f'Bearer {TOKEN}', 'X-Team': 'data'})
        assert 'HTTP 401, not authorized' in error_of(front.url, extra_headers={'Authorization': 'Bearer wrong'})


def test_url_of_prefect_cloud(prefect_server: PrefectServer) -> None:
    """What it lacks is answered with 404, its health is outside of the workspace."""

    def cloud(exchange: Exchange) -> None:
        if exchange.path == '/api/health':
            exchange.answer(200, b'true')
        elif exchange.headers['Authorization'] != f'Bearer {TOKEN}':
            exchange.answer(401, b'{"detail": "Unauthorized"}')
        elif exchange.endpoint in ('/health', '/ready', '/admin/version', '/csrf-token', '/flow_runs/paginate'):
            exchange.answer(404, b'{"detail": "Not Found"}')
        else:
            exchange.pass_on()

    with Front(prefect_server.api_url, path=WORKSPACE) as front:
        front.fault = cloud
        result = run(front.url, extra_headers={'Authorization': f'Bearer {TOKEN}'})
        values = {point.name: point.value for point in result.points}
        assert values['prefect.server.health'] == values['prefect.server.ready'] == 1


def test_private_authority(prefect_server: PrefectServer, authority: Authority) -> None:
    tls = authority.server_context(authority.issue('server'))
    with Front(prefect_server.api_url, tls=tls) as front:
        run(front.url, tls_ca_cert=str(authority.certificate))
        assert 'certificate verify failed' in error_of(front.url) or 'local issuer' in error_of(front.url)
        result = CheckRunner({'prefect_url': front.url, 'tls_verify': False}).run()
        assert result.error is None


def test_client_certificate(prefect_server: PrefectServer, authority: Authority) -> None:
    tls = authority.server_context(authority.issue('server'), demands_client=True)
    client = authority.issue('client')
    trusted = {'tls_ca_cert': str(authority.certificate)}
    with Front(prefect_server.api_url, tls=tls) as front:
        run(front.url, tls_cert=str(client), tls_private_key=str(client), **trusted)
        assert 'TLS with localhost' in error_of(front.url, **trusted)


@pytest.mark.parametrize('path', ['/prefect/api', ''], ids=['another path', 'no path'])
def test_proxy_that_rewrites_host_and_path(prefect_server: PrefectServer, authority: Authority, path: str) -> None:
    tls = authority.server_context(authority.issue('server'))
    with Front(prefect_server.api_url, tls=tls, path=path) as front:
        result = run(f'{front.url}/', tls_ca_cert=str(authority.certificate))
        assert {f'prefect_url:{front.url}'} == {tag for point in result.points for tag in point.tags if '_url:' in tag}


def test_two_replicas_whose_clocks_differ_by_a_second(prefect_server: PrefectServer) -> None:
    """Each run is counted once, whichever replica answers, and no age is negative."""
    skews = cycle([timedelta(seconds=-0.5), timedelta(seconds=0.5)])

    def replica(exchange: Exchange) -> None:
        answer: Answer = exchange.ask()
        date = parsedate_to_datetime(next(value for name, value in answer.headers.items() if name.lower() == 'date'))
        headers = {name: value for name, value in answer.headers.items() if name.lower() != 'date'}
        exchange.answer(answer.status, answer.content, headers | {'Date': format_datetime(date + next(skews) * 2)})

    with PrefectApiDriver(prefect_server.api_url) as api, Front(prefect_server.api_url) as front:
        front.fault = replica
        check = CheckRunner({'prefect_url': front.url})
        results = [check.run()]
        for _ in range(6):
            flow_run = api.request('POST', 'flow_runs/', {'flow_id': api.create_flow('replicas'), 'state': None})
            for state in ('RUNNING', 'COMPLETED'):
                api.set_flow_run_state(flow_run['id'], state, force=True)
            results.append(check.run())
    assert_good(*results)
    counts: dict[str, float] = {'completed.count': 0, 'throughput': 0}
    for point in (point for result in results for point in result.points):
        assert point.value >= 0
        name = point.name.removeprefix('prefect.server.flow_runs.')
        if name in counts and 'flow_name:replicas' in point.tags:
            counts[name] += point.value
    assert counts == {'completed.count': 6, 'throughput': 6}


def test_no_credentials_for_the_target_of_a_redirect(prefect_server: PrefectServer) -> None:
    with Front(prefect_server.api_url) as elsewhere, Front(prefect_server.api_url) as front:
        location = f'{elsewhere.url}/health?token=secret'
        front.fault = lambda exchange: exchange.answer(307, json.dumps({}).encode(), {'Location': location})
        error = error_of(front.url, auth_string=f'{USER}:{PASSWORD}')
        assert f'redirected to {elsewhere.url}/health. Not followed.' in error
        assert elsewhere.requests == []
