"""A real server that is stopped and started again while checks go on: each tells the truth, and nothing is lost."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread

from lab.agent import CheckResult, CheckRunner
from lab.api import PrefectApiDriver
from lab.prefect_server import PrefectServer

FLOW = 'outlives its server'
TIMEOUT_SECONDS = 10
PAUSE_SECONDS = 0.1
# What a server that goes, is away or comes may give for an answer, and what the check makes of it.
EXPLAINED = re.compile(
    r'no connection to 127\.0\.0\.1:\d+: Connection (refused|reset by peer)'
    r'|127\.0\.0\.1:\d+ closed the connection'
    r'|the connection to 127\.0\.0\.1:\d+ closed in the middle of an answer'
    r'|HTTP 503, unavailable'
    r'|HTTP 500, the server failed'
)


def checks_during(action: Callable[[], object], check: CheckRunner) -> list[CheckResult]:
    """Run the check again and again until the action, which goes on beside it, has ended."""
    thread = Thread(target=action)
    thread.start()
    results = [check.run()]
    while thread.is_alive():
        time.sleep(PAUSE_SECONDS)
        results.append(check.run())
    thread.join()
    return results


def complete_flow_run(server: PrefectServer) -> None:
    with PrefectApiDriver(server.api_url) as api:
        api.complete_flow_run(api.create_flow(FLOW))


def values(result: CheckResult, series: str) -> list[float]:
    return [point.value for point in result.points if point.name == f'prefect.server.{series}']


def test_a_server_is_stopped_and_started_again_while_checks_go_on(tmp_path: Path) -> None:
    database_url = f'sqlite+aiosqlite:///{tmp_path / "prefect.db"}'
    with PrefectServer(database_url=database_url) as server:
        check = CheckRunner({'prefect_url': server.api_url, 'timeout': TIMEOUT_SECONDS})
        assert check.run().error is None
        complete_flow_run(server)
        # It is asked to end, as by an update, and does so within some seconds.
        results = checks_during(server.stop, check)
        away = check.run()
    again = PrefectServer(database_url=database_url)
    again.port = server.port
    try:
        results += [away, *checks_during(again.start, check)]
        complete_flow_run(again)
        last = check.run()
    finally:
        again.stop()

    assert away.error is not None
    assert 'Connection refused. Is the server' in away.error
    assert values(away, 'health') == values(away, 'ready') == [0]
    for error in (result.error for result in results):
        assert error is None or EXPLAINED.search(error)
    assert max(result.seconds for result in results) < 3 * TIMEOUT_SECONDS
    assert last.error is None
    assert values(last, 'health') == values(last, 'ready') == [1]
    assert sum(sum(values(result, 'flow_runs.completed.count')) for result in (*results, last)) == 2
