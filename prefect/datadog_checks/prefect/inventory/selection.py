"""What passes the filters: work pools, work queues, workers, deployments, flows, and which runs hang on them.

The server applies what it can (`server_filter`); that may let more through than the filters do, never less, so that
`allowed` has the last word on each run.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from datadog_checks.prefect.api import queries
from datadog_checks.prefect.api.client import PrefectClient
from datadog_checks.prefect.api.errors import PrefectApiError
from datadog_checks.prefect.api.models import Deployment, FlowRun, WorkPool, WorkQueue
from datadog_checks.prefect.api.queries import ServerFilter
from datadog_checks.prefect.filters import ResourceFilters
from datadog_checks.prefect.inventory.deployments import DeploymentDirectory
from datadog_checks.prefect.inventory.flows import FlowDirectory
from datadog_checks.prefect.inventory.lazy import Lazy
from datadog_checks.prefect.inventory.workers import PoolWorkers, WorkerDirectory

# More ids than this are not sent: the request would grow beyond what it saves.
_IDS_CAP = 1000


class Selection:
    """The lookups of one run of the check; each may raise the PrefectApiError of its first use to all who need it."""

    def __init__(
        self,
        client: PrefectClient,
        filters: ResourceFilters,
        deployments: DeploymentDirectory,
        flows: FlowDirectory,
        workers: WorkerDirectory,
        work_queue_ids: set[str],
        now: datetime,
        worker_retention: timedelta,
    ) -> None:
        self._client = client
        self._directory = deployments
        self._flows = flows
        self._workers = workers
        self._known_queue_ids = work_queue_ids
        self._now = now
        self._worker_retention = worker_retention
        self.filters = filters
        self.all_work_queues = Lazy(self._read_work_queues)
        self.queues_by_id = Lazy(self._read_queues_by_id)
        self.work_pools = Lazy(self._select_work_pools)
        self.work_queues = Lazy(self._select_work_queues)
        self.workers = Lazy(self._read_workers)
        self.deployments = Lazy(self._select_deployments)
        self.flow_ids = Lazy(self._select_flow_ids)
        self.server_filter = Lazy(self._build_server_filter)

    def allowed(self, runs: Iterable[FlowRun]) -> list[FlowRun]:
        """The runs that the filters keep."""
        runs = list(runs)
        if not self.filters.is_active:
            return runs
        self.know_deployments(runs)
        if self.filters.flows.is_active:
            self.load_flow_names({run.flow_id for run in runs})
        return [run for run in runs if self._allows(run)]

    def know_deployments(self, runs: Collection[FlowRun]) -> None:
        """While a large server's deployments are not all listed yet: ask for those of these runs."""
        known = self.deployments() if runs else {}
        if not runs or self._directory.is_complete:
            return
        ids = {run.deployment_id for run in runs if run.deployment_id is not None} - known.keys()
        found = (self._with_current_names(item) for item in self._directory.know(self._client, ids))
        known.update((item.id, item) for item in found if self._allows_deployment(item))

    def are_deployments_listed(self) -> bool:
        """Whether `deployments` are all; of a large server it takes some runs of the check until they are."""
        self.deployments()
        return self._directory.is_complete

    def list_on(self) -> None:
        """List more deployments, for the next run of the check."""
        self._directory.list_on(self._client)

    def load_flow_names(self, flow_ids: Collection[str]) -> None:
        """Get to know the names of these flows. Those that are not known yet are asked for together."""
        self._flows.load(self._client, flow_ids)

    def flow_name(self, flow_id: str) -> str | None:
        """The name of a flow that is known; None of another, and of one that is gone."""
        return self._flows.names.get(flow_id)

    def queue_name(self, work_queue_id: str | None, name: str | None) -> str | None:
        """The name that a work queue has now; runs and deployments keep the one that it had (3.8.8)."""
        queue = self.queues_by_id().get(work_queue_id or '')
        return name if queue is None else queue.name

    def deployments_now(self, deployment_ids: Iterable[str]) -> dict[str, Deployment]:
        """These deployments as they are in this run of the check; those that are gone are missing, and some of many."""
        return self._directory.as_of_now(self._client, deployment_ids)

    def deployments_anew(self, deployment_ids: Collection[str]) -> dict[str, Deployment]:
        """Some of these deployments as they are now: what was not edited is remembered, and schedules are no edit."""
        return self._directory.list_again(self._client, deployment_ids)

    def status_of(self, pool: WorkPool) -> str | None:
        """READY, NOT_READY or PAUSED. The server tells none of a pool of the type `prefect-agent`."""
        if pool.status is not None:
            return pool.status
        if pool.is_paused:
            return 'PAUSED'
        is_polled = any(queue.status == 'READY' for queue in self.all_work_queues() if queue.work_pool_id == pool.id)
        return 'READY' if is_polled else 'NOT_READY'

    def _select_work_pools(self) -> dict[str, WorkPool]:
        """The work pools that pass, by name."""
        return {pool.name: pool for pool in self._client.work_pools() if self.filters.work_pools.allows(pool.name)}

    def _read_work_queues(self) -> list[WorkQueue]:
        queues = self._client.work_queues(self._known_queue_ids)
        self._known_queue_ids.clear()
        self._known_queue_ids.update(queue.id for queue in queues)
        return queues

    def _select_work_queues(self) -> list[WorkQueue]:
        filters = self.filters
        return [
            queue
            for queue in self.all_work_queues()
            if filters.work_pools.allows(queue.work_pool_name) and filters.work_queues.allows(queue.name)
        ]

    def _read_workers(self) -> Mapping[str, PoolWorkers]:
        """The workers of each work pool that passes, by its name; of those that are gone for longer only some."""
        since = self._now - self._worker_retention
        pools, queues = self.work_pools().values(), self.queues_by_id().values()
        return self._workers.refresh(self._client, pools, queues, self._now, since)

    def _select_flow_ids(self) -> set[str]:
        """The flows that pass. Without a filter on them nobody asks, and none are listed."""
        if not self.filters.flows.is_active:
            return set()
        names = self._flows.refresh(self._client, self._now)
        return {flow_id for flow_id, name in names.items() if self.filters.flows.allows(name)}

    def _select_deployments(self) -> dict[str, Deployment]:
        """The deployments that pass, by id."""
        filters = self.filters
        body = queries.deployments(
            work_pool_names=sorted(self.work_pools()) if filters.work_pools.include else None,
            flow_ids=self._flow_ids_to_send(),
        )
        known = self._directory.refresh(self._client, body).values()
        passing = [deployment for deployment in known if self._allows_deployment(deployment)]
        queues = self.queues_by_id().values()
        renewed: Mapping[str, Deployment] = {item.id: item for item in passing}
        if self._directory.is_complete:
            renewed = self._directory.renew_statuses(self._client, passing, queues, self._now)
        # What is listed again may be gone, or pass no more.
        current = [self._with_current_names(renewed[item.id]) for item in passing if item.id in renewed]
        return {deployment.id: deployment for deployment in current if self._allows_deployment(deployment)}

    def _read_queues_by_id(self) -> dict[str, WorkQueue]:
        try:
            return {queue.id: queue for queue in self.all_work_queues()}
        except PrefectApiError:
            # Told by the collector that is about queues. Elsewhere they only say what has changed.
            return {}

    def _with_current_names(self, deployment: Deployment) -> Deployment:
        """To rename a work queue is no edit of its deployments, so that they are remembered with the old name."""
        queue = self.queues_by_id().get(deployment.work_queue_id or '')
        if queue is None or queue.name == deployment.work_queue_name:
            return deployment
        return replace(deployment, work_queue_name=queue.name)

    def _allows_deployment(self, deployment: Deployment) -> bool:
        filters = self.filters
        return (
            filters.work_pools.allows(deployment.work_pool_name)
            and filters.work_queues.allows(self.queue_name(deployment.work_queue_id, deployment.work_queue_name))
            and filters.deployments.allows(deployment.name)
            and self._allows_flow(deployment.flow_id)
        )

    def _build_server_filter(self) -> ServerFilter:
        """What the server is asked to leave out of the runs.

        A run whose deployment is excluded is excluded, so all filters narrow by deployment. (The criterion
        `work_queue_name` would not do: that column is null where only the pool was named, seen on 3.8.8. `not_any_`
        would be shorter where few are excluded; not all supported versions have it.)
        """
        filters = self.filters
        if not filters.is_active:
            return ServerFilter()
        queue_ids = {queue.id for queue in self.work_queues()} if filters.work_queues.include else None
        return ServerFilter(
            deployment_ids=_if_few(self.deployments()) if self.are_deployments_listed() else None,
            keep_undeployed=not filters.deployments.include,
            work_pool_names=sorted(self.work_pools()) if filters.work_pools.include else None,
            work_queue_ids=_if_few(queue_ids),
            flow_ids=self._flow_ids_to_send(),
            keep_parentless=filters.keep_parentless,
        )

    def _flow_ids_to_send(self) -> list[str] | None:
        return _if_few(self.flow_ids()) if self.filters.flows.is_active else None

    def _allows(self, run: FlowRun) -> bool:
        filters = self.filters
        if not filters.work_pools.allows(run.work_pool_name):
            return False
        if not filters.work_queues.allows(self.queue_name(run.work_queue_id, run.work_queue_name)):
            return False
        if not self._allows_flow(run.flow_id):
            return False
        if run.deployment_id is None:
            return filters.deployments.allows(None)
        # Not there: excluded by its name, queue or pool, or deleted, so that its name cannot be asked for.
        return run.deployment_id in self.deployments()

    def _allows_flow(self, flow_id: str) -> bool:
        flows = self.filters.flows
        return not flows.is_active or flows.allows(self.flow_name(flow_id))


def _if_few(ids: Collection[str] | None) -> list[str] | None:
    return None if ids is None or len(ids) > _IDS_CAP else sorted(ids)
