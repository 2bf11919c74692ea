"""A stand-in for the API of one Datadog account, on loopback.

It keeps what it is given, reads each body with the models of Datadog's own client and refuses what they do not
understand, and changes objects as Datadog does: identities, defaults, tags in lower case, only `team:` tags on
dashboards. It knows the requests of the import and answers others with 404. Faults: `deny` (403), `throttle` (429)
and `break_once` (500).
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any
from urllib.parse import parse_qs, urlsplit

from datadog_api_client import Configuration
from datadog_api_client.model_utils import UnparsedObject, validate_and_convert_types
from datadog_api_client.v1.model.dashboard import Dashboard
from datadog_api_client.v1.model.logs_pipeline import LogsPipeline
from datadog_api_client.v1.model.monitor import Monitor
from datadog_api_client.v1.model.service_level_objective_request import ServiceLevelObjectiveRequest

API_KEY, APP_KEY = 'api-key-of-the-account', 'app-key-of-the-account'
MODELS = {
    'monitor': Monitor,
    'dashboard': Dashboard,
    'slo': ServiceLevelObjectiveRequest,
    'logs/config/pipelines': LogsPipeline,
}
PATH = re.compile(r'/api/v1/(monitor|dashboard|slo|logs/config/pipelines)(?:/([^/]+))?')


class Refusal(Exception):
    """A status and what Datadog says with it."""

    def __init__(self, status: int, text: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self.status, self.headers = status, headers or {}


class FakeDatadog:
    def __init__(self) -> None:
        self.objects: dict[str, dict[str, dict[str, Any]]] = {resource: {} for resource in MODELS}
        self.writes: list[str] = []
        self.deny: set[str] = set()
        self.throttle = 0
        self.throttle_seconds = 0.0
        self.break_once: set[str] = set()
        self.url = ''
        self._identities = count(101)

    def everything(self, resource: str) -> list[dict[str, Any]]:
        return list(self.objects[resource].values())

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: Any) -> Any:
        if headers.get('DD-API-KEY') != API_KEY:
            raise Refusal(403, 'Forbidden')
        if self.throttle:
            self.throttle -= 1
            raise Refusal(429, 'Too many requests', {'X-RateLimit-Reset': str(self.throttle_seconds)})
        address = urlsplit(path)
        if (method, address.path) == ('GET', '/api/v1/validate'):
            return {'valid': True}
        match = PATH.fullmatch(address.path)
        if match is None:
            raise Refusal(404, f'Not found: {method} {path}')
        resource, identity = match.groups()
        if headers.get('DD-APPLICATION-KEY') != APP_KEY or f'{method} {resource}' in self.deny:
            raise Refusal(403, 'Forbidden')
        if method == 'GET':
            page = {name: int(values[0]) for name, values in parse_qs(address.query).items()}
            return (
                self._list(resource, page)
                if identity is None
                else self._envelope(resource, self._get(resource, identity))
            )
        if identity is not None:
            self._get(resource, identity)
        kept = self._kept(resource, body)
        identity = identity or str(next(self._identities))
        self.objects[resource][identity] = {**kept, 'id': int(identity) if resource == 'monitor' else identity}
        self.writes.append(f'{method} {resource}')
        if resource in self.break_once:
            # Datadog may have done what it answers with an error.
            self.break_once.remove(resource)
            raise Refusal(500, 'Internal error')
        answer = self.objects[resource][identity]
        return {'data': [answer], 'errors': []} if resource == 'slo' else answer

    def _get(self, resource: str, identity: str) -> dict[str, Any]:
        try:
            return self.objects[resource][identity]
        except KeyError:
            raise Refusal(404, f'{resource} {identity} not found') from None

    def _envelope(self, resource: str, found: dict[str, Any]) -> Any:
        return {'data': found, 'errors': []} if resource == 'slo' else found

    def _list(self, resource: str, page: Mapping[str, int]) -> Any:
        found = self.everything(resource)
        if resource == 'monitor':
            start = page['page'] * page['page_size']
            return found[start : start + page['page_size']]
        if resource == 'slo':
            return {'data': found[page['offset'] : page['offset'] + page['limit']], 'errors': []}
        if resource == 'dashboard':
            found = found[page['start'] : page['start'] + page['count']]
            return {'dashboards': [{key: one[key] for key in ('id', 'title', 'description')} for one in found]}
        return found

    def _kept(self, resource: str, body: Any) -> dict[str, Any]:
        """What the account makes of a body; raises Refusal where the client's models do not understand a part."""
        model = validate_and_convert_types(body, (MODELS[resource],), ['body'], True, True, Configuration())
        parts = [model]
        while parts:
            part = parts.pop()
            if isinstance(part, UnparsedObject) or getattr(part, '_unparsed', False):
                raise Refusal(400, f'not understood: {str(part)[:200]}')
            parts += part if isinstance(part, list) else getattr(part, '_data_store', {}).values()
        kept = json.loads(json.dumps(body))
        kept['tags'] = [tag.lower() for tag in kept.get('tags', [])]
        if resource == 'dashboard':
            strange = [tag for tag in kept['tags'] if not tag.startswith('team:')]
            if strange:
                raise Refusal(400, f'Invalid tags {strange}: a dashboard takes tags of the key team only')
            for number, widget in enumerate(kept['widgets']):
                widget['id'] = next(self._identities) * 1000 + number
        if resource == 'monitor':
            kept['options'] = {'silenced': {}, 'new_host_delay': 300, **kept['options']}
            kept |= {'overall_state': 'No Data', 'multi': True}
        return kept


@contextmanager
def running(fake: FakeDatadog) -> Iterator[FakeDatadog]:
    class Handler(BaseHTTPRequestHandler):
        wbufsize = -1
        protocol_version = 'HTTP/1.1'

        def respond(self) -> None:
            length = int(self.headers.get('Content-Length') or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            headers: Mapping[str, str] = {}
            try:
                status, answer = 200, fake.answer(self.command, self.path, self.headers, body)
            except Refusal as refusal:
                status, answer, headers = refusal.status, {'errors': [str(refusal)]}, refusal.headers
            text = json.dumps(answer).encode()
            self.send_response(status)
            for name, value in {
                **headers,
                'Content-Type': 'application/json',
                'Content-Length': str(len(text)),
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PUT = respond  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.05})
    thread.start()
    fake.url = f'http://127.0.0.1:{server.server_port}'
    try:
        yield fake
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
