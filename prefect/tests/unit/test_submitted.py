"""How many series a run of the check sends, what is told of it, and the warning of too many."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from datadog_checks.base.stubs.aggregator import AggregatorStub
from datadog_checks.prefect import PrefectCheck
from tests.fake_prefect import FakePrefect
from tests.unit.harness import at, run_through

NewCheck = Callable[..., PrefectCheck]
RunCheck = Callable[[PrefectCheck], AggregatorStub]


def sent(aggregator: AggregatorStub) -> set[tuple[str, frozenset[str]]]:
    """The different series that the Agent received."""
    return {
        (metric.name.removeprefix('prefect.server.'), frozenset(metric.tags))
        for name in aggregator.metric_names
        for metric in aggregator.metrics(name)
    }


def of_objects(found: set[tuple[str, frozenset[str]]]) -> set[tuple[str, frozenset[str]]]:
    """Those that are not about the check itself."""
    return {key for key in found if key[0].partition('.')[0] not in ('api', 'check', 'collector')}


def told(aggregator: AggregatorStub) -> dict[str, float]:
    """The values of `check.series` by family."""
    return {
        tag.removeprefix('family:'): metric.value
        for metric in aggregator.metrics('prefect.server.check.series')
        for tag in metric.tags
        if tag.startswith('family:')
    }


@pytest.fixture
def world(fake: FakePrefect) -> None:
    """Two work pools, and three deployments of which one has a run."""
    pools = [fake.add_work_pool(name) for name in ('prod', 'test')]
    for number in range(3):
        deployment = fake.add_deployment(name=f'd{number}', work_queue=fake.default_queue(pools[number // 2]))
    fake.add_flow_run(deployment=deployment, state=('RUNNING', 'Running'))
    fake.add_worker(pools[0])


@pytest.mark.parametrize(
    'options',
    [{}, {'metric_patterns': {'exclude': ['deployment', 'api']}}, {'report_idle': False}],
    ids=['all', 'metric_patterns', 'without idle deployments'],
)
@pytest.mark.usefixtures('world')
def test_series_are_counted_by_family_as_the_agent_receives_them(
    fake: FakePrefect, new_check: NewCheck, run_check: RunCheck, options: dict[str, Any]
) -> None:
    check = new_check(tags=['team:data'], **options)
    run_check(check)
    run_through(fake, deployment=fake.tables['deployments'].newest()[0], start=at(1), seconds=2)
    fake.now = at(15)
    aggregator = run_check(check)

    assert told(aggregator) == Counter(name.partition('.')[0] for name, _ in sent(aggregator))


@pytest.mark.usefixtures('world')
def test_what_an_option_saves_is_what_is_missing_when_it_is_set(new_check: NewCheck, run_check: RunCheck) -> None:
    check = new_check()
    everything = sent(run_check(check))
    saved = check._submitted.by_option(check._idle.count(check._submitted))

    for option in ('run_ages', 'freshness', 'worker_counts'):
        without = sent(run_check(new_check(collect={option: False}, tags=[])))
        missing = of_objects(everything) - of_objects(without)
        assert saved[f'collect: {{{option}: false}}'] == len(missing) > 0, option
    assert saved['report_idle: false'] == len(everything - sent(run_check(new_check(report_idle=False))))
    assert list(saved.values()) == sorted(saved.values(), reverse=True)


@pytest.mark.usefixtures('world')
def test_filters_are_told_with_what_they_select(new_check: NewCheck, run_check: RunCheck) -> None:
    check = new_check()
    everything = sent(run_check(check))
    found = {item.option: item for item in check._submitted.by_filter()}

    for option, key in (('work_pool_names', 'work_pool_name:'), ('deployment_names', 'deployment_name:')):
        names = Counter(tag.removeprefix(key) for _, tags in everything for tag in tags if tag.startswith(key))
        item = found[option]
        assert (item.series, item.objects, item.most) == (names.total(), len(names), max(names.values())), option
        assert names[item.largest] == item.most


@pytest.mark.parametrize('check_cost', [True, False])
@pytest.mark.usefixtures('world')
def test_too_many_series_are_sent_and_warned_of_for_as_long_as_they_are(
    fake: FakePrefect, new_check: NewCheck, run_check: RunCheck, caplog: pytest.LogCaptureFixture, check_cost: bool
) -> None:
    reference = sent(run_check(new_check(collect={'check_cost': check_cost})))
    check = new_check(max_series=len(reference) - 20, collect={'check_cost': check_cost}, tags=[])
    caplog.set_level(logging.WARNING)
    caplog.clear()
    for _ in range(3):
        assert of_objects(sent(run_check(check))) == of_objects(reference)
        (warning,) = check.get_warnings()
    (line,) = [record.getMessage() for record in caplog.records]

    assert (
        f'The check sends {len(reference)} series, more than max_series ({len(reference) - 20}). All are sent. ' in line
    )
    assert '`report_idle: false` would save' in warning
    assert re.search(r'`work_pool_names` could leave out up to \d+, which have 2 different names', warning)
    assert 'prod' not in warning

    for table in ('deployments', 'flow_runs'):
        for row in list(fake.tables[table].newest()):
            fake.tables[table].remove(row)
    fake.now = at(600)
    run_check(check)
    assert check.get_warnings() == []
