from __future__ import annotations

import json

import pytest

from datadog_checks.prefect.api.decoding import loads


@pytest.mark.parametrize(
    ('content', 'document'),
    [
        pytest.param(b'{"a": [1, null]}', {'a': [1, None]}, id='plain'),
        pytest.param(rb'"\ud83d\ude00"', '😀', id='surrogate pair'),
        pytest.param(rb'["\ud83d", "b"]', ['?', 'b'], id='first half of a pair'),
        pytest.param(rb'{"\uDE00": 1}', {'?': 1}, id='second half, in a key'),
    ],
)
def test_every_text_can_be_sent_on(content: bytes, document: object) -> None:
    assert loads(content) == document


@pytest.mark.parametrize('content', [b'', b'{', b'<html>', b'\xff', rb'["\ud800"'])
def test_what_is_not_json_is_an_error(content: bytes) -> None:
    with pytest.raises((json.JSONDecodeError, UnicodeDecodeError)):
        loads(content)
