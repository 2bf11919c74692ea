"""What a run of the check tells about its own requests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from datadog_checks.base.stubs.aggregator import AggregatorStub
from datadog_checks.prefect import PrefectCheck
from datadog_checks.prefect.metrics import CHECK_COST, METRICS
from tests.fake_prefect import FakePrefect, FakeResponse
from tests.fake_prefect.server import FakeRequest
from tests.unit.harness import failing

NewCheck = Callable[..., PrefectCheck]
RunCheck = Callable[[PrefectCheck], AggregatorStub]

COSTS = [spec.full_name for spec in METRICS.values() if spec.group == CHECK_COST]
AUTHORIZED = 'prefect.server.api.authorized'


def by_family(aggregator: AggregatorStub, name: str) -> dict[str, float]:
    return {
        tag.removeprefix('endpoint_family:'): metric.value
        for metric in aggregator.metrics(f'prefect.server.api.{name}')
        for tag in metric.tags
        if tag.startswith('endpoint_family:')
    }


def test_every_request_is_counted_by_what_it_asks_for(
    fake: FakePrefect, new_check: NewCheck, run_check: RunCheck
) -> None:
    fake.add_worker(fake.add_work_pool('prod'))
    aggregator = run_check(new_check())
    sent = Counter(exchange.path.replace('/v2', '').split('/')[2] for exchange in fake.requests)

    assert by_family(aggregator, 'requests') == sent
    assert sent['work_pools'] == 2
    assert by_family(aggregator, 'response_bytes')['health'] == len(b'true')
    assert by_family(aggregator, 'duration_seconds').keys() == sent.keys()


def test_a_run_starts_from_zero(fake: FakePrefect, new_check: NewCheck, run_check: RunCheck) -> None:
    check = new_check()
    run_check(check)
    fake.requests.clear()
    aggregator = run_check(check)

    assert sum(by_family(aggregator, 'requests').values()) == len(fake.requests)


def test_costs_are_told_when_the_server_is_down(
    fake: FakePrefect, new_check: NewCheck, aggregator: AggregatorStub
) -> None:
    fake.fault = failing('/health', 503)
    new_check().run()

    assert by_family(aggregator, 'requests') == {'health': 1}
    assert not aggregator.metrics(AUTHORIZED)


def test_costs_can_be_switched_off(fake: FakePrefect, new_check: NewCheck, run_check: RunCheck) -> None:
    aggregator = run_check(new_check(collect={'check_cost': False}))

    assert not [name for name in COSTS if aggregator.metrics(name)]
    assert aggregator.metrics(AUTHORIZED)


@pytest.mark.parametrize(
    ('path', 'status', 'is_authorized'),
    [
        ('/none', 401, 1),
        ('/work_queues/filter', 500, 1),
        ('/work_queues/filter', 401, 0),
        ('/work_queues/filter', 403, 0),
        # It is not open to everybody who may read runs.
        ('/admin/version', 403, 1),
    ],
)
def test_authorized_is_told_apart_from_health(
    fake: FakePrefect, new_check: NewCheck, aggregator: AggregatorStub, path: str, status: int, is_authorized: int
) -> None:
    def fault(request: FakeRequest) -> FakeResponse | None:
        is_meant = request.path == f'/api{path}'
        return FakeResponse.of({'exception_message': 'Unauthorized'}, status) if is_meant else None

    fake.fault = fault
    new_check().run()

    aggregator.assert_metric('prefect.server.health', value=1)
    aggregator.assert_metric(AUTHORIZED, value=is_authorized, count=1)
