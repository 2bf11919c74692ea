"""Answers as arbitrary bytes: status lines, headers, encodings, compression, chunks, and how they end."""

from __future__ import annotations

import gzip
import json
import time
import zlib
from dataclasses import dataclass

from hypothesis import strategies as st

from tests.hostile.server import Connection, Request

SECRET = 'open-sesame-7'
# How much of an answer that does not end is written, and how long its connection stays open.
_MAX_BYTES = 64 * 2**20
_OPEN_SECONDS = 5.0

PATHS = (
    None,
    '/health',
    '/ready',
    '/admin/version',
    '/admin/settings',
    '/flow_runs/filter',
    '/flow_runs/count',
    '/flow_runs/paginate',
    '/work_pools/filter',
    '/work_queues/filter',
    '/deployments/count',
    '/deployments/filter',
    '/v2/concurrency_limits/filter',
    '/events/filter',
)
_STATUS_LINES = st.one_of(
    st.just(b'HTTP/1.1 200 OK'),
    st.integers(100, 599).map(lambda status: b'HTTP/1.1 %d X' % status),
    st.sampled_from(
        [
            b'HTTP/1.0 200 OK',
            b'HTTP/1.1 200',
            b'HTTP/2 200 OK',
            b'HTTP/9.9 200 OK',
            b'HTTP/1.1 -1 X',
            b'HTTP/1.1 99999999999999999999 X',
            b'HTTP/1.1  200  OK',
            b'ICY 200 OK',
            b'HTTP/1.1 200 \x1b[31m\x00' + SECRET.encode(),
            b'HTTP/1.1 401 ' + SECRET.encode(),
            b'HTTP/1.1 200 ' + b'x' * 70_000,
            b'',
        ]
    ),
    st.binary(max_size=30),
)
_HEADERS = st.lists(
    st.one_of(
        st.sampled_from(
            [
                b'Content-Type: application/json',
                b'Content-Type: application/json; charset=utf-16',
                b'Content-Type: text/html; charset=\x00',
                b'Content-Type: ' + SECRET.encode() + b'\x1b]0;x\x07',
                b'Content-Encoding: gzip',
                b'Content-Encoding: deflate',
                b'Content-Encoding: br',
                b'Content-Encoding: zstd',
                b'Content-Encoding: x-unknown',
                b'Content-Encoding: ' + b', '.join([b'gzip'] * 20),
                b'Content-Length: 0',
                b'Content-Length: -1',
                b'Content-Length: +5',
                b'Content-Length: 99999999999999999999',
                b'Content-Length: 5, 6',
                b'Transfer-Encoding: chunked',
                b'Transfer-Encoding: gzip, chunked',
                b'Transfer-Encoding: identity',
                b'Connection: close',
                b'Connection: upgrade',
                b'Location: /x\xff\xfe',
                b'Location: http://[::1/' + SECRET.encode(),
                b'Location: file:///etc/passwd',
                b'Retry-After: ' + b'9' * 5000,
                b'Retry-After: \x1b[31m' + SECRET.encode(),
                b'Date: Mon, 23 Nov 2100 08:00:00 GMT',
                b'Date: \xff',
                b'Set-Cookie: a=' + b'x' * 5000,
                b'WWW-Authenticate: Digest realm="' + SECRET.encode() + b'", nonce="x", qop="auth"',
                b'WWW-Authenticate: Negotiate ' + b'A' * 1000,
                SECRET.encode() + b' without a colon',
                b' folded: ' + SECRET.encode(),
                b'X: ' + b'y' * 70_000,
                b'X: a\nY: b',
                b'\x00: \x00',
            ]
        ),
        st.binary(max_size=30),
    ),
    max_size=5,
)
_POOL = {'id': '5b1c0f3e-0b7b-4c6f-8f2e-5b8a4b5c7d11', 'name': SECRET, 'type': 'process', 'status': '\x1b[31m'}
_DOCUMENTS = st.one_of(
    st.sampled_from(
        [
            True,
            0,
            [],
            {},
            '3.8.8',
            [_POOL],
            [_POOL | {'name': 'x' * 100_000}] * 200,
            {'detail': f'no {SECRET} \x1b[31m'},
            {'detail': [{'loc': [SECRET], 'msg': '\x07' * 500}]},
            {'events': [_POOL], 'total': 10**6, 'next_page': 'http://elsewhere/x?page-token=' + 'y' * 100},
            {'results': [], 'limit': 10**9},
        ]
    ),
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=10)),
        lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
        max_leaves=12,
    ),
)
_TEXTS = st.one_of(
    st.tuples(_DOCUMENTS, st.sampled_from(['utf-8', 'utf-8-sig', 'utf-16', 'utf-32'])).map(
        lambda pair: json.dumps(pair[0]).encode(pair[1])
    ),
    st.sampled_from([b'', b'[' * 100_000, b'{"a":' * 100_000, b'\xed\xa0\x80', b'<html>' + SECRET.encode()]),
    st.sampled_from([b'1e999999', b'9' * 5000, b'NaN', b'"\\ud800"']),
    st.binary(max_size=60),
)
_COMPRESSIONS = st.sampled_from(
    [
        lambda content: content,
        gzip.compress,
        zlib.compress,
        lambda content: zlib.compress(content)[2:-4],
        lambda content: gzip.compress(content)[:-9],
        lambda content: gzip.compress(content)[:10] + b'\xff' * 50,
        lambda content: gzip.compress(content) + b'and more',
        lambda content: gzip.compress(b'') * 1000 + gzip.compress(content),
        lambda content: gzip.compress(gzip.compress(content)),
    ]
)
_FRAMINGS = st.sampled_from(
    ['length', 'too long', 'too short', 'chunks', 'small chunks', 'no last chunk', 'bad chunk', 'huge chunk', 'none']
)
_ENDINGS = st.sampled_from(['keep', 'close', 'hang', 'reset', 'garbage', 'twice', 'endless'])


@dataclass(frozen=True)
class Answer:
    """The bytes of one answer, at one endpoint or at all of them, and what follows."""

    path: str | None
    status_line: bytes
    headers: tuple[bytes, ...]
    body: bytes
    framing: str
    ending: str

    def __call__(self, connection: Connection, request: Request) -> bool:
        if self.path not in (None, request.path.partition('?')[0]):
            return False
        content = self.content()
        connection.write(content)
        if self.ending == 'hang':
            time.sleep(_OPEN_SECONDS)
        elif self.ending == 'garbage':
            connection.write(b'\r\n\x00HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[')
        elif self.ending == 'twice':
            connection.write(content)
        elif self.ending == 'endless':
            piece = (self.body or b'x') * (1 + 2**16 // len(self.body or b'x'))
            for _ in range(_MAX_BYTES // len(piece)):
                connection.write(piece)
        elif self.ending == 'reset':
            connection.reset()
        if self.ending != 'keep':
            raise ConnectionAbortedError
        return True

    def content(self) -> bytes:
        headers, body = list(self.headers), self.body
        lengths = {'length': len(body), 'too long': max(0, len(body) - 1), 'too short': len(body) + 1000}
        if self.framing in lengths:
            headers.append(b'Content-Length: %d' % lengths[self.framing])
        elif self.framing != 'none':
            headers.append(b'Transfer-Encoding: chunked')
            body = self._in_chunks(body)
        return b'\r\n'.join([self.status_line, *headers, b'', body])

    def _in_chunks(self, body: bytes) -> bytes:
        if self.framing == 'bad chunk':
            return b'not a number\r\n' + body
        if self.framing == 'huge chunk':
            return b'f' * 15 + b'\r\n' + body
        size = 1 if self.framing == 'small chunks' and len(body) < 10_000 else max(1, len(body))
        chunks = b''.join(
            b'%x;x=y\r\n%b\r\n' % (len(part), part)
            for start in range(0, len(body), size)
            for part in [body[start : start + size]]
        )
        return chunks if self.framing == 'no last chunk' else chunks + b'0\r\nTrailer: ' + SECRET.encode() + b'\r\n\r\n'


ANSWERS = st.builds(
    Answer,
    path=st.sampled_from(PATHS),
    status_line=_STATUS_LINES,
    headers=_HEADERS.map(tuple),
    body=st.tuples(_COMPRESSIONS, _TEXTS).map(lambda pair: pair[0](pair[1])),
    framing=_FRAMINGS,
    ending=_ENDINGS,
)
