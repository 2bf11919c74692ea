"""The tags of each object: those of its own, and those of what it hangs on."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime, timedelta
from functools import lru_cache

from datadog_checks.prefect import tags
from datadog_checks.prefect.api.client import PrefectClient
from datadog_checks.prefect.api.models import Deployment, FlowRun, TaskRun, Worker, WorkPool, WorkQueue, task_name
from datadog_checks.prefect.filters import NameFilter
from datadog_checks.prefect.inventory.lazy import Lazy
from datadog_checks.prefect.inventory.recent_cache import RecentCache
from datadog_checks.prefect.inventory.selection import Selection
from datadog_checks.prefect.tags import Tags, make_tags, merge_tags

_IS_PAUSED_TAGS = {is_paused: make_tags({tags.IS_PAUSED: is_paused}) for is_paused in (False, True)}


class KnownRuns:
    """What is known of the runs that were met lately, by their ids.

    Of a flow run its tags, None if the filters exclude it, and its name; of a task run its name and `task_key`.
    """

    def __init__(self, capacity: int, lifetime: timedelta) -> None:
        self.tags: RecentCache[str, Tags | None] = RecentCache(capacity, lifetime)
        self.names: RecentCache[str, str | None] = RecentCache(capacity, lifetime)
        self.task_runs: RecentCache[str, tuple[str | None, str | None]] = RecentCache(capacity, lifetime)

    def go_on(self, now: datetime) -> None:
        self.tags.go_on(now)
        self.names.go_on(now)
        self.task_runs.go_on(now)


class Tagging:
    """The tags of runs and deployments in one run of the check. `known` are those of runs that were met lately."""

    def __init__(
        self,
        client: PrefectClient,
        selection: Selection,
        known: KnownRuns,
        prefect_tags: NameFilter | None,
    ) -> None:
        self._client = client
        self._selection = selection
        self._known = known.tags
        self._names = known.names
        self._task_runs = known.task_runs
        self._prefect_tags = prefect_tags
        self._by_parents: dict[tuple[str | None, ...], Tags] = {}
        self._queue_ids = Lazy(self._index_work_queues)
        self.deployment_tags = Lazy(self._make_deployment_tags)

    def tag(self, runs: Sequence[FlowRun]) -> list[tuple[FlowRun, Tags]]:
        """Each run with its tags. Flow names that are not known yet are asked for together."""
        self._selection.know_deployments(runs)
        self._selection.load_flow_names({run.flow_id for run in runs})
        tagged = [(run, self._flow_run_tags(run)) for run in runs]
        for run, run_tags in tagged:
            # Only the task runs of a run that has started will ask for its tags.
            if run.start_time is not None:
                self._remember(run, run_tags)
        return tagged

    def tags_by_id(self, flow_run_ids: Collection[str]) -> dict[str, Tags | None]:
        """The tags of these flow runs; None where the filters exclude it, () where it is gone and nothing is known."""
        known = self._known
        result = {run_id: known[run_id] for run_id in flow_run_ids if run_id in known}
        missing = sorted(set(flow_run_ids) - result.keys())
        if not missing:
            return result
        found = self._client.flow_runs_by_id(missing)
        for run, run_tags in self.tag(self._selection.allowed(found)):
            result[run.id] = run_tags
            self._remember(run, run_tags)
        there = {run.id for run in found}
        for run_id in missing:
            if run_id not in result:
                known[run_id] = result[run_id] = None if run_id in there else self._of_no_flow_run()
        return result

    def flow_run_name(self, flow_run_id: str) -> str | None:
        """The name of a flow run whose tags were asked for; None of one that is gone."""
        if flow_run_id not in self._names:
            return None
        return self._names[flow_run_id]

    def logged_task_runs(self, task_run_ids: Collection[str]) -> dict[str, tuple[str | None, Tags]]:
        """The name of each of these task runs and the tags that it has itself; those that are not there are missing.

        The server shows a task run some seconds after its first log record.
        """
        known = self._task_runs
        missing = sorted(task_run_id for task_run_id in task_run_ids if task_run_id not in known)
        for task_run in self._client.task_runs_by_id(missing):
            known[task_run.id] = (task_run.name, task_run.task_key)
        there = [(task_run_id, known[task_run_id]) for task_run_id in task_run_ids if task_run_id in known]
        return {task_run_id: (name, task_tags(task_key)) for task_run_id, (name, task_key) in there}

    def _remember(self, run: FlowRun, run_tags: Tags) -> None:
        self._known[run.id] = run_tags
        self._names[run.id] = run.name

    def tag_task_runs(self, task_runs: Collection[TaskRun]) -> Iterator[tuple[TaskRun, Tags]]:
        """Each task run with its tags and those of its flow run, those that the filters exclude left out."""
        known = self.tags_by_id({item.flow_run_id for item in task_runs if item.flow_run_id is not None})
        for task_run in task_runs:
            run_id = task_run.flow_run_id
            flow_run_tags = self._of_no_flow_run() if run_id is None else known[run_id]
            if flow_run_tags is not None:
                yield task_run, merge_tags(flow_run_tags, task_tags(task_run.task_key))

    def tags_of_deployment(self, deployment: Deployment) -> Tags:
        """The tags of the series `deployment.*`."""
        # While they are being listed, a run may have made another one known since the tags were made.
        own_tags = self.deployment_tags().get(deployment.id) or self._default_tags(deployment)
        return merge_tags(own_tags, _IS_PAUSED_TAGS[deployment.is_paused])

    def prefect_tags(self, deployment_id: str | None) -> Tags:
        """The tags that a flow run carries for those that its deployment has in Prefect."""
        if self._prefect_tags is None:
            return ()
        deployment = self._selection.deployments().get(deployment_id or '')
        return make_tags({tags.PREFECT_TAG: self._passing_tags(deployment)})

    def _of_no_flow_run(self) -> Tags | None:
        return () if self._selection.filters.keep_parentless else None

    def _make_deployment_tags(self) -> dict[str, Tags]:
        """The tags that a flow run of each deployment carries by default, by the id of the deployment."""
        deployments = self._selection.deployments().values()
        self._selection.load_flow_names({item.flow_id for item in deployments})
        return {item.id: self._default_tags(item) for item in deployments}

    def _default_tags(self, deployment: Deployment) -> Tags:
        work_pool = self._selection.work_pools().get(deployment.work_pool_name or '')
        return self._tags_of(
            work_pool.id if work_pool else None,
            deployment.work_pool_name,
            deployment.work_queue_id or self._queue_ids().get(deployment.work_queue_key),
            deployment.work_queue_name,
            deployment.id,
            deployment.flow_id,
        )

    def _flow_run_tags(self, run: FlowRun) -> Tags:
        return self._tags_of(
            run.work_pool_id,
            run.work_pool_name,
            run.work_queue_id,
            self._selection.queue_name(run.work_queue_id, run.work_queue_name),
            run.deployment_id,
            run.flow_id,
        )

    def _tags_of(
        self,
        work_pool_id: str | None,
        work_pool_name: str | None,
        work_queue_id: str | None,
        work_queue_name: str | None,
        deployment_id: str | None,
        flow_id: str,
    ) -> Tags:
        parents = (work_pool_id, work_pool_name, work_queue_id, work_queue_name, deployment_id, flow_id)
        made = self._by_parents.get(parents)
        if made is None:
            deployment = self._selection.deployments().get(deployment_id or '')
            made = make_tags(
                {
                    tags.WORK_POOL_ID: work_pool_id,
                    tags.WORK_POOL_NAME: work_pool_name,
                    tags.WORK_QUEUE_ID: work_queue_id,
                    tags.WORK_QUEUE_NAME: work_queue_name,
                    tags.DEPLOYMENT_ID: deployment_id,
                    tags.DEPLOYMENT_NAME: deployment.name if deployment else None,
                    tags.FLOW_ID: flow_id,
                    tags.FLOW_NAME: self._selection.flow_name(flow_id),
                    tags.PREFECT_TAG: self._passing_tags(deployment),
                }
            )
            self._by_parents[parents] = made
        return made

    def _passing_tags(self, deployment: Deployment | None) -> tuple[str, ...]:
        if deployment is None or self._prefect_tags is None:
            return ()
        return tuple(tag for tag in deployment.tags if self._prefect_tags.allows(tag))

    def _index_work_queues(self) -> dict[str | tuple[str | None, str] | None, str]:
        """The id of each queue by what a deployment without it names."""
        return {(queue.work_pool_name, queue.name): queue.id for queue in self._selection.all_work_queues()}


def work_pool_tags(pool: WorkPool) -> Tags:
    return make_tags({tags.WORK_POOL_ID: pool.id, tags.WORK_POOL_NAME: pool.name, tags.WORK_POOL_TYPE: pool.type})


def worker_tags(pool: WorkPool, worker: Worker) -> Tags:
    return make_tags(
        {
            tags.WORK_POOL_ID: pool.id,
            tags.WORK_POOL_NAME: pool.name,
            tags.WORKER_ID: worker.id,
            tags.WORKER_NAME: worker.name,
        }
    )


def work_queue_tags(queue: WorkQueue) -> Tags:
    """Those of the series that tell its status."""
    return make_tags(_work_queue_values(queue))


def work_queue_status_tags(queue: WorkQueue) -> Tags:
    """Those of all other series."""
    return make_tags(_work_queue_values(queue) | {tags.WORK_QUEUE_STATUS: queue.status})


def _work_queue_values(queue: WorkQueue) -> dict[str, object]:
    return {
        tags.WORK_QUEUE_ID: queue.id,
        tags.WORK_QUEUE_NAME: queue.name,
        tags.WORK_POOL_ID: queue.work_pool_id,
        tags.WORK_POOL_NAME: queue.work_pool_name,
        tags.WORK_QUEUE_PRIORITY: queue.priority,
    }


# As many functions as run lately; the key holds a hash of the code.
@lru_cache(maxsize=4096)
def task_tags(task_key: str | None) -> Tags:
    return make_tags({tags.TASK_KEY: task_key, tags.TASK_NAME: task_name(task_key)})
