"""Processes of flow runs that send heartbeats: one is killed, one stopped and woken up, one sends too few, one goes on.

Prefect sends heartbeats every 30 s at the most often, so this takes four minutes.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack

from lab.agent import CheckRunner
from lab.prefect_server import FlowScript, PrefectServer

INTERVAL_SECONDS = 5
LIMIT_SECONDS = 150
OFTEN = {'PREFECT_FLOWS_HEARTBEAT_FREQUENCY': '30'}
# The default of 3.8.8.
SELDOM = {'PREFECT_FLOWS_HEARTBEAT_FREQUENCY': '180'}

# Of each flow: whether its run is lost, and how old its last heartbeat is.
Found = dict[str, tuple[float, float]]


def look(runner: CheckRunner) -> Found:
    result = runner.run()
    assert result.error is None, result.error
    values: dict[str, dict[str, float]] = {}
    for point in result.points:
        if point.name.startswith('prefect.server.flow_runs.heartbeat'):
            (flow,) = (tag.partition(':')[2] for tag in point.tags if tag.startswith('flow_name:'))
            values.setdefault(flow, {})[point.name.rpartition('.')[2]] = point.value
    return {flow: (found['heartbeat_lost'], found['max_age']) for flow, found in values.items()}


def follow(runner: CheckRunner, is_enough: Callable[[Found], bool]) -> list[Found]:
    """What the checks find until it is enough. Fails if that takes too long."""
    found = []
    deadline = time.monotonic() + LIMIT_SECONDS
    while not found or not is_enough(found[-1]):
        assert time.monotonic() < deadline, found[-1]
        found.append(look(runner))
        time.sleep(INTERVAL_SECONDS)
    return found


def lost(found: Found) -> set[str]:
    return {flow for flow, (is_lost, _) in found.items() if is_lost}


def test_runs_that_lose_their_process_are_lost_and_no_others() -> None:
    with ExitStack() as stack:
        server = stack.enter_context(PrefectServer())
        scripts = {
            name: stack.enter_context(FlowScript(server.api_url, 'waits.py', settings={'FLOW_NAME': name, **beats}))
            for name, beats in (('killed', OFTEN), ('stopped', OFTEN), ('alive', OFTEN), ('seldom', SELDOM))
        }
        runner = CheckRunner({'prefect_url': server.api_url})
        began = time.monotonic()
        # Three heartbeats, the last of which is written down.
        found = follow(runner, lambda now: len(now) == 4 and time.monotonic() - began > 80)
        assert not any(map(lost, found))
        os.kill(scripts['killed'].pid, signal.SIGKILL)
        os.kill(scripts['stopped'].pid, signal.SIGSTOP)
        try:
            found = follow(runner, lambda now: lost(now) == {'killed', 'stopped'})
        finally:
            os.kill(scripts['stopped'].pid, signal.SIGCONT)
        for now in found:
            assert lost(now) <= {'killed', 'stopped'}
            assert all(age > 90 for flow, (is_lost, age) in now.items() if is_lost)
        assert all(age < 130 for _, age in (found[-1]['killed'], found[-1]['stopped']))
        found = follow(runner, lambda now: lost(now) == {'killed'})
        assert all(lost(now) <= {'killed', 'stopped'} for now in found)
