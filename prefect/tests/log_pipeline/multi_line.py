"""The Agent's `multi_line` processing rule."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tests.log_pipeline.errors import PipelineError
from tests.log_pipeline.grok import refuse_what_re2_lacks


@dataclass(frozen=True)
class MultiLineRule:
    """A line that matches begins a new log; the others belong to the one before."""

    pattern: re.Pattern[str]

    @classmethod
    def from_configuration(cls, rule: dict[str, str]) -> MultiLineRule:
        """Read one of the `log_processing_rules`."""
        if set(rule) != {'type', 'name', 'pattern'} or rule['type'] != 'multi_line':
            raise PipelineError(f'not a multi_line rule: {rule}')
        refuse_what_re2_lacks(rule['pattern'])
        return cls(re.compile(rule['pattern']))

    def join(self, lines: Iterable[str]) -> Iterator[list[str]]:
        """Yield the lines of each log. What comes before the first match is one, too."""
        log: list[str] = []
        for line in lines:
            if log and self.pattern.search(line):
                yield log
                log = []
            log.append(line)
        if log:
            yield log
