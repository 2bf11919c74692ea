"""One HTTP request to the Prefect API. `failed_request.py` says what the exceptions of the HTTP library mean."""

from __future__ import annotations

import base64
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from urllib.parse import urljoin, urlsplit, urlunsplit

import requests

from datadog_checks.prefect.api import csrf, decoding
from datadog_checks.prefect.api.csrf import CsrfToken
from datadog_checks.prefect.api.errors import (
    OutOfTime,
    PrefectApiError,
    Rejected,
    TooLarge,
    TooMuch,
    Unreachable,
    status_error,
)
from datadog_checks.prefect.api.failed_request import FailedRequest, describe_preparation
from datadog_checks.prefect.api.log import Log
from datadog_checks.prefect.api.request_stats import RequestStats
from datadog_checks.prefect.api.rows import kept_bytes
from datadog_checks.prefect.api.secrets import Mask, header_secrets
from datadog_checks.prefect.api.server_clock import ServerClock
from datadog_checks.prefect.api.session import Exchange, no_auth
from datadog_checks.prefect.api.time_limit import BoundedCaller, TimeLimit, TookTooLong
from datadog_checks.prefect.ui_links import split_user_info

# A run of the check may take so many time-outs.
_TIMEOUTS_PER_RUN = 3
# What a run may ask for and get. The first check of a server with 50,000 deployments asks 400 times.
_MAX_REQUESTS = 2_000
_MAX_ROWS = 200_000
# Beyond what their number takes: in long names, most often.
_MAX_KEPT_KB = 32 * 2**10
# Enough for all endpoints with the name of a work pool.
_ENDPOINT_BYTES = 120
# What the HTTP library may take longer than its own time-outs before it is not waited for any longer.
_GRACE_SECONDS = 0.5


class Http(Protocol):
    """What is used of `session.BoundedHttp`: its options are those of `instances/http`."""

    options: dict[str, Any]
    ignore_tls_warning: bool
    secrets: frozenset[str]

    def get(self, url: str, **options: Any) -> requests.Response: ...

    def post(self, url: str, **options: Any) -> requests.Response: ...


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    content: bytes
    # Whether there was more to read, which was not.
    is_cut: bool
    # How many bytes may be read.
    limit: int


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
        if auth_string and http.options['auth'] in (None, no_auth):
            http.options['auth'] = _BasicAuth(auth_string)
        is_verified = http.options['verify'] or not self.base_url.startswith('https')
        if not is_verified and not http.ignore_tls_warning:
            log.warning(
                'tls_verify is false: anybody on the way to %s can read the credentials and change the answers. '
                'Set tls_ca_cert, or tls_ignore_warning if you want this',
                urlsplit(self.base_url).netloc,
            )
        self._clock = clock
        self._log = log
        self._caller = BoundedCaller()
        self._csrf = CsrfToken()
        # The time from the first byte that is sent to the last one that is received.
        self._answer_seconds = max(self._timeouts())
        self.budget = TimeLimit(_TIMEOUTS_PER_RUN * self._answer_seconds)
        self.stats = RequestStats()
        self._mask_of: tuple[frozenset[str], Mask] = (frozenset(), Mask(()))
        self._has_warned_of_clock = False
        self._begin_run()

    def start_run(self) -> None:
        """A run of the check begins: it has its own time, and asks again a server that had enough of the last one."""
        self.budget.start()
        self.stats.start_run()
        self._begin_run()

    def _begin_run(self) -> None:
        self._refusal: PrefectApiError | None = None
        self._sent: Counter[str] = Counter()
        self._rows: Counter[str] = Counter()
        self._kept_kb: Counter[str] = Counter()

    def get(
        self,
        path: str,
        params: dict[str, str] | None = None,
        *,
        base_url: str | None = None,
        observe_clock: bool = False,
        decode: Callable[[bytes], Any] = decoding.loads,
    ) -> Any:
        """The decoded answer to `GET path`; with `observe_clock` its `Date` header sets the server's clock.

        `decode` raises ValueError or RecursionError for what is not JSON. Raises TooLarge for an answer that would take
        too much memory.
        """
        endpoint = self._endpoint('GET', path)
        sent = self._clock.local_now()
        answer = self._send(endpoint, 'GET', path, (base_url or self.base_url) + path, {'params': params})
        if observe_clock or self._clock.is_in_doubt:
            self._observe_clock(answer, sent)
        return self._decoded(endpoint, answer, decode)

    def post(self, path: str, body: dict[str, Any], *, decode: Callable[[bytes], Any] = decoding.loads) -> Any:
        """The decoded answer to `POST path`. All POST endpoints that the check uses only read. Raises TooLarge."""
        endpoint = self._endpoint('POST', path)
        return self._decoded(endpoint, self._posted(endpoint, path, body), decode, body.get('limit'))

    def says(self, text: str, size: int) -> str:
        """What the server said, for a log or an error: one line of at most `size` bytes without secrets."""
        return self._mask().line(text, size)

    def _posted(self, endpoint: str, path: str, body: dict[str, Any]) -> _Answer:
        if self._csrf.is_outdated:
            self._renew_csrf_token()
        answer = self._post(endpoint, path, body)
        if csrf.is_demanded(answer.status, _detail(answer)):
            self._renew_csrf_token()
            answer = self._post(endpoint, path, body)
        self.stats.judge(answer.status)
        return answer

    def _post(self, endpoint: str, path: str, body: dict[str, Any]) -> _Answer:
        options: dict[str, Any] = {'json': body}
        if self._csrf.headers:
            options['extra_headers'] = self._csrf.headers
        return self._send(endpoint, 'POST', path, self.base_url + path, options)

    def _renew_csrf_token(self) -> None:
        try:
            self._csrf.take(self.get(csrf.PATH, {'client': self._csrf.client}), self._clock.now())
        except Rejected:
            self._log.debug('CSRF protection is off on this server')
            self._csrf.forget()
        except PrefectApiError as error:
            # To whom asked for something else, a 404 of this endpoint is not what a 404 of theirs would be.
            raise PrefectApiError(error.endpoint, error.cause) from None

    def _observe_clock(self, answer: _Answer, sent: datetime) -> None:
        offset = self._clock.observe(answer.headers.get('Date'), sent, self._clock.local_now())
        if offset is not None and not self._has_warned_of_clock:
            self._has_warned_of_clock = True
            self._log.warning(
                "The server's Date header differs from the clock of the Agent by %s. The check ignores it and uses the "
                'clock of the Agent. Check both clocks',
                f'{offset.total_seconds() / 3600:+,.1f} hours',
            )

    def _decoded(self, endpoint: str, answer: _Answer, decode: Callable[[bytes], Any], limit: int | None = None) -> Any:
        """The answer, decoded, with at most `limit` rows. Raises TooMuch beyond what a run may read."""
        self._refuse_if_bad(endpoint, answer)
        document = self._loads(endpoint, answer, decode)
        rows = document if isinstance(document, list) else getattr(document, 'rows', ())
        if limit is not None and len(rows) > limit:
            raise PrefectApiError(endpoint, f'{len(rows):,} objects instead of at most {limit:,}. Does a proxy cache?')
        self._rows[endpoint] += len(rows)
        if self._rows.total() > _MAX_ROWS:
            raise TooMuch(endpoint, f'{_MAX_ROWS:,} objects', self._rows)
        self._bound_what_is_kept(endpoint, rows)
        return document

    def _bound_what_is_kept(self, endpoint: str, rows: Sequence[object]) -> None:
        # The pages of a log are handed on one by one.
        kept = 0 if endpoint.endswith('/logs/filter') else kept_bytes(rows) // 2**10
        if kept > _MAX_KEPT_KB // 4:
            raise TooLarge(endpoint, 'the names in the answer are too long. Is this a Prefect server?')
        self._kept_kb[endpoint] += kept
        if kept and self._kept_kb.total() > _MAX_KEPT_KB:
            raise TooMuch(endpoint, f'{_MAX_KEPT_KB:,} kB of long names', self._kept_kb)

    def _refuse_if_bad(self, endpoint: str, answer: _Answer) -> None:
        """Raise what an answer is that has no JSON of a bounded size, or none at all."""
        if not 200 <= answer.status < 300:
            retry_after = answer.headers.get('Retry-After')
            location = answer.headers.get('Location')
            error = status_error(
                endpoint,
                answer.status,
                self.says(_detail(answer), 200),
                retry_after=retry_after and self.says(retry_after, 40),
                location=self.says(_target(self.base_url, location), 200),
            )
            if answer.status == 429:
                self._refusal = error
            raise error
        if answer.is_cut:
            size = f'{answer.limit // 2**20} MB' if answer.limit >= 2**20 else f'{answer.limit // 2**10} kB'
            raise TooLarge(endpoint, f'the answer is larger than {size}. Is this a Prefect server?')
        if decoding.is_too_dense(answer.content):
            raise TooLarge(endpoint, 'the answer has too many values. Is this a Prefect server?')

    def _loads(self, endpoint: str, answer: _Answer, decode: Callable[[bytes], Any]) -> Any:
        try:
            content = answer.content
            mask = self._mask()
            if mask.is_needed(content) or not decoding.is_plain(content):
                content = decoding.dumps(mask.document(decoding.loads(content)))
            return decode(content)
        except (ValueError, RecursionError):
            kind = self.says(answer.headers.get('Content-Type', 'no content type'), 60)
            hint = 'Is /api missing from prefect_url, or is this a login page?'
            if kind.startswith('application/json'):
                hint = 'Does a proxy cut or change it?'
            raise PrefectApiError(endpoint, f'the answer is not JSON ({kind}). {hint}') from None

    def _endpoint(self, method: str, path: str) -> str:
        """Method and path as errors name them: a path may hold the name of a work pool."""
        return self.says(f'{method} {path}', _ENDPOINT_BYTES)

    def _mask(self) -> Mask:
        """For the secrets of now: a token is renewed at times."""
        secrets = self._http.secrets.union(header_secrets(self._http.options['headers']), self._csrf.headers.values())
        if secrets != self._mask_of[0]:
            self._mask_of = (secrets, Mask(secrets))
        return self._mask_of[1]

    def _send(self, endpoint: str, method: str, path: str, url: str, options: dict[str, Any]) -> _Answer:
        """The answer, with any status. A connection that is lost before there is one is tried once more."""
        if self._refusal is not None:
            # The server has had enough: all further requests wait for the next run.
            raise self._refusal
        try:
            return self._send_once(endpoint, method, path, url, options)
        except _ConnectionLost:
            # The server closes a connection that was idle for 5 s; a request may cross that on its way.
            self._log.debug('%s: the connection was closed, trying once more', endpoint)
            return self._send_once(endpoint, method, path, url, options)

    def _send_once(self, endpoint: str, method: str, path: str, url: str, options: dict[str, Any]) -> _Answer:
        if self.budget.is_used_up:
            raise OutOfTime(self.budget)
        self._sent[endpoint] += 1
        if self._sent.total() > _MAX_REQUESTS:
            raise TooMuch(endpoint, f'{_MAX_REQUESTS:,} requests', self._sent)
        send = self._http.get if method == 'GET' else self._http.post
        started = time.monotonic()
        limit = min(self._answer_seconds, self.budget.remaining)
        connect, read = (min(seconds, limit) for seconds in self._timeouts())
        most = decoding.max_bytes(path)
        exchange = Exchange(most, decoding.MAX_SMALL_BYTES, started + limit)

        def answer() -> _Answer:
            with (
                exchange.begun(),
                # A redirect would carry the headers, credentials among them, to a host that nobody configured.
                send(url, allow_redirects=False, stream=True, timeout=(connect, read), **options) as response,
            ):
                return _Answer(response.status_code, response.headers, response.content, exchange.is_cut, most)

        try:
            return self._caller.call(answer, limit + _GRACE_SECONDS)
        except TookTooLong as error:
            failure: PrefectApiError = Unreachable(endpoint, self._describe_slow(str(error), limit))
        except requests.exceptions.RequestException as error:
            failure = self._failure(endpoint, FailedRequest(error, urlsplit(self.base_url).netloc, connect, read))
        except PrefectApiError:
            raise
        except Exception as error:
            if exchange.has_answer:
                cause = 'demands credentials in a way that is not understood. Check auth_type'
                failure = Unreachable(endpoint, f'{urlsplit(self.base_url).netloc} {cause}')
            else:
                # What the Agent base needs for a request could not be had: a certificate, a token.
                failure = Unreachable(endpoint, describe_preparation(error))
        finally:
            # Of a call that nobody waits for any longer: the thread that makes it ends with its connections.
            exchange.end()
            seconds = time.monotonic() - started
            self.budget.charge(endpoint, seconds)
            self.stats.add(path, exchange.received, seconds)
        # Not where the error of the HTTP library is handled: it would be kept with this one, and its sockets with it.
        raise failure

    @staticmethod
    def _failure(endpoint: str, failed: FailedRequest) -> PrefectApiError:
        kind = _ConnectionLost if failed.is_lost_connection else Unreachable
        return kind(endpoint, failed.describe())

    def _timeouts(self) -> tuple[float, float]:
        """Those of the options for connecting and for one read, in seconds."""
        connect, read = self._http.options['timeout']
        return float(connect), float(read)

    def _describe_slow(self, reason: str, limit: float) -> str:
        address = urlsplit(self.base_url).netloc
        if reason:
            return f'skipped: {reason} by {address}. Is the server or a proxy stuck?'
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


def _target(base_url: str, location: str | None) -> str:
    """Where a redirect leads, without user info and query; '' if it does not say."""
    try:
        parts = urlsplit(urljoin(f'{base_url}/', location)) if location else urlsplit('')
    except ValueError:
        return ''
    return urlunsplit((parts.scheme, parts.netloc.rpartition('@')[2], parts.path.partition(';')[0], '', ''))


def _detail(answer: _Answer) -> str:
    """The server's own words about an error: `detail` (FastAPI) or `exception_...` (Prefect); never HTML."""
    if 200 <= answer.status < 300:
        return ''
    try:
        document = decoding.loads(answer.content)
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
