"""A flow whose task runs take every state that Prefect gives to a task run, while the flow run is RUNNING.

Prefect 3 tasks are orchestrated by the process that runs them: a task run is CRASHED when it ends with an exception
that is no `Exception`, and CANCELLED or PAUSED when the task returns such a state.
"""

from __future__ import annotations

import contextlib

from prefect import State, flow, task
from prefect.states import Cancelled, Paused
from tasks import work


@task
def fails() -> None:
    raise ValueError('the file is empty')


@task(timeout_seconds=1)
def times_out() -> float:
    return work.fn(0.2) + sum(work.fn(0.1) for _ in range(20))


@task
def crashes() -> None:
    raise SystemExit('out of memory')


@task
def is_cancelled() -> State[None]:
    return Cancelled(message='nothing to do on a holiday')


@task
def is_paused() -> State[None]:
    return Paused(message='waits for the bank')


@flow(name='bank-statements')
def bank_statements(seconds: float = 10.0) -> str:
    failed = fails(return_state=True)
    never_ready = work.submit(0.1, wait_for=[failed])
    times_out(return_state=True)
    with contextlib.suppress(SystemExit):
        crashes()
    is_cancelled(return_state=True)
    is_paused(return_state=True)
    # Last, so that a check sees all of this while the flow run goes on, however long the tasks above took.
    slow = work.submit(seconds)
    waits_for_slow = work.submit(0.1, wait_for=[slow])
    for future in (waits_for_slow, never_ready):
        future.wait()
    return 'done'
