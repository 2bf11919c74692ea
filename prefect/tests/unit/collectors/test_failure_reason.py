from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from datadog_checks.prefect.collectors.failure_reason import failure_reason, tagged_state_name
from datadog_checks.prefect.collectors.flow_runs import FinishedFlowRuns
from datadog_checks.prefect.collectors.task_runs import FinishedTaskRuns
from tests.fake_prefect import FakePrefect
from tests.unit.harness import Bench, Row, Values, at, nonzero, series, tags_of

FLOW_RUN_EXCEPTION = 'Flow run encountered an exception: '
TASK_RUN_EXCEPTION = 'Task run encountered an exception '
EXITED = 'Process exited with status code: '
CRASH = 'Flow run infrastructure exited with non-zero status code '

# As Prefect writes them: 3.8.8, and in part older ones.
MESSAGES = [
    ('FAILED', f'{FLOW_RUN_EXCEPTION}ValueError: unknown customer alice', 'exception:ValueError'),
    ('FAILED', f'{TASK_RUN_EXCEPTION}ValueError: unknown customer alice', 'exception:ValueError'),
    ('FAILED', f'{FLOW_RUN_EXCEPTION}ValueError: ', 'exception:ValueError'),
    ('FAILED', f"{FLOW_RUN_EXCEPTION}KeyError: 'first\\nsecond'", 'exception:KeyError'),
    ('FAILED', f'{FLOW_RUN_EXCEPTION}shop.errors.CardDeclinedError: alice', 'exception:shop.errors.CardDeclinedError'),
    ('FAILED', 'Task run encountered an exception. ValueError: alice', 'exception:ValueError'),
    (
        'FAILED',
        'Validation of flow parameters failed with error: ParameterTypeError: Flow run received invalid parameters:\n'
        ' - number: Input should be a valid integer',
        'exception:ParameterTypeError',
    ),
    ('CRASHED', 'Execution was interrupted by an unexpected exception: OSError: alice', 'exception:OSError'),
    ('FAILED', 'Flow run exceeded timeout of 1.0 second(s)', 'timeout'),
    ('FAILED', 'Task run exceeded timeout of 1.0 second(s)', 'timeout'),
    ('FAILED', "Flow run failed due to timeout: TimeoutError('alice')", 'timeout'),
    ('FAILED', 'The flow was paused and never resumed.', 'timeout'),
    ('CRASHED', f'{EXITED}137. Process was killed, likely due to an out-of-memory (OOM) condition.', 'out_of_memory'),
    ('CRASHED', f'{CRASH}247. Process was terminated due to high memory usage.', 'out_of_memory'),
    ('CRASHED', f'{EXITED}-9. Process exited due to a SIGKILL signal.', 'killed'),
    ('CRASHED', f'{CRASH}143. Process received SIGTERM via the container runtime.', 'killed'),
    ('CRASHED', 'Flow run process exited with non-zero status code -15.', 'killed'),
    ('CRASHED', f'{EXITED}3. Process exited with an unexpected status code.', 'exit_code_3'),
    ('CRASHED', f'{CRASH}-11. Process exited with an unexpected status code.', 'exit_code_-11'),
    ('CRASHED', f'{CRASH}4123456789. Process exited with an unexpected status code.', 'exit_code_other'),
    ('CRASHED', 'Failed to submit flow run to infrastructure: ObjectNotFound: Block not found', 'infrastructure'),
    # A worker of 3.0, and one of 3.2 or 3.4.
    ('CRASHED', 'Flow run could not be submitted to infrastructure', 'infrastructure'),
    ('CRASHED', "Flow run could not be submitted to infrastructure:\nKeyError('alice')", 'infrastructure'),
    ('CRASHED', 'Flow run bundle could not be created: OSError: [Errno 28] No space left on device', 'infrastructure'),
    ('CRASHED', 'Flow run execution failed', 'infrastructure'),
    ('FAILED', "Submission failed. KeyError: 'alice'", 'infrastructure'),
    ('CRASHED', 'Flow run could not start: unhandled errors in a TaskGroup (1 sub-exception)', 'infrastructure'),
    ('CRASHED', "Flow run process could not be started:\nFileNotFoundError('alice')", 'infrastructure'),
    ('CRASHED', 'Request to http://prefect:4200/api/flow_runs/ failed: ReadTimeout: .', 'infrastructure'),
    ('CRASHED', 'Execution was aborted by a termination signal.', 'aborted'),
    ('CRASHED', 'Execution was aborted by Python system exit call.', 'aborted'),
    ('CRASHED', 'Execution was cancelled by the runtime environment.', 'aborted'),
    ('CRASHED', 'Flow run marked as crashed due to missing heartbeats.', 'heartbeat_lost'),
    ('FAILED', '1/2 states failed.', 'other'),
    ('FAILED', None, 'other'),
    ('CRASHED', '', 'other'),
]
# What users write, and what they could write.
FREE_TEXTS = [
    'ValueError: alice',
    'alice@example.com',
    'the heartbeat of alice is gone',
    f'{FLOW_RUN_EXCEPTION}alice',
    f'x {FLOW_RUN_EXCEPTION}ValueError: ',
    f'order 7: {EXITED}3.',
]


@pytest.mark.parametrize(('state_type', 'message', 'reason'), MESSAGES)
def test_sentences_of_prefect_are_understood(state_type: str, message: str | None, reason: str) -> None:
    assert failure_reason(state_type, state_type.capitalize(), message) == reason


def test_the_text_of_an_exception_is_no_reason() -> None:
    message = f'{FLOW_RUN_EXCEPTION}RuntimeError: Flow run exceeded timeout of 2 second(s)'
    assert failure_reason('FAILED', 'Failed', message) == 'exception:RuntimeError'


def test_state_of_a_timeout_needs_no_message() -> None:
    assert failure_reason('FAILED', 'TimedOut', None) == 'timeout'


@pytest.mark.parametrize('message', FREE_TEXTS)
def test_what_users_write_is_no_reason(message: str) -> None:
    assert failure_reason('FAILED', 'Failed', message) == 'other'


@pytest.mark.parametrize('name', ['No alice', 'x' * 101, 'a..b', '', 'a-b', '\u202ealice'])
def test_type_with_an_odd_name_is_another_one(name: str) -> None:
    assert failure_reason('FAILED', 'Failed', f'{FLOW_RUN_EXCEPTION}{name}: text') == 'exception:other'


@pytest.mark.parametrize(('name', 'tag'), [('TimedOut', 'TimedOut'), ('Order 7', 'other'), (None, 'other')])
def test_name_of_a_state_is_one_of_prefects_own(name: str | None, tag: str) -> None:
    assert tagged_state_name(name) == tag


@pytest.fixture
def deployment(fake: FakePrefect) -> Row:
    return fake.add_deployment(name='hourly', flow=fake.add_flow('etl'))


@pytest.fixture
def tags(fake: FakePrefect, deployment: Row) -> tuple[str, ...]:
    return tags_of(deployment=deployment, flow=fake.tables['flows'].get(deployment['flow_id']))


def fail(fake: FakePrefect, deployment: Row, message: str | None, *, seconds: float, state: str = 'FAILED') -> Row:
    run = fake.add_flow_run(deployment=deployment, state=('RUNNING', 'Running'), at=at(1))
    fake.set_flow_run_state(run, state, at=at(seconds), message=message)
    return run


def follow(bench: Bench, seconds: float) -> Values:
    bench.fake.now = at(seconds)
    return bench.follow(FinishedFlowRuns())


def reasons(found: Values, name: str = 'flow_runs.failures.count') -> Counter[str]:
    """The sums of what failed, by reason."""
    sums: Counter[str] = Counter()
    for (_, tags), value in series(found, name).items():
        sums[dict(tag.split(':', 1) for tag in tags)['failure_reason']] += int(value)
    return +sums


def test_flow_runs_are_counted_by_state_and_reason(
    fake: FakePrefect, bench: Bench, deployment: Row, tags: tuple[str, ...]
) -> None:
    follow(bench, 0)
    for number, message in enumerate((f'{FLOW_RUN_EXCEPTION}ValueError: alice', f'{FLOW_RUN_EXCEPTION}ValueError: b')):
        fail(fake, deployment, message, seconds=3 + number)
    fail(fake, deployment, f'{EXITED}-9. Process exited due to a SIGKILL signal.', seconds=5, state='CRASHED')
    fail(fake, deployment, None, seconds=6, state='COMPLETED')
    fail(fake, deployment, None, seconds=7, state='CANCELLED')
    found = nonzero(series(follow(bench, 15), 'flow_runs.failures.count'))
    assert found == {
        ('flow_runs.failures.count', tuple(sorted((*tags, *more)))): value
        for more, value in [
            (('failure_reason:exception:ValueError', 'state_name:Failed'), 2),
            (('failure_reason:killed', 'state_name:Crashed'), 1),
        ]
    }


def test_an_end_that_a_retry_by_hand_took_back_is_counted_with_its_reason(
    fake: FakePrefect, bench: Bench, deployment: Row
) -> None:
    follow(bench, 0)
    run = fail(fake, deployment, f'{FLOW_RUN_EXCEPTION}ValueError: alice', seconds=3)
    fake.set_flow_run_state(run, 'SCHEDULED', 'AwaitingRetry', at=at(4))
    fake.set_flow_run_state(run, 'RUNNING', at=at(6))
    fake.set_flow_run_state(run, 'FAILED', 'TimedOut', at=at(8), message='Flow run exceeded timeout of 1 second(s)')
    assert reasons(follow(bench, 15)) == {'exception:ValueError': 1, 'timeout': 1}


def test_sums_equal_what_failed_and_crashed_over_a_restart(fake: FakePrefect, bench: Bench, deployment: Row) -> None:
    follow(bench, 0)
    failures: Counter[str] = Counter()
    ends = 0.0
    for number in range(8):
        fail(fake, deployment, f'{FLOW_RUN_EXCEPTION}Error{number % 3}: x', seconds=10 * number + 5)
        fail(fake, deployment, f'{EXITED}{number}.', seconds=10 * number + 6, state='CRASHED')
        found = follow(bench, 10 * number + 10)
        failures += reasons(found)
        ends += sum(series(found, 'flow_runs.failed.count', 'flow_runs.crashed.count').values())
        if number == 4:
            bench.restart()
    assert failures.total() == ends == 16


def test_reason_is_reported_as_0_for_five_minutes(fake: FakePrefect, bench: Bench, deployment: Row) -> None:
    follow(bench, 0)
    fail(fake, deployment, f'{EXITED}3.', seconds=3, state='CRASHED')
    values = [series(follow(bench, seconds), 'flow_runs.failures.count') for seconds in (15, 30, 300, 330, 345)]
    assert [list(found.values()) for found in values] == [[1], [0], [0], [0], []]


def test_more_types_than_fifty_of_a_deployment_are_others(fake: FakePrefect, bench: Bench, deployment: Row) -> None:
    follow(bench, 0)
    for number in range(53):
        fail(fake, deployment, f'{FLOW_RUN_EXCEPTION}Error{number}: x', seconds=3)
    another = fake.add_deployment(name='another')
    fail(fake, another, f'{FLOW_RUN_EXCEPTION}Error99: x', seconds=3)
    found = reasons(follow(bench, 15))
    assert found['exception:other'] == 3
    assert len(found) == 52
    assert found['exception:Error99'] == 1
    # Those that are known stay what they are.
    kept = next(reason for reason in found if reason not in ('exception:other', 'exception:Error99'))
    fail(fake, deployment, f'{FLOW_RUN_EXCEPTION}{kept.removeprefix("exception:")}: x', seconds=20)
    fail(fake, deployment, f'{FLOW_RUN_EXCEPTION}Newer: x', seconds=20)
    assert reasons(follow(bench, 30)) == {kept: 1, 'exception:other': 1}


def test_task_runs_are_counted_by_state_and_reason(fake: FakePrefect, bench: Bench, tags: tuple[str, ...]) -> None:
    bench.follow(FinishedTaskRuns())
    flow_run = fake.add_flow_run(deployment=fake.tables['deployments'].newest()[0], state=('RUNNING', 'Running'))
    for state, name, message in (
        ('FAILED', 'Failed', f'{TASK_RUN_EXCEPTION}ValueError: alice'),
        ('FAILED', 'TimedOut', 'Task run exceeded timeout of 1.0 second(s)'),
        ('CRASHED', 'Crashed', 'Execution was aborted by a termination signal.'),
    ):
        task_run = fake.add_task_run(flow_run=flow_run, task_key='extract', state=('RUNNING', 'Running'), at=at(1))
        fake.set_task_run_state(task_run, state, name, at=at(5), message=message)
    fake.now = at(15)
    found = bench.follow(FinishedTaskRuns())
    assert reasons(found, 'task_runs.failures.count') == {'exception:ValueError': 1, 'timeout': 1, 'aborted': 1}
    for _, found_tags in series(found, 'task_runs.failures.count'):
        assert {*tags, 'task_key:extract', 'task_name:extract'} < {*found_tags}


def test_group_that_is_off_reports_nothing(fake: FakePrefect, new_bench: Callable[..., Bench], deployment: Row) -> None:
    bench = new_bench(collect={'failure_reasons': False})
    follow(bench, 0)
    fail(fake, deployment, None, seconds=3)
    found = follow(bench, 15)
    assert not series(found, 'flow_runs.failures.count')
    assert sum(series(found, 'flow_runs.failed.count').values()) == 1
