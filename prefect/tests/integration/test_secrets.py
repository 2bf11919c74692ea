"""No secret leaves the check but in the request that needs it.

Each option that can hold one gets a marker. Then checks are good, refused, without an answer or without TLS, on a real
server, and all that the check says is searched: logs of every level, errors with tracebacks, tags, events, metadata,
what is persisted. (`test_failures.py` searches the same after each of its faults.)
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from datadog_checks.base.stubs import datadog_agent
from lab.agent import CheckRunner
from lab.fault_proxy import Exchange, Fault, Front
from lab.prefect_server import PrefectServer
from tests.integration.certificates import Authority
from tests.integration.leaks import leaks, listening

PEM = '-----BEGIN PRIVATE KEY-----\nsesame\n-----END PRIVATE KEY-----\n'
WRITER = {'type': 'header', 'name': 'Authorization', 'value': 'Bearer <TOKEN>', 'placeholder': '<TOKEN>'}
SECRETS = {'a marker': 'sesame', 'the marker in an Authorization header': b64encode(b'bob:sesame').decode()}

Options = Callable[['Place'], dict[str, Any]]


class Place:
    """A server with a front for http and one for https, and files with secrets."""

    def __init__(self, http: Front, https: Front, authority: Authority, folder: Path) -> None:
        self.http = http
        self.https = https
        self.authority = authority
        self.certificate = str(authority.issue('client'))
        self.token, self.key = folder / 'token', folder / 'key.pem'
        self.token.write_text('sesame')
        self.key.write_text(PEM)

    def reader(self, **options: str) -> dict[str, Any]:
        return {'reader': {'type': 'file', 'path': str(self.token), **options}, 'writer': WRITER}

    def oauth(self, **options: Any) -> dict[str, Any]:
        """A token from the front for https, which is nobody's else."""
        reader = {'type': 'oauth', 'url': self.https.url + '/token', 'client_id': 'bob', 'client_secret': 'sesame'}
        trusted = {'options': {'verify': str(self.authority.certificate)}}
        return {'auth_token': {'reader': {**reader, **trusted, **options}, 'writer': WRITER}}


def gives_tokens(exchange: Exchange) -> None:
    if exchange.endpoint == '/token':
        exchange.answer(200, json.dumps({'access_token': 'sesame', 'token_type': 'Bearer'}).encode())
    else:
        exchange.pass_on()


def refuses(exchange: Exchange) -> None:
    exchange.answer(401, b'{"detail": "Unauthorized"}')


def is_lost(exchange: Exchange) -> None:
    exchange.close(reset=True)


def fails_in_the_middle(exchange: Exchange) -> None:
    if exchange.command == 'POST':
        exchange.answer(500, b'<html>')
    else:
        exchange.pass_on()


# What is answered to a check, and whether its error tells of it.
FAULTS: dict[str, tuple[Fault, str]] = {
    'good': (gives_tokens, ''),
    'refused': (refuses, 'HTTP 401'),
    'lost': (is_lost, 'no connection'),
    'failed': (fails_in_the_middle, 'HTTP 500'),
}
WAYS: dict[str, Options] = {
    'password': lambda place: {'username': 'bob', 'password': 'sesame'},
    'auth_string': lambda place: {'auth_string': 'bob:sesame'},
    'digest': lambda place: {'auth_type': 'digest', 'username': 'bob', 'password': 'sesame'},
    'user info of the URL': lambda place: {'prefect_url': place.http.url.replace('//', '//bob:sesame@')},
    'headers': lambda place: {'headers': {'Authorization': 'Bearer sesame'}, 'log_requests': True},
    'extra_headers': lambda place: {'extra_headers': {'Authorization': 'Bearer sesame'}},
    'proxy': lambda place: {'proxy': {'http': f'http://bob:sesame@127.0.0.1:{place.http.port}'}},
    'auth_token from a file': lambda place: {'auth_token': place.reader()},
    'tls_private_key': lambda place: {'tls_cert': place.certificate, 'tls_private_key': place.certificate},
    'unknown options': lambda place: {'pasword': 'sesame', 'sekret': {'token': 'sesame'}},
}
# What cannot work, and what is said of it.
WRONG: dict[str, tuple[Options, str]] = {
    'auth_string': (lambda place: {'auth_string': 'sesame'}, 'auth_string\n  must be a user name and a password'),
    'password without a user': (lambda place: {'password': 'sesame'}, '`username` and `password` must be set both'),
    'URL': (lambda place: {'prefect_url': 'http://bob:sesame/x@localhost/api'}, 'has no valid host and port'),
    'URL with a query': (lambda place: {'prefect_url': f'{place.http.url}?key=sesame'}, 'without `?` and `#`'),
    'header beyond Latin-1': (
        lambda place: {'extra_headers': {'Authorization': 'Bearer sesame\u20ac'}},
        'GET /health: the request could not be made: a header has a character beyond Latin-1. Check extra_headers',
    ),
    'header with a line break': (
        lambda place: {'headers': {'Authorization': 'Bearer sesame\nsesame'}},
        'GET /health: the request could not be made: a header is not valid. Check headers and extra_headers',
    ),
    'proxy without a port': (
        lambda place: {'proxy': {'http': 'http://bob:sesame@127.0.0.1:x'}},
        '`proxy.http` has no valid scheme, host and port',
    ),
    'proxy of another kind': (
        lambda place: {'proxy': {'http': 'socks9://bob:sesame@127.0.0.1:9'}},
        'GET /health: the request could not be made: InvalidSchema. Check prefect_url and proxy',
    ),
    'proxy that is away': (
        lambda place: {'proxy': {'http': 'http://bob:sesame@127.0.0.1:9'}},
        'GET /health: the HTTP proxy gave no connection. Check proxy and skip_proxy',
    ),
    'a file without a token': (
        lambda place: {'auth_token': place.reader(pattern='nothing(.*)')},
        'GET /health: the request could not be made: ValueError. Check the files of auth_token',
    ),
    'no file for the token': (
        lambda place: {'auth_token': place.reader(path='/nowhere')},
        'GET /health: the request could not be made: No such file or directory (/nowhere). Check the files of auth',
    ),
    'a token from nowhere': (
        lambda place: place.oauth(url='https://127.0.0.1:9/token'),
        'GET /health: no connection to 127.0.0.1',
    ),
    'a key that is none': (
        lambda place: {
            'prefect_url': place.https.url,
            'tls_cert': place.certificate,
            'tls_private_key': str(place.key),
            'tls_private_key_password': 'sesame',
        },
        'GET /health: the request could not be made: [SSL] PEM lib. Check the files of auth_token',
    ),
    'a key instead of its path': (
        lambda place: {'tls_cert': place.certificate, 'tls_private_key': PEM},
        'tls_private_key\n  must be the path of a file and not what is in it',
    ),
    'an authority that is not known': (
        lambda place: {'prefect_url': place.https.url.replace('//', '//bob:sesame@')},
        'TLS with localhost',
    ),
    'kerberos': (
        lambda place: (
            {'auth_type': 'kerberos', 'kerberos_auth': 'required', 'kerberos_principal': 'sesame'}
            | {'kerberos_hostname': 'sesame', 'kerberos_keytab': str(place.token), 'kerberos_cache': 'sesame'}
        ),
        "No module named 'requests_kerberos'",
    ),
    'ntlm': (
        lambda place: {'auth_type': 'ntlm', 'ntlm_domain': 'x\\bob', 'username': 'bob', 'password': 'sesame'},
        "No module named 'requests_ntlm'",
    ),
    'texts for mappings': (
        lambda place: dict.fromkeys(('headers', 'extra_headers', 'proxy', 'auth_token'), 'sesame'),
        'headers\n  must be a mapping',
    ),
    'lists for texts': (
        lambda place: {key: ['sesame'] for key in ('password', 'username', 'tls_private_key', 'kerberos_keytab')},
        'password\n  must be a text',
    ),
    'wrong values in mappings': (
        lambda place: {'proxy': {'http': ['sesame']}, 'auth_token': {'reader': 'sesame', 'writer': ['sesame']}},
        'proxy\n  `proxy.http` has no valid scheme',
    ),
}


@pytest.fixture
def place(prefect_server: PrefectServer, tmp_path: Path) -> Iterator[Place]:
    authority = Authority(tmp_path)
    tls = authority.server_context(authority.issue('server'))
    with Front(prefect_server.api_url) as http, Front(prefect_server.api_url, tls=tls) as https:
        yield Place(http, https, authority, tmp_path)


@pytest.mark.parametrize('fault', FAULTS)
@pytest.mark.parametrize('way', WAYS)
def test_no_secret_is_said_of_a_check(place: Place, way: str, fault: str) -> None:
    options = {'prefect_url': place.http.url, 'tags': ['team:data'], **WAYS[way](place)}
    if way == 'proxy':
        # To a proxy the whole URL is sent.
        place.http.path = place.http.url
    place.http.fault, message = FAULTS[fault]
    assert_nothing_is_said(options, message)


@pytest.mark.parametrize('case', WRONG)
def test_no_secret_is_said_of_a_wrong_option(place: Place, case: str) -> None:
    options, message = WRONG[case]
    assert_nothing_is_said({'prefect_url': place.http.url, **options(place)}, message)


@pytest.mark.parametrize('options', [{}, {'basic_auth': True}], ids=['in the body', 'in a header'])
def test_no_secret_is_said_of_a_token_that_is_asked_for(place: Place, options: dict[str, Any]) -> None:
    """The library that asks for it logs the secret, the token and the headers at DEBUG."""
    seen: list[str] = []

    def watch(exchange: Exchange) -> None:
        seen.append(exchange.headers['Authorization'] or '')
        exchange.pass_on()

    place.https.fault, place.http.fault = gives_tokens, watch
    assert_nothing_is_said({'prefect_url': place.http.url, **place.oauth(**options)}, '')
    assert set(seen) == {'Bearer sesame'}


def assert_nothing_is_said(options: dict[str, Any], message: str) -> None:
    datadog_agent.reset()
    with listening() as log:
        check = CheckRunner(options)
        results = [check.run(), check.run()]
    for result in results:
        assert bool(result.error) is bool(message)
        assert message in (result.error or '')
        assert leaks(SECRETS, result, log) == []
    # Something was searched.
    assert any(line.startswith('urllib3') for line in log) or message
