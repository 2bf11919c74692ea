"""What can go wrong between the check and the server, in words that a person can act on.

PrefectError
  PrefectApiError        an endpoint did not give what it promises
    Unreachable          no answer at all: refused, unknown host, TLS, time-out, connection lost
    Rejected             the server refused the request as such (422): a filter or a limit that it does not know
    NotFound             404
  CollectionError        raised at the end of a run, names each collector that failed

No message holds a secret: no request header, no body, no user info of a URL.
"""

from __future__ import annotations

from collections.abc import Mapping


class PrefectError(Exception):
    """The base of all errors of this integration."""


class PrefectApiError(PrefectError):
    """`endpoint` is method and path ('POST /flow_runs/filter'); `cause` says what happened and what to do."""

    def __init__(self, endpoint: str, cause: str) -> None:
        super().__init__(f'{endpoint}: {cause}')
        self.endpoint = endpoint
        self.cause = cause


class Unreachable(PrefectApiError):
    """No answer came, or only a part of it."""


class Rejected(PrefectApiError):
    """422: this server does not know a filter, a sort or a limit that was asked for."""


class NotFound(PrefectApiError):
    """404: the object is gone, or this server does not have the endpoint."""


class CollectionError(PrefectError):
    """One or more collectors failed: `failures` maps a collector's name to its error."""

    def __init__(self, failures: Mapping[str, Exception]) -> None:
        parts = '; '.join(f'{name}: {error}' for name, error in failures.items())
        super().__init__(f'{len(failures)} of the collectors failed. {parts}')
        self.failures = failures


_HINTS = {
    401: 'not authorized. Check username and password, or the Authorization header in headers',
    403: 'forbidden. Check the credentials; a server with CSRF protection refuses requests without its token',
    404: 'not found. Is /api missing from prefect_url?',
    405: 'method not allowed. Is /api missing from prefect_url?',
    422: 'refused as invalid. Is this version of Prefect server supported?',
    429: 'too many requests',
    500: 'the server failed. Look at its log; is its database available?',
    502: 'bad gateway. The proxy in front of the server gets no good answer from it',
    503: 'unavailable. Is the server starting, or its database overloaded?',
    504: 'gateway timeout. The proxy in front of the server waited in vain',
}


def status_error(endpoint: str, status: int, detail: str, retry_after: str | None) -> PrefectApiError:
    """The error for an HTTP status that is not 2xx. `detail` is the server's own words, '' if it gave none."""
    if 300 <= status < 400:
        hint = 'redirected. Set prefect_url to the address that the server redirects to'
    else:
        hint = _HINTS.get(status, 'unexpected status')
    cause = f'HTTP {status}, {hint}'
    if retry_after:
        cause += f' (Retry-After: {retry_after[:40]})'
    if detail:
        cause += f' (the server says: {detail[:200]})'
    kind = {404: NotFound, 422: Rejected}.get(status, PrefectApiError)
    return kind(endpoint, cause)
