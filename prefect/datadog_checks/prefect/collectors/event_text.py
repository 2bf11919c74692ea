"""What an event of Prefect becomes in Datadog: title, text, how bad it is, and its tags."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Literal

from datadog_checks.prefect import tags, ui_links
from datadog_checks.prefect.api.models import AWAITING_RETRY, Event, Resource, task_name
from datadog_checks.prefect.safe_text import cut, without_control
from datadog_checks.prefect.sample import AgentEvent
from datadog_checks.prefect.tags import Tags, make_tags

AlertType = Literal['error', 'warning', 'success', 'info']

# What is shown of a name and of a message, in characters.
_NAME_LENGTH = 200
_MESSAGE_LENGTH = 1500
# What Datadog keeps of them: of a title and a key 100, of a text 4,000 bytes.
_TITLE_BYTES = 100
_TEXT_BYTES = 4000
_AGGREGATION_KEY_LENGTH = 100
# Longer than any path that a user interface has.
_LINK_LENGTH = 1000

_ALERT_TYPES_BY_STATE_TYPE: Mapping[str | None, AlertType] = {
    'FAILED': 'error',
    'CRASHED': 'error',
    'CANCELLED': 'warning',
    'COMPLETED': 'success',
}
_ALERT_TYPES_BY_STATE_NAME: Mapping[str | None, AlertType] = {AWAITING_RETRY: 'warning', 'Late': 'warning'}
_ALERT_TYPES_BY_ACTION: Mapping[str, AlertType] = {'not-ready': 'error', 'ready': 'success', 'action.failed': 'error'}

_END_OF_MARKDOWN = re.compile('%{3,}')
# What would notify somebody (`@all`, `@slack-channel`), but no address of mail.
_MENTION = re.compile(r'(?<!\w)@(?=\w)')

# Roles of related resources, in the order in which they are told.
_PARENTS = {
    'flow-run': 'Flow run',
    'flow': 'Flow',
    'deployment': 'Deployment',
    'work-pool': 'Work pool',
    'work-queue': 'Work queue',
}
_TAGGED = {
    'flow': (tags.FLOW_ID, tags.FLOW_NAME),
    'deployment': (tags.DEPLOYMENT_ID, tags.DEPLOYMENT_NAME),
    'work-pool': (tags.WORK_POOL_ID, tags.WORK_POOL_NAME),
    'work-queue': (tags.WORK_QUEUE_ID, tags.WORK_QUEUE_NAME),
    'automation': (tags.AUTOMATION_ID, tags.AUTOMATION_NAME),
}


def objects(event: Event) -> dict[str, Resource]:
    """What the event is about and what is related to it, by kind."""
    return {**event.related, event.kind: event.resource}


def agent_event(event: Event, more_tags: Tags, ui_url: str) -> AgentEvent:
    """The event as the Agent takes it. `more_tags` are those that it does not tell itself."""
    alert_type = _alert_type(event)
    return AgentEvent(
        event_type=_line(event.name, _NAME_LENGTH),
        title=_title(event),
        text=_text(event, ui_url),
        timestamp=int(event.occurred.timestamp()),
        alert_type=alert_type,
        priority='low' if alert_type == 'info' else 'normal',
        aggregation_key=_line(event.resource.id, _AGGREGATION_KEY_LENGTH),
        tags=tuple(sorted({*_tags(event), *more_tags})),
    )


def _alert_type(event: Event) -> AlertType:
    """Names of states are free text, so the type decides, except for the waits that have only a name."""
    if event.state_type is None:
        return _ALERT_TYPES_BY_ACTION.get(event.action, 'info')
    return (
        _ALERT_TYPES_BY_STATE_TYPE.get(event.state_type) or _ALERT_TYPES_BY_STATE_NAME.get(event.state_name) or 'info'
    )


def _tags(event: Event) -> Tags:
    found = objects(event)
    values: dict[str, object] = {
        tags.TASK_KEY: event.task_key,
        tags.TASK_NAME: task_name(event.task_key),
        tags.ACTION_TYPE: event.action_type,
        tags.STATE_TYPE: event.state_type,
    }
    for kind, (id_key, name_key) in _TAGGED.items():
        if kind in found:
            values |= {id_key: found[kind].object_id, name_key: found[kind].name}
    if event.kind == 'work-pool':
        values[tags.WORK_POOL_TYPE] = event.resource.work_pool_type
    return make_tags(values)


def _title(event: Event) -> str:
    name = event.resource.name or event.resource.id.removeprefix(f'prefect.{event.kind}.')
    title = f'[PREFECT] [{event.kind}] {name} -> {event.state_name or event.action}'
    return cut(_unmentioned(without_control(title)), _TITLE_BYTES)


def _text(event: Event, ui_url: str) -> str:
    """Datadog's Markdown. Words of a user stand between backticks."""
    parts = [_transition(event), _message(event), '\n'.join(_facts(event)), _link(event, ui_url)]
    text = '\n\n'.join(part for part in parts if part)
    begin, end = '%%% \n', '\n %%%'
    return begin + cut(_END_OF_MARKDOWN.sub('%%', text), _TEXT_BYTES - len(begin + end)) + end


def _transition(event: Event) -> str:
    state = _code(event.state_name or event.action)
    return f'{_code(event.previous_state_name)} -> {state}' if event.previous_state_name else state


def _message(event: Event) -> str:
    said = event.state_message or event.reason
    if not said:
        return ''
    # A control character may stand in the middle of a mention or of three backticks.
    message = without_control(_shortened(said, _MESSAGE_LENGTH), is_text=True)
    message = _unmentioned(message).replace('```', "'''")
    return f'```\n{message}\n```'


def _facts(event: Event) -> Iterator[str]:
    if event.action_type is not None:
        yield f'- Type of action: {_code(event.action_type)}'
    if event.run_count is not None:
        yield f'- Run count: {_code(event.run_count)}'
    name = task_name(event.task_key)
    if name:
        yield f'- Task: {_code(name)}'
    for kind, label in _PARENTS.items():
        parent = event.related.get(kind)
        if parent is not None:
            yield f'- {label}: {_code(parent.name or parent.object_id)}'


def _link(event: Event, ui_url: str) -> str:
    work_pool = event.related.get('work-pool')
    resource = event.resource
    path = ui_links.object_path(event.kind, resource.object_id, resource.name, work_pool.name if work_pool else None)
    return f'[Open in Prefect]({ui_url}{path})' if path and len(path) <= _LINK_LENGTH else ''


def _code(text: str) -> str:
    """One line of code in Markdown."""
    line = ' '.join(without_control(_shortened(text, _NAME_LENGTH)).split())
    return '`{}`'.format(_unmentioned(line).replace('`', "'"))


def _line(text: str, length: int) -> str:
    """The beginning of a text in one line that mentions nobody."""
    return _unmentioned(without_control(text[:length]))


def _unmentioned(text: str) -> str:
    return _MENTION.sub('@ ', text)


def _shortened(text: str, length: int) -> str:
    if len(text) <= length:
        return text
    return f'{text[:length]}... ({len(text) - length} more characters)'
