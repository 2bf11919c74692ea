"""What the check tells of its own requests, against a front that counts them before a real server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from lab.agent import CheckResult, CheckRunner
from lab.fault_proxy import Exchange, Front
from lab.prefect_server import PrefectServer


@pytest.fixture
def front(prefect_server: PrefectServer) -> Iterator[Front]:
    with Front(prefect_server.api_url) as front:
        yield front


def by_family(result: CheckResult, name: str) -> dict[str, float]:
    return {
        tag.removeprefix('endpoint_family:'): point.value
        for point in result.points
        if point.name == f'prefect.server.api.{name}'
        for tag in point.tags
        if tag.startswith('endpoint_family:')
    }


def family(request: str) -> str:
    """That of 'POST /v2/concurrency_limits/filter' is concurrency_limits."""
    return request.split('/')[2 if '/v2/' in request else 1]


def test_requests_bytes_and_seconds_are_those_of_the_wire(front: Front) -> None:
    received: Counter[str] = Counter()

    def weigh(exchange: Exchange) -> None:
        answer = exchange.ask()
        received[family(f'{exchange.command} {exchange.endpoint}')] += len(answer.content)
        exchange.answer(answer.status, answer.content, answer.headers)

    front.fault = weigh
    runner = CheckRunner({'prefect_url': front.url, 'collect_events': True})
    for _ in range(2):
        front.requests.clear()
        received.clear()
        result = runner.run()
        assert result.error is None
        assert by_family(result, 'requests') == Counter(map(family, front.requests))
        assert by_family(result, 'response_bytes') == received
        assert 0 < sum(by_family(result, 'duration_seconds').values()) <= result.seconds


def test_credentials_that_are_refused_are_told_while_health_is_good(front: Front) -> None:
    def refuse(exchange: Exchange) -> None:
        if exchange.command == 'POST':
            exchange.answer(401, b'{"exception_message":"Unauthorized"}', {'Content-Type': 'application/json'})
        else:
            exchange.pass_on()

    runner = CheckRunner({'prefect_url': front.url})
    found = []
    for fault in (Exchange.pass_on, refuse, Exchange.pass_on):
        front.fault = fault
        values = {point.name: point.value for point in runner.run().points}
        found.append((values['prefect.server.health'], values['prefect.server.api.authorized']))

    assert found == [(1, 1), (1, 0), (1, 1)]
