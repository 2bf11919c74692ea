"""An HTTP reverse proxy on loopback that does to a client what networks and overloaded servers do.

`prefect_url` of the check points at it; behind it is a real Prefect server. HTTP/1.1 with connections that stay open on
both sides; bodies are passed on as they come, gzip untouched. Which request meets which fault is drawn from a seed, so
that the same number of requests meets the same faults. It counts what it did.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import urlsplit

FaultKind = Literal['reset', 'delay', 'truncated', 'error 500', 'error 503']
ALL_FAULTS: tuple[FaultKind, ...] = ('reset', 'delay', 'truncated', 'error 500', 'error 503')
# As Prefect itself answers when its database fails or is busy.
ERRORS: dict[str, tuple[int, bytes]] = {
    'error 500': (500, b'{"exception_message":"Internal Server Error"}'),
    'error 503': (503, b'{"exception_message":"Service Unavailable"}'),
}
UPSTREAM_SECONDS = 60
# Headers that are about one connection and not about the message (RFC 9110, section 7.6.1). The proxy sets its own.
HOP_BY_HOP = frozenset({'connection', 'keep-alive', 'transfer-encoding', 'content-length', 'te', 'trailer', 'upgrade'})


@dataclass(frozen=True)
class Fault:
    """What is done to one exchange.

    `early` tells a reset before the request is passed on from one in the middle of the answer, and a body whose
    Content-Length is longer than what is sent from one that is cut between chunks. `seconds` is the length of a delay.
    """

    kind: FaultKind
    early: bool
    seconds: float


class FaultPlan:
    """Draws a fault for a part of the requests, by chance from a seed."""

    def __init__(
        self,
        rate: float,
        seed: int,
        *,
        kinds: Sequence[FaultKind] = ALL_FAULTS,
        delay_seconds: tuple[float, float] = (0.1, 1.0),
    ) -> None:
        self._rate = rate
        self._kinds = tuple(kinds)
        self._delay_seconds = delay_seconds
        self._random = random.Random(seed)

    def draw(self) -> Fault | None:
        """The fault of the next request."""
        # The same number of draws each time, so that neither rate nor kinds move the faults of later requests.
        chance, kind = self._random.random(), self._random.choice(self._kinds)
        early, seconds = self._random.random() < 0.5, self._random.uniform(*self._delay_seconds)
        return Fault(kind, early, seconds) if chance < self._rate else None


@dataclass
class Traffic:
    """What went through the proxy. Bytes are those of bodies, as they are on the wire."""

    requests: int = 0
    request_bytes: int = 0
    answer_bytes: int = 0
    connections: int = 0
    by_endpoint: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)


class FaultProxy:
    """Listens on a free loopback port in front of `target_url`, for example http://127.0.0.1:4200/api.

    Without a plan every request is passed on. `traffic` may be read at any time.
    """

    def __init__(self, target_url: str, plan: FaultPlan | None = None) -> None:
        parts = urlsplit(target_url)
        self.target_host = parts.hostname or '127.0.0.1'
        self.target_port = parts.port or 80
        self.traffic = Traffic()
        self._plan = plan
        self._injects = plan is not None
        self._lock = threading.Lock()
        self._server = _Server(self)
        self.url = f'http://127.0.0.1:{self._server.server_address[1]}{parts.path}'
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name='fault proxy')

    def pass_through(self) -> None:
        """Inject nothing from now on."""
        self._injects = False

    def inject(self) -> None:
        """Inject faults by the plan again."""
        self._injects = self._plan is not None

    def begin(self, method: str, path: str, body: bytes) -> Fault | None:
        """Count a request and draw its fault."""
        with self._lock:
            self.traffic.requests += 1
            self.traffic.request_bytes += len(body)
            self.traffic.by_endpoint[f'{method} {urlsplit(path).path}'] += 1
            fault = self._plan.draw() if self._plan and self._injects else None
            if fault:
                self.traffic.faults[fault.kind] += 1
            return fault

    def count_connection(self) -> None:
        with self._lock:
            self.traffic.connections += 1

    def count_answer(self, size: int) -> None:
        with self._lock:
            self.traffic.answer_bytes += size

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, proxy: FaultProxy) -> None:
        self.proxy = proxy
        super().__init__(('127.0.0.1', 0), _Handler)

    def shutdown_request(self, request: Any) -> None:
        """Close without `shutdown`, which would send FIN where a reset is wanted."""
        self.close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed has not said goodbye: nothing to tell."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """One connection of a client, with one connection of its own to the server behind."""

    protocol_version = 'HTTP/1.1'
    disable_nagle_algorithm = True
    server: _Server

    def setup(self) -> None:
        super().setup()
        self._proxy = self.server.proxy
        self._upstream = HTTPConnection(self._proxy.target_host, self._proxy.target_port, timeout=UPSTREAM_SECONDS)
        self._proxy.count_connection()

    def finish(self) -> None:
        self._upstream.close()
        # The connection may have been reset, by us or by the client.
        with contextlib.suppress(OSError):
            super().finish()

    def __getattr__(self, name: str) -> Any:
        """`do_GET`, `do_POST` and so on: every method is served in the same way."""
        if name.startswith('do_'):
            return self._serve
        raise AttributeError(name)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """No line per request."""

    def send_response(self, code: int, message: str | None = None) -> None:
        """Only the status line: `Date` and `Server` are those of the server behind."""
        self.send_response_only(code, message)

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get('Content-Length') or 0))
        fault = self._proxy.begin(self.command, self.path, body)
        kind = fault.kind if fault else None
        if fault and kind == 'delay':
            time.sleep(fault.seconds)
        if fault and kind == 'reset' and fault.early:
            self._reset()
        elif kind in ERRORS:
            status, content = ERRORS[kind]
            self._answer(status, [('Content-Type', 'application/json')], content)
        else:
            try:
                answer, content = self._ask(body)
            except (OSError, HTTPException):
                self._answer(502, [('Content-Type', 'text/plain')], b'no answer from the server behind')
                return
            headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in HOP_BY_HOP]
            if fault and kind in ('truncated', 'reset'):
                self._break_off(answer.status, headers, content, fault)
            else:
                self._answer(answer.status, headers, content)

    def _ask(self, body: bytes) -> tuple[HTTPResponse, bytes]:
        """The answer of the server behind, on a new connection if it has closed the old one meanwhile."""
        was_open = self._upstream.sock is not None
        try:
            return self._ask_once(body)
        except (OSError, HTTPException):
            self._upstream.close()
            # A request that may write is not sent twice; those of the check only read.
            if not was_open or self.command not in ('GET', 'POST'):
                raise
            return self._ask_once(body)

    def _ask_once(self, body: bytes) -> tuple[HTTPResponse, bytes]:
        headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP}
        self._upstream.request(self.command, self.path, body or None, headers)
        answer = self._upstream.getresponse()
        return answer, answer.read()

    def _answer(self, status: int, headers: Sequence[tuple[str, str]], content: bytes) -> None:
        self._send_head(status, [*headers, ('Content-Length', str(len(content)))])
        if self.command != 'HEAD':
            self.wfile.write(content)
        self._proxy.count_answer(len(content))

    def _break_off(self, status: int, headers: Sequence[tuple[str, str]], content: bytes, fault: Fault) -> None:
        """Send one half of the body, then close the connection, or reset it."""
        half = content[: len(content) // 2]
        if fault.kind == 'truncated' and not fault.early:
            self._send_head(status, [*headers, ('Transfer-Encoding', 'chunked')])
            self.wfile.write(b'%x\r\n' % len(half) + half + b'\r\n' if half else b'')
        else:
            self._send_head(status, [*headers, ('Content-Length', str(len(content)))])
            self.wfile.write(half)
        self._proxy.count_answer(len(half))
        self.close_connection = True
        if fault.kind == 'reset':
            self._reset()

    def _send_head(self, status: int, headers: Sequence[tuple[str, str]]) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()

    def _reset(self) -> None:
        """Close the connection with RST instead of FIN, as a crashed host or a firewall does."""
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        self.close_connection = True
