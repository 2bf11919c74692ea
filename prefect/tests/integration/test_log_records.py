"""Log records on a real server: a kill in the middle of a flood, odd and large ones, those of runs that are gone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from lab.agent import CheckRunner
from lab.api import PrefectApiDriver
from lab.check_process import CheckProcess
from lab.fault_proxy import Exchange, Front
from lab.prefect_server import PrefectServer
from lab.run_checks import JOURNAL_NAME
from lab.sums import LOG_RECORDS
from lab.waiting import wait_until

FLOOD = 1_600
PAGE = 200
INTERVAL_SECONDS = 0.2


@pytest.fixture(scope='module')
def server(database_url: str | None) -> Iterator[PrefectServer]:
    """One for each database: in which order records of one moment come is up to it."""
    with PrefectServer(database_url=database_url) as server:
        yield server


@pytest.fixture
def runner(server: PrefectServer) -> Iterator[CheckRunner]:
    runner = CheckRunner({'prefect_url': server.api_url, 'collect_logs': True})
    assert runner.run().error is None
    yield runner
    runner.cancel()


def record(flow_run_id: str | None, message: str, **more: Any) -> dict[str, Any]:
    now = datetime.now(UTC).isoformat()
    record = {'name': 'prefect.flow_runs', 'level': 20, 'timestamp': now, 'message': message}
    return record | {'flow_run_id': flow_run_id} | more


def new_flow_run(api: PrefectApiDriver, flow: str = 'logged') -> str:
    body = {'flow_id': api.create_flow(flow), 'state': {'type': 'RUNNING'}}
    return str(api.request('POST', 'flow_runs/', body)['id'])


def number_submitted(folder: Path) -> int:
    return (folder / JOURNAL_NAME).read_text().count(f'"{LOG_RECORDS}"')


def test_kill_in_the_middle_of_a_flood_repeats_one_page_at_most(
    server: PrefectServer, api: PrefectApiDriver, tmp_path: Path
) -> None:
    """Slow answers to /logs/filter, so that the process is killed (SIGKILL) while it reads its pages."""

    def slow(exchange: Exchange) -> None:
        if exchange.endpoint == '/logs/filter':
            exchange.wait(0.1)
        exchange.pass_on()

    with Front(server.api_url) as front:
        front.fault = slow
        instance = {'prefect_url': front.url, 'collect_logs': True}
        with CheckProcess(instance, tmp_path, interval=INTERVAL_SECONDS) as checks:

            def persisted() -> Counter[str]:
                sums = checks.journal.sums.counts.items()
                return Counter({tags[-1]: number for (series, tags), number in sums if series == LOG_RECORDS})

            wait_until(lambda: checks.journal.checks, 'the first check')
            flow_run_id = new_flow_run(api, 'flooded')
            now = datetime.now(UTC)
            times = (now + timedelta(microseconds=10 * number) for number in range(FLOOD))
            flood = [record(flow_run_id, str(number), timestamp=at.isoformat()) for number, at in enumerate(times)]
            api.create_logs(flood)
            for most in (FLOOD // 4, FLOOD * 3 // 4):
                # Looked for more often than pages come, every 0.1 s.
                wait_until(lambda most=most: number_submitted(tmp_path) > most, 'a part of the flood', pause=0.02)
                checks.kill()
                assert len(persisted()) < FLOOD
                checks.keep_running()
            front.fault = Exchange.pass_on
            wait_until(lambda: len(persisted()) >= FLOOD, 'the whole flood')
            checks_so_far = len(checks.journal.checks)
            wait_until(lambda: len(checks.journal.checks) > checks_so_far + 1, 'two more checks')
            assert persisted() == Counter({f'log_id:{row["id"]}': 1 for row in api.flow_run_logs(20, [flow_run_id])})
            assert checks.journal.most_repeated_logs <= PAGE
            assert checks.kills == 2


def test_large_and_odd_messages_are_cut_and_cleaned(api: PrefectApiDriver, runner: CheckRunner) -> None:
    flow_run_id = new_flow_run(api)
    api.create_logs([record(flow_run_id, 'x' * 10_000_000), record(flow_run_id, 'a\0b\x1b[31mc\r\nd\u202ee')])
    api.create_logs([record(flow_run_id, f'{number} ' + 'y' * 300_000) for number in range(40)])
    found: list[str] = []
    for _ in range(4):
        result = runner.run()
        assert result.error is None
        assert sum(len(str(log)) for log in result.logs) < 4_500_000
        found += [log['message'] for log in result.logs]
    assert runner.log_file.lost == 0
    assert len(found) == 42
    assert max(map(len, found)) == 120_000
    assert sum(message.startswith('xxx') and message.endswith('... (cut)') for message in found) == 1
    # The server itself drops NUL.
    assert sum(message in ('ab [31mc \nd e', 'a b [31mc \nd e') for message in found) == 1


def test_unknown_runs_are_looked_up_once_in_one_request(server: PrefectServer, api: PrefectApiDriver) -> None:
    body = {'flow_id': api.create_flow('met'), 'state': {'type': 'PENDING'}}
    there = [str(api.request('POST', 'flow_runs/', body)['id']) for _ in range(5)]
    gone = [str(uuid4()) for _ in range(5)]
    lookups: list[bytes] = []

    def note(exchange: Exchange) -> None:
        if exchange.endpoint == '/flow_runs/filter' and any(
            flow_run_id.encode() in exchange.content for flow_run_id in gone
        ):
            lookups.append(exchange.content)
        exchange.pass_on()

    with Front(server.api_url) as front:
        front.fault = note
        runner = CheckRunner({'prefect_url': front.url, 'collect_logs': True})
        assert runner.run().error is None
        found: Counter[tuple[str, bool]] = Counter()
        for _ in range(3):
            api.create_logs([record(flow_run_id, 'hello') for flow_run_id in (*there, *gone)])
            for log in runner.run().logs:
                found[log['prefect']['flow_run_id'], 'flow_name:met' in log['ddtags'].split(',')] += 1
        runner.cancel()
    assert found == {
        **{(flow_run_id, True): 3 for flow_run_id in there},
        **{(flow_run_id, False): 3 for flow_run_id in gone},
    }
    (asked,) = lookups
    assert all(flow_run_id.encode() in asked for flow_run_id in gone)


def test_records_of_a_deleted_run_are_sent_with_what_is_known_of_it(api: PrefectApiDriver, runner: CheckRunner) -> None:
    known = new_flow_run(api, 'deleted')
    api.create_logs([record(known, 'before')])
    assert [log['message'] for log in runner.run().logs] == ['before']
    unknown = new_flow_run(api, 'deleted')
    api.create_logs([record(unknown, 'before')])
    for flow_run_id in (known, unknown):
        api.delete_flow_run(flow_run_id)
    # The server drops the records of a deleted run a moment later, and takes new ones.
    wait_until(lambda: not api.flow_run_logs(20, [known, unknown]), 'the records of the deleted runs to be dropped')
    api.create_logs([record(known, 'afterwards'), record(unknown, 'afterwards')])
    logs = runner.run().logs
    assert Counter(log['prefect']['flow_run_id'] for log in logs) == {known: 1, unknown: 1}
    assert {log['prefect']['flow_run_id']: 'flow_name:deleted' in log['ddtags'].split(',') for log in logs} == {
        known: True,
        unknown: False,
    }
