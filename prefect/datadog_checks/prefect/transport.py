"""One HTTP request to the Prefect API: the only module that knows requests and its exceptions."""

from __future__ import annotations

import json as json_codec
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit, urlunsplit

import requests

from datadog_checks.prefect.clock import ServerClock
from datadog_checks.prefect.errors import PrefectApiError, Unreachable, status_error
from datadog_checks.prefect.log import Log


class Http(Protocol):
    """What is used of the Agent base's RequestsWrapper (`self.http`): its options are those of `instances/http`."""

    options: dict[str, Any]

    def get(self, url: str, **options: Any) -> requests.Response: ...

    def post(self, url: str, **options: Any) -> requests.Response: ...


class Transport:
    """JSON in, JSON out, or a PrefectApiError that says what happened and what to do."""

    def __init__(self, http: Http, prefect_url: str, clock: ServerClock, log: Log) -> None:
        self.base_url, user_info = split_user_info(prefect_url)
        self._http = http
        if user_info and not http.options.get('auth'):
            http.options['auth'] = user_info
        self._clock = clock
        self._log = log

    def get(self, path: str, params: dict[str, str] | None = None, *, observe_clock: bool = False) -> Any:
        """The decoded answer to `GET path`; with `observe_clock` its `Date` header sets the server's clock."""
        return self._request('GET', path, {'params': params}, observe_clock)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """The decoded answer to `POST path`. All POST endpoints that the check uses only read."""
        return self._request('POST', path, {'json': body}, False)

    def _request(self, method: str, path: str, options: dict[str, Any], observe_clock: bool) -> Any:
        endpoint = f'{method} {path}'
        sent = self._clock.local_now()
        response = self._send(method, path, options, endpoint)
        if observe_clock:
            self._clock.observe(response.headers.get('Date'), sent, self._clock.local_now())
        if not 200 <= response.status_code < 300:
            raise status_error(endpoint, response.status_code, _detail(response), response.headers.get('Retry-After'))
        try:
            return json_codec.loads(response.content)
        except (ValueError, RecursionError):
            kind = response.headers.get('Content-Type', 'no content type')[:60]
            raise PrefectApiError(
                endpoint, f'the answer is not JSON ({kind}). Is /api missing from prefect_url, or is this a login page?'
            ) from None

    def _send(self, method: str, path: str, options: dict[str, Any], endpoint: str) -> requests.Response:
        try:
            try:
                return self._send_once(method, path, options)
            except requests.exceptions.ConnectionError as error:
                if not _is_lost_connection(error):
                    raise
                # The server closes a connection that was idle for 5 s; a request may cross that on its way.
                self._log.debug('%s: the connection was closed, trying once more', endpoint)
                return self._send_once(method, path, options)
        except requests.exceptions.RequestException as error:
            raise Unreachable(endpoint, self._describe(error)) from None

    def _send_once(self, method: str, path: str, options: dict[str, Any]) -> requests.Response:
        send = self._http.get if method == 'GET' else self._http.post
        # A redirect would carry the headers, credentials among them, to a host that nobody configured.
        return send(self.base_url + path, allow_redirects=False, **options)

    def _describe(self, error: requests.exceptions.RequestException) -> str:
        """What happened to a request that got no answer. The text of the exception itself may hold the URL."""
        address = urlsplit(self.base_url).netloc
        if isinstance(error, requests.exceptions.ConnectTimeout):
            return f'no connection to {address} within {self._timeout(0)} s. Check prefect_url and the network'
        if isinstance(error, requests.exceptions.Timeout):
            return f'no answer from {address} within {self._timeout(1)} s. Is the server overloaded? (option timeout)'
        if isinstance(error, requests.exceptions.SSLError):
            return f'TLS with {address} failed: {_root_cause(error)}. Check tls_verify, tls_ca_cert and tls_cert'
        if isinstance(error, requests.exceptions.ProxyError):
            return 'the HTTP proxy gave no connection. Check proxy and skip_proxy'
        if isinstance(error, requests.exceptions.ConnectionError):
            return f'no connection to {address}: {_root_cause(error)}. Is the server running, is prefect_url right?'
        if isinstance(error, requests.exceptions.ChunkedEncodingError):
            return f'the answer of {address} broke off'
        return f'the request failed: {type(error).__name__}'

    def _timeout(self, index: int) -> float:
        timeout = self._http.options.get('timeout')
        return float(timeout[index]) if isinstance(timeout, tuple) else 0.0


def split_user_info(url: str) -> tuple[str, tuple[str, str] | None]:
    """`url` without user info and trailing slash, and the user and password that it held."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition('@')[2]
    clean = urlunsplit((parts.scheme, host, parts.path.rstrip('/'), '', ''))
    if parts.username is None:
        return clean, None
    return clean, (unquote(parts.username), unquote(parts.password or ''))


def _is_lost_connection(error: requests.exceptions.ConnectionError) -> bool:
    return any(isinstance(cause, (ConnectionResetError, BrokenPipeError)) for cause in _causes(error))


def _root_cause(error: BaseException) -> str:
    """The innermost reason in the words of the operating system or the TLS library."""
    cause = _causes(error)[-1]
    text = getattr(cause, 'verify_message', '') or getattr(cause, 'strerror', '') or type(cause).__name__
    return str(text)[:200]


def _causes(error: BaseException) -> list[BaseException]:
    """The exception and what led to it; urllib3 keeps the reason of a failed connection in `args` or `reason`."""
    causes: list[BaseException] = []
    pending: BaseException | None = error
    while pending is not None and pending not in causes:
        causes.append(pending)
        inner = [getattr(pending, 'reason', None), *pending.args, pending.__cause__, pending.__context__]
        pending = next((cause for cause in inner if isinstance(cause, BaseException)), None)
    return causes


def _detail(response: requests.Response) -> str:
    """The server's own words about an error: `detail` (FastAPI) or `exception_...` (Prefect); never HTML."""
    try:
        document = json_codec.loads(response.content)
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
