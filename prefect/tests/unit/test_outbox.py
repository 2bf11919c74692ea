from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import pairwise

import pytest

from datadog_checks.prefect.metrics import FLOW_RUNS_RUNNING
from datadog_checks.prefect.outbox import Outbox
from datadog_checks.prefect.sample import Sample


@pytest.fixture
def done() -> list[object]:
    """What was submitted and called, in order."""
    return []


@pytest.fixture
def outbox(done: list[object]) -> Outbox:
    return Outbox(done.extend)


def samples(number: int) -> list[Sample]:
    return [Sample(FLOW_RUNS_RUNNING, value) for value in range(number)]


def test_all_is_submitted_in_order_and_what_follows_comes_after_it(outbox: Outbox, done: list[object]) -> None:
    outbox.put(samples(1000), then=partial(done.append, 'first'))
    outbox.put([], then=partial(done.append, 'second'))
    outbox.put(samples(3))
    assert done == []
    outbox.flush()
    assert done == [*samples(1000), 'first', 'second', *samples(3)]


def test_little_is_submitted_at_a_time(outbox: Outbox, done: list[object]) -> None:
    outbox.put(iter(samples(1000)), then=partial(done.append, 'then'))
    lengths = [len(done)]
    while outbox.submit_some():
        lengths.append(len(done))
    assert done == [*samples(1000), 'then']
    assert max(after - before for before, after in pairwise(lengths)) <= 200
    assert not outbox.submit_some()


def test_what_was_begun_is_flushed(outbox: Outbox, done: list[object]) -> None:
    outbox.put(samples(300), then=partial(done.append, 'then'))
    assert outbox.submit_some()
    assert 0 < len(done) < 300
    outbox.flush()
    assert done == [*samples(300), 'then']


@pytest.mark.parametrize('submits_some', [False, True])
def test_error_is_raised_by_flush_and_nothing_follows_it(
    outbox: Outbox, done: list[object], submits_some: bool
) -> None:
    def fail() -> None:
        raise ValueError('wrong')

    outbox.put(samples(2), then=fail)
    outbox.put(samples(3), then=partial(done.append, 'then'))
    while submits_some and outbox.submit_some():
        pass
    with pytest.raises(ValueError, match='wrong'):
        outbox.flush()
    outbox.flush()
    assert done == samples(2)
    outbox.put(samples(1))
    outbox.flush()
    assert done == [*samples(2), *samples(1)]


def test_what_fails_to_be_submitted_is_not_followed() -> None:
    def submit(some: Iterable[Sample]) -> None:
        raise ValueError('refused')

    called: list[str] = []
    outbox = Outbox(submit)
    outbox.put(samples(1), then=partial(called.append, 'then'))
    with pytest.raises(ValueError, match='refused'):
        outbox.flush()
    assert called == []


def test_samples_are_made_as_they_are_submitted(outbox: Outbox) -> None:
    made = []

    def lazily() -> Iterator[Sample]:
        for sample in samples(1000):
            made.append(sample)
            yield sample

    outbox.put(lazily())
    assert made == []
    outbox.submit_some()
    assert len(made) < 1000
