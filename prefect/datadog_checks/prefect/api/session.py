"""The session that sends what is configured and nothing else, and reads no more of an answer than it may.

What `requests` and the Agent base do by default and this does not: credentials from `~/.netrc`, cookies, the body of a
redirect or of a 401 read without limit, certificates fetched from where an unverified one says. The environment's
proxies and authorities apply: `HTTP_PROXY`, `NO_PROXY`, `REQUESTS_CA_BUNDLE`.
"""

from __future__ import annotations

import logging
import os
import socket
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
from requests.adapters import BaseAdapter, HTTPAdapter

from datadog_checks.base import is_affirmative
from datadog_checks.base.utils.http import RequestsWrapper
from datadog_checks.prefect.api.log import Log
from datadog_checks.prefect.api.secrets import configured_secrets

_CHUNK_BYTES = 2**16


class Exchange:
    """One request and its answer: how many bytes may be read, until when (monotonic), and the connections it uses.

    `is_cut` says that the answer has more bytes than that, decompressed; `received` is how many came, compressed;
    `has_answer` that there is one.
    """

    def __init__(self, max_bytes: int, max_bytes_of_error: int, until: float) -> None:
        self.is_cut = False
        self.received = 0
        self.has_answer = False
        self._max_bytes = max_bytes
        self._max_bytes_of_error = max_bytes_of_error
        self._until = until
        self._connections: list[Any] = []
        self._sockets: list[Any] = []
        self._is_abandoned = False
        self._has_ended = False

    @contextmanager
    def begun(self) -> Iterator[None]:
        """What this thread sends in the meantime belongs to it."""
        token = _current.set(self)
        try:
            yield
        finally:
            self._has_ended = True
            _current.reset(token)

    def watch(self, connection: Any) -> None:
        """Use `connection`. Raises ConnectionAbortedError if nobody waits for the answer any longer."""
        self._connections.append(connection)
        if connection.sock is not None:
            # An answer outlives its connection's `sock`: that is None once the server has said `Connection: close`.
            self._sockets.append(connection.sock)
        if self._is_abandoned:
            raise ConnectionAbortedError

    def end(self) -> None:
        """If another thread still reads, that comes to its end at once: nobody waits for the answer any longer."""
        if self._has_ended:
            # An error of the exchange may be kept for longer than its sockets are of use.
            self._connections.clear()
            self._sockets.clear()
            return
        self._is_abandoned = True
        for used in (*self._sockets, *(connection.sock for connection in self._connections)):
            # TLS inside of TLS is no socket, but has one. The one of TLS would forget about TLS first.
            with suppress(OSError, TypeError, AttributeError):
                socket.socket.shutdown(getattr(used, 'socket', used), socket.SHUT_RDWR)

    def read(self, response: requests.Response) -> bytes:
        """The body; none if it is too large or that of a redirect, whose connection is closed then."""
        limit = self._max_bytes if 200 <= response.status_code < 300 else self._max_bytes_of_error
        self.has_answer = True
        content = bytearray()
        is_read = False
        try:
            # A redirect is not followed, so its body is of no use.
            for chunk in () if response.is_redirect else response.iter_content(_CHUNK_BYTES):
                content += chunk
                if len(content) > limit:
                    self.is_cut = True
                    return b''
                if time.monotonic() > self._until:
                    raise requests.exceptions.ReadTimeout
            is_read = not response.is_redirect
            return bytes(content)
        finally:
            self.received += response.raw.tell()
            if not is_read:
                response.raw.close()


_current: ContextVar[Exchange | None] = ContextVar('exchange', default=None)


def _is_not_about_an_exchange(record: logging.LogRecord) -> bool:
    """Leave out what urllib3 warns of in one of ours: it repeats the server's words as they are.

    It does so with headers that it cannot parse (2.8.0); an answer that is broken off has some. Our own errors say what
    is wrong with an answer.
    """
    return record.levelno < logging.WARNING or _current.get() is None


for _name in ('urllib3.connection', 'urllib3.connectionpool', 'urllib3.response'):
    logging.getLogger(_name).addFilter(_is_not_about_an_exchange)


class BoundedHttp(RequestsWrapper):
    """The Agent base's wrapper, with the options of `instances/http`, over sessions of this module."""

    __slots__ = ('secrets',)

    def __init__(
        self,
        instance: Mapping[str, Any],
        init_config: Mapping[str, Any],
        remapper: Mapping[str, Mapping[str, Any]] | None = None,
        logger: Log | None = None,
    ) -> None:
        # The base changes the remapper.
        options = _with_authorities(instance)
        super().__init__(options, init_config, dict(remapper or {}), logger)  # type: ignore[no-untyped-call]
        if self.options['auth'] is None:
            self.options['auth'] = no_auth
        proxies = {**urllib.request.getproxies(), **(self.options['proxies'] or {})}
        self.secrets = configured_secrets(instance, init_config, proxies)

    def make_request_aia_chasing(
        self, request_method: Any, method: str, url: str, new_options: Mapping[str, Any], persist: bool
    ) -> Any:
        """Send a request, and take a certificate that cannot be verified for what it is.

        The base would ask for the missing certificates where the unverified one says, which may be anywhere; version
        37.33.0 sends the credentials there, too.
        """
        return request_method(url, **new_options)

    def _create_session(self) -> requests.Session:
        session = _Session()
        # All that the base sets, adapters among it.
        vars(session).update(vars(super()._create_session()))  # type: ignore[no-untyped-call]
        session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
        return session


def _with_authorities(instance: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options with the authorities of the environment, which the base does not look at, if none are configured."""
    bundle = os.environ.get('REQUESTS_CA_BUNDLE') or os.environ.get('CURL_CA_BUNDLE')
    if not bundle or instance.get('tls_ca_cert') or not is_affirmative(instance.get('tls_verify', True)):
        return instance
    return {**instance, 'tls_ca_cert': bundle}


def no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """No credentials. Where there is no authorization at all, `requests` takes that of `~/.netrc`."""
    return request


class _Session(requests.Session):
    def get_adapter(self, url: str) -> BaseAdapter:
        return _Adapter(super().get_adapter(url))

    def resolve_redirects(self, *arguments: Any, **options: Any) -> Iterator[Any]:
        """None is followed. (To tell where it leads, `requests` reads the body and decodes the `Location`.)"""
        return iter(())


class _Adapter(BaseAdapter):
    """Sends through another adapter and reads the answer, before the code that authorizes can read it without limit."""

    def __init__(self, inner: BaseAdapter) -> None:
        super().__init__()
        self._inner = inner

    def send(self, request: requests.PreparedRequest, *arguments: Any, **options: Any) -> requests.Response:
        exchange = _current.get()
        assert exchange is not None
        if isinstance(self._inner, HTTPAdapter):
            _watch_connections(self._inner, request, options)
        response = self._inner.send(request, *arguments, **options)
        # The server's words, which the base logs when a token is refused.
        response.reason = None  # type: ignore[assignment]
        # Through this, what authorizes sends its answer to a 401.
        response.connection = self  # type: ignore[assignment]
        response._content = exchange.read(response)
        response._content_consumed = True  # type: ignore[attr-defined]
        return response

    def close(self) -> None:
        self._inner.close()


class _Watched:
    """A connection of urllib3 that tells the exchange of this thread that it is used."""

    def connect(self) -> None:
        _watch(self)
        super().connect()  # type: ignore[misc]
        _watch(self)

    def request(self, *arguments: Any, **options: Any) -> None:
        _watch(self)
        super().request(*arguments, **options)  # type: ignore[misc]

    def getresponse(self) -> Any:
        response = super().getresponse()  # type: ignore[misc]
        # `requests` would read them twice before it refuses them: a second of computing for 5 MB of them.
        del response._original_response.msg['Set-Cookie']
        return response


def _watch(connection: object) -> None:
    exchange = _current.get()
    if exchange is not None:
        exchange.watch(connection)


def _watch_connections(adapter: HTTPAdapter, request: requests.PreparedRequest, options: dict[str, Any]) -> None:
    """Have the pool of connections that the adapter will take for `request` make watched ones."""
    pool: Any = adapter.get_connection_with_tls_context(
        request, options.get('verify'), proxies=options.get('proxies'), cert=options.get('cert')
    )
    if not issubclass(pool.ConnectionCls, _Watched):
        pool.ConnectionCls = type('WatchedConnection', (_Watched, pool.ConnectionCls), {})
