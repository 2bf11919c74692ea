"""What a hostile server costs, and what of its words passes: each attack meets a process that runs only the check.

The bounds are those of SECURITY.md. `UPDATE_FAILURES=1 pytest` writes docs/hostile-server.md anew.
"""

from __future__ import annotations

import json
import os
import re
import ssl
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from lab.prefect_server import ROOT
from tests.hostile import wire
from tests.hostile.attacks import ATTACKS, POOLS, at, endless_pages, pool
from tests.hostile.server import Attack, Connection, HostileServer, Request
from tests.integration.error_texts import shown

from .certificates import Authority

DOCUMENT = ROOT / 'docs' / 'hostile-server.md'
TIMEOUT = 1.0
WIRE_TIMEOUT = 0.4
MEGABYTES = 256
# What a busy machine adds to three time-outs.
SLACK = 3.0
# A thread that has nothing to do ends after two seconds, those of a busy machine later.
LEFT = 10.0
DIGEST = {'auth_type': 'digest', 'username': 'bob', 'password': 'open-sesame'}
OPTIONS: dict[str, dict[str, Any]] = {'body of a 401': DIGEST, 'objects as events': {'collect_events': True}}
# The first check has nothing to compare.
RUNS = {'counts that make no sense': 3}
# An answer that is refused before it can be read: its socket stayed open until garbage was collected.
TWO_LENGTHS = wire.Answer(
    path='/admin/version',
    status_line=b'HTTP/1.1 200 OK',
    headers=(b'Content-Length: -1', b'Content-Length: -1'),
    body=b'true',
    framing='length',
    ending='reset',
)
ROWS: dict[str, str] = {}


@dataclass(frozen=True)
class Cost:
    """What the check did: the keys of `only_the_check`, and the requests that the server got."""

    megabytes: float
    seconds: float
    cpu: float
    wall: float
    cpu_afterwards: float
    threads: int
    sockets: int
    errors: list[str]
    log: list[str]
    values: dict[str, list[tuple[float, list[str]]]]
    events: list[dict[str, Any]]
    state: str
    requests: list[Request]

    def tags(self, key: str) -> set[str]:
        """All values of a tag."""
        tags = {tag for rows in self.values.values() for _, tags in rows for tag in tags}
        return {tag.partition(':')[2] for tag in tags if tag.startswith(f'{key}:')}

    def said(self) -> str:
        """All that leaves the check."""
        return json.dumps(
            [self.errors, self.log, self.values, self.events, self.state], ensure_ascii=False, default=str
        )


@cache
def checks() -> subprocess.Popen[str]:
    """A process that has one check after the other made, each in a process of its own."""
    return subprocess.Popen(
        [sys.executable, '-m', 'tests.hostile.only_the_check'],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope='module', autouse=True)
def _no_more_checks() -> Iterator[None]:
    # At its end the process is given no more lines, and is waited for.
    with checks():
        yield
    checks.cache_clear()


def cost_of(
    attack: Attack,
    *,
    runs: int = 1,
    wait: float = 0,
    environment: Mapping[str, str] | None = None,
    context: ssl.SSLContext | None = None,
    **options: Any,
) -> Cost:
    """Of so many checks; `wait` is how many seconds later threads and sockets are counted at the latest."""
    process = checks()
    assert process.stdin is not None
    assert process.stdout is not None
    with HostileServer(attack, context=context) as server:
        instance = {'prefect_url': server.url, **options}
        process.stdin.write(json.dumps([instance, runs, wait, dict(environment or {})]) + '\n')
        process.stdin.flush()
        cost = json.loads(process.stdout.readline())
        assert 'ended' not in cost, cost
        return Cost(**cost, requests=server.requests)


# A smaller example would take minutes to find: each waits for what is left behind.
@settings(
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)
@example(answer=TWO_LENGTHS, way=DIGEST)
@given(answer=wire.ANSWERS, way=st.sampled_from([{'auth_string': f'bob:{wire.SECRET}'}, DIGEST]))
def test_arbitrary_bytes_cost_no_more(answer: wire.Answer, way: dict[str, Any]) -> None:
    secret = way.get('password', wire.SECRET)
    cost = cost_of(answer, wait=LEFT, timeout=WIRE_TIMEOUT, collect_events=True, **way)
    assert cost.megabytes < MEGABYTES
    assert cost.seconds < 3 * WIRE_TIMEOUT + SLACK
    assert cost.threads == 1
    assert cost.sockets <= 1
    assert cost.cpu_afterwards < 0.2
    assert not [line for line in [*cost.errors, *cost.log] if re.search('Traceback|unexpected error|a defect', line)]
    loud = [line for line in cost.log if not line.startswith('DEBUG')]
    assert not re.search('[\x00-\x1f\x7f-\x9f]', ''.join([*cost.errors, *loud]))
    assert secret not in cost.said()


@pytest.mark.parametrize('name', ATTACKS)
def test_cost_is_bounded(name: str) -> None:
    options = {'timeout': TIMEOUT, **OPTIONS.get(name, {})}
    cost = cost_of(ATTACKS[name], runs=RUNS.get(name, 1), wait=LEFT, **options)
    ROWS[name] = f'| {name} | {shown(anonymous(cost.errors[-1]))} |'
    assert cost.megabytes < MEGABYTES
    assert cost.seconds < 3 * TIMEOUT + SLACK
    assert cost.threads == 1
    # A connection that is kept for the next check.
    assert cost.sockets <= 1
    assert cost.cpu_afterwards < 0.2
    assert len(cost.requests) <= 2000 * len(cost.errors)
    assert all(len(error) < 2500 for error in cost.errors)
    assert not any('Traceback' in line or 'unexpected error' in line for line in [*cost.errors, *cost.log])


def test_document_names_every_attack() -> None:
    if set(ROWS) != set(ATTACKS):
        pytest.skip('not every attack was tested')
    if os.environ.get('UPDATE_FAILURES'):
        DOCUMENT.write_text(INTRODUCTION + '\n'.join([HEAD, *(ROWS[name] for name in ATTACKS)]) + '\n')
    written = DOCUMENT.read_text()
    # How far a check comes depends on the machine, so a row is only held to its attack.
    assert written.startswith(INTRODUCTION), 'UPDATE_FAILURES=1 pytest writes docs/hostile-server.md anew'
    names = [row.split(' | ')[0].removeprefix('| ') for row in written.splitlines()[-len(ATTACKS) :]]
    assert names == list(ATTACKS)


HEAD = '| The answer | The error of the check |\n|---|---|'
INTRODUCTION = f"""# A hostile server

`prefect/tests/integration/test_hostile_server.py` wrote this page. A server of raw sockets gives each of these answers
to a process that runs only the check. In every case the process takes at most {MEGABYTES} MB more memory than the idle
check, and the check ends within three timeouts. One timeout later no thread is left, and at most one connection, which
is kept for the next check.

The error is the line that `datadog-agent status` shows with a timeout of {TIMEOUT:g} s. `HOST:PORT` is the address of
`prefect_url`, and `N` and `M` are numbers that differ from run to run. A long list of collectors is cut here ("and
others"). Where the error is "none", the check left out what it could not read.

A fuzz test also sends random bytes: status lines, headers, encodings, compression, chunks, and every way in which an
answer can end (`prefect/tests/hostile/wire.py`). `make test-all` tries more of them, different ones each time.

"""


def anonymous(message: str) -> str:
    """The message without what differs from one run of the tests to the next."""
    message = re.sub(r'127\.0\.0\.1:\d+', 'HOST:PORT', message)
    message = re.sub(r'\d+(\.\d+)? s\)', 'N s)', message)
    return re.sub(r'[\d,]+ (objects|of them|requests)', r'N \1', message)


SECRET = 'open/sesame+7'
PAIR = f'bob:{SECRET}'
FORMS = {
    'plain': SECRET,
    'base64': b64encode(SECRET.encode()).decode(),
    'the Authorization header': b64encode(PAIR.encode()).decode(),
    'quoted': quote(SECRET, safe=''),
    'quoted, small letters': quote(SECRET, safe='').lower(),
    'JSON of PHP': SECRET.replace('/', '\\/'),
}
WAYS: dict[str, dict[str, Any]] = {
    'auth_string': {'auth_string': PAIR},
    'username and password': {'username': 'bob', 'password': SECRET},
    'extra_headers': {
        'extra_headers': {'X-Key': SECRET, 'Authorization': 'Basic ' + b64encode(PAIR.encode()).decode()}
    },
}


class TestWords:
    """What the server says in an error, a header, a name or an event."""

    def echo(self, text: str) -> Attack:
        def attack(connection: Connection, request: Request) -> bool:
            path = request.path
            if path == POOLS:
                connection.answer(200, json.dumps([pool(f'{text} {index}') for index in range(2)]).encode())
            elif path == '/work_queues/filter':
                connection.answer(500, json.dumps({'detail': f'no {text}'}).encode(), f'Retry-After: {text}')
            elif path == '/deployments/filter':
                connection.answer(302, b'', f'Location: /x/{text}?y={text}')
            elif path == '/concurrency_limits/filter':
                connection.write(
                    b'HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Type: ' + text.encode() + b'\r\n\r\n{'
                )
            elif path == '/admin/version':
                connection.answer(200, json.dumps(text).encode())
            elif path == '/ready':
                # A header without a colon.
                connection.write(b'HTTP/1.1 200 OK\r\n' + text.encode() + b'\r\nContent-Length: 4\r\n\r\ntrue')
            else:
                return False
            return True

        return attack

    @pytest.mark.parametrize('way', WAYS)
    def test_our_own_secrets_are_masked(self, way: str) -> None:
        cost = cost_of(self.echo(' '.join(FORMS.values())), timeout=3, **WAYS[way])
        said = cost.said()
        assert '(the server says: no ***' in cost.errors[0]
        assert '***' in str(cost.tags('work_pool_name'))
        assert [form for form, text in FORMS.items() if text in said] == []

    def test_control_characters_become_blanks(self) -> None:
        text = 'a\x1b[31m\x07\x9b\x7fb'
        cost = cost_of(self.echo(text.replace('\x9b', '\u009b')), timeout=3)
        assert '(the server says: no a [31m b)' in cost.errors[0]
        assert not re.search(
            '[\x00-\x1f\x7f-\x9f]', ''.join([*cost.errors, *(line for line in cost.log if 'DEBUG' not in line)])
        )
        assert cost.tags('work_pool_name') == {f'a [31m   b {index}' for index in range(2)}

    def test_errors_are_short_whatever_is_said(self) -> None:
        cost = cost_of(self.echo('word ' * 5000), timeout=3)
        assert len(cost.errors[0]) < 4000


class TestSession:
    """The session sends what is configured and nothing else."""

    def answering(self, *headers: str) -> Attack:
        def attack(connection: Connection, request: Request) -> bool:
            if request.path != '/health':
                return False
            connection.answer(200, b'true', *headers)
            return True

        return attack

    def test_cookies_are_neither_kept_nor_sent(self) -> None:
        cookies = [f'Set-Cookie: c{index}={"x" * 1000}; Path=/' for index in range(20)]
        cost = cost_of(self.answering(*cookies), runs=2)
        assert not cost.errors[1]
        assert [request for request in cost.requests if 'cookie' in request.headers] == []

    @pytest.mark.parametrize('options', [{}, {'extra_headers': {'Authorization': 'Bearer open-sesame'}}], ids=str)
    def test_netrc_is_not_read(self, tmp_path: Path, options: dict[str, Any]) -> None:
        netrc = tmp_path / '.netrc'
        netrc.write_text('machine 127.0.0.1 login eve password of-somebody-else\ndefault login eve password of-all\n')
        netrc.chmod(0o600)
        cost = cost_of(self.answering(), environment={'HOME': str(tmp_path), 'NETRC': str(netrc)}, **options)
        sent = {request.headers.get('authorization') for request in cost.requests}
        assert sent == {options.get('extra_headers', {}).get('Authorization')}

    def test_proxy_of_the_environment_applies(self) -> None:
        with HostileServer(lambda connection, request: False) as proxy:
            address = proxy.url.removesuffix('/api')
            url = 'http://prefect.invalid:4200/api'
            cost_of(self.answering(), environment={'HTTP_PROXY': address, 'http_proxy': address}, prefect_url=url)
            assert f'{url}/health' in {request.path for request in proxy.requests}

    def test_exception_to_the_proxy_of_the_environment_applies(self) -> None:
        environment = dict.fromkeys(('HTTP_PROXY', 'http_proxy'), 'http://127.0.0.1:9')
        environment |= dict.fromkeys(('NO_PROXY', 'no_proxy'), '127.0.0.1')
        assert cost_of(self.answering(), environment=environment).errors == ['']

    def test_authorities_of_the_environment_apply(self, tmp_path: Path) -> None:
        authority = Authority(tmp_path)
        context = authority.server_context(authority.issue('server'))
        environment = {'REQUESTS_CA_BUNDLE': str(authority.certificate), 'CURL_CA_BUNDLE': ''}
        assert cost_of(self.answering(), context=context, environment=environment).errors == ['']
        (error,) = cost_of(self.answering(), context=context, environment={'REQUESTS_CA_BUNDLE': ''}).errors
        assert 'unable to get local issuer certificate' in error

    @pytest.mark.parametrize('way', WAYS)
    def test_nothing_is_fetched_from_where_an_unverified_certificate_says(self, tmp_path: Path, way: str) -> None:
        authority = Authority(tmp_path)
        with HostileServer(lambda connection, request: False) as elsewhere:
            context = authority.server_context(authority.issue('server', issuers=f'{elsewhere.url}/ca.der'))
            cost = cost_of(self.answering(), context=context, **WAYS[way])
            assert 'unable to get local issuer certificate' in cost.errors[0]
            assert elsewhere.requests == []
            assert cost.requests == []
            assert elsewhere.url not in cost.said()

    def test_unverified_answers_are_warned_of_unless_that_is_meant(self, tmp_path: Path) -> None:
        authority = Authority(tmp_path)
        context = authority.server_context(authority.issue('server'))
        for options, times in (({}, 1), ({'tls_ignore_warning': True}, 0)):
            cost = cost_of(self.answering(), runs=2, context=context, tls_verify=False, **options)
            assert cost.errors == ['', '']
            warnings = [line for line in cost.log if line.startswith('WARNING') and 'tls_verify' in line]
            # The idle check that is measured has none: its address is plain.
            assert len(warnings) == times
        assert not any(
            'tls_verify' in line for line in cost_of(self.answering(), tls_verify=False).log if line[0] == 'W'
        )

    def test_reason_of_a_refused_token_is_not_logged(self, tmp_path: Path) -> None:
        token = tmp_path / 'token'
        token.write_text(SECRET)
        auth_token = {
            'reader': {'type': 'file', 'path': str(token)},
            'writer': {'type': 'header', 'name': 'Authorization', 'value': 'Bearer <TOKEN>'},
        }

        def refuse(connection: Connection) -> None:
            connection.write(b'HTTP/1.1 401 never \x1b[31m ' + SECRET.encode() + b'\r\nContent-Length: 0\r\n\r\n')

        cost = cost_of(at(POOLS, refuse), auth_token=auth_token)
        assert 'HTTP 401' in cost.errors[0]
        assert SECRET not in cost.said()
        assert '\x1b' not in ''.join(cost.log)


class TestBounds:
    def test_run_asks_no_more_than_2000_times(self) -> None:
        """Each list has one more page, and the server is fast."""
        cost = cost_of(at(POOLS, endless_pages(pool)), timeout=30)
        assert len(cost.requests) <= 2000
        assert re.search(
            r'is limited to (200,000 objects|32,768 kB of long names|2,000 requests)',
            cost.errors[0],
        )


class TestOddAnswers:
    def test_challenge_that_says_nothing_is_not_blamed_on_files(self) -> None:
        attack = at('/health', lambda connection: connection.answer(401, b'', 'WWW-Authenticate: Digest x'))
        (error,) = cost_of(attack, **DIGEST).errors
        assert 'demands credentials in a way that is not understood. Check auth_type' in error

    def test_odd_pools_blind_no_other(self) -> None:
        names = ['good', 'x' * 70_000, '..', '.', 'a/b', '?', '#', '%', '', '\x00', '\ud800', '%2e%2e', 'a\\..\\b']

        def attack(connection: Connection, request: Request) -> bool:
            if request.path == POOLS:
                connection.answer(200, json.dumps([pool(name) for name in names]).encode())
            elif request.path.endswith('/workers/filter') and request.path.startswith('/work_pools/'):
                worker = pool('worker') | {'status': 'ONLINE', 'last_heartbeat_time': '2026-11-23T08:00:00Z'}
                connection.answer(200, json.dumps([worker]).encode())
            else:
                return False
            return True

        cost = cost_of(attack)
        asked = [request.path for request in cost.requests if request.path.endswith('/workers/filter')]
        assert cost.errors == ['']
        assert all(path.count('/') == 4 for path in asked)
        online = {tag for _, tags in cost.values['prefect.server.work_pool.worker.is_online'] for tag in tags}
        assert 'work_pool_name:good' in online
        warnings = [line for line in cost.log if 'does not work in a URL' in line]
        assert len(warnings) == 1
        assert len(warnings[0]) < 400

    @pytest.mark.parametrize(
        ('encode', 'is_read'),
        [
            pytest.param(lambda text: text.encode(), True, id='UTF-8'),
            pytest.param(lambda text: b'\xef\xbb\xbf' + text.encode(), True, id='UTF-8 with a BOM'),
            pytest.param(
                lambda text: text.replace('ä', '\ud800').encode(errors='surrogatepass'), True, id='raw surrogate'
            ),
            pytest.param(lambda text: text.replace('ä', '\\ud800').encode(), True, id='escaped surrogate'),
            pytest.param(lambda text: text.encode('latin-1'), True, id='Latin-1'),
            pytest.param(lambda text: text.encode('utf-16'), False, id='UTF-16'),
            pytest.param(lambda text: text.encode('utf-32'), False, id='UTF-32'),
        ],
    )
    def test_any_encoding_is_read_or_refused(self, encode: Any, is_read: bool) -> None:
        text = json.dumps([pool('odd ä'), pool('good')], ensure_ascii=False)
        cost = cost_of(at(POOLS, lambda connection: connection.answer(200, encode(text))))
        assert ('good' in cost.tags('work_pool_name')) is is_read
        assert ('the answer is not JSON' in cost.errors[0]) is not is_read
        assert 'unexpected' not in cost.errors[0]

    @pytest.mark.parametrize('location', ['/\u4f60'.encode(), b'/\xff\xfe', b'http://[::1/', b'http://[v9.x]/', b''])
    def test_location_blames_no_option(self, location: bytes) -> None:
        answer = b'HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: ' + location + b'\r\n\r\n'
        cost = cost_of(at('/health', lambda connection: connection.write(answer)))
        assert 'HTTP 302, redirected' in cost.errors[0]
        assert 'extra_headers' not in cost.errors[0]
        assert 'auth_token' not in cost.errors[0]

    @pytest.mark.parametrize('year', [2100, 1980])
    def test_date_of_another_time_is_not_believed(self, year: int) -> None:
        def attack(connection: Connection, request: Request) -> bool:
            if request.path not in ('/health', '/ready'):
                return False
            connection.answer(200, b'true', f'Date: Mon, 23 Nov {year} 08:00:00 GMT')
            return True

        cost = cost_of(attack, runs=2)
        assert cost.errors == ['', '']
        (warning,) = [line for line in cost.log if 'Date header' in line]
        assert re.search(r'by [+-][\d,]+\.\d hours\. The check ignores it', warning)
