from __future__ import annotations

from datetime import timedelta

import pytest

from datadog_checks.prefect.api.errors import PrefectApiError
from datadog_checks.prefect.collectors.automations import Automations
from datadog_checks.prefect.event_names import ACTION_EXECUTED, ACTION_FAILED, AUTOMATION_TRIGGERED
from datadog_checks.prefect.tags import Tags, make_tags
from tests.fake_prefect import FakePrefect
from tests.unit.harness import Bench, Row, Values, at, bodies, failing, nonzero, sent, series

TRIGGERED = 'automation.triggered.count'
EXECUTED = 'automation.action.executed.count'
FAILED = 'automation.action.failed.count'
IS_ENABLED = 'automation.is_enabled'


def follow(bench: Bench, seconds: float) -> Values:
    bench.fake.now = at(seconds)
    return bench.follow(Automations())


def counts(found: Values) -> Values:
    return nonzero(series(found, TRIGGERED, EXECUTED, FAILED))


def tags_of(event: Row) -> Tags:
    return make_tags(
        {
            'automation_id': event['resource']['prefect.resource.id'].rpartition('.')[2],
            'automation_name': event['resource']['prefect.resource.name'],
            'action_type': event['payload'].get('action_type'),
        }
    )


def add(fake: FakePrefect, name: str, seconds: float, action_type: str | None = None) -> Row:
    event = fake.add_event(name, occurred=at(seconds))
    event['payload'] = {'action_type': action_type} if action_type else {}
    return event


def test_triggers_and_actions_are_counted_by_automation_and_type_of_action(fake: FakePrefect, bench: Bench) -> None:
    follow(bench, 0)
    trigger = add(fake, AUTOMATION_TRIGGERED, 5)
    worked = add(fake, ACTION_EXECUTED, 6, 'send-notification')
    hooks = [add(fake, ACTION_FAILED, seconds, 'call-webhook') for seconds in (7, 8)]
    another = add(fake, ACTION_FAILED, 9, 'run-deployment')
    add(fake, 'prefect.automation.action.triggered', 6, 'call-webhook')
    assert counts(follow(bench, 15)) == {
        (TRIGGERED, tags_of(trigger)): 1,
        (EXECUTED, tags_of(worked)): 1,
        (FAILED, tags_of(hooks[0])): 2,
        (FAILED, tags_of(another)): 1,
    }
    assert 'automation_name:recorded-automation' in tags_of(trigger)


def test_counts_go_on_as_0_for_five_minutes(fake: FakePrefect, bench: Bench) -> None:
    follow(bench, 0)
    key = (FAILED, tags_of(add(fake, ACTION_FAILED, 5, 'call-webhook')))
    found = [follow(bench, seconds).get(key) for seconds in range(15, 400, 15)]
    assert found == [1, *[0] * 20, *[None] * 5]


@pytest.mark.parametrize('delay', [0.5, 20, 119])
def test_late_event_is_neither_lost_nor_doubled(fake: FakePrefect, bench: Bench, delay: float) -> None:
    follow(bench, 0)
    for seconds in (10, 20, 30):
        fake.add_event(ACTION_FAILED, occurred=at(seconds))
        fake.add_event(ACTION_FAILED, occurred=at(seconds + 1), visible_from=at(seconds + 1 + delay))
    found = [sum(counts(follow(bench, seconds)).values()) for seconds in range(15, 400, 15)]
    assert sum(found) == 6
    assert found[:3] != [0, 0, 0]


def test_restart_counts_nothing_twice(fake: FakePrefect, bench: Bench) -> None:
    follow(bench, 0)
    fake.add_event(ACTION_FAILED, occurred=at(5))
    assert sum(counts(follow(bench, 15)).values()) == 1
    bench.restart()
    fake.add_event(ACTION_FAILED, occurred=at(20))
    assert sum(counts(follow(bench, 30)).values()) == 1


def test_failed_read_counts_nothing_and_the_next_one_all(fake: FakePrefect, bench: Bench) -> None:
    follow(bench, 0)
    for second in range(1, 61):
        fake.add_event(ACTION_FAILED, occurred=at(second))
    fake.fault = failing('/events/filter/next')
    with pytest.raises(PrefectApiError):
        follow(bench, 61)
    fake.fault = None
    assert sum(counts(follow(bench, 75)).values()) == 60


def test_a_flood_is_counted_over_several_checks(fake: FakePrefect, bench: Bench) -> None:
    follow(bench, 0)
    for index in range(2500):
        fake.add_event(ACTION_FAILED, occurred=at(1) + timedelta(milliseconds=index))
    found = [sum(counts(follow(bench, seconds)).values()) for seconds in (15, 30, 45, 60)]
    assert found == [1000, 1049, 451, 0]


def test_idle_server_is_asked_once_and_a_busy_one_once_per_page_of_what_is_new(fake: FakePrefect, bench: Bench) -> None:
    def asked(seconds: float) -> int:
        before = len(sent(fake, '/events/filter')) + len(sent(fake, '/events/filter/next'))
        follow(bench, seconds)
        return len(sent(fake, '/events/filter')) + len(sent(fake, '/events/filter/next')) - before

    assert [asked(seconds) for seconds in (0, 15, 30)] == [0, 1, 1]
    for seconds in range(31, 91):
        fake.add_event(ACTION_FAILED, occurred=at(seconds))
    assert [asked(seconds) for seconds in (91, 105, 120)] == [2, 1, 1]
    assert set(bodies(fake, '/events/filter')[0]['filter']['event']['name']) >= {ACTION_FAILED, ACTION_EXECUTED}


def test_two_collectors_share_one_read_and_each_counts_all(fake: FakePrefect, bench: Bench) -> None:
    """Another stream of the same events, in step with this one, costs nothing."""

    class Another(Automations):
        name = 'another'

    for seconds in (0, 15, 30):
        fake.now = at(seconds)
        if seconds:
            for index in range(80):
                fake.add_event(ACTION_FAILED, occurred=at(seconds - 10) + timedelta(milliseconds=index))
        run = bench.context()
        found = [sum(counts(bench.follow(collector, run)).values()) for collector in (Automations(), Another())]
        assert found == ([80, 80] if seconds else [0, 0])
    assert len(sent(fake, '/events/filter')) + len(sent(fake, '/events/filter/next')) == 4


def test_failure_of_a_shared_read_is_one_of_both(fake: FakePrefect, bench: Bench) -> None:
    class Another(Automations):
        name = 'another'

    both = (Automations(), Another())
    for collector in both:
        bench.follow(collector)
    for second in range(1, 61):
        fake.add_event(ACTION_FAILED, occurred=at(second))
    fake.now = at(61)
    fake.fault = failing('/events/filter/next')
    run = bench.context()
    for collector in both:
        with pytest.raises(PrefectApiError):
            bench.follow(collector, run)
    fake.fault = None
    fake.now = at(75)
    run = bench.context()
    assert [sum(counts(bench.follow(collector, run)).values()) for collector in both] == [60, 60]


def test_each_automation_tells_whether_it_is_enabled(fake: FakePrefect, bench: Bench) -> None:
    on, off = fake.add_automation('on'), fake.add_automation('off', enabled=False)
    tags = [make_tags({'automation_id': row['id'], 'automation_name': row['name']}) for row in (on, off)]
    assert series(follow(bench, 0), IS_ENABLED) == {(IS_ENABLED, tags[0]): 1, (IS_ENABLED, tags[1]): 0}
    on['enabled'] = False
    fake.remove(off)
    follow(bench, 15)
    assert series(follow(bench, 60), IS_ENABLED) == {(IS_ENABLED, tags[0]): 0}
    assert len(sent(fake, '/automations/filter')) == 2
