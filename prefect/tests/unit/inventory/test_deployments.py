"""The deployments that are remembered between runs: what is asked for again, and what is known after it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from datetime import timedelta

import pytest

from datadog_checks.prefect.api.client import PrefectClient
from datadog_checks.prefect.api.errors import PrefectApiError
from datadog_checks.prefect.inventory import deployments
from datadog_checks.prefect.inventory.deployments import DeploymentDirectory
from tests.fake_prefect import FakePrefect, FakeRequest, FakeResponse
from tests.fake_prefect.times import to_text
from tests.unit.harness import LOG, Row, at, bodies, let_requests_take, new_transport, sent

LISTED, COUNTED = '/deployments/filter', '/deployments/count'


class Directory:
    """A directory in front of the fake server. Each call is a run of its own."""

    def __init__(self, fake: FakePrefect, url: str) -> None:
        self._fake = fake
        self._transport = new_transport(url)
        self.client = PrefectClient(self._transport, LOG)
        self.itself = DeploymentDirectory()

    def names(self) -> list[str]:
        """What is known after a refresh, a minute later."""
        self._fake.now += timedelta(seconds=60)
        self._fake.requests.clear()
        self._transport.start_run()
        return sorted(item.name for item in self.itself.refresh(self.client, {}).values())

    def requests(self) -> tuple[int, int]:
        """How many lists and counts the last refresh took."""
        return len(sent(self._fake, LISTED)), len(sent(self._fake, COUNTED))


def add_in_turn(fake: FakePrefect, names: Iterable[str]) -> list[Row]:
    """Deployments of these names, a second apart: those of one moment have no order."""
    rows = []
    for name in names:
        fake.now += timedelta(seconds=1)
        rows.append(fake.add_deployment(name=name))
    return rows


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
    add_in_turn(fake, '012345678')
    let_requests_take(fake, 9.0, monkeypatch, LISTED)

    assert [len(directory.names()) for _ in range(3)] == [4, 8, 9]
    assert directory.itself.is_complete


def test_those_that_have_runs_are_listed_before_all_others(
    fake: FakePrefect, directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.default_limit = 2
    rows = add_in_turn(fake, (f'{number:02}' for number in range(12)))
    with_runs = [row['id'] for row in rows[:6]]
    let_requests_take(fake, 7.0, monkeypatch, LISTED)

    assert directory.names() == ['08', '09', '10', '11']
    with pytest.raises(PrefectApiError, match=r'4 deployments that have runs are not read yet, the next run goes on'):
        directory.itself.know(directory.client, with_runs)
    # Those who come later in the same run wait for the next run, those with deployments that are known do not.
    with pytest.raises(PrefectApiError, match=r'4 deployments that have runs'):
        directory.itself.know(directory.client, with_runs)
    directory.itself.know(directory.client, [rows[11]['id']])
    assert len(sent(fake, LISTED)) == 3
    assert set(directory.names()) > {f'{number:02}' for number in range(6)}
    assert len(list(directory.itself.know(directory.client, with_runs))) == 6


def test_listing_goes_on_at_the_end_of_a_run(
    fake: FakePrefect, directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.default_limit = 2
    add_in_turn(fake, '012345678')
    let_requests_take(fake, 7.0, monkeypatch, LISTED)

    assert directory.names() == ['5', '6', '7', '8']
    directory.itself.list_on(directory.client)
    assert not directory.itself.is_complete
    assert directory.names() == [str(number) for number in range(9)]


class TestReplicas:
    """Of many deployments the whole list is not read again because one replica of the server is behind another."""

    @pytest.fixture
    def known(self, fake: FakePrefect, directory: Directory, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        monkeypatch.setattr(deployments, '_LISTED_AT_ONCE', 5)
        fake.default_limit = 2
        add_in_turn(fake, '012345678')
        return directory.names()

    def test_one_that_is_behind_is_not_believed_at_once(
        self, fake: FakePrefect, directory: Directory, known: list[str]
    ) -> None:
        def count_as_before(request: FakeRequest) -> FakeResponse | None:
            is_total = request.path.endswith(COUNTED) and 'deployments' not in request.body
            return FakeResponse.of(len(known)) if is_total else None

        fake.add_deployment(name='new')
        fake.fault = count_as_before
        directory.names()
        assert directory.requests()[0] <= 2
        assert directory.itself.is_complete
        fake.fault = None
        assert directory.names() == [*known, 'new']
        assert directory.requests()[0] <= 2

    def test_what_lasts_is_listed_again(self, fake: FakePrefect, directory: Directory, known: list[str]) -> None:
        # As after a restore: its edit is older than what was seen.
        fake.add_deployment(name='restored', updated=at(-1000))
        assert directory.names() == known
        assert directory.names() == [*known, 'restored']


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


@pytest.mark.parametrize('deleted', [[0], [4], [8], [0, 8], [3, 4, 5], range(8), range(9)], ids=str)
def test_of_many_only_those_that_are_deleted_are_forgotten(
    fake: FakePrefect, directory: Directory, monkeypatch: pytest.MonkeyPatch, deleted: Collection[int]
) -> None:
    monkeypatch.setattr(deployments, '_LISTED_AT_ONCE', 5)
    rows = add_in_turn(fake, '012345678')
    directory.names()
    for number in deleted:
        fake.remove(rows[number])

    assert directory.names() == [str(number) for number in range(9) if number not in deleted]
    # Nothing is listed for it but the newest edit.
    assert directory.requests()[0] == 1
