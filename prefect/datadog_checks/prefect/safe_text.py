"""The words of others, made harmless: without control characters, and no longer than is taken."""

from __future__ import annotations

import re

# Characters that move the cursor, end a line or a text, or turn the direction of writing.
_CONTROL = re.compile('[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]')
_CONTROL_IN_TEXT = re.compile(_CONTROL.pattern.replace('\x00-\x1f', '\x00-\x08\x0b-\x1f'))


def without_control(text: str, *, is_text: bool = False) -> str:
    """`text` with a space for each control character; in a text of several lines all but line break and tab."""
    if text.isprintable():
        return text
    return (_CONTROL_IN_TEXT if is_text else _CONTROL).sub(' ', text)


def cut(text: str, size: int) -> str:
    """`text` in at most `size` bytes of UTF-8, `... (cut)` at its end included if it had more."""
    encoded = text.encode(errors='replace')
    if len(encoded) <= size:
        return text
    end = '... (cut)'
    return encoded[: size - len(end)].decode(errors='ignore') + end
