"""The deployments that are remembered between runs: what is asked for again, and what is known after it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace

import pytest

from datadog_checks.prefect.api.client import PrefectClient
from datadog_checks.prefect.api.errors import PrefectApiError
from datadog_checks.prefect.inventory import deployments
from datadog_checks.prefect.inventory.deployments import DeploymentDirectory
from tests.fake_prefect import FakePrefect
from tests.fake_prefect.times import to_text
from tests.unit.harness import Row, bodies, new_client, sent

LISTED, COUNTED = '/deployments/filter', '/deployments/count'


class Directory:
    """A directory in front of the fake server. Each call is a run of its own."""

    def __init__(self, fake: FakePrefect, url: str) -> None:
        self._fake = fake
        self.client: PrefectClient = new_client(url)
        self.itself = DeploymentDirectory()

    def names(self) -> list[str]:
        """What is known after a refresh, a minute later."""
        self._fake.now += timedelta(seconds=60)
        self._fake.requests.clear()
        return sorted(item.name for item in self.itself.refresh(self.client, {}).values())

    def requests(self) -> tuple[int, int]:
        """How many lists and counts the last refresh took."""
        return len(sent(self._fake, LISTED)), len(sent(self._fake, COUNTED))


@pytest.fixture
def directory(fake: FakePrefect, prefect_url: str) -> Directory:
    return Directory(fake, prefect_url)


@pytest.fixture
def three(fake: FakePrefect, directory: Directory) -> list[Row]:
    """Three deployments, which the directory has listed."""
    fake.default_limit = 2
    rows = [fake.add_deployment(name=name) for name in 'abc']
    assert directory.names() == ['a', 'b', 'c']
    return rows


def edit(fake: FakePrefect, row: Row, **changes: object) -> None:
    row |= changes | {'updated': to_text(fake.now)}


def test_while_nothing_changes_one_row_and_two_counts_tell_so(directory: Directory, three: list[Row]) -> None:
    assert directory.names() == ['a', 'b', 'c']
    assert directory.requests() == (1, 2)


@pytest.mark.parametrize(
    'change',
    [
        lambda fake, rows: edit(fake, rows[0], name='d'),
        lambda fake, rows: [edit(fake, row, name=row['name'] * 2) for row in rows],
        lambda fake, rows: fake.add_deployment(name='new'),
        lambda fake, rows: fake.remove(rows[1]),
        lambda fake, rows: [fake.remove(row) for row in rows],
        lambda fake, rows: [fake.remove(rows[2]), fake.add_deployment(name='instead')],
    ],
    ids=['one is edited', 'all are edited', 'one is new', 'one is deleted', 'all are deleted', 'as many as before'],
)
def test_change_is_known_after_the_next_refresh(
    fake: FakePrefect, directory: Directory, three: list[Row], change: Callable[[FakePrefect, list[Row]], object]
) -> None:
    change(fake, three)

    assert directory.names() == sorted(row['name'] for row in fake.tables['deployments'].newest())


def test_large_server_is_listed_over_several_runs(
    fake: FakePrefect, directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.default_limit = 2
    for number in range(5):
        # Those of one moment have no order.
        fake.now += timedelta(seconds=1)
        fake.add_deployment(name=str(number))
    seconds = iter(range(0, 1000, 21))
    monkeypatch.setattr(deployments, 'time', SimpleNamespace(monotonic=lambda: next(seconds)))

    assert [directory.names() for _ in range(2)] == [['3', '4'], ['1', '2', '3', '4']]
    assert directory.names() == ['0', '1', '2', '3', '4']


def test_more_than_an_instance_remembers_are_an_error_that_names_the_filter(
    directory: Directory, three: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deployments, '_CAPACITY', 2)

    with pytest.raises(PrefectApiError, match=r'3 deployments are there, more than 2\. .* work_pool_names'):
        directory.names()


def test_other_filter_narrows_the_list(fake: FakePrefect, directory: Directory, three: list[Row]) -> None:
    body = {'flows': {'name': {'any_': ['flow of a', 'flow of c']}}}

    found = directory.itself.refresh(directory.client, body)

    assert sorted(item.name for item in found.values()) == ['a', 'c']


def test_some_are_listed_again_and_those_that_are_gone_are_forgotten(
    fake: FakePrefect, directory: Directory, three: list[Row]
) -> None:
    ids = [row['id'] for row in three]
    directory.names()
    three[0]['status'] = 'READY'
    fake.remove(three[1])

    found = directory.itself.list_again(directory.client, ids[:2])

    assert {key: item.status for key, item in found.items()} == {ids[0]: 'READY'}
    assert set(directory.itself.as_of_now(directory.client, ids)) == {ids[0], ids[2]}


def test_what_was_listed_in_this_run_is_not_asked_for_again(
    fake: FakePrefect, directory: Directory, three: list[Row]
) -> None:
    ids = [row['id'] for row in three]
    fake.requests.clear()

    assert directory.itself.list_again(directory.client, ids) == {}
    assert set(directory.itself.as_of_now(directory.client, ids)) == set(ids)
    assert bodies(fake, LISTED) == []
