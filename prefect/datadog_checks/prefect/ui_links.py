"""The URL of the API, and the links into the user interface of Prefect that follow from it."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit, urlunsplit

from datadog_checks.prefect.urls import CLOUD_URL, path_segment


def split_user_info(url: str) -> tuple[str, tuple[str, str] | None]:
    """`url` without user info and trailing slash, and the user and password that it held."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition('@')[2]
    clean = urlunsplit((parts.scheme, host, parts.path.rstrip('/'), '', ''))
    if parts.username is None:
        return clean, None
    return clean, (unquote(parts.username), unquote(parts.password or ''))


def ui_url(api_url: str) -> str:
    """Where the user interface is to be found, as Prefect's own client derives it from the URL of the API."""
    cloud = CLOUD_URL.fullmatch(api_url)
    if cloud and cloud['path'] == '/api':
        return f'{cloud["scheme"]}app.{cloud["host"]}/account/{cloud["account"]}/workspace/{cloud["workspace"]}'
    return api_url.removesuffix('/api').rstrip('/')


def object_path(kind: str, object_id: str, name: str | None, work_pool_name: str | None) -> str | None:
    """The page of an object (3.8.8); None if it has none. Work pools and queues are found by name."""
    match kind:
        case 'flow-run' | 'task-run':
            return f'/runs/{kind}/{path_segment(object_id)}'
        case 'flow' | 'deployment':
            return f'/{kind}s/{kind}/{path_segment(object_id)}'
        case 'work-pool' if name:
            return f'/work-pools/work-pool/{path_segment(name)}'
        case 'work-queue' if name and work_pool_name:
            return f'/work-pools/work-pool/{path_segment(work_pool_name)}/queue/{path_segment(name)}'
    return None
