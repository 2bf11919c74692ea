"""What a log record of Prefect becomes in Datadog: the attributes that the log pipeline makes of a line of a file.

So facets, saved views and dashboards work on both (`assets/logs/prefect.yaml`).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

from datadog_checks.prefect import tags, ui_links
from datadog_checks.prefect.api.models import LIVE_STATE_TYPES, TERMINAL_STATE_TYPES, LogRecord
from datadog_checks.prefect.safe_text import cut, without_control
from datadog_checks.prefect.sample import AgentLog
from datadog_checks.prefect.tags import Tags

# The Agent cuts a line at 900,000 bytes, older ones at 256,000: half a JSON would be no record. A quotation mark, a
# line break or a tab takes two bytes.
_MESSAGE_BYTES = 120_000
# With a traceback: of the message, of what the exception says, and of the traceback.
_HEAD_BYTES, _ERROR_BYTES, _STACK_BYTES = 40_000, 10_000, 70_000
_NAME_BYTES = 200

_STATUS_BY_LEVEL = ((50, 'critical'), (40, 'error'), (30, 'warn'), (20, 'info'))
_STACK = re.compile(r'(?:^|\n)(?=(?:  \+ Exception Group )?Traceback \(most recent call last\):\n)')
_KIND = r'(?P<kind>[A-Za-z_][A-Za-z0-9_.]*)'
# The last exception of a traceback, and that of a group.
_EXCEPTION = re.compile(rf'\n  [^\n]*\n{_KIND}(?:: ?(?P<message>.*))?$', re.DOTALL)
_EXCEPTION_LINE = re.compile(rf'\n  [^\n]*\n(?={_KIND}(?::|\n|$))')
_GROUP = re.compile(rf'\n  \| {_KIND}: (?P<message>[^\n]*)\n  \+-\+-')
_FINISHED = re.compile(r'Finished in state (?P<state>[^(\n]+)\(')
_STATE_TYPE = re.compile(r'(?:\(|, )type=(?P<type>[A-Z]+)(?:, result=[^\n]*)?\)$')
_STATE_TYPES = {kind.capitalize(): kind for kind in ('SCHEDULED', *LIVE_STATE_TYPES, *TERMINAL_STATE_TYPES)}
# The tags that the pipeline has as attributes too.
_ATTRIBUTES = (
    tags.FLOW_NAME,
    tags.DEPLOYMENT_NAME,
    tags.WORK_POOL_ID,
    tags.WORK_POOL_NAME,
    tags.TASK_NAME,
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def agent_log(
    record: LogRecord,
    flow_run_name: str | None,
    task_run_name: str | None,
    record_tags: Tags,
    ui_url: str,
    service: str | None,
) -> AgentLog:
    """The record as the Agent takes it. `service` is left to the Agent's entry under `logs` if it is None."""
    text = without_control(record.message, is_text=True)
    message, error = _split(text)
    told = dict(tag.split(':', 1) for tag in record_tags)
    about: dict[str, Any] = {
        'log_id': record.id,
        'flow_run_id': record.flow_run_id,
        'flow_run_name': flow_run_name,
        'task_run_id': record.task_run_id,
        'task_run_name': task_run_name,
        'url': _link(record, ui_url),
        **{key: told.get(key) for key in _ATTRIBUTES},
        **_state(message),
    }
    attributes: dict[str, Any] = {
        'message': message,
        'status': next((status for level, status in _STATUS_BY_LEVEL if record.level >= level), 'debug'),
        'ddsource': 'prefect',
        'logger': {'name': _line(record.logger)},
        'prefect': {key: _line(value) for key, value in about.items() if value},
    }
    if error:
        attributes['error'] = error
    if service:
        attributes['service'] = service
    return AgentLog(attributes, (record.timestamp - _EPOCH) // timedelta(milliseconds=1), record_tags)


def _split(text: str) -> tuple[str, dict[str, str]]:
    """The message without its traceback, and what the latter tells."""
    found = _STACK.search(text)
    if found is None:
        return cut(text, _MESSAGE_BYTES), {}
    stack = text[found.end() :].rstrip()
    error = {'stack': cut(stack, _STACK_BYTES)}
    exception = _GROUP.search(stack) if stack.startswith('  +') else _last_exception(stack)
    if exception is not None:
        error['kind'] = cut(exception['kind'], _NAME_BYTES)
        if exception['message']:
            error['message'] = cut(exception['message'], _ERROR_BYTES)
    return cut(text[: found.start()] or error['stack'].rpartition('\n')[2], _HEAD_BYTES), error


def _last_exception(stack: str) -> re.Match[str] | None:
    begins = [found.start() for found in _EXCEPTION_LINE.finditer(stack)]
    return _EXCEPTION.match(stack, begins[-1]) if begins else None


def _state(message: str) -> dict[str, str | None]:
    """The state that a run has ended in, if the message tells it."""
    found = _FINISHED.match(message)
    if found is None:
        return {}
    state_type = _STATE_TYPE.search(message)
    return {
        'state': found['state'],
        'state_type': state_type['type'] if state_type else _STATE_TYPES.get(found['state']),
    }


def _link(record: LogRecord, ui_url: str) -> str | None:
    kind, object_id = ('task-run', record.task_run_id) if record.task_run_id else ('flow-run', record.flow_run_id)
    path = ui_links.object_path(kind, object_id, None, None) if object_id else None
    return path and f'{ui_url}{path}'


def _line(text: str) -> str:
    return cut(without_control(text), _NAME_BYTES)
