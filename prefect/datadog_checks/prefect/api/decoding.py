"""JSON as Python objects."""

from __future__ import annotations

import json
from typing import Any


def loads(content: bytes) -> Any:
    """The document. Raises ValueError, and RecursionError for one that is nested too deep.

    Half of a surrogate pair is legal JSON, but no text that could be sent anywhere: it becomes '?'.
    """
    document = json.loads(content)
    if b'\\ud' in content or b'\\uD' in content:
        document = json.loads(json.dumps(document, ensure_ascii=False).encode(errors='replace'))
    return document
