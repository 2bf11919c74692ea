"""Each happening is counted once: over edits of the configuration, restarts, folders that cannot be written, moves.

The Agent's part is played by `lab.agent`: `cancel()` and a new instance beside the one that still runs, and the files
of the persistent cache with their faults.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import uuid4

import pytest

from datadog_checks.base.stubs import aggregator
from lab.agent import AgentFiles, CheckResult, CheckRunner
from lab.api import PrefectApiDriver
from lab.fault_proxy import Exchange, Front
from lab.prefect_server import PrefectServer

COMPLETED = 'prefect.server.flow_runs.completed.count'
IS_ROOT = os.geteuid() == 0
Complete = Callable[[int], None]
# Who the Agent is where the tests are run by root, to whom no file is closed.
NOBODY = 65534


@pytest.fixture(scope='module')
def server(prefect_server: PrefectServer) -> PrefectServer:
    # The Agent's user may not read what the check of a first test would import.
    CheckRunner({'prefect_url': prefect_server.api_url}).run()
    return prefect_server


@pytest.fixture
def flow_name() -> str:
    """A name that no other test has."""
    return f'state-{uuid4().hex[:8]}'


@pytest.fixture
def complete(api: PrefectApiDriver, flow_name: str) -> Complete:
    """Let so many runs of the flow complete now."""
    flow_id = api.create_flow(flow_name)

    def complete(number: int) -> None:
        for _ in range(number):
            api.complete_flow_run(flow_id)

    return complete


@pytest.fixture
def instance(prefect_server: PrefectServer, flow_name: str) -> dict[str, Any]:
    return {'prefect_url': prefect_server.api_url, 'flow_names': {'include': [f'^{flow_name}$']}}


@pytest.fixture
def run_path() -> Iterator[Path]:
    """The Agent's run directory, which belongs to its user."""
    path = Path(tempfile.mkdtemp(prefix='agent-run-'))
    if IS_ROOT:
        os.chown(path, NOBODY, NOBODY)
    yield path
    for folder in (path, path / 'prefect'):
        if folder.is_dir():
            folder.chmod(0o700)
    shutil.rmtree(path)


@contextmanager
def as_the_agent(run_path: Path) -> Iterator[None]:
    """By its user, with its files."""
    with AgentFiles(run_path).installed():
        if IS_ROOT:
            os.seteuid(NOBODY)
        try:
            yield
        finally:
            if IS_ROOT:
                os.seteuid(0)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many runs were counted as completed, by the tag `team` of the instance; of all instances, at any time."""
    sums: Counter[str] = Counter()
    submit = aggregator.submit_metric

    def count(
        check: object, check_id: str, kind: int, name: str, value: float, tags: list[str], *more: Any, **named: Any
    ) -> None:
        if name == COMPLETED:
            sums[next((tag for tag in tags if tag.startswith('team:')), '')] += int(value)
        submit(check, check_id, kind, name, value, tags, *more, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(aggregator, 'submit_metric', count)
    return sums


def good(result: CheckResult) -> CheckResult:
    assert result.error is None
    assert 'prefect.server.health' in {point.name for point in result.points}
    return result


class TestEditOfTheConfiguration:
    @pytest.mark.parametrize('seconds', [0.2, 0.7, 1.2, 1.7, 2.2])
    def test_while_a_check_waits_for_slow_answers_counts_once(
        self,
        complete: Complete,
        instance: dict[str, Any],
        prefect_server: PrefectServer,
        run_path: Path,
        counted: Counter[str],
        seconds: float,
    ) -> None:
        def slowly(exchange: Exchange) -> None:
            time.sleep(0.2)
            exchange.pass_on()

        with AgentFiles(run_path).installed(), Front(prefect_server.api_url) as front:
            instance |= {'prefect_url': front.url}
            old = CheckRunner(instance)
            good(old.run())
            complete(3)
            with front.having(slowly):
                last_run = Thread(target=old.run)
                last_run.start()
                time.sleep(seconds)
                old.cancel()
                new = CheckRunner(instance | {'tags': ['team:edited']})
                new.run()
                last_run.join()
                complete(1)
                new.run()
            result = good(new.run())
        assert counted.total() == 4
        assert result.warnings == ()

    def test_again_and_again_counts_once(
        self, complete: Complete, instance: dict[str, Any], run_path: Path, counted: Counter[str]
    ) -> None:
        with AgentFiles(run_path).installed():
            runner = CheckRunner(instance)
            good(runner.run())
            for edit in range(12):
                complete(1)
                last_run = Thread(target=runner.run)
                last_run.start()
                time.sleep(0.02 * edit)
                runner.cancel()
                runner = CheckRunner(instance | {'tags': [f'team:{edit}']})
                runner.run()
                last_run.join()
            good(runner.run())
        assert counted.total() == 12


def test_files_hold_times_and_hashes_only(prefect_server: PrefectServer, api: PrefectApiDriver, run_path: Path) -> None:
    """What SECURITY.md promises: no credentials, no names, nothing that a run was given or said."""
    marker, secret = 'marker7f3', 'sesame9x4'
    api.create_work_pool(f'pool-{marker}')
    deployment = api.create_deployment(
        flow_name=f'flow-{marker}',
        name=f'deployment-{marker}',
        entrypoint='outcomes.py:succeeds',
        work_pool_name=f'pool-{marker}',
        tags=[f'tag-{marker}'],
    )
    options = {
        'prefect_url': prefect_server.api_url.replace('//', f'//bob:{secret}@'),
        'extra_headers': {'X-Key': secret},
        'tags': [f'team:{marker}'],
        'collect_events': True,
        'deployment_names': {'include': [f'^deployment-{marker}$']},
    }
    # The user of the Agent may not read all that is imported late.
    good(CheckRunner({'prefect_url': prefect_server.api_url}).run())
    with as_the_agent(run_path):
        runner = CheckRunner(options)
        good(runner.run())
        ids = {deployment}
        for state_type in ('COMPLETED', 'FAILED', 'CRASHED', 'RUNNING'):
            ids.add(run := api.create_flow_run(deployment, name=f'run-{marker}', parameters={'x': marker}))
            for state in ('RUNNING', state_type):
                message = {'state': {'type': state, 'message': f'said {marker}'}, 'force': True}
                api.request('POST', f'flow_runs/{run}/set_state', message)
        api.wait_for_events()
        result = good(runner.run())
    assert f'said {marker}' in repr(result.events)
    assert sum(result.values('flow_runs.failed.count').values()) == 1
    files = [path for path in run_path.rglob('*') if path.is_file()]
    assert files
    for path in files:
        for text in (str(path.relative_to(run_path)), path.read_text()):
            assert not [word for word in (marker, secret, *ids) if word in text], text


class TestFolder:
    def test_that_becomes_read_only_is_said_and_a_restart_counts_nothing_twice(
        self, complete: Complete, instance: dict[str, Any], run_path: Path, counted: Counter[str]
    ) -> None:
        folder = run_path / 'prefect'
        with as_the_agent(run_path):
            first = CheckRunner(instance)
            good(first.run())
        complete(3)
        with as_the_agent(run_path):
            good(first.run())
        for path in (*folder.iterdir(), folder):
            path.chmod(0o500 if path == folder else 0o400)
        complete(2)
        with as_the_agent(run_path):
            good(first.run())
            first.cancel()
            second = CheckRunner(instance)
            results = [good(second.run()) for _ in range(2)]
        complete(1)
        with as_the_agent(run_path):
            results.append(good(second.run()))
        assert counted.total() == 6
        for result in results:
            (warning,) = result.warnings
            assert 'the persisted state cannot be written' in warning
            assert str(folder) in warning
            assert '`sudo chmod -R u+rwX' in warning
        assert [len(result.log) for result in results] == [1, 0, 0]

    @pytest.mark.skipif(not IS_ROOT, reason='only root has a folder that the Agent cannot read')
    def test_of_root_does_not_end_the_check(
        self, complete: Complete, instance: dict[str, Any], run_path: Path, counted: Counter[str]
    ) -> None:
        """What `sudo datadog-agent check prefect` leaves behind."""
        with AgentFiles(run_path).installed():
            by_root = CheckRunner(instance)
            by_root.run()
            by_root.cancel()
        assert (run_path / 'prefect').stat().st_mode & 0o777 == 0o700
        complete(2)
        with as_the_agent(run_path):
            runner = CheckRunner(instance)
            result = good(runner.run())
        complete(3)
        with as_the_agent(run_path):
            results = [result, good(runner.run())]
        assert counted.total() == 3
        for result in results:
            (warning,) = result.warnings
            assert 'cannot be read (RuntimeError: failed to read data)' in warning
            assert f'{run_path}/prefect belongs to root (mode 0700) and the Agent runs as nobody' in warning
            assert f'`sudo chown -R nobody {run_path}/prefect`' in warning
        assert [len(result.log) for result in results] == [1, 0]

        shutil.chown(run_path / 'prefect', NOBODY)
        for path in (run_path / 'prefect').iterdir():
            shutil.chown(path, NOBODY)
        complete(1)
        with as_the_agent(run_path):
            assert good(runner.run()).warnings == ()
            runner.cancel()
            again = CheckRunner(instance)
        complete(1)
        with as_the_agent(run_path):
            assert good(again.run()).warnings == ()
        assert counted.total() == 5

    @pytest.mark.skipif(not IS_ROOT, reason='only root can mount a small file system')
    def test_on_a_full_disk(
        self, complete: Complete, instance: dict[str, Any], run_path: Path, counted: Counter[str]
    ) -> None:
        mounted = subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', run_path], check=False)
        if mounted.returncode:
            pytest.skip('this machine does not mount')
        try:
            with AgentFiles(run_path).installed():
                with pytest.raises(OSError, match='No space left'):
                    (run_path / 'filler').write_bytes(b'x' * 2**20)
                first = CheckRunner(instance)
                full = [good(first.run())]
                complete(4)
                full.append(good(first.run()))
                first.cancel()
                assert {path.stat().st_size for path in (run_path / 'prefect').iterdir()} == {0}
                (run_path / 'filler').unlink()
                second = CheckRunner(instance)
                result = good(second.run())
                complete(1)
                good(second.run())
        finally:
            subprocess.run(['umount', run_path], check=True)
        assert counted.total() == 5
        for run in full:
            (warning,) = run.warnings
            assert 'The state of the check cannot be saved (what was written is not there)' in warning
            assert f'{run_path}/prefect: only 0 KiB are free: make room' in warning
        (warning,) = result.warnings
        assert 'a file is empty: the disk was full' in warning


class TestTwoInstances:
    @pytest.mark.parametrize('order', [('a', 'b'), ('b', 'a')], ids=' '.join)
    def test_of_one_server_each_count_everything_over_restarts_in_any_order(
        self,
        complete: Complete,
        instance: dict[str, Any],
        run_path: Path,
        counted: Counter[str],
        order: tuple[str, ...],
    ) -> None:
        more = {'a': {}, 'b': {'collect_events': True, 'min_collection_interval': 60}}
        instances = {name: instance | {'tags': [f'team:{name}']} | more[name] for name in ('a', 'b')}
        with AgentFiles(run_path).installed():
            runners = {name: CheckRunner(instances[name]) for name in ('a', 'b')}
            for runner in runners.values():
                good(runner.run())
            complete(2)
            results = {name: good(runner.run()) for name, runner in runners.items()}
            complete(1)
            good(runners['a'].run())
            for runner in runners.values():
                runner.cancel()
            complete(3)
            runners = {name: CheckRunner(instances[name]) for name in order}
            for runner in runners.values():
                good(runner.run())
        assert counted == {'team:a': 6, 'team:b': 6}
        for result in results.values():
            assert any('counts of this server are sent twice' in warning for warning in result.warnings)

    def test_that_differ_in_nothing_are_a_configuration_error(self, instance: dict[str, Any], run_path: Path) -> None:
        with AgentFiles(run_path).installed():
            one, other = CheckRunner(instance), CheckRunner(instance | {'timeout': 7})
            good(one.run())
            assert 'differ in nothing' in (other.run().error or '')
            assert good(one.run()).warnings == ()
            one.cancel()
            assert good(other.run()).warnings == ()

    def test_with_one_ui_url_and_servers_that_differ_are_warned_of(
        self, complete: Complete, prefect_server: PrefectServer, run_path: Path
    ) -> None:
        page = {'ui_url': 'https://prefect.example.com'}
        with (
            AgentFiles(run_path).installed(),
            PrefectServer() as other_server,
            Front(prefect_server.api_url) as front,
        ):
            one, replica, other = (
                CheckRunner({'prefect_url': url, 'tags': [f'n:{number}'], **page})
                for number, url in enumerate((prefect_server.api_url, front.url, other_server.api_url))
            )
            for _ in range(2):
                results = [good(runner.run()) for runner in (one, replica)]
            assert not any('different servers' in warning for result in results for warning in result.warnings)
            replica.cancel()
            for _ in range(2):
                results = [good(runner.run()) for runner in (one, other)]
            for result in results:
                (warning,) = (text for text in result.warnings if 'different servers' in text)
                assert prefect_server.api_url in warning
                assert other_server.api_url in warning


def age_state(run_path: Path, seconds: int) -> None:
    """Let the persisted state have been saved so much earlier."""
    for path in (run_path / 'prefect').iterdir():
        document = json.loads(path.read_text())
        saved = datetime.fromisoformat(document['saved']) - timedelta(seconds=seconds)
        path.write_text(json.dumps(document | {'saved': saved.astimezone(UTC).isoformat()}))


class TestClusterCheck:
    def test_that_moves_there_and_back_counts_nothing_twice(
        self, complete: Complete, instance: dict[str, Any], tmp_path: Path, counted: Counter[str]
    ) -> None:
        """A, B, A, where B stays for two minutes. Each begins at the moment of its first check."""
        instance |= {'empty_default_hostname': True}
        a, b = tmp_path / 'a', tmp_path / 'b'
        with AgentFiles(a).installed():
            on_a = CheckRunner(instance)
            good(on_a.run())
            complete(2)
            good(on_a.run())
            on_a.cancel()
        with AgentFiles(b).installed():
            on_b = CheckRunner(instance)
            good(on_b.run())
            complete(4)
            good(on_b.run())
            on_b.cancel()
        age_state(a, 120)
        with AgentFiles(a).installed():
            on_a = CheckRunner(instance)
            first = good(on_a.run())
            complete(1)
            second = good(on_a.run())
        assert counted.total() == 7
        (warning,) = first.warnings
        assert 'another Agent may have counted meanwhile' in warning
        assert second.warnings == ()

    def test_that_stays_goes_on_after_a_short_restart(
        self, complete: Complete, instance: dict[str, Any], run_path: Path, counted: Counter[str]
    ) -> None:
        instance |= {'empty_default_hostname': True}
        with AgentFiles(run_path).installed():
            first = CheckRunner(instance)
            good(first.run())
            first.cancel()
            complete(3)
            age_state(run_path, 45)
            assert good(CheckRunner(instance).run()).warnings == ()
        assert counted.total() == 3


class TestAddress:
    def test_that_changes_with_each_rollout_leaves_tag_state_and_links_as_they_are(
        self,
        complete: Complete,
        instance: dict[str, Any],
        prefect_server: PrefectServer,
        run_path: Path,
        counted: Counter[str],
    ) -> None:
        instance |= {'ui_url': 'https://prefect.example.com/team', 'collect_events': True}
        tags, events = set(), []
        with AgentFiles(run_path).installed():
            for number in range(3):
                with Front(prefect_server.api_url) as front:
                    runner = CheckRunner(instance | {'prefect_url': front.url})
                    results = [good(runner.run())]
                    complete(2)
                    if number == 2:
                        results.append(good(runner.run()))
                    runner.cancel()
                tags |= {
                    tag
                    for result in results
                    for point in result.points
                    for tag in point.tags
                    if tag.startswith('prefect_url:')
                }
                events += [event for result in results for event in result.events]
        assert counted.total() == 6
        assert tags == {'prefect_url:https://prefect.example.com/team'}
        assert {event['msg_text'].partition('[Open in Prefect](')[2].partition('/runs/')[0] for event in events} <= {
            'https://prefect.example.com/team'
        }
