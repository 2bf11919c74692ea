"""Where the state of the check lies: in two places of the Agent's persistent cache, which are written in turn.

The Agent writes a key as a plain file, truncated and then filled, so a kill in between leaves nothing of it or a half.
The other place then holds what was written before: one batch is repeated, instead of all cursors being lost.
"""

from __future__ import annotations

from collections.abc import Callable

from datadog_checks.prefect.api.log import Log
from datadog_checks.prefect.streams.cursor import CheckState, StateError

KEYS = ('state_0', 'state_1')


class StateStore:
    """`read` and `write` are those of the check's persistent cache: a missing key reads as an empty text."""

    def __init__(self, read: Callable[[str], str], write: Callable[[str, str], object], log: Log) -> None:
        self._read = read
        self._write = write
        self._log = log

    def load(self) -> CheckState:
        """The newest state that is intact. Without one it is empty, with one warning if there was anything at all."""
        found: list[CheckState] = []
        problems: list[StateError] = []
        for key in KEYS:
            try:
                found.append(CheckState.loads(self._read(key)))
            except StateError as error:
                problems.append(error)
        newest = max(found, key=lambda state: state.serial, default=CheckState())
        if problems and newest.streams:
            self._log.debug('One of the two persisted states cannot be used, going on from the other: %s', problems[0])
        elif problems:
            self._log.warning('Starting afresh, for the persisted state cannot be used: %s', problems[0])
        return newest

    def save(self, state: CheckState) -> int:
        """Write the state, over the one before the last; return its size in bytes."""
        document = state.dumps()
        self._write(KEYS[state.serial % len(KEYS)], document)
        return len(document)
