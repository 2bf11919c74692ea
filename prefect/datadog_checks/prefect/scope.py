"""The part of the filters that the server can apply itself, so that excluded runs are not downloaded.

A scope may let through more than the filters do, never less: `Inventory.allows` has the last word on each run.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from datadog_checks.prefect.filters import ResourceFilters
from datadog_checks.prefect.models import Deployment

# More ids than this are not sent: the request would grow beyond what it saves.
_IDS_CAP = 1000

Criteria = dict[str, Any]


@dataclass(frozen=True)
class RunScope:
    """Criteria on flow runs that leave out what the filters exclude.

    `flow_run_criteria` go into the `flow_runs` object of a request. `work_pool_names`, if not None, go beside it; the
    endpoints of task runs do not know that key (3.0 to 3.9 ignore it) and use `task_parent_criteria` instead.
    """

    flow_run_criteria: Criteria = field(default_factory=dict)
    task_parent_criteria: Criteria = field(default_factory=dict)
    work_pool_names: tuple[str, ...] | None = None
    keep_parentless: bool = True

    @classmethod
    def build(
        cls,
        filters: ResourceFilters,
        work_pool_names: Collection[str],
        work_queue_names: Collection[str],
        deployments: Collection[Deployment],
    ) -> RunScope:
        """The scope of these filters, given the names and deployments that pass them."""
        criteria: Criteria = {}
        if filters.work_queues.is_active:
            keep_null = not filters.work_queues.include
            criteria['work_queue_name'] = _any_of(work_queue_names, or_null=keep_null)
        # A run keeps to the pool of its deployment (its queue can be overridden, its pool cannot).
        by_deployment: Criteria = {}
        if len(deployments) <= _IDS_CAP and (filters.deployments.is_active or filters.work_pools.is_active):
            keep_null = not filters.deployments.include
            by_deployment['deployment_id'] = _any_of((item.id for item in deployments), or_null=keep_null)
        by_pool = bool(filters.work_pools.include)
        return cls(
            flow_run_criteria=criteria | ({} if by_pool and not filters.deployments.is_active else by_deployment),
            task_parent_criteria=criteria | by_deployment,
            work_pool_names=tuple(sorted(work_pool_names)) if by_pool else None,
            keep_parentless=filters.keep_parentless,
        )

    def flow_runs(self, criteria: Criteria) -> dict[str, Any]:
        """The body that asks for the flow runs of `criteria` within the scope."""
        body: dict[str, Any] = {'flow_runs': self.flow_run_criteria | criteria}
        if self.work_pool_names is not None:
            body['work_pools'] = {'name': {'any_': list(self.work_pool_names)}}
        return body

    def task_runs(self, criteria: Criteria, flow_run_criteria: Criteria | None = None) -> list[dict[str, Any]]:
        """The bodies that together ask for the task runs of `criteria` within the scope.

        With `flow_run_criteria` only those whose flow run meets them, and those that belong to no flow run: any
        criterion on flow runs is an inner join for the server, so the latter take a request of their own.
        """
        parents = self.task_parent_criteria | (flow_run_criteria or {})
        if not parents:
            return [{'task_runs': criteria}]
        bodies: list[dict[str, Any]] = [{'task_runs': criteria, 'flow_runs': parents}]
        if self.keep_parentless:
            bodies.append({'task_runs': criteria | {'flow_run_id': {'is_null_': True}}})
        return bodies


def _any_of(values: Any, *, or_null: bool) -> Criteria:
    criteria: Criteria = {'any_': sorted(values)}
    if or_null:
        criteria |= {'is_null_': True, 'operator': 'or_'}
    return criteria
