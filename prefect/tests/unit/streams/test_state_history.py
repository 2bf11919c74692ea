from __future__ import annotations

import pytest

from datadog_checks.prefect.api.models import FlowRunState
from datadog_checks.prefect.streams import state_history
from tests.unit.harness import at

TYPES = {
    'AwaitingRetry': 'SCHEDULED',
    'Resuming': 'SCHEDULED',
    'Submitting': 'PENDING',
    'TimedOut': 'FAILED',
    'Suspended': 'PAUSED',
}


def states(*names: str) -> list[FlowRunState]:
    """A history whose states last for 1, 2, 4, 8 ... seconds, the first one entered at 0."""
    return [
        FlowRunState(str(index), TYPES.get(name, name.upper()), name, at(2**index - 1))
        for index, name in enumerate(names)
    ]


@pytest.mark.parametrize(
    ('names', 'gaps'),
    [
        pytest.param('', [], id='no states'),
        pytest.param('Scheduled Pending Running Completed', [], id='no retry'),
        pytest.param('Running AwaitingRetry Running', [2], id='retry'),
        pytest.param('Running AwaitingRetry Running AwaitingRetry Running', [2, 8], id='two retries'),
        pytest.param('Running AwaitingRetry Pending Submitting Running', [14], id='by a worker'),
        pytest.param('Running Failed AwaitingRetry Pending Running', [12], id='by hand'),
        pytest.param('Running AwaitingRetry Cancelled AwaitingRetry Running', [8], id='cancelled in between'),
        pytest.param('Running AwaitingRetry', [], id='still waiting'),
        pytest.param('Running Suspended Resuming Running', [], id='suspension'),
        pytest.param('AwaitingRetry AwaitingRetry Running', [3], id='the wait begins once'),
    ],
)
def test_gap_lasts_from_awaiting_retry_to_running(names: str, gaps: list[float]) -> None:
    found = list(state_history.retry_gaps(states(*names.split())))
    assert [gap for _, gap in found] == gaps
    assert all(state.type == 'RUNNING' for state, _ in found)


@pytest.mark.parametrize(
    ('names', 'ends'),
    [
        pytest.param('Running', [], id='running'),
        pytest.param('Pending Running Completed', [('Completed', 2)], id='ended'),
        pytest.param('Scheduled Cancelled', [('Cancelled', None)], id='never ran'),
        pytest.param('Running Paused Running TimedOut', [('TimedOut', 5)], id='pause'),
        pytest.param('Running Cancelling Cancelled', [('Cancelled', 1)], id='cancelled'),
        pytest.param(
            'Running Failed AwaitingRetry Running Completed', [('Failed', 1), ('Completed', 9)], id='retried by hand'
        ),
        pytest.param('Running Failed Completed', [('Failed', 1)], id='corrected by a person'),
        pytest.param('Crashed AwaitingRetry Running Crashed', [('Crashed', None), ('Crashed', 4)], id='unstarted'),
    ],
)
def test_run_ends_by_each_terminal_state_that_follows_a_live_one(names: str, ends: list[tuple[str, float]]) -> None:
    found = state_history.ends(states(*names.split()))
    assert [(state.name, running_seconds) for state, running_seconds in found] == ends


@pytest.mark.parametrize(
    ('names', 'index'),
    [
        pytest.param('Pending Running Failed AwaitingRetry Running', 1, id='the first of two'),
        pytest.param('Pending Crashed AwaitingRetry Running', 3, id='after an end without a start'),
        pytest.param('Scheduled Cancelled', None, id='none'),
        pytest.param('', None, id='no states'),
    ],
)
def test_run_starts_with_its_first_running_state(names: str, index: int | None) -> None:
    history_ = states(*names.split())
    assert state_history.start(history_) == (None if index is None else history_[index])
