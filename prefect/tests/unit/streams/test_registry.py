from __future__ import annotations

import gc
from threading import Event

import pytest

from datadog_checks.base import ConfigurationError
from datadog_checks.prefect.streams.registry import Cancelled, Member, Registry


def member(state_id: str = 's', instance_id: str = 'i', *, ui_url: str = 'u', server_url: str = 'a') -> Member:
    return Member(state_id, instance_id, ui_url, server_url, Event())


@pytest.fixture
def registry() -> Registry:
    return Registry()


def test_those_that_count_the_same_know_each_other(registry: Registry) -> None:
    one, other, third = member(instance_id='1'), member(instance_id='2'), member('t')
    for item in (one, other, third):
        registry.enter(item)
    assert registry.counting_the_same(one) == [other]
    assert registry.counting_the_same(third) == []


def test_second_that_differs_in_nothing_is_a_configuration_error_until_the_first_is_cancelled(
    registry: Registry,
) -> None:
    first, second = member(), member()
    registry.enter(first)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match='differ in nothing'):
            registry.enter(second)
    assert registry.counting_the_same(first) == []
    first.cancelled.set()
    registry.enter(second)
    assert registry.counting_the_same(second) == []


def test_cancelled_one_does_not_enter(registry: Registry) -> None:
    late = member()
    late.cancelled.set()
    with pytest.raises(Cancelled):
        registry.enter(late)


def test_instance_that_nobody_holds_has_left(registry: Registry) -> None:
    class Check:
        def __init__(self, item: Member) -> None:
            self.member = item
            self.itself = self

    gc.disable()
    try:
        forgotten = Check(member())
        registry.enter(forgotten.member)
        del forgotten
        registry.enter(member())
    finally:
        gc.enable()


def test_one_ui_url_at_several_addresses(registry: Registry) -> None:
    one, replica, same, elsewhere = (
        member('1'),
        member('2', server_url='b'),
        member('3'),
        member('4', server_url='b', ui_url='v'),
    )
    for item in (one, replica, same, elsewhere):
        registry.enter(item)
    assert registry.with_its_ui_url(one) == [replica]
    assert registry.with_its_ui_url(elsewhere) == []
