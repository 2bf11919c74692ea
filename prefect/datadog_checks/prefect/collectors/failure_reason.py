"""Why a run failed, in a closed vocabulary: out of the name and the message of its last state.

A message is free text, of flows and of their users. So only sentences of Prefect's own are understood, and of those
only the type of an exception and the code of an exit are taken over; no other word of a message gets into a tag.
Prefect writes these sentences in its client and its workers, and the server stores them as they are. Seen on 3.8.8;
what another version says in other words is `other`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from datadog_checks.prefect.aggregation import LingeringSeries, Tally
from datadog_checks.prefect.collectors.base import RunContext
from datadog_checks.prefect.metrics import FAILURE_REASONS, MetricSpec
from datadog_checks.prefect.sample import Sample
from datadog_checks.prefect.tags import (
    DEPLOYMENT_ID,
    FAILURE_REASON,
    FLOW_ID,
    STATE_NAME,
    Tags,
    make_tags,
    merge_tags,
)

OTHER = 'other'
_EXCEPTION_PREFIX = 'exception:'
OTHER_EXCEPTION = f'{_EXCEPTION_PREFIX}other'

# The names that Prefect gives to states of the types FAILED and CRASHED. Others come from users, one per order perhaps.
_STATE_NAMES = frozenset({'Failed', 'TimedOut', 'Crashed'})
# Types of exceptions that are told apart, for each deployment.
_MOST_TYPES = 50
_LONGEST_TYPE = 100

# What stands before `type: text` of an exception that a flow or a task raised.
_EXCEPTION = re.compile(
    r'(?:(?:Flow|Task) run encountered an exception[:.]? |Validation of flow parameters failed with error: ?'
    r'|Execution was interrupted by an unexpected exception: )(?P<type>[^:\n]*):'
)
_TIMEOUT = re.compile(
    r'(?:Flow|Task) run (?:exceeded timeout of |failed due to timeout: )|The flow was paused and never resumed\.'
)
# 'Flow run infrastructure exited with non-zero status code 137. Process was killed, ...'.
_EXIT = re.compile(
    r'(?:Flow run (?:infrastructure|process) exited with non-zero status code|Process exited with status code:) '
    r'(?P<code>-?\d{1,10})\b'
)
_INFRASTRUCTURE = re.compile(
    r'Failed to submit flow run to infrastructure: |Flow run could not be submitted to infrastructure\b'
    r'|Submission failed\. |Flow run submission failed: |Flow run bundle could not be created: '
    r'|Flow run process could not be started:|Flow run could not start: |Flow run execution failed$'
    r'|Request failed while attempting to contact the server: |Request to \S+ failed: '
)
_ABORTED = re.compile(
    r'Execution was (?:aborted by |cancelled by the runtime environment)'
    r'|Flow run process exited after a cancellation request, '
)
# The words are those of the automation that ends the run.
_HEARTBEAT_LOST = re.compile(r'heartbeats?\b', re.IGNORECASE)

# What Prefect itself says of these exit codes: of -9 that it may be memory as well as a person.
_OUT_OF_MEMORY = frozenset({137, 247})
_KILLED = frozenset({-9, -15, 143})
# Codes of a process and the signals that ended it. A program on Windows may end with any number of 32 bits.
_EXIT_CODES = range(-64, 256)
_SENTENCES = (
    (_TIMEOUT, 'timeout'),
    (_INFRASTRUCTURE, 'infrastructure'),
    (_ABORTED, 'aborted'),
)


def tagged_state_name(name: str | None) -> str:
    """The name of a state that failed, if it is one of Prefect's own."""
    return name if name in _STATE_NAMES else OTHER


def failure_reason(state_type: str, state_name: str | None, message: str | None) -> str:
    """One of `exception:<type>`, timeout, out_of_memory, killed, exit_code_<n>, infrastructure, heartbeat_lost,
    aborted, other. `state_type` is FAILED or CRASHED.
    """
    text = message or ''
    if exception := _EXCEPTION.match(text):
        return _exception(exception['type'])
    if state_name == 'TimedOut':
        return 'timeout'
    if exit_status := _EXIT.match(text):
        return _exit(int(exit_status['code']))
    for sentence, reason in _SENTENCES:
        if sentence.match(text):
            return reason
    if state_type == 'CRASHED' and _HEARTBEAT_LOST.search(text):
        return 'heartbeat_lost'
    return OTHER


def _exception(name: str) -> str:
    """A class may have any name, with the words of a user in it, if it is made while a flow runs."""
    is_name = len(name) <= _LONGEST_TYPE and all(part.isidentifier() for part in name.split('.'))
    return f'{_EXCEPTION_PREFIX}{name}' if is_name else OTHER_EXCEPTION


def _exit(code: int) -> str:
    if code in _OUT_OF_MEMORY:
        return 'out_of_memory'
    if code in _KILLED:
        return 'killed'
    return f'exit_code_{exit_code(code)}'


def exit_code(code: int) -> str:
    """The code as part of a tag."""
    return str(code) if code in _EXIT_CODES else OTHER


@dataclass(frozen=True)
class FailureMemory:
    """`types` are the reasons with a type of an exception that were met since the start, by what fails: the tag of the
    deployment or, without one, of the flow.
    """

    types: Mapping[str, frozenset[str]] = field(default_factory=dict)
    reported: LingeringSeries = field(default_factory=LingeringSeries)


class Failures:
    """Counts the ends that `failed.count` and `crashed.count` count, each once more, by state and reason."""

    def __init__(self, spec: MetricSpec, run: RunContext, memory: FailureMemory) -> None:
        self._spec = spec
        self._run = run
        self._is_on = FAILURE_REASONS in run.settings.groups
        self._tally = Tally(spec)
        self._types = dict(memory.types)
        self._reported = memory.reported

    def add(self, tags: Tags, state_type: str | None, state_name: str | None, message: str | None) -> None:
        """An end of a run with these tags in this state."""
        if self._is_on and state_type in ('FAILED', 'CRASHED'):
            reason = self._bounded(failure_reason(state_type, state_name, message), _parent(tags))
            self._tally.add(self._spec, merge_tags(tags, _failure_tags(tagged_state_name(state_name), reason)))

    def samples(self) -> tuple[list[Sample], FailureMemory]:
        samples, reported = self._reported.samples(self._run.now, self._tally)
        return (samples if self._is_on else []), FailureMemory(self._types, reported)

    def _bounded(self, reason: str, parent: str) -> str:
        if not reason.startswith(_EXCEPTION_PREFIX) or reason == OTHER_EXCEPTION:
            return reason
        types = self._types.get(parent, frozenset())
        if reason not in types:
            if len(types) >= _MOST_TYPES:
                return OTHER_EXCEPTION
            self._types[parent] = types | {reason}
        return reason


def _parent(tags: Tags) -> str:
    by_key = {tag.partition(':')[0]: tag for tag in tags}
    return by_key.get(DEPLOYMENT_ID) or by_key.get(FLOW_ID, '')


@lru_cache(maxsize=1024)
def _failure_tags(state_name: str, reason: str) -> Tags:
    return make_tags({STATE_NAME: state_name, FAILURE_REASON: reason})
