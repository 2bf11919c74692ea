from __future__ import annotations

import pytest

from datadog_checks.prefect.errors import CollectionError, NotFound, PrefectApiError, Rejected, status_error


def test_collection_error_names_each_collector_with_its_error() -> None:
    failures = {'workers': PrefectApiError('POST /x', 'HTTP 500'), 'flow_runs': ValueError('wrong')}
    error = CollectionError(failures)
    assert str(error) == '2 of the collectors failed. workers: POST /x: HTTP 500; flow_runs: wrong'
    assert error.failures is failures


@pytest.mark.parametrize(
    ('status', 'kind'), [(404, NotFound), (422, Rejected), (500, PrefectApiError), (302, PrefectApiError)]
)
def test_status_gives_the_kind_of_error(status: int, kind: type[PrefectApiError]) -> None:
    error = status_error('GET /x', status, '', retry_after=None)
    assert type(error) is kind
    assert error.cause.startswith(f'HTTP {status}, ')


def test_what_the_server_says_comes_last() -> None:
    error = status_error('GET /x', 503, 'database is locked', retry_after='5')
    assert str(error).endswith('(Retry-After: 5) (the server says: database is locked)')


@pytest.mark.parametrize('retry_after', [None, ''])
def test_nothing_is_said_of_what_is_not_known(retry_after: str | None) -> None:
    message = str(status_error('GET /x', 500, '', retry_after=retry_after))
    assert 'Retry-After' not in message
    assert 'says' not in message
