"""Two ways to reach the fake server: a loopback socket, and straight from `requests`."""

from __future__ import annotations

import gzip
import ssl
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from http.client import responses
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from threading import Lock, Thread
from typing import Any, Protocol
from unittest import mock
from urllib.parse import parse_qsl, urlsplit

import requests
import requests_mock
from requests.structures import CaseInsensitiveDict

# A context manager whose value is the URL of the API, without a trailing slash.
Front = AbstractContextManager[str]
INSTALLED_URL = 'http://prefect.test:4200/api'
GZIP_BYTES = 500


class Response(Protocol):
    @property
    def status(self) -> int: ...

    @property
    def body(self) -> bytes: ...

    @property
    def headers(self) -> Mapping[str, str]: ...


class Server(Protocol):
    """What both fronts need of the fake server."""

    def handle(
        self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], content: bytes
    ) -> Response: ...


@contextmanager
def serve(server: Server) -> Iterator[str]:
    """Serve on a free loopback port, with keep-alive and gzip as the real server."""
    lock = Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = 'HTTP/1.1'
        # One write per answer: with several, each waits for the acknowledgement of the one before.
        wbufsize = -1

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            content = self.rfile.read(int(self.headers.get('Content-Length', 0)))
            try:
                with lock:
                    response = server.handle(
                        self.command, parts.path, dict(parse_qsl(parts.query)), dict(self.headers.items()), content
                    )
            except Exception:
                self.close_connection = True
                return
            self._send(response)

        do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_GET  # noqa: N815

        def _send(self, response: Response) -> None:
            body, headers = response.body, dict(response.headers)
            if len(body) >= GZIP_BYTES and 'gzip' in self.headers.get('Accept-Encoding', ''):
                body = gzip.compress(body, compresslevel=1)
                headers['Content-Encoding'] = 'gzip'
            self.send_response_only(response.status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header('Content-Length', str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    listener = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    listener.daemon_threads = True
    thread = Thread(target=listener.serve_forever, kwargs={'poll_interval': 0.01}, daemon=True)
    thread.start()
    try:
        yield f'http://127.0.0.1:{listener.server_port}/api'
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()


@contextmanager
def install(server: Server) -> Iterator[str]:
    """Answer every request of every `requests.Session`, for any host and scheme.

    What only a connection needs is left out, for it takes longer than an answer: authorities of certificates, proxies
    and passwords from the environment.
    """
    # Not `requests_mock.Mocker`: it lets one request at a time go.
    adapter = requests_mock.Adapter()

    def answer(request: Any) -> requests.Response:
        # The fake has a history of its own. Two would take more memory in long tests.
        adapter.request_history.clear()
        return _answer(server, request._request)

    # A matcher that answers takes a tenth longer than no requests-mock; a callback for the content takes a third.
    adapter.add_matcher(answer)
    with (
        mock.patch.object(requests.Session, 'get_adapter', return_value=adapter),
        mock.patch.object(ssl.SSLContext, 'load_default_certs'),
        mock.patch.object(ssl.SSLContext, 'get_ca_certs', return_value=[{}]),
        mock.patch.object(requests.Session, 'trust_env', _always_false(), create=True),
    ):
        yield INSTALLED_URL


def _always_false() -> property:
    """An attribute that stays false when it is set."""
    return property(lambda _: False, lambda _, value: None)


def _answer(server: Server, request: requests.PreparedRequest) -> requests.Response:
    """Take a prepared request to the fake server instead of to a connection."""
    parts = urlsplit(str(request.url))
    content = request.body.encode() if isinstance(request.body, str) else request.body or b''
    headers = {'Host': parts.netloc, **request.headers}
    answer = server.handle(str(request.method), parts.path, dict(parse_qsl(parts.query)), headers, bytes(content))
    response = requests.Response()
    response.status_code = answer.status
    response.reason = responses.get(answer.status, '')
    response.headers = CaseInsensitiveDict(answer.headers)
    response.encoding = 'utf-8'
    response.raw = BytesIO(answer.body)
    response.url = str(request.url)
    response.request = request
    response.elapsed = timedelta()
    return response
