"""What the states that a flow run went through tell: retries, and ends and starts that its row no longer shows.

All functions take the states of one run, ascending by time, as `GET /flow_run_states/` sends them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from datadog_checks.prefect.api.models import AWAITING_RETRY, TERMINAL_STATE_TYPES, FlowRunState


def retry_gaps(states: Sequence[FlowRunState]) -> Iterator[tuple[FlowRunState, float]]:
    """Each RUNNING state that ended a wait for a retry, and the seconds from entering AwaitingRetry to it."""
    waiting_since: datetime | None = None
    for state in states:
        if state.name == AWAITING_RETRY:
            waiting_since = waiting_since or state.timestamp
        elif state.type == 'RUNNING' and waiting_since is not None:
            yield state, (state.timestamp - waiting_since).total_seconds()
            waiting_since = None
        elif state.type in TERMINAL_STATE_TYPES:
            waiting_since = None


def ends(states: Sequence[FlowRunState]) -> Iterator[tuple[FlowRunState, float | None]]:
    """Each terminal state by which the run ended, and the seconds that it had been RUNNING by then, None if never.

    Its time is what the server keeps as `end_time` until the run is retried by hand. A terminal state that follows
    another (a person corrects it) is not a further end: `end_time` stays.
    """
    running_seconds: float | None = None
    previous: FlowRunState | None = None
    for state in states:
        if previous is not None and previous.type == 'RUNNING':
            running_seconds = (running_seconds or 0.0) + (state.timestamp - previous.timestamp).total_seconds()
        if state.type in TERMINAL_STATE_TYPES and (previous is None or previous.type not in TERMINAL_STATE_TYPES):
            yield state, running_seconds
        previous = state


def start(states: Sequence[FlowRunState]) -> FlowRunState | None:
    """The first RUNNING state. Since 3.6.14 a run that ended unstarted keeps that time as `start_time` when retried."""
    return next((state for state in states if state.type == 'RUNNING'), None)
