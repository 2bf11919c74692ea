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
LONG_AGO = '2026-01-01T00:00:00Z'


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


def chunk_lines(line: bytes) -> Callable[[Connection], None]:
    def attack(connection: Connection) -> None:
        connection.begin(200)
        for _ in range(ENDLESS):
            connection.write(line)

    return attack


def dripping_body(connection: Connection) -> None:
    connection.begin(200)
    for _ in range(ENDLESS):
        connection.chunk(b' ')
        time.sleep(0.2)


def headers(connection: Connection, header: str) -> None:
    """Fewer than 100, each shorter than 64 kB: all that Python reads."""
    connection.answer(200, b'true', *[header] * 90)


def early_hints(connection: Connection) -> None:
    for _ in range(ENDLESS):
        connection.write(b'HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n' * 1000)


def no_http(connection: Connection) -> None:
    """As a server of HTTP/0.9 answers: no status line, no headers."""
    for _ in range(ENDLESS):
        connection.write(b'true ' * 2**14)


def header_flood(connection: Connection) -> None:
    connection.write(b'HTTP/1.1 200 OK\r\n')
    for _ in range(ENDLESS):
        connection.write(b'X: ' + b'y' * 60_000 + b'\r\n')


def pool(name: str = 'pool') -> dict[str, object]:
    return {'id': str(uuid.uuid4()), 'name': name, 'type': 'process', 'status': 'READY', 'is_paused': False}


def endless_pages(row: Callable[[], dict[str, object]]) -> Callable[[Connection], None]:
    """200 new rows at each request."""
    return lambda connection: connection.answer(200, json.dumps([row() for _ in range(200)]).encode())


def full_pages(**fields: object) -> Attack:
    """New rows at each request, 200 of 38 kB: the longest that fit into a page. Counts say that there are many more."""
    row = json.dumps({'id': '%s', 'name': 'x' * 38_000, 'flow_id': str(uuid.uuid4()), **fields}).encode()

    def attack(connection: Connection, request: Request) -> bool:
        if request.path.endswith('/count'):
            connection.answer(200, b'40000')
            return True
        if request.path not in (RUNS, '/task_runs/filter', '/deployments/filter'):
            return False
        number = json.loads(request.body)['limit']
        connection.answer(200, b'[%b]' % b','.join(row % str(uuid.uuid4()).encode() for _ in range(number)))
        return True

    return attack


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
    'just below the bound: halves of surrogates': at(POOLS, plain(b'"aa",', 3 * 2**20, b'["\\ud800",')),
    'just below the bound: no UTF-8': at(POOLS, plain(b'\xff' * 1000, 7 * 2**20, b'["', b'"]')),
    'a number of 8 million digits': at(POOLS, plain(b'9' * 1000, 8 * 10**6, b'[{"id":', b'}]')),
    'numbers of 4,000 digits': at(POOLS, plain(b'9' * 4000 + b',', 7 * 2**20, b'[{"id":[', b'1]}]')),
    'one key again and again': at(POOLS, plain(b'"id":"a",', 2 * 2**20, b'[{', b'"name":"a"}]')),
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
    'a chunk line without end': at(HEALTH, chunk_lines(b'4;x=' + b'y' * 2**16)),
    'chunks with long extensions': at(HEALTH, chunk_lines(b'1;x=' + b'y' * 60_000 + b'\r\n \r\n')),
    'chunks of one byte': at(HEALTH, chunk_lines(b'1\r\n \r\n' * 10_000)),
    'a body by the byte': at(HEALTH, dripping_body),
    '103 Early Hints without end': at(HEALTH, early_hints),
    'no HTTP': at(HEALTH, no_http),
    'lengths that differ': at(HEALTH, lambda connection: headers(connection, 'Content-Length: -1')),
    'ninety headers of 60 kB': at(HEALTH, lambda connection: headers(connection, 'X: ' + 'y' * 60_000)),
    'ninety cookies of 60 kB': at(HEALTH, lambda connection: headers(connection, 'Set-Cookie: a=b' + '; a=b' * 12_000)),
    # Lists without end.
    'pages of pools without end': at(POOLS, endless_pages(pool)),
    'pages of pools with long names': at(POOLS, endless_pages(lambda: pool(uuid.uuid4().hex * 1000))),
    'pages of queues without end': at('/work_queues/filter', endless_pages(pool)),
    'pages of live runs with long names': full_pages(state_type='RUNNING', expected_start_time=LONG_AGO),
    'pages of deployments with many tags': full_pages(name='a', tags=['y' * 50] * 600),
    'pages of objects that are none': full_pages(name=5, x=[{}] * 9_000),
    'counts that make no sense': absurd_counts,
}
