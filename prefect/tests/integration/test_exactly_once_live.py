"""Against a real server, through a proxy that breaks things, with kills on the way: every sum is the server's own."""

from __future__ import annotations

import pytest

from lab.prefect_server import PrefectServer
from lab.soak import Result, Soak, SoakPlan

OUTCOMES = ('completed', 'failed', 'crashed', 'cancelled')
FAULTS = {'reset', 'delay', 'truncated', 'error 500', 'error 503'}


@pytest.fixture(scope='module')
def result(database_url: str | None) -> Result:
    """Several hundred flow runs by the REST API and real flows with tasks, dependencies and retries, for a minute."""
    plan = SoakPlan(
        seconds=45,
        least_lives=150,
        least_kills=5,
        lives_per_second=6,
        fault_rate=0.05,
        kill_seconds=(5, 10),
        kills_until=0.9,
        deaths=0.05,
        log_delay=0,
    )
    with PrefectServer(database_url=database_url) as server:
        return Soak(server.api_url, plan).run()


def test_every_sum_over_all_checks_is_what_the_server_tells(result: Result) -> None:
    differing = {one.series: one.differences for one in result.comparisons if one.differences}

    assert not differing


def test_every_stream_had_something_to_count(result: Result) -> None:
    counted = {one.series for one in result.comparisons if one.counted}

    assert counted >= {
        *(f'{family}.{outcome}.count' for family in ('flow_runs', 'task_runs') for outcome in OUTCOMES),
        *(f'{family}.throughput' for family in ('flow_runs', 'task_runs')),
        'flow_runs.late_start.count',
        'flow_runs.execution_duration.count',
        'flow_runs.queue_wait_duration.count',
        'flow_runs.retry_gaps_duration.count',
        'task_runs.execution_duration.count',
        'task_runs.dependency_wait_duration.count',
        'log records',
    }
    # Some 300 on a quiet machine, 90 on a full one with an old server.
    assert result.flow_runs >= 50


def test_each_kill_repeats_at_most_the_batch_that_was_not_persisted(result: Result) -> None:
    kills = result.kills + result.deaths

    assert kills >= 5
    assert result.journal.lost_states == 0
    assert result.journal.repeated_batches <= kills
    # A page.
    assert result.journal.most_repeated_logs <= 200


def test_there_were_faults_of_every_kind(result: Result) -> None:
    assert {name for name, number in result.faults.items() if number} == FAULTS
    assert any('flow_runs.finished' not in record.succeeded for record in result.journal.checks)


def test_nothing_is_worth_a_warning(result: Result) -> None:
    assert not result.warnings
