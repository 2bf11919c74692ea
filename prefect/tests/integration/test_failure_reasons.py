"""Flow runs and task runs that fail in each way on a real server, and the reasons that the check gives.

A real worker runs them. All of them are asked for at once, and counted by instances of the check that count all of the
time, are restarted in between, or see a part of them.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab.agent import AgentFiles, CheckResult, CheckRunner
from lab.api import TERMINAL_STATE_TYPES, PrefectApiDriver
from lab.prefect_server import FLOWS_FOLDER, FlowScript, PrefectServer, Worker

CUSTOMER = 'alice@example.com'
LIMIT_SECONDS = 300.0
# By flow run: the function of `failures.py`, its parameters, the name of its state, and the reason.
FAILURES: Mapping[str, tuple[str, Mapping[str, Any], str, str]] = {
    'built-in': ('raises', {}, 'Failed', 'exception:ValueError'),
    'own': ('raises', {'kind': 'own'}, 'Failed', 'exception:CardDeclinedError'),
    'nested': ('raises', {'kind': 'nested'}, 'Failed', 'exception:OfflineError'),
    'of a module': ('raises', {'kind': 'of a module'}, 'Failed', 'exception:JSONDecodeError'),
    'misleading': ('raises', {'kind': 'misleading'}, 'Failed', 'exception:RuntimeError'),
    'many lines': ('raises', {'kind': 'many lines'}, 'Failed', 'exception:KeyError'),
    'without a text': ('raises', {'kind': 'without a text'}, 'Failed', 'exception:ValueError'),
    'odd name': ('raises', {'kind': 'odd name'}, 'Failed', 'exception:other'),
    'of a timeout': ('raises', {'kind': 'of a timeout'}, 'TimedOut', 'timeout'),
    'wrong parameter': ('takes_a_number', {'number': CUSTOMER}, 'Failed', 'exception:ParameterTypeError'),
    'by task': ('fails_by_task', {}, 'Failed', 'other'),
    'timeout': ('times_out', {}, 'TimedOut', 'timeout'),
    'killed': ('is_killed', {}, 'Crashed', 'killed'),
    'exit 3': ('exits', {'code': 3}, 'Crashed', 'exit_code_3'),
    'out of memory': ('exits', {'code': 137}, 'Crashed', 'out_of_memory'),
    'left': ('leaves_by_system_exit', {}, 'Crashed', 'aborted'),
    'returned': ('returns_failed', {}, 'Failed', 'other'),
    'returned by another name': ('returns_failed', {'state_name': f'Order of {CUSTOMER}'}, 'other', 'other'),
    'crashing child': ('crashes_with_its_child', {}, 'Crashed', 'aborted'),
    'no file': ('missing', {}, 'Crashed', 'exit_code_1'),
    'no repository': ('raises', {}, 'Crashed', 'exit_code_1'),
    'no submission': ('raises', {}, 'Crashed', 'infrastructure'),
    'no process': ('raises', {}, 'Crashed', 'infrastructure'),
}
# What the deployments of some of them have.
REPOSITORY = 'file:///nowhere/repository.git'
PECULIAR: Mapping[str, Mapping[str, Any]] = {
    'no file': {'entrypoint': 'nowhere.py:missing'},
    'no repository': {'pull_steps': [{'prefect.deployments.steps.git_clone': {'repository': REPOSITORY}}]},
    'no submission': {'job_variables': {'stream_output': '{{ prefect.blocks.secret.nothing }}'}},
    'no process': {'job_variables': {'working_dir': '/nowhere'}},
}
# Of tasks, and of the subflow that crashes.
TASK_FAILURES = {
    ('charges', 'Failed', 'exception:ValueError'): 1,
    ('waits_too_long', 'TimedOut', 'timeout'): 1,
    ('leaves', 'Crashed', 'aborted'): 1,
    ('work', 'Crashed', 'aborted'): 1,
}


@dataclass(frozen=True)
class Failed:
    """What each instance sent over all of its checks."""

    always: Sequence[CheckResult]
    restarted: Sequence[CheckResult]
    included: Sequence[CheckResult]


def deploy(api: PrefectApiDriver, name: str, function: str) -> str:
    body = {
        'flow_id': api.create_flow(name),
        'name': name,
        'entrypoint': f'failures.py:{function}',
        'path': str(FLOWS_FOLDER),
        'pull_steps': [{'prefect.deployments.steps.set_working_directory': {'directory': str(FLOWS_FOLDER)}}],
        'work_pool_name': 'till',
        'enforce_parameter_schema': False,
    }
    return str(api.request('POST', 'deployments/', body | PECULIAR.get(name, {}))['id'])


@pytest.fixture(scope='module')
def failed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Failed]:
    settings = {'PREFECT_WORKER_QUERY_SECONDS': '2'}
    with PrefectServer() as server, PrefectApiDriver(server.api_url) as api:
        api.create_work_pool('till')
        deployments = {name: deploy(api, name, function) for name, (function, *_) in FAILURES.items()}
        parent = deploy(api, 'parent', 'has_a_child')
        found = follow(api, server.api_url, tmp_path_factory.mktemp('agent'))
        next(found)
        with Worker(server.api_url, 'till', settings=settings):
            runs = [
                api.create_flow_run(deployments[name], parameters=parameters)
                for name, (_, parameters, *_) in FAILURES.items()
            ]
            parent_run = api.create_flow_run(parent)
            runs.append(parent_run)
            cancel_when_the_child_runs(api, parent_run, found)
            deadline = time.monotonic() + LIMIT_SECONDS
            while set(api.flow_run_state_types(runs).values()) - TERMINAL_STATE_TYPES:
                assert time.monotonic() < deadline, api.flow_run_state_types(runs)
                next(found)
            # What shows late: the task runs of a process that ended just now.
            for _ in range(3):
                time.sleep(3)
                results = next(found)
        yield results


def cancel_when_the_child_runs(api: PrefectApiDriver, parent_run: str, found: Iterator[Failed]) -> None:
    work = {'task_runs': {'state': {'type': {'any_': ['RUNNING']}}}, 'flows': {'name': {'any_': ['payments-child']}}}
    deadline = time.monotonic() + LIMIT_SECONDS
    while not api.count_task_runs(**work):
        assert time.monotonic() < deadline
        next(found)
    api.cancel_flow_run(parent_run)


def follow(api: PrefectApiDriver, url: str, run_path: Path) -> Iterator[Failed]:
    """Run a check of each instance at each step, one of them in a new process each time."""
    results = Failed([], [], [])
    always = CheckRunner({'prefect_url': url})
    included = CheckRunner({'prefect_url': url, 'deployment_names': {'include': ['^built-in$', '^killed$']}})
    while True:
        results.always.append(always.run())
        results.included.append(included.run())
        with AgentFiles(run_path).installed():
            restarted = CheckRunner({'prefect_url': url, 'tags': ['again:yes'], 'ui_url': 'http://another.test'})
            results.restarted.append(restarted.run())
            restarted.cancel()
        time.sleep(2)
        yield results


def sums(results: Sequence[CheckResult], series: str, *keys: str) -> Counter[tuple[str, ...]]:
    assert [result.error for result in results if result.error] == []
    found: Counter[tuple[str, ...]] = Counter()
    for result in results:
        for point in result.points:
            if point.name == f'prefect.server.{series}':
                tags = dict(tag.split(':', 1) for tag in point.tags)
                found[tuple(tags.get(key, '') for key in keys)] += int(point.value)
    return +found


BY_REASON = ('flow_name', 'state_name', 'failure_reason')


def test_flow_runs_failed_for_what_was_done_to_them(failed: Failed) -> None:
    expected = {(name, state, reason): 1 for name, (_, _, state, reason) in FAILURES.items()}
    found = sums(failed.always, 'flow_runs.failures.count', *BY_REASON)
    assert found == expected | {('payments-leaves', 'Crashed', 'aborted'): 1}


def test_task_runs_failed_for_what_was_done_to_them(failed: Failed) -> None:
    found = sums(failed.always, 'task_runs.failures.count', 'task_name', 'state_name', 'failure_reason')
    assert found == TASK_FAILURES


@pytest.mark.parametrize('instance', ['always', 'restarted', 'included'])
@pytest.mark.parametrize('runs', ['flow_runs', 'task_runs'])
def test_reasons_add_up_to_what_failed_and_crashed(failed: Failed, instance: str, runs: str) -> None:
    results = getattr(failed, instance)
    ended = [sums(results, f'{runs}.{name}.count', 'flow_name') for name in ('failed', 'crashed')]
    assert sums(results, f'{runs}.failures.count', 'flow_name') == ended[0] + ended[1]


def test_restarts_change_nothing(failed: Failed) -> None:
    for series in ('flow_runs.failures.count', 'task_runs.failures.count'):
        assert sums(failed.restarted, series, *BY_REASON) == sums(failed.always, series, *BY_REASON)


def test_filter_leaves_out_the_others(failed: Failed) -> None:
    assert sums(failed.included, 'flow_runs.failures.count', 'flow_name', 'failure_reason') == {
        ('built-in', 'exception:ValueError'): 1,
        ('killed', 'killed'): 1,
    }


def test_no_parameter_and_no_message_becomes_a_tag(failed: Failed) -> None:
    tags = {tag for result in (*failed.always, *failed.included) for point in result.points for tag in point.tags}
    assert not [tag for tag in tags if 'alice' in tag or 'declined' in tag or 'till is short' in tag]


def test_exit_codes_are_those_of_the_processes(failed: Failed) -> None:
    found = sums(failed.always, 'work_pool.flow_runs.exited.count', 'work_pool_name', 'exit_code')
    codes = {code: number for (_, code), number in found.items()}
    assert (codes['3'], codes['137'], codes['-9'], codes['1']) == (1, 1, 1, 2)
    # Those that told the server how they ended.
    assert set(codes) == {'0', '1', '3', '137', '-9'}
    submitted = sums(failed.always, 'work_pool.flow_runs.submitted.count', 'work_pool_name')
    # All but the one that was never submitted.
    assert submitted == {('till',): len(FAILURES)}


def test_background_tasks_wait_and_are_taken_up() -> None:
    with PrefectServer() as server, PrefectApiDriver(server.api_url) as api:
        check = CheckRunner({'prefect_url': server.api_url})
        waiting = ('task_runs.scheduled', 'task_name')
        with FlowScript(server.api_url, 'thumbnails.py') as script:
            assert script.wait(60) == 0
        first = check.run()
        assert sums([first], *waiting) == {('make_thumbnail',): 3, ('clean_up',): 1}
        assert sums([first], 'task_workers.online', 'task_key') == {}
        with FlowScript(server.api_url, 'thumbnail_worker.py'):
            deadline = time.monotonic() + 60
            while sums([result := check.run()], *waiting) != {('clean_up',): 1}:
                assert time.monotonic() < deadline
                time.sleep(1)
            (listened,) = api.request('POST', 'task_workers/filter', {})
            assert sums([result], 'task_workers.online', 'task_key') == {(listened['task_keys'][0],): 1}
