"""A server of raw sockets: an empty Prefect server, but for what an attack writes in the place of an answer."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

# What an attack may write to one connection, and for how long.
_MAX_BYTES = 2**31
_MAX_SECONDS = 40

NOTHING: dict[str, object] = {
    '/health': True,
    '/ready': {'message': 'OK'},
    '/admin/version': '3.8.8',
    '/admin/settings': {},
    '/flow_runs/paginate': {'results': [], 'count': 0, 'limit': 200, 'pages': 0, 'page': 1},
    '/events/filter': {'events': [], 'total': 0, 'next_page': None},
}


@dataclass
class Request:
    """One request: `path` without /api, `headers` with names in small letters, `body` as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Connection:
    """What an attack writes to. Raises OSError once the client is gone or has had enough."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._until = time.monotonic() + _MAX_SECONDS
        self.written = 0

    def write(self, content: bytes) -> None:
        if time.monotonic() > self._until or self.written > _MAX_BYTES:
            raise TimeoutError
        self._socket.sendall(content)
        self.written += len(content)

    def reset(self) -> None:
        """Close the connection so that the other side is told that it is reset."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        self._socket.close()

    def answer(self, status: int, body: bytes, *headers: str) -> None:
        head = [f'HTTP/1.1 {status} X', 'Content-Type: application/json', f'Content-Length: {len(body)}', *headers]
        self.write('\r\n'.join([*head, '', '']).encode('latin-1') + body)

    def begin(self, status: int, *headers: str) -> None:
        """The head of an answer in chunks."""
        head = [f'HTTP/1.1 {status} X', 'Content-Type: application/json', 'Transfer-Encoding: chunked', *headers]
        self.write('\r\n'.join([*head, '', '']).encode('latin-1'))

    def chunk(self, content: bytes) -> None:
        self.write(b'%x\r\n%b\r\n' % (len(content), content))


# Answers a request and returns True, or leaves it to the server of nothing.
Attack = Callable[[Connection, Request], bool]


def nothing(connection: Connection, request: Request) -> None:
    """The answer of a server that has nothing."""
    path = request.path.partition('?')[0]
    default: object = 0 if path.endswith('/count') else []
    connection.answer(200, json.dumps(NOTHING.get(path, default)).encode())


@dataclass
class HostileServer:
    """Listens on loopback for as long as it is entered."""

    attack: Attack
    requests: list[Request] = field(default_factory=list)
    # For a server that speaks TLS.
    context: ssl.SSLContext | None = None

    def __enter__(self) -> Self:
        self._listener = socket.create_server(('127.0.0.1', 0))
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    @property
    def url(self) -> str:
        return f'{"https" if self.context else "http"}://127.0.0.1:{self._listener.getsockname()[1]}/api'

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                sock.settimeout(_MAX_SECONDS)
                self._sockets.append(sock)
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError), contextlib.ExitStack() as stack:
            sock = stack.enter_context(self.context.wrap_socket(sock, server_side=True) if self.context else sock)
            stream = stack.enter_context(sock.makefile('rb'))
            while line := stream.readline():
                method, path, _ = line.decode('latin-1').split(' ', 2)
                headers: dict[str, str] = {}
                while (line := stream.readline().strip()) != b'':
                    name, _, value = line.decode('latin-1').partition(':')
                    headers[name.lower()] = value.strip()
                body = stream.read(int(headers.get('content-length', 0)))
                request = Request(method, path.removeprefix('/api'), headers, body)
                self.requests.append(request)
                connection = Connection(sock)
                if not self.attack(connection, request):
                    nothing(connection, request)
