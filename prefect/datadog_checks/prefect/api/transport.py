"""One HTTP request to the Prefect API: the only module that knows requests and its exceptions."""

from __future__ import annotations

import base64
import json as json_codec
import re
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException, RemoteDisconnected
from typing import Any, Protocol
from urllib.parse import urljoin, urlsplit, urlunsplit

import requests
import urllib3

from datadog_checks.prefect.api import csrf
from datadog_checks.prefect.api.csrf import CsrfToken
from datadog_checks.prefect.api.errors import OutOfTime, PrefectApiError, Rejected, Unreachable, status_error
from datadog_checks.prefect.api.log import Log
from datadog_checks.prefect.api.request_stats import RequestStats
from datadog_checks.prefect.api.server_clock import ServerClock
from datadog_checks.prefect.api.time_limit import BoundedCaller, TimeLimit, TookTooLong
from datadog_checks.prefect.ui_links import split_user_info

# A run of the check may take so many time-outs.
_TIMEOUTS_PER_RUN = 3
# A page of 200 runs with long parameters has some megabytes.
_MAX_ANSWER_BYTES = 64 * 2**20
_CHUNK_BYTES = 2**16
# What the HTTP library may take longer than its own time-outs before it is not waited for any longer.
_GRACE_SECONDS = 0.5
_TLS_SOURCE = re.compile(r' \(_ssl\.c:\d+\)$')


class Http(Protocol):
    """What is used of the Agent base's RequestsWrapper (`self.http`): its options are those of `instances/http`."""

    options: dict[str, Any]

    def get(self, url: str, **options: Any) -> requests.Response: ...

    def post(self, url: str, **options: Any) -> requests.Response: ...


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    content: bytes
    # Bytes that came over the network, compressed as they were.
    received: int


class Transport:
    """JSON in, JSON out, or a PrefectApiError that says what happened and what to do.

    `auth_string` is 'user:password'. It wins over user info in the URL, `username` and `password` win over both.
    """

    def __init__(
        self,
        http: Http,
        prefect_url: str,
        clock: ServerClock,
        log: Log,
        *,
        auth_string: str | None = None,
    ) -> None:
        self.base_url, user_info = split_user_info(prefect_url)
        self._http = http
        if user_info and not auth_string:
            auth_string = ':'.join(user_info)
        if auth_string and not http.options.get('auth'):
            http.options['auth'] = _BasicAuth(auth_string)
        self._clock = clock
        self._log = log
        self._caller = BoundedCaller()
        self._csrf = CsrfToken()
        # The time from the first byte that is sent to the last one that is received.
        self._answer_seconds = max(self._timeouts())
        self.budget = TimeLimit(_TIMEOUTS_PER_RUN * self._answer_seconds)
        self.stats = RequestStats()
        self._refusal: PrefectApiError | None = None

    def start_run(self) -> None:
        """A run of the check begins: it has its own time, and asks again a server that had enough of the last one."""
        self.budget.start()
        self.stats.start_run()
        self._refusal = None

    def get(
        self,
        path: str,
        params: dict[str, str] | None = None,
        *,
        base_url: str | None = None,
        observe_clock: bool = False,
    ) -> Any:
        """The decoded answer to `GET path`; with `observe_clock` its `Date` header sets the server's clock."""
        endpoint = f'GET {path}'
        sent = self._clock.local_now()
        answer = self._send(endpoint, 'GET', (base_url or self.base_url) + path, {'params': params})
        if observe_clock:
            self._clock.observe(answer.headers.get('Date'), sent, self._clock.local_now())
        return self._decoded(endpoint, answer)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """The decoded answer to `POST path`. All POST endpoints that the check uses only read."""
        endpoint = f'POST {path}'
        if self._csrf.is_outdated:
            self._renew_csrf_token()
        answer = self._post(endpoint, path, body)
        if csrf.is_demanded(answer.status, _detail(answer)):
            self._renew_csrf_token()
            answer = self._post(endpoint, path, body)
        self.stats.judge(answer.status)
        return self._decoded(endpoint, answer)

    def _post(self, endpoint: str, path: str, body: dict[str, Any]) -> _Answer:
        options: dict[str, Any] = {'json': body}
        if self._csrf.headers:
            options['extra_headers'] = self._csrf.headers
        return self._send(endpoint, 'POST', self.base_url + path, options)

    def _renew_csrf_token(self) -> None:
        try:
            self._csrf.take(self.get(csrf.PATH, {'client': self._csrf.client}), self._clock.now())
        except Rejected:
            self._log.debug('CSRF protection is off on this server')
            self._csrf.forget()
        except PrefectApiError as error:
            # To whom asked for something else, a 404 of this endpoint is not what a 404 of theirs would be.
            raise PrefectApiError(error.endpoint, error.cause) from None

    def _decoded(self, endpoint: str, answer: _Answer) -> Any:
        if not 200 <= answer.status < 300:
            error = status_error(
                endpoint,
                answer.status,
                _detail(answer),
                retry_after=answer.headers.get('Retry-After'),
                location=_target(self.base_url, answer.headers.get('Location')),
            )
            if answer.status == 429:
                self._refusal = error
            raise error
        try:
            return _loads(answer.content)
        except (ValueError, RecursionError):
            kind = answer.headers.get('Content-Type', 'no content type')[:60]
            hint = 'Is /api missing from prefect_url, or is this a login page?'
            if kind.startswith('application/json'):
                hint = 'It should be: does a proxy cut or change it?'
            raise PrefectApiError(endpoint, f'the answer is not JSON ({kind}). {hint}') from None

    def _send(self, endpoint: str, method: str, url: str, options: dict[str, Any]) -> _Answer:
        """The answer, whatever its status. A connection that is lost before there is one is tried once more."""
        if self._refusal is not None:
            # The server has had enough: whatever else there is to ask waits for the next run.
            raise self._refusal
        try:
            return self._send_once(endpoint, method, url, options)
        except _ConnectionLost:
            # The server closes a connection that was idle for 5 s; a request may cross that on its way.
            self._log.debug('%s: the connection was closed, trying once more', endpoint)
            return self._send_once(endpoint, method, url, options)

    def _send_once(self, endpoint: str, method: str, url: str, options: dict[str, Any]) -> _Answer:
        if self.budget.is_used_up:
            raise OutOfTime(self.budget)
        send = self._http.get if method == 'GET' else self._http.post
        started = time.monotonic()
        limit = min(self._answer_seconds, self.budget.remaining)
        connect, read = (min(seconds, limit) for seconds in self._timeouts())

        def exchange() -> _Answer:
            # A redirect would carry the headers, credentials among them, to a host that nobody configured.
            response = send(url, allow_redirects=False, stream=True, timeout=(connect, read), **options)
            with response:
                content = _read(endpoint, response, started + limit)
                return _Answer(response.status_code, response.headers, content, response.raw.tell())

        received = 0
        try:
            answer = self._caller.call(exchange, limit + _GRACE_SECONDS)
            received = answer.received
            return answer
        except TookTooLong as error:
            raise Unreachable(endpoint, self._describe_slow(str(error), limit)) from None
        except requests.exceptions.RequestException as error:
            kind = _ConnectionLost if _is_lost_connection(error) else Unreachable
            raise kind(endpoint, self._describe(error, connect, read)) from None
        except PrefectApiError:
            raise
        except Exception as error:
            # What the Agent base needs for a request could not be had: a certificate, a token.
            raise Unreachable(endpoint, _describe_preparation(error)) from None
        finally:
            seconds = time.monotonic() - started
            self.budget.charge(endpoint, seconds)
            self.stats.add(endpoint.partition(' ')[2], received, seconds)

    def _timeouts(self) -> tuple[float, float]:
        """Those of the options for connecting and for one read, in seconds."""
        connect, read = self._http.options['timeout']
        return float(connect), float(read)

    def _describe(self, error: requests.exceptions.RequestException, connect: float, read: float) -> str:
        """What happened to a request that got no answer. The text of the exception itself may hold the URL."""
        address = urlsplit(self.base_url).netloc
        causes = _causes(error)
        if isinstance(error, requests.exceptions.ConnectTimeout):
            return f'no connection to {address} within {connect:.3g} s. Check prefect_url and the network'
        if isinstance(error, requests.exceptions.Timeout) or _is_any(causes, urllib3.exceptions.ReadTimeoutError):
            return f'no answer from {address} within {read:.3g} s. Is the server overloaded? (option timeout)'
        if isinstance(error, requests.exceptions.ProxyError):
            return 'the HTTP proxy gave no connection. Check proxy and skip_proxy'
        if isinstance(error, requests.exceptions.SSLError) or _is_any(causes, ssl.SSLError):
            return f'TLS with {address} failed: {_tls_problem(_root_cause(causes))}'
        if isinstance(error, requests.exceptions.ChunkedEncodingError):
            return f'the answer of {address} broke off. Did the server or a proxy stop?'
        if isinstance(error, requests.exceptions.ContentDecodingError):
            return f'the answer of {address} is damaged: it cannot be decompressed. Does a proxy change it?'
        if _is_any(causes, HTTPException) and not _is_any(causes, ConnectionError):
            return f'the answer of {address} is not HTTP. Is prefect_url right: its port, http:// or https://?'
        if _is_any(causes, RemoteDisconnected):
            return f'{address} closed the connection without an answer. Is prefect_url right: http:// or https://?'
        if isinstance(error, requests.exceptions.ConnectionError):
            return f'no connection to {address}: {_root_cause(causes)}. Is the server running, is prefect_url right?'
        if isinstance(error, requests.exceptions.InvalidHeader):
            return (
                'the request could not be made: a header is not valid. Check headers and extra_headers for line breaks'
            )
        # That prefect_url is one was checked with the options.
        if isinstance(error, requests.exceptions.InvalidURL):
            return 'the request could not be made: the address of the HTTP proxy is not valid. Check proxy'
        return f'the request could not be made: {type(error).__name__}. Check prefect_url and proxy'

    def _describe_slow(self, reason: str, limit: float) -> str:
        address = urlsplit(self.base_url).netloc
        if reason:
            return f'not asked, for {reason} by {address}. Is the server or a proxy stuck?'
        return (
            f'no complete answer from {address} within {limit:.3g} s. Is the server, a proxy or the name server stuck?'
        )


class _ConnectionLost(Unreachable):
    """The connection was closed before there was an answer."""


class _BasicAuth(requests.auth.AuthBase):
    """Basic authorization as Prefect's own client does it: UTF-8, and the string as a whole."""

    def __init__(self, auth_string: str) -> None:
        self._header = 'Basic ' + base64.b64encode(auth_string.encode()).decode()

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers['Authorization'] = self._header
        return request


def _read(endpoint: str, response: requests.Response, until: float) -> bytes:
    """The body, as long as it is neither too large nor too slow."""
    content = bytearray()
    for chunk in response.iter_content(_CHUNK_BYTES):
        content += chunk
        if len(content) > _MAX_ANSWER_BYTES:
            limit = _MAX_ANSWER_BYTES // 2**20
            raise PrefectApiError(
                endpoint, f'the answer is larger than {limit} MB. Is this a Prefect server? Filter by names if it is'
            )
        if time.monotonic() > until:
            raise requests.exceptions.ReadTimeout
    return bytes(content)


def _loads(content: bytes) -> Any:
    document = json_codec.loads(content)
    if b'\\ud' in content or b'\\uD' in content:
        # Half of a surrogate pair is legal JSON, but no text that could be sent anywhere.
        document = json_codec.loads(json_codec.dumps(document, ensure_ascii=False).encode(errors='replace'))
    return document


def _target(base_url: str, location: str | None) -> str:
    """Where a redirect leads, without user info and query; '' if it does not say."""
    try:
        parts = urlsplit(urljoin(f'{base_url}/', location)) if location else urlsplit('')
    except ValueError:
        return ''
    target = urlunsplit((parts.scheme, parts.netloc.rpartition('@')[2], parts.path.partition(';')[0], '', ''))
    return target[:200]


def _is_lost_connection(error: requests.exceptions.RequestException) -> bool:
    is_lost = _is_any(_causes(error), (ConnectionResetError, BrokenPipeError))
    return is_lost and isinstance(error, requests.exceptions.ConnectionError)


def _is_any(errors: list[BaseException], kinds: type[BaseException] | tuple[type[BaseException], ...]) -> bool:
    return any(isinstance(error, kinds) for error in errors)


def _root_cause(causes: list[BaseException]) -> str:
    """The innermost reason in the words of the operating system or the TLS library."""
    cause = causes[-1]
    text = getattr(cause, 'verify_message', '') or getattr(cause, 'strerror', '') or type(cause).__name__
    return _TLS_SOURCE.sub('', str(text)).rstrip('.')[:200]


def _causes(error: BaseException) -> list[BaseException]:
    """The exception and what led to it; urllib3 keeps the reason of a failed connection in `args` or `reason`."""
    causes: list[BaseException] = []
    pending: BaseException | None = error
    while pending is not None and pending not in causes:
        causes.append(pending)
        inner = [getattr(pending, 'reason', None), *pending.args, pending.__cause__, pending.__context__]
        pending = next((cause for cause in inner if isinstance(cause, BaseException)), None)
    return causes


def _tls_problem(reason: str) -> str:
    if 'WRONG_VERSION_NUMBER' in reason or 'RECORD_LAYER_FAILURE' in reason:
        return 'the answer is not TLS. Is prefect_url https:// for a server that speaks http://?'
    if 'CERTIFICATE_REQUIRED' in reason:
        return 'the server demands a client certificate. Set tls_cert and tls_private_key'
    return f'{reason}. Check tls_verify, tls_ca_cert and tls_cert'


def _describe_preparation(error: Exception) -> str:
    """Why no request could be made. Only an error of the operating system says no more than a path."""
    if isinstance(error, UnicodeError):
        return 'the request could not be made: a header has a character beyond Latin-1. Check extra_headers and proxy'
    hint = 'Check the files of auth_token, tls_ca_cert, tls_cert and tls_private_key'
    if isinstance(error, OSError) and error.strerror:
        name = f' ({error.filename})' if error.filename else ''
        return f'the request could not be made: {_root_cause([error])}{name}. {hint}'
    return f'the request could not be made: {type(error).__name__}. {hint}'


def _detail(answer: _Answer) -> str:
    """The server's own words about an error: `detail` (FastAPI) or `exception_...` (Prefect); never HTML."""
    if 200 <= answer.status < 300:
        return ''
    try:
        document = _loads(answer.content)
    except (ValueError, RecursionError):
        return ''
    if not isinstance(document, dict):
        return ''
    known = (document.get(key) for key in ('detail', 'exception_detail', 'exception_message'))
    detail = next((value for value in known if value), '')
    if isinstance(detail, list):
        # A validation error: name what was refused, not what was sent.
        detail = '; '.join(f'{item.get("loc")}: {item.get("msg")}' for item in detail if isinstance(item, dict))
    return ' '.join(str(detail).split())
