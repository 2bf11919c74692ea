"""The floor: the requests of a check once more, bare. What it takes is the server's time and the way there."""

from __future__ import annotations

from collections.abc import Sequence
from http.client import HTTPConnection
from urllib.parse import urlsplit

from benchmarks.traffic import Request

_HEADERS = {'Content-Type': 'application/json', 'Accept': '*/*', 'Accept-Encoding': 'gzip, deflate'}


def replay(api_url: str, requests: Sequence[Request]) -> None:
    """Send them one after the other over one connection, and throw the answers away as they are."""
    connection = HTTPConnection(urlsplit(api_url).netloc, timeout=60)
    try:
        for request in requests:
            connection.request(request.method, request.path, request.body, _HEADERS)
            answer = connection.getresponse()
            answer.read()
            if answer.status >= 400:
                raise RuntimeError(f'{request.method} {request.path} answered {answer.status}')
    finally:
        connection.close()
