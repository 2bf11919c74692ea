"""A small world on a real Prefect server: every kind of object, every state that the REST API can reach.

`record.py` records it; the integration tests build it too, to compare the fake server with a real one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from lab.api import PrefectApiDriver
from lab.waiting import wait_until

# The foreman turns a silent worker OFFLINE and a pool NOT_READY; the persister writes the events.
QUICK_SERVICES = {
    'PREFECT_SERVER_SERVICES_FOREMAN_LOOP_SECONDS': '1',
    'PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL': '1',
}

# One object as the API gives it.
Row = dict[str, Any]
# (state type, state name, seconds from now until the scheduled time or None)
Step = tuple[str, str, int | None]

SCHEDULED: Step = ('SCHEDULED', 'Scheduled', 0)
PENDING: Step = ('PENDING', 'Pending', None)
RUNNING: Step = ('RUNNING', 'Running', None)
AWAITING_RETRY: Step = ('SCHEDULED', 'AwaitingRetry', 300)
FAILED: Step = ('FAILED', 'Failed', None)
STARTED: tuple[Step, ...] = (SCHEDULED, PENDING, RUNNING)

# The first state is set when the run is created, the others are forced on it.
FLOW_RUN_PATHS: Mapping[str, tuple[Step, ...]] = {
    'scheduled': (('SCHEDULED', 'Scheduled', 3600),),
    'late': (('SCHEDULED', 'Scheduled', -60), ('SCHEDULED', 'Late', -60)),
    'awaiting_retry': (*STARTED, AWAITING_RETRY),
    'awaiting_concurrency_slot': (SCHEDULED, PENDING, ('SCHEDULED', 'AwaitingConcurrencySlot', 30)),
    'resuming': (*STARTED, ('PAUSED', 'Suspended', None), ('SCHEDULED', 'Resuming', 0)),
    'pending': (SCHEDULED, PENDING),
    'submitting': (SCHEDULED, PENDING, ('PENDING', 'Submitting', None)),
    'infrastructure_pending': (SCHEDULED, PENDING, ('PENDING', 'InfrastructurePending', None)),
    'running': STARTED,
    'running_second_attempt': (*STARTED, AWAITING_RETRY, RUNNING),
    'paused': (*STARTED, ('PAUSED', 'Paused', None)),
    'suspended': (*STARTED, ('PAUSED', 'Suspended', None)),
    'cancelling': (*STARTED, ('CANCELLING', 'Cancelling', None)),
    'completed': (*STARTED, ('COMPLETED', 'Completed', None)),
    'completed_with_another_name': (*STARTED, ('COMPLETED', 'Skipped', None)),
    'completed_after_retry': (*STARTED, AWAITING_RETRY, RUNNING, ('COMPLETED', 'Completed', None)),
    'failed': (*STARTED, FAILED),
    'failed_twice': (*STARTED, FAILED, AWAITING_RETRY, RUNNING, FAILED),
    'timed_out': (*STARTED, ('FAILED', 'TimedOut', None)),
    'retried_by_hand': (*STARTED, FAILED, AWAITING_RETRY),
    'cancelled': (*STARTED, ('CANCELLING', 'Cancelling', None), ('CANCELLED', 'Cancelled', None)),
    'cancelled_never_started': (SCHEDULED, ('CANCELLED', 'Cancelled', None)),
    'crashed': (*STARTED, ('CRASHED', 'Crashed', None)),
}
TASK_RUN_PATHS: Mapping[str, tuple[Step, ...]] = {
    'pending': (PENDING,),
    'not_ready': (('PENDING', 'NotReady', None),),
    'running': (PENDING, RUNNING),
    'awaiting_retry': (PENDING, RUNNING, AWAITING_RETRY),
    'retrying': (PENDING, RUNNING, AWAITING_RETRY, ('RUNNING', 'Retrying', None)),
    'paused': (PENDING, RUNNING, ('PAUSED', 'Paused', None)),
    'completed': (PENDING, RUNNING, ('COMPLETED', 'Completed', None)),
    'cached': (PENDING, ('COMPLETED', 'Cached', None)),
    'rolled_back': (PENDING, RUNNING, ('COMPLETED', 'Completed', None), ('COMPLETED', 'RolledBack', None)),
    'failed': (PENDING, RUNNING, FAILED),
    'timed_out': (PENDING, RUNNING, ('FAILED', 'TimedOut', None)),
    'cancelled': (PENDING, RUNNING, ('CANCELLED', 'Cancelled', None)),
    'crashed': (PENDING, RUNNING, ('CRASHED', 'Crashed', None)),
}


@dataclass(frozen=True)
class World:
    """What `build_world` made: ids (names for work pools and workers) by case."""

    work_pools: dict[str, str] = field(default_factory=dict)
    work_queues: dict[str, str] = field(default_factory=dict)
    workers: dict[str, tuple[str, str]] = field(default_factory=dict)
    flows: dict[str, str] = field(default_factory=dict)
    deployments: dict[str, str] = field(default_factory=dict)
    flow_runs: dict[str, str] = field(default_factory=dict)
    task_runs: dict[str, str] = field(default_factory=dict)


class WorldBuilder:
    """Makes objects by the REST API, in the order in which they depend on each other."""

    def __init__(self, api: PrefectApiDriver) -> None:
        self._api = api
        self.world = World()

    def build(self) -> World:
        self._create_work_pools()
        self._create_deployments()
        self._create_flow_runs()
        self._create_task_runs()
        self._create_concurrency_limits()
        self._create_subflow()
        self._leave_traces_of_deleted_objects()
        return self.world

    def _create_work_pools(self) -> None:
        limited = self._work_pool('ready', {'name': 'recorded-limited', 'type': 'process', 'concurrency_limit': 10})
        self._work_pool('not_ready', {'name': 'recorded-without-worker', 'type': 'process'})
        paused = self._work_pool('paused', {'name': 'recorded-paused', 'type': 'docker', 'is_paused': True})
        self._work_queue(
            'limited', limited, {'name': 'high', 'priority': 1, 'concurrency_limit': 2, 'description': 'The fast lane'}
        )
        # The status of a queue that was made as paused is NOT_READY, then READY: only pausing it later makes it PAUSED.
        self._work_queue('paused_at_creation', limited, {'name': 'made-as-paused', 'is_paused': True})
        self._work_queue('paused', limited, {'name': 'parked'})
        self._api.call('PATCH', f'/work_pools/{limited}/queues/parked', {'is_paused': True})
        self._work_queue('never_polled', paused, {'name': 'idle', 'concurrency_limit': 0})
        self._worker('online', limited, {'name': 'recorded-worker', 'heartbeat_interval_seconds': 300})
        self._worker('offline', limited, {'name': 'recorded-silent-worker', 'heartbeat_interval_seconds': 1})

    def _work_pool(self, case: str, body: Row) -> str:
        pool = self._api.request('POST', '/work_pools/', body)
        self.world.work_pools[case] = pool['name']
        self.world.work_queues[f'default_of_{case}'] = pool['default_queue_id']
        return str(pool['name'])

    def _work_queue(self, case: str, work_pool: str, body: Row) -> None:
        self.world.work_queues[case] = self._api.request('POST', f'/work_pools/{work_pool}/queues', body)['id']

    def _worker(self, case: str, work_pool: str, body: Row) -> None:
        self._api.request('POST', f'/work_pools/{work_pool}/workers/heartbeat', body)
        self.world.workers[case] = (work_pool, str(body['name']))

    def _create_deployments(self) -> None:
        self._flow('plain', {'name': 'recorded-flow'})
        self._flow('tagged', {'name': 'Recorded-Tagged', 'tags': ['nightly', 'etl']})
        self._flow('never_run', {'name': 'recorded-never-run'})
        every_hour = {'active': True, 'schedule': {'cron': '0 * * * *', 'timezone': 'UTC'}}
        pool = {'work_pool_name': 'recorded-limited'}
        self._deployment(
            'ready',
            'plain',
            {**pool, 'name': 'recorded-deployment', 'work_queue_name': 'high', 'schedules': [every_hour]},
        )
        self._deployment(
            'limited', 'tagged', {**pool, 'name': 'recorded-limited', 'concurrency_limit': 3, 'tags': ['nightly']}
        )
        self._deployment('paused', 'tagged', {**pool, 'name': 'Recorded-Paused', 'paused': True})
        self._deployment('without_work_pool', 'plain', {'name': 'recorded-served', 'tags': ['nightly', 'etl']})
        self._deployment(
            'not_ready', 'plain', {'work_pool_name': 'recorded-without-worker', 'name': 'recorded-not-ready'}
        )
        self._api.request('POST', f'/deployments/{self.world.deployments["ready"]}/schedule')

    def _flow(self, case: str, body: Row) -> None:
        self.world.flows[case] = self._api.request('POST', '/flows/', body)['id']

    def _deployment(self, case: str, flow: str, body: Row) -> None:
        self.world.deployments[case] = self._api.request(
            'POST', '/deployments/', {'flow_id': self.world.flows[flow], 'entrypoint': 'flows.py:flow', **body}
        )['id']

    def _create_flow_runs(self) -> None:
        deployments = [self.world.deployments[case] for case in ('ready', 'limited', 'without_work_pool')]
        for position, (case, steps) in enumerate(FLOW_RUN_PATHS.items()):
            body = {'name': f'run-{case}', 'tags': [['nightly'], ['nightly', 'etl'], []][position % 3]}
            path = f'/deployments/{deployments[position % len(deployments)]}/create_flow_run'
            self.world.flow_runs[case] = self._run(path, '/flow_runs', body, steps)
        script = {'name': 'run-script', 'flow_id': self.world.flows['plain'], 'idempotency_key': 'recorded'}
        self.world.flow_runs['without_deployment'] = self._run('/flow_runs/', '/flow_runs', script, (PENDING, RUNNING))

    def _create_task_runs(self) -> None:
        parents = [self.world.flow_runs[case] for case in ('running', 'completed', 'crashed')]
        upstream: list[Row] = []
        for position, (case, steps) in enumerate(TASK_RUN_PATHS.items()):
            body = {
                'name': f'Task-{case}' if position % 2 else f'task-{case}',
                'flow_run_id': parents[position % len(parents)],
                'tags': [[], ['db'], ['db', 'slow']][position % 3],
                'task_inputs': {'rows': list(upstream)},
            }
            self.world.task_runs[case] = self._task_run(case, body, steps)
            upstream = [{'input_type': 'task_run', 'id': self.world.task_runs[case]}]
        background = {'name': 'task-background', 'tags': ['db']}
        self.world.task_runs['background'] = self._task_run('background', background, (SCHEDULED, PENDING, RUNNING))

    def _create_concurrency_limits(self) -> None:
        limits = '/v2/concurrency_limits'
        self._api.request('POST', f'{limits}/', {'name': 'recorded-global', 'limit': 3})
        self._api.request('POST', f'{limits}/', {'name': 'recorded-off', 'limit': 1, 'active': False})
        self._api.request('POST', f'{limits}/', {'name': 'recorded-rate', 'limit': 60, 'slot_decay_per_second': 1.0})
        self._api.request('POST', '/concurrency_limits/', {'tag': 'gpu', 'concurrency_limit': 2})
        self._api.request('POST', f'{limits}/increment', {'names': ['recorded-global', 'tag:gpu'], 'slots': 1})
        holder = {'type': 'task_run', 'id': self.world.task_runs['running']}
        lease = {'names': ['tag:gpu'], 'slots': 1, 'lease_duration': 3600, 'holder': holder}
        self._api.request('POST', f'{limits}/increment-with-lease', lease)

    def _create_subflow(self) -> None:
        dummy = {'name': 'recorded-subflow-0', 'flow_run_id': self.world.flow_runs['running']}
        self.world.task_runs['subflow_dummy'] = self._task_run('subflow', dummy, (PENDING,))
        child = {
            'name': 'run-subflow',
            'flow_id': self.world.flows['tagged'],
            'parent_task_run_id': self.world.task_runs['subflow_dummy'],
        }
        self.world.flow_runs['subflow'] = self._run('/flow_runs/', '/flow_runs', child, (PENDING, RUNNING))

    def _leave_traces_of_deleted_objects(self) -> None:
        """Make a run whose deployment and one whose work pool no longer exist: dangling id, null names."""
        self._work_pool('deleted', {'name': 'recorded-deleted', 'type': 'process'})
        self._deployment('deleted', 'plain', {'name': 'recorded-deleted'})
        self._deployment('pool_deleted', 'plain', {'name': 'recorded-poolless', 'work_pool_name': 'recorded-deleted'})
        for case in ('deleted', 'pool_deleted'):
            path = f'/deployments/{self.world.deployments[case]}/create_flow_run'
            self.world.flow_runs[f'of_{case}'] = self._run(path, '/flow_runs', {'name': f'run-of-{case}'}, STARTED)
        self._api.call('DELETE', f'/deployments/{self.world.deployments.pop("deleted")}')
        self._api.call('DELETE', f'/work_pools/{self.world.work_pools.pop("deleted")}')
        del self.world.work_queues['default_of_deleted']

    def _task_run(self, task_key: str, body: Row, steps: tuple[Step, ...]) -> str:
        keys = {'task_key': task_key, 'dynamic_key': str(len(self.world.task_runs))}
        return self._run('/task_runs/', '/task_runs', {**keys, **body}, steps)

    def _run(self, create_path: str, state_path: str, body: Row, steps: tuple[Step, ...]) -> str:
        states = [self._state(step) for step in steps]
        run = self._api.request('POST', create_path, {**body, 'state': states[0]})
        for state in states[1:]:
            self._api.request('POST', f'{state_path}/{run["id"]}/set_state', {'state': state, 'force': True})
        return str(run['id'])

    @staticmethod
    def _state(step: Step) -> Row:
        state_type, name, delay = step
        state: Row = {'type': state_type, 'name': name}
        if delay is not None:
            state['state_details'] = {'scheduled_time': (datetime.now(UTC) + timedelta(seconds=delay)).isoformat()}
        return state


def build_world(api: PrefectApiDriver) -> World:
    """Create every kind of object and state on an empty server and return when the server's services have settled."""
    world = WorldBuilder(api).build()
    keep_polled(api, world)
    return world


def keep_polled(api: PrefectApiDriver, world: World) -> None:
    """Poll the first work pool as its worker would, until its silent worker is OFFLINE, its deployments READY."""
    work_pool, silent_worker = world.workers['offline']

    def is_settled() -> bool:
        api.request('POST', f'/work_pools/{work_pool}/workers/heartbeat', {'name': 'recorded-worker'})
        api.request('POST', f'/work_pools/{work_pool}/get_scheduled_flow_runs')
        workers = {
            worker['name']: worker['status']
            for worker in api.request('POST', f'/work_pools/{work_pool}/workers/filter')
        }
        deployments = {row['id']: row['status'] for row in api.request('POST', '/deployments/filter')}
        return (workers[silent_worker], deployments[world.deployments['ready']]) == ('OFFLINE', 'READY')

    wait_until(is_settled, 'the services of the server to settle', pause=0.5)
