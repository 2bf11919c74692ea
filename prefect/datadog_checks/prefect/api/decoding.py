"""From the bytes of an answer to objects, whose memory is bounded before there is any.

Two bytes of JSON (`{}`) may become 64 in memory, and eight (`{"":0},`) 340. So what would be built is estimated from
the characters that stand for it, at a hundredth of the cost of building it.
"""

from __future__ import annotations

import json
import re
from typing import Any

# The answers that hold no rows: health, versions, counts, tokens. And what is read of an error.
MAX_SMALL_BYTES = 64 * 2**10
# A page of 200 runs has half a megabyte, and more where parameters are long: one that is larger is read in parts.
MAX_PAGE_BYTES = 8 * 2**20
# A log record may have 10 MB, and a control character takes six bytes in JSON.
_MAX_LOG_BYTES = 24 * 2**20
_MAX_MEMORY = 128 * 2**20

_SMALL = re.compile('/(health|ready|version|admin/version|csrf-token)|.*/count')
# Bytes while pydantic 2.12 and 2.13 read it, on a 64-bit machine: a dict with a key, a list with an item, and any other
# value with its place in a list. Python objects of the same JSON take less.
_DICT_BYTES, _LIST_BYTES, _VALUE_BYTES = 400, 250, 72
_LONE_SURROGATE = re.compile('[\ud800-\udfff]')


def max_bytes(path: str) -> int:
    """How many bytes the answer of an endpoint ('/flow_runs/filter') may have, decompressed."""
    if path == '/logs/filter':
        return _MAX_LOG_BYTES
    return MAX_SMALL_BYTES if _SMALL.fullmatch(path) else MAX_PAGE_BYTES


def is_too_dense(content: bytes) -> bool:
    """Whether the objects of a JSON text would take too much memory."""
    empty = content.count(b'{}')
    values = sum(map(content.count, (b',', b':', b'['))) + empty
    dicts = content.count(b'{') - empty
    lists = content.count(b'[') - content.count(b'[]')
    # A character beyond Latin-1 makes each of its text as wide as four bytes, in the whole and in the part.
    width = 2 if content.isascii() and b'\\u' not in content else 8
    containers = dicts * _DICT_BYTES + lists * _LIST_BYTES
    return values * _VALUE_BYTES + containers + len(content) * width > _MAX_MEMORY


def loads(content: bytes) -> Any:
    """JSON in UTF-8. Raises ValueError, and RecursionError for what is nested without end.

    Half of a surrogate pair, raw or escaped, is no text that could be sent anywhere: it becomes a question mark. (The
    JSON library would take raw ones for text, and UTF-16 for JSON.)
    """
    document = json.loads(content.removeprefix(b'\xef\xbb\xbf').decode(errors='replace'))
    if b'\\ud' in content or b'\\uD' in content:
        text = json.dumps(document, ensure_ascii=False)
        # Both of them at once would be too much.
        del document
        document = json.loads(_LONE_SURROGATE.sub('?', text))
    return document


def is_plain(content: bytes) -> bool:
    """Whether a JSON text is UTF-8 with nothing in it that `loads` would change."""
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return not content.startswith(b'\xef\xbb\xbf') and b'\\ud' not in content and b'\\uD' not in content


def dumps(document: Any) -> bytes:
    return json.dumps(document, ensure_ascii=False).encode()
