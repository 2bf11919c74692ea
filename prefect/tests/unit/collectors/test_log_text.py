from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from datadog_checks.prefect.api.models import LogRecord
from datadog_checks.prefect.collectors.log_text import agent_log

TIME = datetime(2026, 11, 23, 8, 0, 0, 123_999, tzinfo=UTC)
RUN, TASK = '11111111-1111-4111-8111-111111111111', '22222222-2222-4222-8222-222222222222'
TRACEBACK = """Traceback (most recent call last):
  File "/srv/flows.py", line 25, in chained
    {}['key']
    ~~^^^^^
KeyError: 'key'

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "/srv/flows.py", line 27, in chained
    raise Broken("no key\\nat all")
orders.Broken: no key
at all"""


def attributes(message: str, *, level: int = 20, task_run: str | None = None, **more: Any) -> dict[str, Any]:
    record = LogRecord('1', TIME, 'prefect.flow_runs', level, message, RUN, task_run)
    tags = ('deployment_name:nightly', 'flow_name:orders: all', 'work_pool_name:pool')
    return dict(agent_log(record, 'brave-otter', None, tags, 'https://prefect.test', more.get('service')).attributes)


def test_plain_record() -> None:
    assert attributes('Beginning flow run') == {
        'message': 'Beginning flow run',
        'status': 'info',
        'ddsource': 'prefect',
        'logger': {'name': 'prefect.flow_runs'},
        'prefect': {
            'log_id': '1',
            'flow_run_id': RUN,
            'flow_run_name': 'brave-otter',
            'url': f'https://prefect.test/runs/flow-run/{RUN}',
            'flow_name': 'orders: all',
            'deployment_name': 'nightly',
            'work_pool_name': 'pool',
        },
    }


def test_record_of_a_task_run_links_to_it() -> None:
    assert attributes('x', task_run=TASK)['prefect']['url'] == f'https://prefect.test/runs/task-run/{TASK}'


@pytest.mark.parametrize(
    ('level', 'status'),
    [(0, 'debug'), (10, 'debug'), (20, 'info'), (25, 'info'), (30, 'warn'), (40, 'error'), (50, 'critical')],
)
def test_status_from_the_level(level: int, status: str) -> None:
    assert attributes('x', level=level)['status'] == status


def test_traceback_is_split_off() -> None:
    found = attributes(f'Encountered exception during execution: Broken()\n{TRACEBACK}\n', level=40)
    assert found['message'] == 'Encountered exception during execution: Broken()'
    assert found['error'] == {'kind': 'orders.Broken', 'message': 'no key\nat all', 'stack': TRACEBACK}


def test_traceback_of_an_exception_group() -> None:
    stack = """  + Exception Group Traceback (most recent call last):
  |   File "/srv/flows.py", line 3, in <module>
  |     raise ExceptionGroup("two", [ValueError(1)])
  | ExceptionGroup: two (1 sub-exception)
  +-+---------------- 1 ----------------
    | ValueError: 1
    +------------------------------------"""
    error = attributes(f'failed\n{stack}')['error']
    assert (error['kind'], error['message']) == ('ExceptionGroup', 'two (1 sub-exception)')


def test_traceback_without_a_message_has_its_last_line_for_one() -> None:
    assert attributes('Traceback (most recent call last):\n  File "x"\nKeyError')['message'] == 'KeyError'


@pytest.mark.parametrize(
    ('message', 'state', 'state_type'),
    [
        ('Finished in state Completed()', 'Completed', 'COMPLETED'),
        ("Finished in state TimedOut('exceeded', type=FAILED)", 'TimedOut', 'FAILED'),
        ("Finished in state Mine('a, type=X, b', type=COMPLETED, result=Result(1, 2))", 'Mine', 'COMPLETED'),
        ("Finished in state Failed('several\nlines')", 'Failed', 'FAILED'),
        ('Finished in state Skipped()', 'Skipped', None),
        ('He said: Finished in state Failed()', None, None),
    ],
)
def test_state_of_a_run_that_ended(message: str, state: str | None, state_type: str | None) -> None:
    about = attributes(message)['prefect']
    assert (about.get('state'), about.get('state_type')) == (state, state_type)


def test_long_and_odd_texts_are_made_safe() -> None:
    found = attributes('a\x00b\x1b[31m\u202ec\n\t' + 'é' * 10_000_000)
    assert found['message'].startswith('a b [31m c\n\té')
    assert found['message'].endswith('... (cut)')
    assert len(found['message'].encode()) <= 120_000
    traceback = 'Traceback (most recent call last):\n' + '  File "x"\n' * 50_000 + 'KeyError: 1'
    error = attributes(f'failed\n{traceback}')['error']
    assert (error['kind'], len(error['stack'])) == ('KeyError', 70_000)


def test_time_is_in_whole_milliseconds() -> None:
    record = LogRecord('1', TIME, 'x')
    milliseconds = agent_log(record, None, None, (), '', None).milliseconds
    assert milliseconds == TIME.replace(microsecond=123_000).timestamp() * 1000
