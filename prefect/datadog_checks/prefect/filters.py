"""What is collected, by the names of pools, queues, deployments and flows: `{include: [regex], exclude: [regex]}`."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from datadog_checks.prefect.patterns import LONGEST_NAME, Pattern
from datadog_checks.prefect.safe_text import without_control

_LOG = logging.getLogger(__name__)
_SLOW_SECONDS = 0.05
# The names of a large server; each is met at every check.
_VERDICTS = 20_000


@dataclass(frozen=True)
class NameFilter:
    """A name passes that no `exclude` matches (`re.search`), and that an `include` matches if there is any.

    What has no such parent (a flow run without a work pool) has no name, None: `exclude` keeps it, `include` drops it.
    The first 255 characters of a name are matched. `option` is named in a warning when a pattern is slow.
    """

    include: tuple[Pattern, ...] = ()
    exclude: tuple[Pattern, ...] = ()
    option: str = field(default='', compare=False)
    _verdicts: dict[str, bool] = field(default_factory=dict, init=False, compare=False, repr=False)
    # Patterns that were warned of.
    _slow: set[Pattern] = field(default_factory=set, init=False, compare=False, repr=False)

    @classmethod
    def compile(cls, include: Iterable[str] | None, exclude: Iterable[str] | None, option: str = '') -> NameFilter:
        """Raises re.error for a pattern that does not compile, TooSlow for one whose time has no bound."""
        return cls(tuple(map(Pattern, include or ())), tuple(map(Pattern, exclude or ())), option)

    @property
    def is_active(self) -> bool:
        return bool(self.include or self.exclude)

    def allows(self, name: str | None) -> bool:
        if name is None:
            return not self.include
        name = name[:LONGEST_NAME]
        verdict = self._verdicts.get(name)
        if verdict is None:
            if len(self._verdicts) >= _VERDICTS:
                self._verdicts.clear()
            verdict = self._verdicts[name] = self._judge(name)
        return verdict

    def _judge(self, name: str) -> bool:
        if any(self._finds(pattern, name) for pattern in self.exclude):
            return False
        return not self.include or any(self._finds(pattern, name) for pattern in self.include)

    def _finds(self, pattern: Pattern, name: str) -> bool:
        started = time.thread_time()
        found = pattern.finds(name)
        seconds = time.thread_time() - started
        if seconds > _SLOW_SECONDS and pattern not in self._slow:
            self._slow.add(pattern)
            _LOG.warning(
                '%s: the pattern `%s` took %.0f ms for one name, `%s`. Use fewer `*` and `+`, and anchor it with `^`',
                self.option,
                pattern.text[:200],
                seconds * 1000,
                without_control(name),
            )
        return found


@dataclass(frozen=True)
class ResourceFilters:
    """The filters of one instance. A filter on a parent applies to all that hangs on it."""

    work_pools: NameFilter = NameFilter()
    work_queues: NameFilter = NameFilter()
    deployments: NameFilter = NameFilter()
    flows: NameFilter = NameFilter()

    @property
    def is_active(self) -> bool:
        return any(names.is_active for names in (self.work_pools, self.work_queues, self.deployments, self.flows))

    @property
    def keep_parentless(self) -> bool:
        """Whether a run without pool, queue, deployment and flow passes."""
        return not any(names.include for names in (self.work_pools, self.work_queues, self.deployments, self.flows))
