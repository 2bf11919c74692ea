"""The parts of URLs: where Prefect Cloud keeps what, and names as segments of a path."""

from __future__ import annotations

import re
from urllib.parse import quote

# The API of a workspace. Its health is at `api`, outside of the workspace.
CLOUD_URL = re.compile(
    '(?P<api>(?P<scheme>.*://)(?:api\\.)?(?P<host>[^/]+)(?P<path>.*))'
    '/accounts/(?P<account>[^/]+)/workspaces/(?P<workspace>[^/]+)'
)


def path_segment(name: str) -> str:
    """A name as one segment of a path."""
    return quote(name, safe='', errors='replace')
