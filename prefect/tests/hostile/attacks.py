"""What a hostile server, or a proxy before it, may answer. Each attack is one of a family."""

from __future__ import annotations

import gzip
import json
import time
import uuid
import zlib
from collections.abc import Callable
from functools import cache

from tests.hostile.server import Attack, Connection, Request

ENDLESS = 10**9
MEGABYTE = b' ' * 2**20
POOLS = '/work_pools/filter'
RUNS = '/flow_runs/filter'
HEALTH = '/health'


def at(path: str, attack: Callable[[Connection], None]) -> Attack:
    """Meet the requests to one endpoint with an attack."""

    def meet(connection: Connection, request: Request) -> bool:
        if request.path.partition('?')[0] != path:
            return False
        attack(connection)
        return True

    return meet


@cache
def compressed(unit: bytes, megabytes: int, before: bytes, after: bytes) -> bytes:
    """As members of gzip that are made once and repeated."""
    block = gzip.compress(unit * (2**20 // len(unit)))
    return gzip.compress(before) + block * megabytes + gzip.compress(after)


def amplified(
    unit: bytes, before: bytes = b'[', after: bytes = b'1]', status: int = 200
) -> Callable[[Connection], None]:
    """63 MB of JSON in 0.1 to 0.3 MB of gzip."""

    def attack(connection: Connection) -> None:
        connection.answer(status, compressed(unit, 63, before, after), 'Content-Encoding: gzip')

    return attack


def plain(unit: bytes, size: int, before: bytes = b'[', after: bytes = b'1]') -> Callable[[Connection], None]:
    """JSON that is just small enough to be read."""
    return lambda connection: connection.answer(200, before + unit * (size // len(unit)) + after)


def bomb(encoding: str, layers: int = 1, status: int = 200) -> Callable[[Connection], None]:
    """Zeros without end, compressed."""

    def attack(connection: Connection) -> None:
        connection.begin(status, f'Content-Encoding: {", ".join([encoding] * layers)}')
        engines = [zlib.compressobj(9, zlib.DEFLATED, 31 if encoding == 'gzip' else 15) for _ in range(layers)]
        for _ in range(ENDLESS):
            content = MEGABYTE
            for engine in engines:
                content = engine.compress(content)
            if content:
                connection.chunk(content)

    return attack


def endless_body(status: int, *headers: str) -> Callable[[Connection], None]:
    def attack(connection: Connection) -> None:
        connection.begin(status, *headers)
        for _ in range(ENDLESS):
            connection.chunk(MEGABYTE)

    return attack


def endless_trailers(connection: Connection) -> None:
    connection.begin(200)
    connection.write(b'4\r\ntrue\r\n0\r\n')
    for _ in range(ENDLESS):
        connection.write(b'X: y\r\n' * 10_000)


def endless_trailer_line(connection: Connection) -> None:
    connection.begin(200)
    connection.write(b'4\r\ntrue\r\n0\r\nX: ')
    for _ in range(ENDLESS):
        connection.write(b'y' * 2**16)


def empty_gzip_members(connection: Connection) -> None:
    connection.begin(200, 'Content-Encoding: gzip')
    members = gzip.compress(b'') * 3000
    for _ in range(ENDLESS):
        connection.chunk(members)


def empty_deflate_blocks(connection: Connection) -> None:
    connection.begin(200, 'Content-Encoding: deflate')
    connection.chunk(b'\x78\x9c')
    blocks = b'\x00\x00\x00\xff\xff' * 10_000
    for _ in range(ENDLESS):
        connection.chunk(blocks)


def continue_flood(connection: Connection) -> None:
    for _ in range(ENDLESS):
        connection.write(b'HTTP/1.1 100 Continue\r\n\r\n' * 1000)


def dripping(content: bytes, pause: float = 0.2) -> Callable[[Connection], None]:
    def attack(connection: Connection) -> None:
        for _ in range(ENDLESS):
            for index in range(len(content)):
                connection.write(content[index : index + 1])
                time.sleep(pause)

    return attack


def header_flood(connection: Connection) -> None:
    connection.write(b'HTTP/1.1 200 OK\r\n')
    for _ in range(ENDLESS):
        connection.write(b'X: ' + b'y' * 60_000 + b'\r\n')


def pool(name: str = 'pool') -> dict[str, object]:
    return {'id': str(uuid.uuid4()), 'name': name, 'type': 'process', 'status': 'READY', 'is_paused': False}


def endless_pages(row: Callable[[], dict[str, object]]) -> Callable[[Connection], None]:
    """200 new rows at each request."""
    return lambda connection: connection.answer(200, json.dumps([row() for _ in range(200)]).encode())


def absurd_counts(connection: Connection, request: Request) -> bool:
    """Each count is another one, so that whoever compares them reads all again."""
    if not request.path.endswith('/count'):
        return False
    connection.answer(200, str(int(time.monotonic() * 1000) % 10**6 + 10**6).encode())
    return True


ATTACKS: dict[str, Attack] = {
    # JSON amplification.
    'empty objects': at(POOLS, amplified(b'{},')),
    'empty lists': at(POOLS, amplified(b'[],')),
    'small objects': at(POOLS, amplified(b'{"":0},')),
    'small texts': at(POOLS, amplified(b'"aa",')),
    'nested lists': at(POOLS, amplified(b'[[[[{}]]]],')),
    'nesting without end': at(POOLS, amplified(b'[')),
    'objects as the detail of a 500': at(POOLS, amplified(b'{},', b'{"detail":[', b'1]}', 500)),
    'objects as the answer to health': at(HEALTH, amplified(b'{},')),
    'objects as a count': at('/flow_runs/count', amplified(b'{},')),
    'objects as a version': at('/admin/version', amplified(b'{},')),
    'objects as events': at('/events/filter', amplified(b'{},', b'{"total":1,"next_page":null,"events":[', b'{}]}')),
    'objects as flow runs': at(RUNS, amplified(b'{},')),
    'just below the bound: objects': at(POOLS, plain(b'{"":0},', 2 * 2**20)),
    'just below the bound: texts': at(POOLS, plain(b'"aa",', 3 * 2**20)),
    'just below the bound: emoji': at(POOLS, plain('"\U0001f600",'.encode(), 2**20)),
    'just below the bound: one text': at(POOLS, plain(b'a' * 1000, 7 * 2**20, '["\U0001f600'.encode(), b'"]')),
    # Decompression.
    'gzip bomb': at(POOLS, bomb('gzip')),
    'gzip bomb in an error': at(POOLS, bomb('gzip', status=500)),
    'deflate bomb': at(POOLS, bomb('deflate')),
    'gzip in gzip in gzip': at(POOLS, bomb('gzip', 3)),
    # Bodies that nobody asked for.
    'body of a redirect': at(HEALTH, endless_body(302, 'Location: http://127.0.0.1:9/')),
    'body of a redirect of a POST': at(POOLS, endless_body(307, 'Location: /elsewhere')),
    'body of a 401': at(POOLS, endless_body(401, 'WWW-Authenticate: Digest realm="x", nonce="y", qop="auth"')),
    'body of a 500': at(POOLS, endless_body(500)),
    'body of a page': at(POOLS, endless_body(200)),
    # Threads that nobody waits for.
    'trailers without end': at(HEALTH, endless_trailers),
    'a trailer line without end': at(HEALTH, endless_trailer_line),
    'empty gzip members': at(HEALTH, empty_gzip_members),
    'empty deflate blocks': at(HEALTH, empty_deflate_blocks),
    '100 Continue without end': at(HEALTH, continue_flood),
    'headers without end': at(HEALTH, header_flood),
    'a status line by the byte': at(HEALTH, dripping(b'HTTP/1.1 200 OK and so on ')),
    'a header by the byte': at(HEALTH, dripping(b'HTTP/1.1 200 OK\r\nX: ' + b'y' * 10_000)),
    # Lists without end.
    'pages of pools without end': at(POOLS, endless_pages(pool)),
    'pages of pools with long names': at(POOLS, endless_pages(lambda: pool(uuid.uuid4().hex * 1000))),
    'pages of queues without end': at('/work_queues/filter', endless_pages(pool)),
    'counts that make no sense': absurd_counts,
}
