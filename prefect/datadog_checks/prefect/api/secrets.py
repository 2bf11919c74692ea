"""The configured credentials, which must not be repeated when somebody else says them."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, quote_plus, unquote, urlsplit

from datadog_checks.prefect.safe_text import cut, without_control

MASK = '***'
# Short words would be masked where they are no secret: as a whole word only in messages, not at all in names.
_SHORT = 4
_LEAST_IN_NAMES = 8
_HEX = re.compile('%[0-9A-F]{2}')
_OPTIONS = ('password', 'auth_string', 'tls_private_key_password', 'client_secret', 'secret', 'token', 'api_key')
# Headers that tell nothing about the sender.
_PUBLIC_HEADERS = frozenset(
    ['accept', 'accept-encoding', 'accept-language', 'connection', 'content-type', 'host', 'user-agent']
)


def configured_secrets(*sections: Mapping[str, Any]) -> frozenset[str]:
    """The secrets of options as they are configured: passwords, tokens, values of headers, user info of URLs."""
    return frozenset(secret for section in sections for secret in _secrets(section))


class Mask:
    """Hides secrets, in each form in which a server may repeat them: as they are, URL-encoded, in base64, in JSON."""

    def __init__(self, secrets: Iterable[str]) -> None:
        forms = {form for secret in secrets for form in _forms(secret)}
        # The longest first: one may be a part of another.
        ordered = sorted(forms, key=lambda form: (-len(form), form))
        words = [
            re.escape(form) if len(form) >= _SHORT else rf'(?<!\w){re.escape(form)}(?!\w)' for form in ordered if form
        ]
        self._pattern = re.compile('|'.join(words), re.IGNORECASE) if words else None
        self._in_names = [form for form in ordered if len(form) >= _LEAST_IN_NAMES]
        self._encoded = [form.encode(errors='replace') for form in self._in_names]

    def line(self, text: str, size: int) -> str:
        """What somebody else said, in one line of at most `size` bytes, fit for a log."""
        # Masked first and cut then, for what is left of a secret that was cut through would not be found.
        hidden = self._pattern.sub(MASK, text) if self._pattern else text
        return cut(' '.join(without_control(hidden).split()), size)

    def is_needed(self, content: bytes) -> bool:
        """Whether there is a secret in an answer."""
        return any(form in content for form in self._encoded)

    def document(self, document: Any) -> Any:
        """Decoded JSON without secrets of eight characters or more: what is in it becomes tags and events."""
        if isinstance(document, str):
            for form in self._in_names:
                document = document.replace(form, MASK)
            return document
        if isinstance(document, list):
            return [self.document(item) for item in document]
        if isinstance(document, dict):
            return {key: self.document(value) for key, value in document.items()}
        return document


def _secrets(section: Mapping[str, Any]) -> Iterator[str]:
    for option, value in section.items():
        if option in ('headers', 'extra_headers') and isinstance(value, Mapping):
            yield from header_secrets(value)
        elif isinstance(value, Mapping):
            yield from _secrets(value)
        elif isinstance(value, str) and option in _OPTIONS:
            yield from _credential(value)
        elif isinstance(value, str) and '@' in value and '://' in value:
            yield from _user_info(value)
    user, password = section.get('username'), section.get('password')
    if isinstance(user, str) and isinstance(password, str):
        yield f'{user}:{password}'


def header_secrets(headers: Mapping[str, Any]) -> Iterator[str]:
    """The values of headers; of `Bearer <TOKEN>` the token by itself too, of `Basic <BASE64>` what is in it."""
    for name, value in headers.items():
        if str(name).lower() in _PUBLIC_HEADERS:
            continue
        yield str(value)
        scheme, _, credential = str(value).partition(' ')
        if credential:
            yield credential
        if scheme.lower() == 'basic':
            try:
                yield from _credential(base64.b64decode(credential, validate=True).decode())
            except (binascii.Error, ValueError):
                continue


def _user_info(url: str) -> Iterator[str]:
    try:
        parts = urlsplit(url)
    except ValueError:
        return
    if parts.password:
        yield parts.password
        yield unquote(parts.password)
        yield f'{unquote(parts.username or "")}:{unquote(parts.password)}'


def _credential(text: str) -> Iterator[str]:
    """A secret; of `user:password` the password by itself too."""
    yield text
    password = text.partition(':')[2]
    if password:
        yield password


def _forms(secret: str) -> Iterator[str]:
    encoded = secret.encode(errors='replace')
    yield secret
    for quoted in (quote(secret, safe='', errors='replace'), quote_plus(secret, errors='replace')):
        yield quoted
        yield _HEX.sub(lambda found: found[0].lower(), quoted)
    yield base64.b64encode(encoded).decode().rstrip('=')
    yield base64.urlsafe_b64encode(encoded).decode().rstrip('=')
    escaped = json.dumps(secret)[1:-1]
    yield escaped
    yield escaped.replace('/', '\\/')
