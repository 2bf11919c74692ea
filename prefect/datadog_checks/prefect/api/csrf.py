"""The token that a server with CSRF protection (PREFECT_SERVER_CSRF_PROTECTION_ENABLED) demands of every POST."""

from __future__ import annotations

import time
import uuid
from datetime import datetime
from typing import Any

from datadog_checks.prefect.api.errors import PrefectApiError
from datadog_checks.prefect.api.times import parse_time

PATH = '/csrf-token'
# A token is renewed after this part of its life, which is an hour unless the server is configured otherwise.
_RENEWAL = 0.9
# It becomes a header of each request; the server's have 64 characters (2.20 to 3.9).
_MAX_TOKEN_LENGTH = 1000
# What the server says with its 403: 'Missing CSRF token.', 'Invalid CSRF token or client identifier.' (2.20 to 3.9).
_WORDS = ('csrf', 'client identifier')


class CsrfToken:
    """The token of one client. A new token for the same client makes the old one invalid, so each instance is its own
    client.
    """

    def __init__(self) -> None:
        self.client = str(uuid.uuid4())
        self._token: str | None = None
        self._renew_at = 0.0

    @property
    def headers(self) -> dict[str, str]:
        """Those to send with a POST; none while the server has not asked for them."""
        if self._token is None:
            return {}
        return {'Prefect-Csrf-Token': self._token, 'Prefect-Csrf-Client': self.client}

    @property
    def is_outdated(self) -> bool:
        return self._token is not None and time.monotonic() >= self._renew_at

    def take(self, answer: Any, now: datetime) -> None:
        """Use the token of an answer to `GET /csrf-token?client=`; `now` is the server's time."""
        try:
            token, expiration = answer['token'], parse_time(answer['expiration'])
        except (KeyError, TypeError, ValueError, OverflowError):
            token, expiration = None, now
        is_text = isinstance(token, str) and token.isascii() and token.isprintable()
        if not is_text or len(token) > _MAX_TOKEN_LENGTH:
            raise PrefectApiError(
                f'GET {PATH}', 'the answer has no token with an expiration. Does a proxy answer in place of the server?'
            )
        self._token = token
        self._renew_at = time.monotonic() + _RENEWAL * (expiration - now).total_seconds()

    def forget(self) -> None:
        """The server does not ask for a token any more."""
        self._token = None


def is_demanded(status: int, detail: str) -> bool:
    """Whether an answer refuses a request for its token."""
    return status == 403 and any(word in detail.lower() for word in _WORDS)
