from __future__ import annotations

from datetime import timedelta

import pytest

from datadog_checks.prefect.api.client import PrefectClient
from datadog_checks.prefect.api.errors import PrefectApiError
from datadog_checks.prefect.inventory.flows import FlowDirectory
from tests.fake_prefect import FakePrefect
from tests.unit.harness import LOG, Row, failing, new_transport, sent


@pytest.fixture
def client(fake: FakePrefect, prefect_url: str) -> PrefectClient:
    return PrefectClient(new_transport(prefect_url), LOG)


def add_flows(fake: FakePrefect, number: int) -> list[Row]:
    """Flows that are a second apart."""
    flows = []
    for index in range(number):
        fake.now += timedelta(seconds=1)
        flows.append(fake.add_flow(f'flow {index} at {fake.now:%X}'))
    return flows


def names(flows: list[Row]) -> dict[str, str]:
    return {flow['id']: flow['name'] for flow in flows}


def test_all_flows_are_listed_once_and_then_the_newest(fake: FakePrefect, client: PrefectClient) -> None:
    fake.default_limit = 20
    flows = add_flows(fake, 50)
    directory = FlowDirectory()
    for _ in range(3):
        assert directory.refresh(client, fake.now) == names(flows)
    assert [exchange.body['limit'] for exchange in sent(fake, '/flows/filter')] == [20, 20, 20, 10, 10]


@pytest.mark.parametrize('number', [1, 9, 10, 11, 45])
def test_new_flows_are_found_however_many(fake: FakePrefect, client: PrefectClient, number: int) -> None:
    fake.default_limit = 20
    flows = add_flows(fake, 30)
    directory = FlowDirectory()
    directory.refresh(client, fake.now)
    flows += add_flows(fake, number)
    assert directory.refresh(client, fake.now) == names(flows)


def test_deleted_flow_is_forgotten_within_an_hour(fake: FakePrefect, client: PrefectClient) -> None:
    first, *others = add_flows(fake, 30)
    directory = FlowDirectory()
    directory.refresh(client, fake.now)
    fake.remove(first)
    fake.now += timedelta(minutes=59)
    assert directory.refresh(client, fake.now) == names([first, *others])
    fake.now += timedelta(minutes=1)
    assert directory.refresh(client, fake.now) == names(others)


def test_listing_that_fails_begins_anew(fake: FakePrefect, client: PrefectClient) -> None:
    flows = add_flows(fake, 3)
    directory = FlowDirectory()
    fake.fault = failing('/flows/filter')
    with pytest.raises(PrefectApiError):
        directory.refresh(client, fake.now)
    fake.fault = None
    assert directory.refresh(client, fake.now) == names(flows)


def test_server_without_flows_is_asked_once_each_time(fake: FakePrefect, client: PrefectClient) -> None:
    directory = FlowDirectory()
    for _ in range(2):
        assert directory.refresh(client, fake.now) == {}
    assert len(sent(fake, '/flows/filter')) == 2
