"""Which events are sent, by their names, and how much of that the server can apply itself.

The server filters by whole names or by beginnings of names, not by patterns. What is derived here may let through more
than the patterns do, never less: `EventNames.allows` has the last word on each event. A name has no line break.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from datadog_checks.prefect.filters import NameFilter
from datadog_checks.prefect.metrics import AUTOMATIONS, WORKER_RUNS

# Sent every 30 s or so for each run (3.6.13 and later): no news, so never sent.
HEARTBEAT = 'prefect.flow-run.heartbeat'

AUTOMATION_TRIGGERED = 'prefect.automation.triggered'
ACTION_EXECUTED = 'prefect.automation.action.executed'
ACTION_FAILED = 'prefect.automation.action.failed'
WORKER_SUBMITTED = 'prefect.worker.submitted-flow-run'
WORKER_EXECUTED = 'prefect.worker.executed-flow-run'

# The events that are counted, sent or not, by the key of the option `collect`. See `inventory/named_events.py`.
COUNTED_EVENTS: Mapping[str, tuple[str, ...]] = {
    AUTOMATIONS: (AUTOMATION_TRIGGERED, ACTION_EXECUTED, ACTION_FAILED),
    WORKER_RUNS: (WORKER_SUBMITTED, WORKER_EXECUTED),
}

# Names that Prefect is known to send (3.0 to 3.9): those of them that do not pass are named to the server.
_KNOWN = {
    'flow-run': (
        'Scheduled Pending Submitting InfrastructurePending Running Late AwaitingRetry AwaitingConcurrencySlot Resuming'
        ' Paused Suspended Cancelling Cancelled Completed Failed TimedOut Crashed heartbeat pull-step.executed'
        ' pull-step.failed'
    ),
    'task-run': (
        'Scheduled Pending NotReady Running Retrying AwaitingRetry Paused Suspended Cancelling Cancelled Completed'
        ' Cached RolledBack Failed TimedOut Crashed'
    ),
    'flow': 'created',
    'deployment': 'created updated deleted ready not-ready',
    'work-pool': 'created updated deleted ready not-ready paused',
    'work-queue': 'created updated deleted ready not-ready paused',
    'worker': 'started stopped submitted-flow-run executed-flow-run',
    'runner': 'cancelled-flow-run',
    'artifact': 'created updated',
    'asset': 'referenced materialization.succeeded materialization.failed',
    'automation': 'triggered resolved action.triggered action.executed action.failed',
    'log': 'write',
}
KNOWN_NAMES = tuple(f'prefect.{kind}.{action}' for kind, actions in _KNOWN.items() for action in actions.split())

# More would make each request longer than what it saves.
_MOST_BEGINNINGS = 50
_LITERAL = r'(?:\\[^\w\s]|[^\\.^$*+?{}\[\]|()])'
_CHARACTER = re.compile(_LITERAL)
_ALTERNATIVES = re.compile(rf'\((?:\?:)?({_LITERAL}*(?:\|{_LITERAL}*)*)\)')
_ESCAPE = re.compile(r'\\(.)', re.DOTALL)
_CLASS = re.compile(r'\[\^?\]?[^\]]*\]')
_GROUP = re.compile(r'\([^()]*\)')


@dataclass(frozen=True)
class Beginning:
    """What a name begins with; `is_whole` says that it ends there, too."""

    text: str
    is_whole: bool


def beginnings(pattern: str) -> list[Beginning]:
    """What the names that a regular expression finds begin with: one of these, the text '' for anything."""
    if not pattern.startswith('^') or _has_branches(pattern):
        return [Beginning('', is_whole=False)]
    rest = pattern[1:]
    texts = ['']
    while True:
        group = _ALTERNATIVES.match(rest)
        part = group or _CHARACTER.match(rest)
        # A quantifier may make the part be absent.
        if part is None or rest[part.end() :].startswith(('*', '+', '?', '{')):
            break
        alternatives = group[1].split('|') if group else [part[0]]
        if len(texts) * len(alternatives) > _MOST_BEGINNINGS:
            break
        texts = [text + _ESCAPE.sub(r'\1', alternative) for text in texts for alternative in alternatives]
        rest = rest[part.end() :]
    return [Beginning(text, is_whole=rest == '$') for text in texts]


def _has_branches(pattern: str) -> bool:
    """Whether there may be a `|` outside of any group."""
    flat = _CLASS.sub('', _ESCAPE.sub('', pattern))
    while flat != (flat := _GROUP.sub('', flat)):
        pass
    return '|' in flat


@dataclass(frozen=True)
class EventNames:
    """The option `event_names`."""

    patterns: NameFilter

    def allows(self, name: str) -> bool:
        return name != HEARTBEAT and self.patterns.allows(name)

    @cached_property
    def criterion(self) -> dict[str, list[str]]:
        """The `event` of the API's filter; all that it holds applies together."""
        criterion, let_through = self._asked_for()
        left_out = sorted(name for name in let_through if not self.allows(name))
        return criterion | ({'exclude_name': left_out} if left_out else {})

    def _asked_for(self) -> tuple[dict[str, list[str]], set[str]]:
        """What the patterns to include ask the server for, and which of the known names that lets through."""
        wanted = [item for pattern in self.patterns.include for item in beginnings(pattern.text)]
        texts = sorted({item.text for item in wanted})
        if wanted and all(item.is_whole for item in wanted):
            return {'name': texts}, set(KNOWN_NAMES).intersection(texts)
        prefixes = _without_extensions(text.partition('\\')[0] for text in texts)
        if not prefixes:
            return {}, set(KNOWN_NAMES)
        return {'prefix': prefixes}, {name for name in KNOWN_NAMES if name.startswith(tuple(prefixes))}


def _without_extensions(prefixes: Iterable[str]) -> list[str]:
    """Those of the prefixes that no other one is a prefix of; none at all if one is ''.

    (The server puts them into a LIKE: its wildcards match themselves, too, but a backslash would not.)
    """
    kept: list[str] = []
    for prefix in sorted(prefixes):
        if not kept or not prefix.startswith(kept[-1]):
            kept.append(prefix)
    return [] if '' in kept else kept
