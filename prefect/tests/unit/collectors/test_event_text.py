from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from datadog_checks.prefect.api.models import Event
from datadog_checks.prefect.collectors.event_text import agent_event
from datadog_checks.prefect.sample import AgentEvent
from tests.fake_prefect import recorded
from tests.unit.harness import read_row

README = Path(__file__).parents[3] / 'README.md'
UI = 'http://localhost:4200'
RECORDED = [name for name in recorded.cases('events_filter') if name != 'page']


def row(name: str, **resource: str) -> Any:
    """A recorded event; `resource` replaces labels of what it is about: `state_message` is `prefect.state-message`,
    and `resource_name` its name.
    """
    event = recorded.body('events_filter', name)['events'][0]
    labels = {f'prefect.{key.replace("_", "-")}': value for key, value in resource.items()}
    if 'resource_name' in resource:
        labels['prefect.resource.name'] = labels.pop('prefect.resource-name')
    event['resource'] |= labels
    return event


def text_of(event: Any) -> AgentEvent:
    return agent_event(read_row(Event, event), (), UI)


@pytest.mark.parametrize(
    ('name', 'alert_type'),
    [
        ('prefect.flow-run.Failed', 'error'),
        ('prefect.flow-run.TimedOut', 'error'),
        ('prefect.flow-run.Crashed', 'error'),
        ('prefect.task-run.Failed', 'error'),
        ('prefect.work-pool.not-ready', 'error'),
        ('prefect.automation.action.failed', 'error'),
        ('prefect.flow-run.AwaitingRetry', 'warning'),
        ('prefect.task-run.AwaitingRetry', 'warning'),
        ('prefect.flow-run.Late', 'warning'),
        ('prefect.flow-run.Cancelled', 'warning'),
        ('prefect.flow-run.Completed', 'success'),
        ('prefect.flow-run.Skipped', 'success'),
        ('prefect.task-run.Cached', 'success'),
        ('prefect.work-pool.ready', 'success'),
        ('prefect.work-queue.ready', 'success'),
        ('prefect.deployment.ready', 'success'),
        ('prefect.flow-run.Cancelling', 'info'),
        ('prefect.flow-run.Paused', 'info'),
        ('prefect.flow-run.Running', 'info'),
        ('prefect.flow-run.Scheduled', 'info'),
        ('prefect.task-run.NotReady', 'info'),
        ('prefect.task-run.Retrying', 'info'),
        ('prefect.work-pool.paused', 'info'),
        ('prefect.flow.created', 'info'),
        ('prefect.automation.action.executed', 'info'),
    ],
)
def test_alert_type_goes_by_the_type_of_the_state(name: str, alert_type: str) -> None:
    event = text_of(row(name))

    assert event.alert_type == alert_type
    assert event.priority == ('low' if alert_type == 'info' else 'normal')
    assert event.event_type == name


def test_failed_action_of_an_automation_tells_why() -> None:
    event = text_of(row('prefect.automation.action.failed'))
    assert event.title == '[PREFECT] [automation] recorded-automation -> action.failed'
    assert "Webhook call failed: ConnectError('All connection attempts failed')" in event.text
    assert '- Type of action: `call-webhook`' in event.text
    assert {'automation_name:recorded-automation', 'action_type:call-webhook'} <= set(event.tags)


@pytest.mark.parametrize(('state_type', 'alert_type'), [('FAILED', 'error'), ('COMPLETED', 'success')])
def test_names_of_states_are_free_text(state_type: str, alert_type: str) -> None:
    """A state that a user calls Late, ready or not-ready is still of its type."""
    for state_name in ('Late', 'ready', 'not-ready', 'Rejected'):
        event = row('prefect.flow-run.Failed', state_type=state_type, state_name=state_name)
        assert text_of(event | {'event': f'prefect.flow-run.{state_name}'}).alert_type == alert_type


@pytest.mark.parametrize(
    ('name', 'title'),
    [
        ('prefect.flow-run.TimedOut', '[PREFECT] [flow-run] run-timed_out -> TimedOut'),
        ('prefect.task-run.Failed', '[PREFECT] [task-run] broken-67e -> Failed'),
        ('prefect.work-pool.not-ready', '[PREFECT] [work-pool] recorded-deleted -> not-ready'),
        ('prefect.work-queue.ready', '[PREFECT] [work-queue] high -> ready'),
        ('prefect.deployment.ready', '[PREFECT] [deployment] Recorded-Paused -> ready'),
    ],
)
def test_title(name: str, title: str) -> None:
    assert text_of(row(name)).title == title


def test_title_of_an_event_of_the_user_and_without_a_name() -> None:
    event = row('prefect.flow.created') | {'event': 'orders.exported', 'resource': {'prefect.resource.id': 'orders.7'}}

    assert text_of(event).title == '[PREFECT] [orders] orders.7 -> exported'
    event['resource'] = {'prefect.resource.id': 'prefect.orders.7'}
    assert text_of(event).title == '[PREFECT] [orders] 7 -> exported'


def test_text_of_a_flow_run() -> None:
    event = row('prefect.flow-run.Crashed', state_message='the process died')

    assert text_of(event).text == (
        '%%% \n'
        '`Running` -> `Crashed`\n'
        '\n'
        '```\n'
        'the process died\n'
        '```\n'
        '\n'
        '- Run count: `1`\n'
        '- Flow: `Recorded-Tagged`\n'
        '- Deployment: `recorded-limited`\n'
        '- Work pool: `recorded-limited`\n'
        '- Work queue: `default`\n'
        '\n'
        f'[Open in Prefect]({UI}/runs/flow-run/b307261b-8fa3-4898-8bc9-a29cd4e2dc6e)\n'
        ' %%%'
    )


def test_task_run_is_tagged_with_its_task() -> None:
    tags = text_of(row('prefect.task-run.Failed')).tags

    assert {'task_key:broken-6066b4e2', 'task_name:broken'} <= set(tags)


def test_text_of_a_task_run() -> None:
    assert text_of(row('prefect.task-run.Failed')).text == (
        '%%% \n'
        '`Running` -> `Failed`\n'
        '\n'
        '```\n'
        'Task run encountered an exception ValueError: this task always fails\n'
        '```\n'
        '\n'
        '- Run count: `1`\n'
        '- Task: `broken`\n'
        '- Flow run: `dynamic-goshawk`\n'
        '- Flow: `recorded-parent`\n'
        '\n'
        f'[Open in Prefect]({UI}/runs/task-run/01a207a3-3fcf-7f48-93e5-b07475e39e5f)\n'
        ' %%%'
    )


def test_text_of_a_work_queue() -> None:
    assert text_of(row('prefect.work-queue.ready')).text == (
        '%%% \n'
        '`ready`\n'
        '\n'
        '- Work pool: `recorded-limited`\n'
        '\n'
        f'[Open in Prefect]({UI}/work-pools/work-pool/recorded-limited/queue/high)\n'
        ' %%%'
    )


def test_long_message_is_cut_and_says_so() -> None:
    text = text_of(row('prefect.flow-run.Failed', state_message='x' * 100_000)).text

    assert 'x' * 1500 + '... (98500 more characters)' in text
    assert len(text) < 4000


def test_all_fits_into_what_datadog_keeps() -> None:
    event = row('prefect.flow-run.Crashed', state_message='m' * 9999, state_name='s' * 9999, resource_name='n' * 9999)
    for parent in event['related']:
        parent['prefect.resource.name'] = 'p' * 9999
    event['payload']['initial_state']['name'] = 'i' * 9999

    found = text_of(event)

    assert len(found.title) == 100
    assert found.title.endswith('... (cut)')
    assert len(found.text) <= 4000
    assert len(found.aggregation_key) <= 100


def test_bytes_are_bounded_and_not_characters() -> None:
    event = row('prefect.flow-run.Crashed', state_message='ä' * 9999, state_name='ö' * 9999, resource_name='😀' * 9999)
    for parent in event['related']:
        parent['prefect.resource.name'] = '😀' * 9999

    found = text_of(event)

    assert 96 < len(found.title.encode()) <= 100
    assert found.title.endswith('... (cut)')
    assert 3996 < len(found.text.encode()) <= 4000
    assert found.text.endswith('... (cut)\n %%%')


def test_name_of_an_event_is_bounded() -> None:
    found = text_of(row('prefect.flow-run.Failed') | {'event': 'prefect.flow-run.' + 'x' * 10**6})

    assert len(found.event_type) == 200


@pytest.mark.parametrize(
    ('written', 'sent'),
    [
        ('@all', '@ all'),
        ('see @slack-alerts, (@bob)', 'see @ slack-alerts, (@ bob)'),
        ('.@all', '.@ all'),
        ('\x1b@all', ' @ all'),
        ('a\u200e@all', 'a @ all'),
        ('@\u202eall', '@ all'),
        ('me@firm.com', 'me@firm.com'),
        ('5 @ 3', '5 @ 3'),
    ],
)
def test_nobody_is_mentioned(written: str, sent: str) -> None:
    event = row('prefect.flow-run.Crashed', state_message=written, state_name=written, resource_name=written)
    event['related'][0]['prefect.resource.name'] = written

    found = text_of(event)

    assert found.title == f'[PREFECT] [flow-run] {sent} -> {sent}'
    assert f'```\n{sent}\n```' in found.text
    assert f'- Flow: `{sent.strip()}`' in found.text


@pytest.mark.parametrize(
    'control', ['\x00', '\x07', '\x1b', '\x7f', '\x9b', '\u061c', '\u200f', '\u202e', '\u2066', '\u2028']
)
def test_no_control_character_is_sent(control: str) -> None:
    """The Agent ends a text at NUL; the others move the cursor of a terminal, or turn the direction of writing."""
    written = f'a{control}b'
    event = row('prefect.flow-run.Crashed', state_message=f'{written}\n\tc', state_name=written, resource_name=written)
    event['related'][0]['prefect.resource.name'] = written
    event['event'] = f'prefect.flow-run.{written}'

    found = text_of(event)

    assert control not in ''.join((found.title, found.text, found.event_type, *found.tags))
    assert found.title == '[PREFECT] [flow-run] a b -> a b'
    assert '```\na b\n\tc\n```' in found.text
    assert 'flow_name:a b' in found.tags


def test_title_has_one_line() -> None:
    assert (
        text_of(row('prefect.flow-run.Failed', resource_name='a\nb\r\nc')).title
        == '[PREFECT] [flow-run] a b  c -> Failed'
    )


def test_what_a_user_wrote_does_not_break_the_markdown() -> None:
    event = row('prefect.flow-run.Crashed', state_message='a\n```\n%%% \n# b')
    event['related'][0]['prefect.resource.name'] = 'x` [y](http://evil.test)\n%%%%%%# z'

    text = text_of(event).text

    assert text.count('```') == 2
    assert text.count('%%%') == 2
    assert "- Flow: `x' [y](http://evil.test) %%# z`" in text


@pytest.mark.parametrize('name', RECORDED)
def test_no_parameter_is_told(name: str) -> None:
    """Values that a user gave to a run may be anywhere in what we do not know of an event."""
    event = row(name)
    event['payload'] |= {'parameters': {'password': 'hunter2'}}
    for key in ('initial_state', 'validated_state', 'task_run'):
        if isinstance(event['payload'].get(key), dict):
            event['payload'][key] |= {'parameters': 'hunter2', 'data': 'hunter2', 'state_details': 'hunter2'}
            event['payload'][key] |= {'task_inputs': {'x': ['hunter2']}}
    event['resource']['prefect.parameters'] = 'hunter2'

    assert 'hunter2' not in str(text_of(event))


@pytest.mark.parametrize('name', RECORDED)
def test_events_of_one_object_go_together(name: str) -> None:
    event = row(name)

    assert text_of(event).aggregation_key == event['resource']['prefect.resource.id']


def test_readme_tells_the_alert_types() -> None:
    rows = re.findall(r'^\| .* \| (`prefect.*) \| (\w+) \| (\w+) \|$', README.read_text(), re.MULTILINE)
    told = {name: (alert, priority) for names, alert, priority in rows for name in re.findall('`(.*?)`', names)}
    sent = {name: text_of(row(name)) for name in told.keys() & set(RECORDED)}

    assert {alert for alert, _ in told.values()} == {'error', 'warning', 'success', 'info'}
    assert len(sent) >= 18
    assert {name: (event.alert_type, event.priority) for name, event in sent.items()} == {
        name: told[name] for name in sent
    }
