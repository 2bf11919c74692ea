"""What the requests of this process cost on the wire, counted where the libraries hand them over, without a proxy."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from unittest.mock import patch

from requests import PreparedRequest, Response
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection


class Request(NamedTuple):
    """A request as it can be sent again; `path` begins with a slash and holds the query."""

    method: str
    path: str
    body: str | None


@dataclass
class Traffic:
    """Requests and their bytes: heads and bodies as they are on the wire, compressed ones as they are."""

    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    _sent_bytes: int = 0
    _answers: list[Response] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        received: int = sum(_head_bytes(one.headers) + one.raw.tell() for one in self._answers)
        return self._sent_bytes + received

    def add(self, request: PreparedRequest, answer: Response) -> None:
        body = request.body.decode() if isinstance(request.body, bytes) else request.body
        self.requests.append(Request(request.method or '', request.path_url, body))
        self._sent_bytes += len(request.path_url) + _head_bytes(request.headers) + len(request.body or '')
        self._answers.append(answer)


@contextmanager
def counted_traffic(delay_seconds: float = 0.0) -> Iterator[Traffic]:
    """Count all requests that go through the library `requests` meanwhile. Each takes so much longer, as over a WAN."""
    traffic = Traffic()
    send, connect = HTTPAdapter.send, HTTPConnection.connect

    def counting_send(self: HTTPAdapter, request: PreparedRequest, **options: Any) -> Response:
        time.sleep(delay_seconds)
        answer = send(self, request, **options)
        traffic.add(request, answer)
        return answer

    def counting_connect(self: HTTPConnection) -> None:
        traffic.connections += 1
        connect(self)

    with patch.object(HTTPAdapter, 'send', counting_send), patch.object(HTTPConnection, 'connect', counting_connect):
        yield traffic


def _head_bytes(headers: Any) -> int:
    return sum(len(name) + len(value) + len(': \r\n') for name, value in headers.items())
