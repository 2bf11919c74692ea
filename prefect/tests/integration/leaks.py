"""Whether a secret got out: all that a check says, to whom ever, searched for what must not be there."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from datadog_checks.base.stubs import datadog_agent
from lab.agent import CheckResult

LOWEST_LEVEL = 1


class _Everything(logging.Handler):
    def __init__(self) -> None:
        super().__init__(LOWEST_LEVEL)
        self.lines: list[str] = []
        self.setFormatter(logging.Formatter('%(name)s %(levelname)s %(message)s'))

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@contextmanager
def listening() -> Iterator[list[str]]:
    """What is logged meanwhile by anybody, at every level (the Agent's TRACE too), with tracebacks."""
    root, handler = logging.getLogger(), _Everything()
    level = root.level
    root.addHandler(handler)
    root.setLevel(LOWEST_LEVEL)
    # Datadog's client, which other tests import, quietens it.
    logging.getLogger('urllib3').setLevel(logging.NOTSET)
    try:
        yield handler.lines
    finally:
        root.setLevel(level)
        root.removeHandler(handler)


def leaks(secrets: Mapping[str, str], result: CheckResult, log: list[str]) -> list[str]:
    """Which of the secrets (name: value) stands where in what one run of a check said, logged and left behind."""
    places = [
        ('points', repr(result.points)),
        ('events', repr(result.events)),
        ('metadata', repr(result.metadata)),
        ('error', f'{result.error} {result.answer}'),
        ('warnings', repr(result.warnings)),
        ('state', repr(vars(datadog_agent))),
        *(('log', line) for line in log),
    ]
    return [f'{name} in {place}: {text}' for name, value in secrets.items() for place, text in places if value in text]
