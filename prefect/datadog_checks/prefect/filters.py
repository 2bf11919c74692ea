"""What is collected, by the names of pools, queues, deployments and flows: `{include: [regex], exclude: [regex]}`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class NameFilter:
    """A name passes that no `exclude` matches (`re.search`), and that an `include` matches if there is any.

    What has no such parent (a flow run without a work pool) has no name, None: `exclude` keeps it, `include` drops it.
    """

    include: tuple[re.Pattern[str], ...] = ()
    exclude: tuple[re.Pattern[str], ...] = ()

    @classmethod
    def compile(cls, include: Iterable[str] | None, exclude: Iterable[str] | None) -> NameFilter:
        """Raises re.error for a pattern that does not compile."""
        return cls(tuple(re.compile(text) for text in include or ()), tuple(re.compile(text) for text in exclude or ()))

    @property
    def is_active(self) -> bool:
        return bool(self.include or self.exclude)

    def allows(self, name: str | None) -> bool:
        if name is None:
            return not self.include
        if any(pattern.search(name) for pattern in self.exclude):
            return False
        return not self.include or any(pattern.search(name) for pattern in self.include)


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
