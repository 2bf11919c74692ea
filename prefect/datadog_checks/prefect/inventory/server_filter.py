"""The part of the filters that the server can apply itself, so that excluded runs are not downloaded.

A scope may let through more than the filters do, never less: `Inventory.allows` has the last word on each run.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from datadog_checks.prefect.api.models import Deployment
from datadog_checks.prefect.filters import ResourceFilters

# More ids than this are not sent: the request would grow beyond what it saves.
_IDS_CAP = 1000

Criteria = dict[str, Any]


@dataclass(frozen=True)
class ServerFilter:
    """Criteria on flow runs that leave out what the filters exclude.

    `parent_criteria` are those that the `flow_runs` object of any request takes. `joins` are the keys that go beside it
    in a request for flow runs, and join queue or pool; the endpoints of task runs ignore them (3.0 to 3.9). `flows` is
    the key that goes beside it in any request, and joins the flow.
    """

    parent_criteria: Criteria = field(default_factory=dict)
    joins: Criteria = field(default_factory=dict)
    keep_parentless: bool = True
    flows: Criteria = field(default_factory=dict)

    @classmethod
    def build(
        cls,
        filters: ResourceFilters,
        work_pool_names: Collection[str],
        work_queue_ids: Collection[str],
        deployments: Collection[Deployment],
        flow_ids: Collection[str],
    ) -> ServerFilter:
        """The scope of these filters, given the pools, queues, deployments and flows that pass them.

        A run whose deployment is excluded is excluded, so all filters narrow by deployment. (The criterion
        `work_queue_name` would not do: that column is null where only the pool was named, seen on 3.8.8.)
        """
        parent_criteria: Criteria = {}
        if len(deployments) <= _IDS_CAP:
            kept = sorted(deployment.id for deployment in deployments)
            parent_criteria['deployment_id'] = {'any_': kept}
            if not filters.deployments.include:
                parent_criteria['deployment_id'] |= {'is_null_': True, 'operator': 'or_'}
        joins: Criteria = {}
        if filters.work_pools.include:
            joins['work_pools'] = {'name': {'any_': sorted(work_pool_names)}}
        if filters.work_queues.include and len(work_queue_ids) <= _IDS_CAP:
            joins['work_pool_queues'] = {'id': {'any_': sorted(work_queue_ids)}}
        return cls(parent_criteria, joins, filters.keep_parentless, flow_criteria(filters, flow_ids))

    def flow_runs(self, criteria: Criteria) -> dict[str, Any]:
        """The body that asks for the flow runs of `criteria` within the scope."""
        return {'flow_runs': self.parent_criteria | criteria, **self.joins, **self.flows}

    def task_runs(self, criteria: Criteria, flow_run_criteria: Criteria | None = None) -> list[dict[str, Any]]:
        """The bodies that together ask for the task runs of `criteria` within the scope.

        With `flow_run_criteria` only those whose flow run meets them, and those that belong to no flow run: any
        criterion on flow runs is an inner join for the server, so the latter take a request of their own.
        """
        parents = self.parent_criteria | (flow_run_criteria or {})
        if not parents and not self.flows:
            return [{'task_runs': criteria}]
        joined = {'task_runs': criteria, **({'flow_runs': parents} if parents else {}), **self.flows}
        bodies: list[dict[str, Any]] = [joined]
        if self.keep_parentless:
            bodies.append({'task_runs': criteria | {'flow_run_id': {'is_null_': True}}})
        return bodies


def flow_criteria(filters: ResourceFilters, flow_ids: Collection[str]) -> Criteria:
    """The key of a request for deployments or runs that leaves out those of other flows than these.

    Every run has a flow, and to delete a flow deletes its runs: nothing is lost by the join. (`not_any_` would be
    shorter where few are excluded; not all supported versions have it.)
    """
    if not filters.flows.is_active or len(flow_ids) > _IDS_CAP:
        return {}
    return {'flows': {'id': {'any_': sorted(flow_ids)}}}
