"""Flows that fail for each of the reasons for which a flow run or a task run can fail."""

from __future__ import annotations

import json
import os
import signal
import sys
import time

from prefect import State, flow, task
from prefect.states import Failed
from tasks import work


class CardDeclinedError(Exception):
    """An exception of one's own."""


class Bank:
    class OfflineError(Exception):
        """A nested one."""


def _raise(kind: str, customer: str) -> None:
    if kind == 'own':
        raise CardDeclinedError(f'the card of {customer} was declined')
    if kind == 'nested':
        raise Bank.OfflineError(f'no answer for {customer}')
    if kind == 'of a module':
        json.loads(f'{customer}:')
    if kind == 'misleading':
        raise RuntimeError(f'Flow run exceeded timeout of 2 second(s): {customer}')
    if kind == 'many lines':
        raise KeyError(f'first\nsecond: {customer}')
    if kind == 'without a text':
        raise ValueError
    if kind == 'odd name':
        raise type(f'No {customer}', (Exception,), {})('odd')
    if kind == 'of a timeout':
        raise TimeoutError(f'{customer} did not answer')
    raise ValueError(f'unknown customer {customer}')


@task
def charges(kind: str, customer: str) -> None:
    _raise(kind, customer)


@task(timeout_seconds=1)
def waits_too_long() -> None:
    for _ in range(50):
        time.sleep(0.1)


@task
def leaves() -> None:
    raise SystemExit(4)


@flow(name='payments')
def raises(kind: str = 'built-in', customer: str = 'alice@example.com') -> None:
    """FAILED with an exception whose text holds a parameter."""
    _raise(kind, customer)


@flow(name='payments-by-task')
def fails_by_task(kind: str = 'built-in', customer: str = 'alice@example.com') -> State[None]:
    """FAILED by the state of its task runs: FAILED with an exception, FAILED by a timeout, CRASHED."""
    states = [charges(kind, customer, return_state=True), waits_too_long(return_state=True)]
    try:
        leaves()
    except SystemExit:
        pass
    return states[0]


@flow(name='payments-timeout', timeout_seconds=1)
def times_out() -> None:
    for _ in range(50):
        time.sleep(0.1)


@flow(name='payments-killed')
def is_killed() -> None:
    """CRASHED: exit code -9 of a process, 137 of a container."""
    os.kill(os.getpid(), signal.SIGKILL)


@flow(name='payments-exits')
def exits(code: int = 3) -> None:
    """CRASHED without a word to the server."""
    os._exit(code)


@flow(name='payments-leaves')
def leaves_by_system_exit(code: int = 3) -> None:
    """CRASHED: the engine tells the server of it."""
    sys.exit(code)


@flow(name='payments-returns')
def returns_failed(state_name: str = 'Failed', message: str = 'the till is short of alice@example.com') -> State[None]:
    """FAILED by a state of its own."""
    return Failed(name=state_name, message=message)


@flow(name='payments-typed')
def takes_a_number(number: int) -> int:
    """FAILED before it runs, if it is given something else."""
    return number


@flow(name='payments-child')
def is_left_alone(seconds: float = 60.0) -> float:
    return work(seconds)


@flow(name='payments-parent')
def has_a_child(seconds: float = 60.0) -> float:
    """Its subflow ends with it, however it ends."""
    return is_left_alone(seconds)


@flow(name='payments-crashing-child')
def crashes_with_its_child() -> None:
    leaves_by_system_exit(5)
