from __future__ import annotations

import pytest

from datadog_checks.prefect.filters import NameFilter, ResourceFilters
from datadog_checks.prefect.inventory.server_filter import ServerFilter, flow_criteria

CRITERIA = {'state': {'type': {'any_': ['RUNNING']}}}
PARENTS = {'deployment_id': {'any_': ['a'], 'is_null_': True, 'operator': 'or_'}}
JOINS = {'work_pools': {'name': {'any_': ['prod']}}}


def test_no_filters_ask_for_everything() -> None:
    assert ServerFilter().flow_runs(CRITERIA) == {'flow_runs': CRITERIA}
    assert ServerFilter().task_runs(CRITERIA) == [{'task_runs': CRITERIA}]


def test_filters_are_added_to_the_criteria_on_flow_runs() -> None:
    scope = ServerFilter(PARENTS, JOINS)
    assert scope.flow_runs(CRITERIA) == {'flow_runs': PARENTS | CRITERIA, **JOINS}
    assert PARENTS == {'deployment_id': {'any_': ['a'], 'is_null_': True, 'operator': 'or_'}}


def test_task_runs_are_filtered_by_their_flow_runs_and_never_by_work_pool() -> None:
    """The endpoints of task runs ignore `work_pools` without a word."""
    scope = ServerFilter(PARENTS, JOINS, keep_parentless=False)
    assert scope.task_runs(CRITERIA) == [{'task_runs': CRITERIA, 'flow_runs': PARENTS}]


def test_flows_are_a_criterion_of_both() -> None:
    flows = {'flows': {'id': {'any_': ['a']}}}
    scope = ServerFilter(flows=flows, keep_parentless=False)
    assert scope.flow_runs(CRITERIA) == {'flow_runs': CRITERIA, **flows}
    assert scope.task_runs(CRITERIA) == [{'task_runs': CRITERIA, **flows}]


@pytest.mark.parametrize(('number', 'is_sent'), [(0, True), (1000, True), (1001, False)])
def test_so_many_flows_that_the_request_would_grow_too_large_are_not_sent(number: int, is_sent: bool) -> None:
    filters = ResourceFilters(flows=NameFilter.compile(['.'], None))
    assert bool(flow_criteria(filters, [str(index) for index in range(number)])) is is_sent


def test_background_task_runs_are_asked_for_on_their_own() -> None:
    """A criterion on flow runs leaves out what has none."""
    background = {'task_runs': CRITERIA | {'flow_run_id': {'is_null_': True}}}
    assert ServerFilter(PARENTS).task_runs(CRITERIA)[1:] == [background]
    assert ServerFilter().task_runs(CRITERIA, {'id': {}}) == [
        {'task_runs': CRITERIA, 'flow_runs': {'id': {}}},
        background,
    ]
