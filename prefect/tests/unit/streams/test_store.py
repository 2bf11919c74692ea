from __future__ import annotations

import logging

import pytest

from datadog_checks.prefect.streams.cursor import CheckState, StreamCursor
from datadog_checks.prefect.streams.store import KEYS, StateStore
from tests.unit.harness import at


class Cache(dict[str, str]):
    def read(self, key: str) -> str:
        return self.get(key, '')


@pytest.fixture
def cache() -> Cache:
    return Cache()


@pytest.fixture
def store(cache: Cache) -> StateStore:
    return StateStore(cache.read, cache.__setitem__, logging.getLogger('check'))


def states(number: int) -> list[CheckState]:
    """As the check makes them, one after the other."""
    made = [CheckState()]
    for second in range(1, number + 1):
        made.append(made[-1].advanced('runs', StreamCursor(at(0), at(second))))
    return made[1:]


def test_nothing_persisted_is_an_empty_state(store: StateStore, caplog: pytest.LogCaptureFixture) -> None:
    assert store.load() == CheckState()
    assert caplog.records == []


@pytest.mark.parametrize('number', [1, 2, 3, 12])
def test_newest_state_is_loaded(store: StateStore, cache: Cache, number: int) -> None:
    for state in states(number):
        assert store.save(state) == len(cache[KEYS[state.serial % 2]])
    assert store.load() == states(number)[-1]


@pytest.mark.parametrize('torn', ['', '{"version":1,"ser', 'nonsense', '{"version":9}'])
@pytest.mark.parametrize('number', [2, 3, 12])
def test_state_before_the_last_is_loaded_if_that_is_damaged(
    store: StateStore, cache: Cache, caplog: pytest.LogCaptureFixture, torn: str, number: int
) -> None:
    *_, before, last = states(number)
    store.save(before)
    store.save(last)
    cache[KEYS[last.serial % 2]] = torn
    assert store.load() == before
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_both_damaged_are_one_warning_and_a_fresh_start(
    store: StateStore, cache: Cache, caplog: pytest.LogCaptureFixture
) -> None:
    cache.update(dict.fromkeys(KEYS, 'nonsense'))
    assert store.load() == CheckState()
    (record,) = caplog.records
    assert 'Starting afresh' in record.getMessage()


def test_only_one_that_is_damaged_is_one_warning_and_a_fresh_start(
    store: StateStore, cache: Cache, caplog: pytest.LogCaptureFixture
) -> None:
    """The first write of all broke off."""
    cache[KEYS[1]] = '{"vers'
    assert store.load() == CheckState()
    (record,) = caplog.records
    assert 'Starting afresh' in record.getMessage()
