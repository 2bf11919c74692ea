"""Links into the user interface of Prefect."""

from __future__ import annotations

import re
from urllib.parse import quote

_CLOUD = re.compile('(https?://)(?:api\\.)?([^/]+)/api/accounts/([^/]+)/workspaces/([^/]+)')


def ui_url(api_url: str) -> str:
    """Where the user interface is to be found, as Prefect's own client derives it from the URL of the API."""
    cloud = _CLOUD.fullmatch(api_url)
    if cloud:
        scheme, host, account, workspace = cloud.groups()
        return f'{scheme}app.{host}/account/{account}/workspace/{workspace}'
    return api_url.removesuffix('/api').rstrip('/')


def object_path(kind: str, object_id: str, name: str | None, work_pool_name: str | None) -> str | None:
    """The page of an object (3.8.8); None if it has none. Work pools and queues are found by name."""
    match kind:
        case 'flow-run' | 'task-run':
            return f'/runs/{kind}/{_quoted(object_id)}'
        case 'flow' | 'deployment':
            return f'/{kind}s/{kind}/{_quoted(object_id)}'
        case 'work-pool' if name:
            return f'/work-pools/work-pool/{_quoted(name)}'
        case 'work-queue' if name and work_pool_name:
            return f'/work-pools/work-pool/{_quoted(work_pool_name)}/queue/{_quoted(name)}'
    return None


def _quoted(name: str) -> str:
    return quote(name, safe='')
