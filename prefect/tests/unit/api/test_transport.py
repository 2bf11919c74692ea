from __future__ import annotations

import logging
from datetime import timedelta
from http.client import RemoteDisconnected

import pytest
import requests
import urllib3

from datadog_checks.prefect.api.errors import NotFound, PrefectApiError, Rejected, TooLarge, TooMuch, Unreachable
from datadog_checks.prefect.api.models import WorkPool
from datadog_checks.prefect.api.rows import MalformedRow
from datadog_checks.prefect.api.server_clock import ServerClock
from datadog_checks.prefect.api.transport import Transport
from tests.conftest import AgentClock
from tests.fake_prefect import FakePrefect, FakeResponse
from tests.fake_prefect.server import FakeRequest
from tests.unit.harness import new_transport

HTML = {'Content-Type': 'text/html; charset=utf-8'}


@pytest.fixture
def transport(prefect_url: str) -> Transport:
    return new_transport(prefect_url)


def answer(fake: FakePrefect, *outcomes: FakeResponse | Exception | None) -> None:
    """Give these outcomes to the next requests, the last one to all further ones."""
    remaining = list(outcomes)
    fake.fault = lambda request: remaining.pop(0) if len(remaining) > 1 else remaining[0]


def refused(fake: FakePrefect, transport: Transport, outcome: FakeResponse | Exception) -> PrefectApiError:
    answer(fake, outcome)
    with pytest.raises(PrefectApiError) as raised:
        transport.post('/flow_runs/filter', {'limit': 1})
    return raised.value


class TestStatus:
    @pytest.mark.parametrize(
        ('status', 'hint'),
        [
            (401, 'username and password'),
            (403, 'CSRF'),
            (404, '/api missing from prefect_url'),
            (405, '/api missing from prefect_url'),
            (418, 'unexpected status'),
            (422, 'version of Prefect'),
            (429, 'too many requests'),
            (500, 'Check its log'),
            (502, 'proxy'),
            (503, 'unavailable'),
            (504, 'timed out waiting'),
        ],
    )
    def test_message_names_endpoint_status_and_what_to_do(
        self, fake: FakePrefect, transport: Transport, status: int, hint: str
    ) -> None:
        error = refused(fake, transport, FakeResponse(status, b'<html>error</html>', HTML))
        assert str(error).startswith(f'POST /flow_runs/filter: HTTP {status}, ')
        assert hint in str(error)
        assert '<html>' not in str(error)
        assert error.endpoint == 'POST /flow_runs/filter'

    @pytest.mark.parametrize(
        ('status', 'kind'), [(404, NotFound), (422, Rejected), (401, PrefectApiError), (500, PrefectApiError)]
    )
    def test_kind_of_error_follows_the_status(
        self, fake: FakePrefect, transport: Transport, status: int, kind: type[PrefectApiError]
    ) -> None:
        assert type(refused(fake, transport, FakeResponse.of({}, status))) is kind

    def test_server_that_has_had_enough_is_asked_no_more_until_the_next_run(
        self, fake: FakePrefect, transport: Transport
    ) -> None:
        refused(fake, transport, FakeResponse.of({}, 429))
        answer(fake, None)
        with pytest.raises(PrefectApiError, match=r'^POST /flow_runs/filter: HTTP 429, '):
            transport.get('/health')
        assert len(fake.requests) == 1
        transport.start_run()
        assert transport.post('/flow_runs/filter', {'limit': 1}) == []

    @pytest.mark.parametrize('status', [403, 500, 503])
    def test_other_error_holds_up_no_other_request(self, fake: FakePrefect, transport: Transport, status: int) -> None:
        refused(fake, transport, FakeResponse.of({}, status))
        answer(fake, None)
        assert transport.post('/flow_runs/filter', {'limit': 1}) == []

    @pytest.mark.parametrize('status', [429, 503])
    def test_retry_after_is_told(self, fake: FakePrefect, transport: Transport, status: int) -> None:
        error = refused(fake, transport, FakeResponse(status, b'{}', {'Retry-After': '17'}))
        assert '(Retry-After: 17)' in str(error)

    @pytest.mark.parametrize(
        ('body', 'words'),
        [
            pytest.param({'detail': 'Missing CSRF token.'}, 'Missing CSRF token.', id='detail'),
            pytest.param({'exception_message': 'Unauthorized'}, 'Unauthorized', id='exception_message'),
            pytest.param(
                {'detail': [{'loc': ['body', 'sort'], 'msg': 'wrong', 'input': 'sesame'}]}, 'wrong', id='detail list'
            ),
            pytest.param(
                {
                    'exception_message': 'Invalid request received.',
                    'exception_detail': [{'loc': ['body', 'end_time'], 'msg': 'Extra inputs', 'input': 'sesame'}],
                    'request_body': {'password': 'sesame'},
                },
                'end_time',
                id='validation',
            ),
        ],
    )
    def test_words_of_the_server_are_told_and_not_what_was_sent(
        self, fake: FakePrefect, transport: Transport, body: object, words: str
    ) -> None:
        error = refused(fake, transport, FakeResponse.of(body, 422))
        assert words in str(error)
        assert 'sesame' not in str(error)

    @pytest.mark.parametrize(
        'body',
        [
            pytest.param(b'', id='empty'),
            pytest.param(b'null', id='null'),
            pytest.param(b'[1]', id='a list'),
            pytest.param(b'"text"', id='a text'),
            pytest.param(b'\xff\xfe', id='bytes'),
            pytest.param(b'[' * 100_000, id='deep'),
        ],
    )
    def test_any_body_of_an_error_will_do(self, fake: FakePrefect, transport: Transport, body: bytes) -> None:
        assert 'HTTP 500' in str(refused(fake, transport, FakeResponse(500, body)))

    def test_message_is_short_whatever_the_server_says(self, fake: FakePrefect, transport: Transport) -> None:
        answer_ = FakeResponse(500, b'{"detail": "' + b'x' * 10**6 + b'"}', {'Retry-After': 'y' * 10**6})
        assert len(str(refused(fake, transport, answer_))) < 500

    @pytest.mark.parametrize('status', [301, 302, 307, 308])
    def test_redirect_is_not_followed(self, fake: FakePrefect, transport: Transport, status: int) -> None:
        """It would take the credentials to a host that nobody configured."""
        error = refused(fake, transport, FakeResponse(status, b'', {'Location': 'http://elsewhere.test/api'}))
        assert 'et prefect_url to the address' in str(error)
        assert len(fake.requests) == 1

    @pytest.mark.parametrize('status', [200, 201, 204, 299])
    def test_every_2xx_is_a_success(self, fake: FakePrefect, transport: Transport, status: int) -> None:
        answer(fake, FakeResponse(status, b'[]'))
        assert transport.post('/flow_runs/filter', {}) == []


class TestAnswer:
    def test_web_page_is_an_error_that_asks_for_api_in_the_url(self, fake: FakePrefect, transport: Transport) -> None:
        error = refused(fake, transport, FakeResponse(200, b'<!DOCTYPE html>', HTML))
        assert 'not JSON (text/html; charset=utf-8)' in str(error)
        assert '/api missing from prefect_url' in str(error)

    def test_json_that_is_cut_off_is_an_error_that_asks_for_a_proxy(
        self, fake: FakePrefect, transport: Transport
    ) -> None:
        error = refused(fake, transport, FakeResponse(200, b'[{"id": ', {'Content-Type': 'application/json'}))
        assert 'not JSON (application/json). Does a proxy cut or change it?' in str(error)

    @pytest.mark.parametrize('body', [b'', b'{', b'\xff', b'[' * 100_000], ids=['empty', 'cut off', 'bytes', 'deep'])
    def test_what_is_not_json_is_an_error(self, fake: FakePrefect, transport: Transport, body: bytes) -> None:
        assert 'not JSON' in str(refused(fake, transport, FakeResponse(200, body)))

    def test_body_is_sent_as_json_and_the_answer_decoded(self, fake: FakePrefect, transport: Transport) -> None:
        assert transport.post('/flow_runs/filter', {'limit': 3}) == []
        assert fake.requests[0].body == {'limit': 3}
        assert transport.get('/flow_run_states/', {'flow_run_id': '0' * 32}) == []


class TestBounds:
    def test_run_stops_after_2000_requests_and_names_the_filters(self, fake: FakePrefect, transport: Transport) -> None:
        for _ in range(2000):
            transport.get('/health')
        with pytest.raises(TooMuch, match=r'limited to 2,000 requests; 2,001 of them went to GET /health. Filter by '):
            transport.get('/health')
        assert len(fake.requests) == 2000
        transport.start_run()
        transport.get('/health')

    def test_run_stops_after_32_mb_of_long_names(self, transport: Transport) -> None:
        def read(*names: str) -> None:
            transport.post('/work_pools/filter', {}, decode=lambda content: [WorkPool(id='1', name=n) for n in names])

        for _ in range(4):
            read('x' * 8 * 2**20)
        with pytest.raises(TooMuch, match='limited to 32,768 kB of long names; 40,950 of them went to POST'):
            read('x' * 8 * 2**20)
        # Whoever has short ones is not blinded.
        read(*['x' * 200] * 1000)

    def test_log_record_of_ten_megabytes_is_read_though_each_character_takes_two_in_json(
        self, fake: FakePrefect, transport: Transport
    ) -> None:
        answer(fake, FakeResponse(200, b'[{"message": "' + rb'\n' * 10 * 2**20 + b'"}]'))
        (record,) = transport.post('/logs/filter', {'limit': 1})
        assert len(record['message']) == 10 * 2**20

    def test_page_with_more_than_8_mb_of_names_is_read_in_parts(self, transport: Transport) -> None:
        odd = MalformedRow({'id': '1', 'parameters': [{}] * 200_000})
        for rows in ([odd], [WorkPool(id='1', name='x' * 5 * 2**20)] * 2):
            with pytest.raises(TooLarge):
                transport.post('/work_pools/filter', {}, decode=lambda content, rows=rows: rows)

    def test_records_of_a_log_may_be_long(self, transport: Transport) -> None:
        record = MalformedRow({'message': 'x' * 9 * 2**20})
        for _ in range(5):
            transport.post('/logs/filter', {}, decode=lambda content: [record])


class TestNoAnswer:
    @pytest.mark.parametrize(
        ('error', 'words'),
        [
            pytest.param(requests.ConnectTimeout(), 'no connection to prefect.test:4200 within 10', id='connect'),
            pytest.param(requests.ReadTimeout(), 'no answer from prefect.test:4200 within 10', id='read'),
            pytest.param(requests.exceptions.SSLError(), 'Check tls_verify, tls_ca_cert', id='TLS'),
            pytest.param(requests.exceptions.ProxyError(), 'Check proxy and skip_proxy', id='proxy'),
            pytest.param(
                requests.ConnectionError(OSError(111, 'Connection refused')), 'Connection refused. Is the', id='refused'
            ),
            pytest.param(
                requests.ConnectionError(
                    urllib3.exceptions.MaxRetryError(
                        None,  # type: ignore[arg-type]
                        'http://u:sesame@host',
                        urllib3.exceptions.ProtocolError('x', OSError(-2, 'Name or service not known')),
                    )
                ),
                'Name or service not known',
                id='unknown host',
            ),
            pytest.param(requests.exceptions.ChunkedEncodingError('sesame'), 'closed in the middle', id='broken off'),
            pytest.param(
                requests.ConnectionError(RemoteDisconnected('sesame')), 'closed the connection without', id='closed'
            ),
            pytest.param(
                requests.exceptions.SSLError(OSError(1, '[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] sesame')),
                'demands a client certificate. Set tls_cert',
                id='client certificate',
            ),
            pytest.param(
                requests.exceptions.InvalidProxyURL('http://u:sesame@host'), 'HTTP proxy is not', id='proxy URL'
            ),
            pytest.param(requests.exceptions.InvalidHeader('sesame'), 'Check headers and extra_headers', id='header'),
            pytest.param(
                UnicodeEncodeError('latin-1', 'sesame\u20ac', 6, 7, 'ordinal not in range'),
                'character beyond Latin-1',
                id='character',
            ),
            pytest.param(requests.exceptions.InvalidSchema('socks9://u:sesame@host'), 'InvalidSchema', id='another'),
        ],
    )
    def test_message_says_what_happened_and_no_more(
        self, fake: FakePrefect, transport: Transport, error: Exception, words: str
    ) -> None:
        found = refused(fake, transport, error)
        assert isinstance(found, Unreachable)
        assert words in str(found)
        assert 'sesame' not in str(found)
        assert found.__cause__ is None

    @pytest.mark.parametrize(
        'error',
        [
            pytest.param(requests.ConnectionError(ConnectionResetError(104, 'reset')), id='reset'),
            pytest.param(requests.ConnectionError(BrokenPipeError(32, 'pipe')), id='broken pipe'),
            pytest.param(
                requests.ConnectionError(urllib3.exceptions.ProtocolError('aborted', ConnectionResetError())),
                id='as urllib3 wraps it',
            ),
        ],
    )
    def test_lost_connection_is_tried_once_more(
        self, fake: FakePrefect, transport: Transport, error: Exception
    ) -> None:
        answer(fake, error, None)
        assert transport.post('/flow_runs/filter', {}) == []
        assert len(fake.requests) == 2

    def test_connection_that_is_lost_twice_is_an_error(self, fake: FakePrefect, transport: Transport) -> None:
        refused(fake, transport, requests.ConnectionError(ConnectionResetError()))
        assert len(fake.requests) == 2

    @pytest.mark.parametrize(
        'error', [requests.ConnectTimeout(), requests.ReadTimeout(), requests.ConnectionError(OSError(111, 'no'))]
    )
    def test_nothing_else_is_tried_again(self, fake: FakePrefect, transport: Transport, error: Exception) -> None:
        refused(fake, transport, error)
        assert len(fake.requests) == 1


class TestCredentials:
    @pytest.mark.parametrize(
        ('url', 'clean'),
        [
            ('http://a.test/api', 'http://a.test/api'),
            ('http://a.test/api/', 'http://a.test/api'),
            ('https://u:p@a.test:1/api', 'https://a.test:1/api'),
            ('https://u@a.test/api', 'https://a.test/api'),
            ('https://u:p%40%2F@a.test/api', 'https://a.test/api'),
            ('http://[::1]:4200/api', 'http://[::1]:4200/api'),
            ('http://a.test/x/api?token=sesame#sesame', 'http://a.test/x/api'),
        ],
    )
    def test_base_url_holds_no_user_info(self, url: str, clean: str) -> None:
        assert new_transport(url).base_url == clean

    def test_user_info_of_the_url_authorizes(self, fake: FakePrefect, prefect_url: str) -> None:
        fake.auth_string = 'user:p@ss'
        transport = new_transport(prefect_url.replace('//', '//user:p%40ss@'))
        assert transport.get('/admin/version') == '3.8.8'
        assert transport.base_url == prefect_url

    def test_options_win_over_the_user_info_of_the_url(self, fake: FakePrefect, prefect_url: str) -> None:
        fake.auth_string = 'right:right'
        transport = new_transport(
            prefect_url.replace('//', '//wrong:wrong@'), {'username': 'right', 'password': 'right'}
        )
        assert transport.get('/admin/version') == '3.8.8'

    def test_log_of_a_request_holds_no_secret(
        self, fake: FakePrefect, prefect_url: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        transport = new_transport(prefect_url.replace('//', '//user:sesame@'))
        answer(fake, requests.ConnectionError(ConnectionResetError('http://user:sesame@host')), None)
        transport.post('/flow_runs/filter', {'limit': 1})
        assert caplog.text
        assert 'sesame' not in caplog.text


class TestClock:
    def test_clock_is_taken_from_observed_answers_only(
        self, fake: FakePrefect, prefect_url: str, agent_clock: AgentClock
    ) -> None:
        agent_clock.skew = timedelta(seconds=-90)
        clock = ServerClock()
        transport = new_transport(prefect_url, clock=clock)
        transport.get('/ready')
        assert clock.offset == timedelta()
        transport.get('/health', observe_clock=True)
        assert clock.offset == timedelta()
        # The next answer decides, to any request.
        transport.get('/ready')
        assert clock.offset == timedelta(seconds=90.5)

    def test_offset_above_an_hour_is_warned_of_once(
        self, fake: FakePrefect, prefect_url: str, agent_clock: AgentClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        agent_clock.skew = timedelta(hours=-74)
        clock = ServerClock()
        transport = new_transport(prefect_url, clock=clock)
        for _ in range(3):
            transport.get('/health', observe_clock=True)
            transport.get('/ready')
        assert clock.offset == timedelta()
        (warning,) = caplog.messages
        assert 'differs from the clock of the Agent by +74.0 hours' in warning

    def test_clock_is_taken_from_errors_too(self, fake: FakePrefect, prefect_url: str, agent_clock: AgentClock) -> None:
        agent_clock.skew = timedelta(seconds=-90)
        clock = ServerClock()
        fake.is_ready = False
        transport = new_transport(prefect_url, clock=clock)
        for _ in range(2):
            with pytest.raises(PrefectApiError):
                transport.get('/ready', observe_clock=True)
        assert clock.offset == timedelta(seconds=90.5)

    def test_time_on_the_way_is_shared_between_both_ways(
        self, fake: FakePrefect, prefect_url: str, agent_clock: AgentClock
    ) -> None:
        agent_clock.skew = timedelta(seconds=-100)

        clock = ServerClock()
        transport = new_transport(prefect_url, clock=clock)
        transport.get('/health', observe_clock=True)

        def slow(request: FakeRequest) -> None:
            agent_clock.skew += timedelta(seconds=4)

        fake.fault = slow
        transport.get('/health', observe_clock=True)
        assert clock.offset == timedelta(seconds=98.5)
