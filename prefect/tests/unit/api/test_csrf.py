from __future__ import annotations

import time
from typing import Any

import pytest

from datadog_checks.prefect.api.csrf import CsrfToken, is_demanded
from datadog_checks.prefect.api.errors import PrefectApiError
from datadog_checks.prefect.api.times import format_time
from tests.unit.harness import START, at

HOUR = 3600


def answer(token: object = 'secret', expires_after: float = HOUR) -> dict[str, Any]:
    return {'token': token, 'expiration': format_time(at(expires_after))}


def test_no_header_is_sent_until_there_is_a_token() -> None:
    token = CsrfToken()
    assert token.headers == {}
    assert not token.is_outdated

    token.take(answer(), START)
    assert token.headers == {'Prefect-Csrf-Token': 'secret', 'Prefect-Csrf-Client': token.client}


def test_each_is_a_client_of_its_own() -> None:
    assert CsrfToken().client != CsrfToken().client


def test_token_is_renewed_before_it_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([0.0, 1.0, 0.8 * HOUR, 0.95 * HOUR])
    monkeypatch.setattr(time, 'monotonic', lambda: next(seconds))
    token = CsrfToken()
    token.take(answer(), START)

    assert [token.is_outdated for _ in range(3)] == [False, False, True]


def test_token_that_is_old_when_it_comes_is_outdated_at_once() -> None:
    token = CsrfToken()
    token.take(answer(expires_after=-1), START)
    assert token.is_outdated


@pytest.mark.parametrize(
    'wrong',
    [
        pytest.param([], id='a list'),
        pytest.param(None, id='nothing'),
        pytest.param({'token': 'secret'}, id='no expiration'),
        pytest.param({'token': 'secret', 'expiration': 'soon'}, id='no time'),
        pytest.param({'token': 'secret', 'expiration': 7}, id='a number for a time'),
        pytest.param(answer(7), id='a number'),
        pytest.param(answer('two\r\nlines'), id='more headers'),
        pytest.param(answer('s\u00e9same'), id='no ASCII'),
    ],
)
def test_wrong_answer_is_an_error_and_keeps_the_token(wrong: Any) -> None:
    token = CsrfToken()
    token.take(answer(), START)
    with pytest.raises(PrefectApiError, match='the answer has no token with an expiration') as failure:
        token.take(wrong, START)
    assert 'secret' not in str(failure.value)
    assert token.headers['Prefect-Csrf-Token'] == 'secret'


def test_forgotten_token_is_neither_sent_nor_renewed() -> None:
    token = CsrfToken()
    token.take(answer(expires_after=-1), START)
    token.forget()
    assert token.headers == {}
    assert not token.is_outdated


@pytest.mark.parametrize(
    ('status', 'detail', 'expected'),
    [
        (403, 'Missing CSRF token.', True),
        (403, 'Missing client identifier.', True),
        (403, 'Invalid CSRF token or client identifier.', True),
        (403, 'Forbidden', False),
        (422, 'CSRF protection is disabled.', False),
    ],
)
def test_refusal_for_the_token_is_told_from_others(status: int, detail: str, *, expected: bool) -> None:
    assert is_demanded(status, detail) is expected
