from __future__ import annotations

import pytest
import requests

from datadog_checks.prefect.collectors import health
from tests.fake_prefect import FakePrefect, FakeResponse
from tests.unit.harness import Bench, failing, sent, values


def test_healthy_server_is_healthy_and_ready(bench: Bench) -> None:
    samples, error = health.collect(bench.client)
    assert values(samples) == {('health', ()): 1, ('ready', ()): 1}
    assert error is None


def test_server_that_lost_its_database_is_healthy_and_not_ready(fake: FakePrefect, bench: Bench) -> None:
    fake.is_ready = False
    samples, error = health.collect(bench.client)
    assert values(samples) == {('health', ()): 1, ('ready', ()): 0}
    assert 'GET /ready: HTTP 503' in str(error)


@pytest.mark.parametrize(
    'answer',
    [
        pytest.param(FakeResponse.of(False), id='false'),
        pytest.param(FakeResponse.of({'status': 'ok'}), id='another document'),
        pytest.param(FakeResponse.of('true'), id='a text'),
        pytest.param(FakeResponse.of(1), id='one'),
        pytest.param(FakeResponse(200, b'<html>', {'Content-Type': 'text/html'}), id='a web page'),
        pytest.param(FakeResponse.of({}, 500), id='an error'),
        pytest.param(requests.exceptions.ConnectTimeout(), id='no connection'),
    ],
)
def test_only_the_json_true_is_healthy(fake: FakePrefect, bench: Bench, answer: FakeResponse | Exception) -> None:
    fake.fault = failing('/health', answer)
    samples, error = health.collect(bench.client)
    assert values(samples) == {('health', ()): 0, ('ready', ()): 0}
    assert str(error).startswith('GET /health: ')


def test_unhealthy_server_is_not_asked_whether_it_is_ready(fake: FakePrefect, bench: Bench) -> None:
    fake.fault = failing('/health')
    health.collect(bench.client)
    assert not sent(fake, '/ready')


def test_any_success_of_ready_counts(fake: FakePrefect, bench: Bench) -> None:
    fake.fault = failing('/ready', FakeResponse.of({}, 204))
    samples, error = health.collect(bench.client)
    assert values(samples)[('ready', ())] == 1
    assert error is None
