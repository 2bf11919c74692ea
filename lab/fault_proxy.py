"""What stands between the check and a real Prefect server, and does to a client what networks and busy servers do.

Without more it is a reverse proxy that rewrites Host; bodies are passed on as they come, gzip untouched. It can speak
TLS, put another path in place of the one of the server, and meet each request with a fault: a function that is given
the exchange and does with its connection what it likes.
"""

from __future__ import annotations

import contextlib
import random
import socket
import ssl
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import urlsplit

UPSTREAM_SECONDS = 60
# Headers that are about one connection and not about the message (RFC 9110, section 7.6.1). The proxy sets its own.
HOP_BY_HOP = frozenset({'connection', 'keep-alive', 'transfer-encoding', 'content-length', 'te', 'trailer', 'upgrade'})
JSON = {'Content-Type': 'application/json'}


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    content: bytes


class Exchange(BaseHTTPRequestHandler):
    """One connection; a fault is called with it for each request, when the request is read."""

    protocol_version = 'HTTP/1.1'
    disable_nagle_algorithm = True
    server: _Server
    content: bytes

    def setup(self) -> None:
        super().setup()
        self.front = self.server.front
        self.front.connections_made += 1
        self._upstreams = [HTTPConnection(*address, timeout=UPSTREAM_SECONDS) for address in self.front.upstreams]

    def finish(self) -> None:
        for upstream in self._upstreams:
            upstream.close()
        with contextlib.suppress(OSError):
            super().finish()

    def do_GET(self) -> None:
        self.content = self.rfile.read(int(self.headers.get('Content-Length') or 0))
        self.front.requests.append(f'{self.command} {self.endpoint}')
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            self.front.fault(self)
            self.wfile.flush()

    do_POST = do_GET  # noqa: N815

    def log_message(self, *arguments: object) -> None:
        """No line per request."""

    @property
    def endpoint(self) -> str:
        """The path below the API, without its query: '/flow_runs/filter'."""
        return urlsplit(self.path).path.removeprefix(self.front.path)

    def ask(self) -> Answer:
        """The answer of the server, or of one of its replicas."""
        upstream = self.front.random.choice(self._upstreams)
        path = self.front.upstream_path + self.path.removeprefix(self.front.path)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP}
        for is_last in (False, True):
            try:
                upstream.request(self.command, path, self.content or None, headers | {'Host': 'behind.example'})
                response = upstream.getresponse()
                kept = {name: value for name, value in response.getheaders() if name.lower() not in HOP_BY_HOP}
                return Answer(response.status, kept, response.read())
            except (OSError, HTTPException):
                # The server may have closed a connection that was idle. The requests of the check only read.
                upstream.close()
                if is_last:
                    raise
        raise AssertionError('unreachable')

    def answer(self, status: int = 200, content: bytes = b'', headers: Mapping[str, str] | None = None) -> None:
        self.head(status, {'Content-Length': str(len(content)), **(headers or {})})
        self.body(content)

    def body(self, content: bytes) -> None:
        self.wfile.write(content)
        self.front.answer_bytes += len(content)

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def pass_on(self) -> None:
        """Be a reverse proxy."""
        answer = self.ask()
        self.answer(answer.status, answer.content, answer.headers)

    def wait(self, seconds: float = 60) -> bool:
        """Do nothing, for so long or until the test is over; whether it is."""
        return self.front.is_over.wait(seconds)

    def close(self, *, reset: bool = False) -> None:
        self.close_connection = True
        self.wfile.flush()
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))


Fault = Callable[[Exchange], None]


def answers(status: int, content: bytes = b'', headers: Mapping[str, str] | None = None) -> Fault:
    return lambda exchange: exchange.answer(status, content, headers)


def reset(exchange: Exchange) -> None:
    exchange.close(reset=True)


def cut_in_half(*, chunked: bool = False, reset: bool = False) -> Fault:
    """One half of the answer, shorter than its length says or without a last chunk, and the end of the connection."""

    def fault(exchange: Exchange) -> None:
        answer = exchange.ask()
        half = answer.content[: len(answer.content) // 2 + 1]
        if chunked:
            exchange.head(answer.status, {**answer.headers, 'Transfer-Encoding': 'chunked'})
            half = b'%x\r\n' % len(half) + half + b'\r\n'
        else:
            exchange.head(answer.status, {**answer.headers, 'Content-Length': str(len(answer.content) + 1)})
        exchange.body(half)
        exchange.close(reset=reset)

    return fault


class ByChance:
    """A fault for a part of the requests, drawn from a seed: the same number of requests meets the same faults.

    `seconds` are the shortest and the longest delay. `met` counts the faults by name.
    """

    def __init__(self, rate: float, seed: int, seconds: tuple[float, float]) -> None:
        self.met: Counter[str] = Counter()
        self._rate = rate
        self._seconds = seconds
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        # Errors are as Prefect itself answers when its database fails or is busy.
        self._faults: tuple[tuple[str, Fault], ...] = (
            ('reset', reset),
            ('reset', cut_in_half(reset=True)),
            ('delay', self._delay),
            ('truncated', cut_in_half()),
            ('truncated', cut_in_half(chunked=True)),
            ('error 500', answers(500, b'{"exception_message":"Internal Server Error"}', JSON)),
            ('error 503', answers(503, b'{"exception_message":"Service Unavailable"}', JSON)),
        )

    def __call__(self, exchange: Exchange) -> None:
        with self._lock:
            # Two draws each time, so that the rate does not move the faults of later requests.
            chance, (name, fault) = self._random.random(), self._random.choice(self._faults)
            is_met = chance < self._rate
            self.met[name] += is_met
        if is_met:
            fault(exchange)
        else:
            exchange.pass_on()

    def _delay(self, exchange: Exchange) -> None:
        exchange.wait(self._random.uniform(*self._seconds))
        exchange.pass_on()


class Front:
    """Listens on a free loopback port. `url` is a value for `prefect_url`; `path` replaces the server's own `/api`.

    With `replicas`, each request goes to the server or to one of them, chosen at random.
    """

    def __init__(
        self,
        target_url: str,
        *,
        replicas: Sequence[str] = (),
        tls: ssl.SSLContext | None = None,
        path: str | None = None,
    ) -> None:
        target = urlsplit(target_url)
        targets = [target, *map(urlsplit, replicas)]
        self.upstreams = [(one.hostname or '', one.port or 80) for one in targets]
        self.upstream_path = target.path
        self.random = random.Random(len(targets))
        self.path = target.path if path is None else path
        self.tls = tls
        self.fault: Fault = Exchange.pass_on
        self.is_over = threading.Event()
        self.requests: list[str] = []
        # Of bodies, as they are on the wire.
        self.answer_bytes = 0
        self.connections_made = 0
        self._server: _Server | None = None
        self._listen(0)
        scheme, host = ('https', 'localhost') if tls else ('http', '127.0.0.1')
        self.url = f'{scheme}://{host}:{self.port}{self.path}'

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    @contextlib.contextmanager
    def having(self, fault: Fault) -> Iterator[None]:
        """Meet each request with a fault, on new connections."""
        self.fault = fault
        self.is_over.clear()
        self.cut()
        try:
            yield
        finally:
            self.fault = Exchange.pass_on
            self.is_over.set()
            self.cut()

    def stop(self) -> None:
        """Refuse connections from now on, and lose those that there are."""
        if self._server is not None:
            self.is_over.set()
            self._server.shutdown()
            self._server.server_close()
            self._server = None
            self.cut()

    def restart(self) -> None:
        self._listen(self.port)

    def cut(self) -> None:
        """Close every connection."""
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            self.connections.discard(connection)

    def _listen(self, port: int) -> None:
        self.connections: set[Any] = set()
        self._server = _Server(self, port)
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 50

    def __init__(self, front: Front, port: int) -> None:
        self.front = front
        super().__init__(('127.0.0.1', port), Exchange)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """In the thread of the connection, so that a client that is slow with TLS holds nobody back."""
        if self.front.tls is not None:
            request = self.front.tls.wrap_socket(request, server_side=True, do_handshake_on_connect=False)
        self.front.connections.add(request)
        try:
            if self.front.tls is not None:
                _shake_hands(request)
            super().finish_request(request, client_address)
        except OSError:
            pass
        finally:
            self.front.connections.discard(request)
            request.close()

    def shutdown_request(self, request: Any) -> None:
        """Close without `shutdown`, which would send FIN where a reset is wanted."""
        self.close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that was cut is no mistake of the test."""


def _shake_hands(connection: Any) -> None:
    """Do the handshake of TLS; when it fails, let the client read why before the connection is closed."""
    try:
        connection.do_handshake()
    except OSError:
        connection.settimeout(0.3)
        while socket.socket.recv(connection, 65536):
            pass
        raise
