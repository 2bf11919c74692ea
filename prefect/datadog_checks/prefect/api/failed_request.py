"""Why a request got no answer, in words: which exception of `requests` and `urllib3` means what, and what to do.

The text of such an exception may hold the URL, so none of it is repeated but the words of the operating system and of
the TLS library.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable
from http.client import HTTPException, RemoteDisconnected

import requests
import urllib3

_CHECK_SCHEME = 'Check the port and the scheme (http:// or https://) of prefect_url'
_TLS_SOURCE = re.compile(r' \(_ssl\.c:\d+\)$')


class FailedRequest:
    """A request to `address` that was given `connect` and `read` seconds, and what `requests` raised."""

    def __init__(self, error: requests.exceptions.RequestException, address: str, connect: float, read: float) -> None:
        self.address = address
        self.connect = connect
        self.read = read
        self._error = error
        self._causes = _causes(error)

    def is_a(self, *kinds: type[BaseException]) -> bool:
        return isinstance(self._error, kinds)

    def comes_from(self, *kinds: type[BaseException]) -> bool:
        """Whether it is of one of these kinds, or what led to it is."""
        return any(isinstance(cause, kinds) for cause in self._causes)

    @property
    def kind(self) -> str:
        return type(self._error).__name__

    @property
    def root_cause(self) -> str:
        return _words(self._causes[-1])

    @property
    def is_lost_connection(self) -> bool:
        """Whether the server closed the connection: it does so with one that was idle for 5 s (3.8.8)."""
        return self.is_a(requests.exceptions.ConnectionError) and self.comes_from(ConnectionResetError, BrokenPipeError)

    def describe(self) -> str:
        """What happened, and what to do."""
        return next(words(self) for applies, words in _MEANINGS if applies(self))


# The first that applies. That prefect_url is an address was checked with the options.
_MEANINGS: tuple[tuple[Callable[[FailedRequest], bool], Callable[[FailedRequest], str]], ...] = (
    (
        lambda failed: failed.is_a(requests.exceptions.ConnectTimeout),
        lambda failed: (
            f'no connection to {failed.address} within {failed.connect:.3g} s. Check prefect_url and the network'
        ),
    ),
    (
        lambda failed: (
            failed.is_a(requests.exceptions.Timeout) or failed.comes_from(urllib3.exceptions.ReadTimeoutError)
        ),
        lambda failed: (
            f'no answer from {failed.address} within {failed.read:.3g} s. Is the server overloaded? (option timeout)'
        ),
    ),
    (
        lambda failed: failed.is_a(requests.exceptions.ProxyError),
        lambda failed: 'the HTTP proxy gave no connection. Check proxy and skip_proxy',
    ),
    (
        lambda failed: failed.is_a(requests.exceptions.SSLError) or failed.comes_from(ssl.SSLError),
        lambda failed: f'TLS with {failed.address} failed: {_tls_problem(failed.root_cause)}',
    ),
    (
        lambda failed: failed.is_a(requests.exceptions.ChunkedEncodingError),
        lambda failed: (
            f'the connection to {failed.address} closed in the middle of an answer. Did the server or a proxy stop?'
        ),
    ),
    (
        lambda failed: failed.is_a(requests.exceptions.ContentDecodingError),
        lambda failed: f'the answer of {failed.address} cannot be decompressed. Does a proxy change it?',
    ),
    (
        lambda failed: failed.comes_from(HTTPException) and not failed.comes_from(ConnectionError),
        lambda failed: f'the answer of {failed.address} is not HTTP. {_CHECK_SCHEME}',
    ),
    (
        lambda failed: failed.comes_from(RemoteDisconnected),
        lambda failed: f'{failed.address} closed the connection without an answer. {_CHECK_SCHEME}',
    ),
    (
        lambda failed: failed.is_a(requests.exceptions.ConnectionError),
        lambda failed: (
            f'no connection to {failed.address}: {failed.root_cause}. '
            'Is the server running, and is prefect_url correct?'
        ),
    ),
    (
        lambda failed: failed.comes_from(urllib3.exceptions.InvalidHeader),
        lambda failed: f'the answer of {failed.address} says two lengths of itself. Does a proxy cut or change it?',
    ),
    (
        lambda failed: failed.is_a(requests.exceptions.InvalidHeader),
        lambda failed: (
            'the request could not be made: a header is not valid. Check headers and extra_headers for line breaks'
        ),
    ),
    (
        lambda failed: failed.is_a(requests.exceptions.InvalidURL),
        lambda failed: 'the request could not be made: the address of the HTTP proxy is not valid. Check proxy',
    ),
    (
        lambda failed: True,
        lambda failed: f'the request could not be made: {failed.kind}. Check prefect_url and proxy',
    ),
)


def describe_preparation(error: Exception) -> str:
    """Why no request could be made. Only an error of the operating system says no more than a path."""
    if isinstance(error, UnicodeError):
        return 'the request could not be made: a header has a character beyond Latin-1. Check extra_headers and proxy'
    hint = 'Check the files of auth_token, tls_ca_cert, tls_cert and tls_private_key'
    if isinstance(error, OSError) and error.strerror:
        name = f' ({error.filename})' if error.filename else ''
        return f'the request could not be made: {_words(error)}{name}. {hint}'
    return f'the request could not be made: {type(error).__name__}. {hint}'


def _causes(error: BaseException) -> list[BaseException]:
    """The exception and what led to it; urllib3 keeps the reason of a failed connection in `args` or `reason`."""
    causes: list[BaseException] = []
    pending: BaseException | None = error
    while pending is not None and pending not in causes:
        causes.append(pending)
        inner = [getattr(pending, 'reason', None), *pending.args, pending.__cause__, pending.__context__]
        pending = next((cause for cause in inner if isinstance(cause, BaseException)), None)
    return causes


def _words(cause: BaseException) -> str:
    """Those of the operating system or the TLS library, without where it says so in its source."""
    text = getattr(cause, 'verify_message', '') or getattr(cause, 'strerror', '') or type(cause).__name__
    return _TLS_SOURCE.sub('', str(text)).rstrip('.')[:200]


def _tls_problem(reason: str) -> str:
    if 'WRONG_VERSION_NUMBER' in reason or 'RECORD_LAYER_FAILURE' in reason:
        return 'the answer is not TLS. Is prefect_url https:// for a server that speaks http://?'
    if 'CERTIFICATE_REQUIRED' in reason:
        return 'the server demands a client certificate. Set tls_cert and tls_private_key'
    return f'{reason}. Check tls_verify, tls_ca_cert and tls_cert'
