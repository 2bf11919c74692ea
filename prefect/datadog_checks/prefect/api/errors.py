"""What can go wrong between the check and the server, in words that a person can act on.

PrefectError
  PrefectApiError        an endpoint did not give what it promises
    Unreachable          no answer at all: refused, unknown host, TLS, time-out, connection lost
    TooLarge             the answer would take too much memory
    TooMuch              a run of the check has asked for all that it may, in requests or in objects
    Rejected             the server refused the request as such (422): a filter or a limit that it does not know
    NotFound             404
  UnsupportedVersion     the server is older than any that the check can read
  OutOfTime              the run of the check has used up its time
  CollectionError        raised at the end of a run, names each collector that failed

No message holds a secret: no request header, no body, no user info of a URL.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from datadog_checks.prefect.safe_text import without_control

if TYPE_CHECKING:
    from datadog_checks.prefect.api.time_limit import TimeLimit


class PrefectError(Exception):
    """The base of all errors of this integration."""


class PrefectApiError(PrefectError):
    """`endpoint` is method and path ('POST /flow_runs/filter'); `cause` says what happened and what to do."""

    def __init__(self, endpoint: str, cause: str) -> None:
        self.endpoint = endpoint
        # Others' words in it may hold anything.
        self.cause = without_control(cause)
        super().__init__(f'{endpoint}: {self.cause}')


class Unreachable(PrefectApiError):
    """No answer came, or only a part of it."""


class TooLarge(PrefectApiError):
    """The answer has more bytes or values than one of its kind may have. A page can be read in parts."""


class TooMuch(PrefectApiError):
    """A run of the check has had all that it may. `found` has how much of that by endpoint."""

    def __init__(self, endpoint: str, limit: str, found: Counter[str]) -> None:
        most, times = found.most_common(1)[0]
        filters = 'event_names' if '/events/' in most else 'work_pool_names, deployment_names or flow_names'
        super().__init__(
            endpoint,
            f'skipped: a run of the check is limited to {limit}; {times:,} of them went to {most}. Filter by {filters}',
        )


class TooManyToRemember(PrefectApiError):
    """`what` says of which objects there are `number`, more than one instance remembers: 'deployments are there'."""

    def __init__(self, table: str, number: int, what: str, most: int) -> None:
        super().__init__(
            f'POST /{table}/count',
            f'{number} {what}, more than {most}. '
            'Split the server over several instances by work_pool_names or deployment_names',
        )


class Rejected(PrefectApiError):
    """422: this server does not know a filter, a sort or a limit that was asked for."""


class NotFound(PrefectApiError):
    """404: the object is gone, or this server does not have the endpoint."""


class UnsupportedVersion(PrefectError):
    """Nothing was asked of a server that would refuse most of it. `supported` is the range of versions, for people."""

    def __init__(self, version: str, supported: str) -> None:
        super().__init__(f'Prefect {version} is not supported, only {supported}. Upgrade the Prefect server')


class OutOfTime(PrefectError):
    """A collector was skipped or cut short: this run of the check has no time left."""

    def __init__(self, budget: TimeLimit) -> None:
        super().__init__(f'skipped: {budget.explain()}')


class CollectionError(PrefectError):
    """One or more of the `total` collectors failed: `failures` maps a collector's name to its error.

    An error that several collectors share is said once.
    """

    def __init__(self, failures: Mapping[str, Exception], total: int) -> None:
        super().__init__(f'{len(failures)} of {total} collectors failed: {"; ".join(_parts(failures))}')
        self.failures = failures


def _parts(failures: Mapping[str, Exception]) -> Iterator[str]:
    """'workers, work_pools: error'; a cause that several endpoints share is told with the first of them."""
    collectors: defaultdict[str, list[str]] = defaultdict(list)
    errors = {_text(error): error for error in failures.values()}
    for name, error in failures.items():
        collectors[_text(error)].append(name)
    told: set[str] = set()
    for text, names in collectors.items():
        error = errors[text]
        cause = error.cause if isinstance(error, PrefectApiError) else text
        if isinstance(error, PrefectApiError) and cause in told:
            text = f'{error.endpoint}: same cause'
        told.add(cause)
        yield f'{", ".join(names)}: {text}'


def _text(error: Exception) -> str:
    """The error in one line. What an exception says that is none of ours may be anything, even data of the server."""
    if isinstance(error, PrefectError):
        return str(error)
    return f'unexpected {type(error).__name__}, a defect of the check. See the log of the Agent'


HINTS = {
    400: 'bad request. Does a proxy change requests, or expect https://?',
    401: 'not authorized. Check auth_string, username and password, or the Authorization header in extra_headers',
    403: 'forbidden. Check the credentials and their permissions; the check fetches CSRF tokens itself',
    404: 'not found. Is /api missing from prefect_url?',
    405: 'method not allowed. Is /api missing from prefect_url?',
    407: 'the HTTP proxy requires credentials. Check proxy',
    422: 'the server rejected the request as invalid. Is this version of Prefect supported?',
    429: 'too many requests. Raise min_collection_interval, or filter by names',
    500: 'the server failed. Check its log and its database',
    502: 'bad gateway. The proxy got no valid answer from the server',
    503: 'unavailable. Is the server starting, or its database overloaded?',
    504: 'gateway timeout. The proxy timed out waiting for the server',
}


def status_error(
    endpoint: str, status: int, detail: str, retry_after: str | None, location: str = ''
) -> PrefectApiError:
    """The error for an HTTP status that is not 2xx. `detail` is the server's own words, '' if it gave none; `location`
    is where a redirect leads. What is in them is safe to show.
    """
    if 300 <= status < 400:
        target = f' to {location}' if location else ''
        hint = f'redirected{target}. Not followed. Set prefect_url to the address of the API itself'
    else:
        hint = HINTS.get(status, 'unexpected status. Check the logs of the server and of any proxy in front of it')
    cause = f'HTTP {status}, {hint}'
    if retry_after:
        cause += f' (Retry-After: {retry_after})'
    if detail:
        cause += f' (the server says: {detail})'
    kind = {404: NotFound, 422: Rejected}.get(status, PrefectApiError)
    return kind(endpoint, cause)
