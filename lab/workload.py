"""Work for a Prefect server: everything that a Prefect installation can do, in about a minute and a half.

A workload sets up work pools, work queues and deployments, starts a worker, and then plays stories. A story is a
generator: it does something to the server and yields while it waits; `tick()` lets every story go on as far as it can.
So many stories run side by side without threads. What each story shows is in its docstring, in the words of the
progress display.

The first thing that a check ever reads is its starting point, so call `set_up()`, run a check, and then tick.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Self

from lab.api import TERMINAL_STATE_TYPES, PrefectApiDriver
from lab.prefect_server import FlowScript, Worker, release

WORK_POOL = 'workshop'
UNATTENDED_WORK_POOL = 'unattended'
PAUSED_WORK_POOL = 'mothballed'
SETTLE_SECONDS = 3
# The stories take a minute and a half, and on a busy machine up to five times as long.
LIMIT_SECONDS = 600.0
# If the background tasks have not ended after so long, the story asks for one more.
THUMBNAIL_SECONDS = 60.0
TICK_SECONDS = 0.5

# Flow-run processes start as soon as the worker sees them: the defaults (10 s, 30 s) make people wait.
WORKER_SETTINGS = {'PREFECT_WORKER_QUERY_SECONDS': '2', 'PREFECT_WORKER_HEARTBEAT_SECONDS': '10'}

# A task worker that ends is started again until there have been so many.
MOST_TASK_WORKERS = 4
# What a worker says of a flow run that it could not start: the first up to 3.4, the second in later versions.
NOT_SUBMITTED = re.compile(
    r'Flow run could not be submitted to infrastructure|Failed to submit flow run to infrastructure'
)

Story = Iterator[None]


class WorkloadError(RuntimeError):
    """The workload did not go as it is written here: a story waits for something that does not happen."""


@dataclass(frozen=True)
class WorkQueue:
    work_pool_name: str
    name: str
    concurrency_limit: int | None = None
    priority: int | None = None
    is_paused: bool = False


@dataclass(frozen=True)
class Deployment:
    flow_name: str
    name: str
    entrypoint: str
    work_queue_name: str
    work_pool_name: str = WORK_POOL
    schedule: tuple[str, int | str] | None = None
    is_paused: bool = False
    concurrency_limit: int | None = None
    tags: tuple[str, ...] = ()


WORK_QUEUES = (
    WorkQueue(WORK_POOL, 'critical', concurrency_limit=4, priority=1),
    WorkQueue(WORK_POOL, 'reports', concurrency_limit=1, priority=2),
    WorkQueue(WORK_POOL, 'frozen', is_paused=True),
    WorkQueue(UNATTENDED_WORK_POOL, 'nightly', concurrency_limit=2),
)

GLOBAL_LIMIT = 'database'
LIMITED_TAG = 'gpu'
AUTOMATION = 'repair'
NO_DEPLOYMENT = '11111111-1111-4111-8111-111111111111'
ABANDONED_FLOW = 'abandoned'
# Heartbeats of a real process are 30 s apart at the least.
BEAT_SECONDS = 2
DRIVEN_FLOW = 'driven'
# A check begins three seconds after the one before, or when that has ended.
SEEN_SECONDS = 4
# In addition to the intervals without a beat: enough for a check to see it, on a busy machine too.
LOST_SECONDS = 40

ORDERS = Deployment(
    'orders', 'every-30-seconds', 'orders.py:orders', 'critical', schedule=('interval', 30), tags=('team:shop',)
)
REPORT = Deployment('report', 'on-demand', 'outcomes.py:succeeds', 'reports')
# Its queue has no limit. Otherwise that limit could be the reason why it is late.
LIMITED_REPORT = Deployment('report', 'one-at-a-time', 'outcomes.py:succeeds', 'default', concurrency_limit=1)
FROZEN_REPORT = Deployment('report', 'frozen', 'outcomes.py:succeeds', 'frozen', tags=('expect:max_age=30s',))
NIGHTLY_REPORT = Deployment(
    'report', 'nightly', 'outcomes.py:succeeds', 'nightly', UNATTENDED_WORK_POOL, schedule=('cron', '0 3 * * *')
)
PAUSED_REPORT = Deployment(
    'report', 'paused', 'outcomes.py:succeeds', 'default', PAUSED_WORK_POOL, ('cron', '0 * * * *'), is_paused=True
)
INVOICES = Deployment('invoices', 'on-demand', 'outcomes.py:fails_at_first', 'critical')
IMAGE_IMPORT = Deployment('image-import', 'on-demand', 'outcomes.py:crashes', 'critical')
BACKFILL = Deployment(
    'backfill',
    'on-demand',
    'outcomes.py:runs_long',
    'critical',
    concurrency_limit=4,
    tags=('expect:max_run_time=2s',),
)
INVENTORY = Deployment('inventory', 'on-demand', 'outcomes.py:times_out', 'critical')
WEATHER = Deployment('weather', 'on-demand', 'retries.py:weather', 'critical')
PAYOUT = Deployment(
    'payout', 'on-demand', 'approval.py:waits_for_approval', 'critical', tags=('team:finance', 'audited')
)
REGIONS = Deployment('regions', 'on-demand', 'regions.py:regions', 'critical')
BANK_STATEMENTS = Deployment('bank-statements', 'on-demand', 'task_states.py:bank_statements', 'critical')

DEPLOYMENTS = (
    ORDERS,
    REPORT,
    LIMITED_REPORT,
    FROZEN_REPORT,
    NIGHTLY_REPORT,
    PAUSED_REPORT,
    INVOICES,
    IMAGE_IMPORT,
    BACKFILL,
    INVENTORY,
    WEATHER,
    PAYOUT,
    REGIONS,
    BANK_STATEMENTS,
)


class Workload:
    """The stories, and the Prefect processes that they need. A context manager: at the end the processes are stopped.

    `python` is the interpreter of an environment that has Prefect, by default that of `prefect_server`. `settings` are
    Prefect settings for the worker, its flow runs and the scripts, as environment variables.
    """

    def __init__(
        self,
        api_url: str,
        *,
        python: Path | None = None,
        settings: Mapping[str, str] | None = None,
        limit_seconds: float = LIMIT_SECONDS,
    ) -> None:
        self._api_url = api_url
        self._python = python
        self._settings = dict(settings or {})
        self._limit_seconds = limit_seconds
        self._api = PrefectApiDriver(api_url)
        self._worker = Worker(api_url, WORK_POOL, python=python, settings=WORKER_SETTINGS | self._settings)
        self._scripts: list[FlowScript] = []
        self._deployment_ids: dict[Deployment, str] = {}
        self._state_types: dict[str, str] = {}
        self._stories: dict[str, Story] = {}
        self._started_at = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for process in (*self._scripts, self._worker):
            process.stop()
        self._api.close()

    def set_up(self) -> None:
        """Create work pools, work queues and deployments. Nothing is due yet."""
        self._api.create_work_pool(WORK_POOL, concurrency_limit=6)
        self._api.create_work_pool(UNATTENDED_WORK_POOL)
        self._api.create_work_pool(PAUSED_WORK_POOL, is_paused=True)
        for queue in WORK_QUEUES:
            self._api.create_work_queue(
                queue.work_pool_name,
                queue.name,
                concurrency_limit=queue.concurrency_limit,
                priority=queue.priority,
            )
            if queue.is_paused:
                self._api.update_work_queue(queue.work_pool_name, queue.name, is_paused=True)
        for deployment in DEPLOYMENTS:
            self._deployment_ids[deployment] = self._api.create_deployment(
                flow_name=deployment.flow_name,
                name=deployment.name,
                entrypoint=deployment.entrypoint,
                work_pool_name=deployment.work_pool_name,
                work_queue_name=deployment.work_queue_name,
                schedules=[dict([deployment.schedule])] if deployment.schedule else [],
                paused=deployment.is_paused,
                concurrency_limit=deployment.concurrency_limit,
                tags=deployment.tags,
            )
        self._leak_slots()
        self._automate()

    def _automate(self) -> None:
        """An automation that reacts on each crash: it does nothing, which works, and runs what was deleted."""
        trigger = {
            'type': 'event',
            'posture': 'Reactive',
            'expect': ['prefect.flow-run.Crashed'],
            'match': {'prefect.resource.id': 'prefect.flow-run.*'},
            'threshold': 1,
            'within': 0,
        }
        deleted = {'type': 'run-deployment', 'source': 'selected', 'deployment_id': NO_DEPLOYMENT}
        automation = {'name': AUTOMATION, 'trigger': trigger, 'actions': [{'type': 'do-nothing'}, deleted]}
        self._api.request('POST', 'automations/', automation)

    def _leak_slots(self) -> None:
        """Take slots that nobody gives back."""
        self._api.create_tag_limit(LIMITED_TAG, 2)
        self._api.create_concurrency_limit(GLOBAL_LIMIT, 4)
        for name in (GLOBAL_LIMIT, f'deployment:{self._deployment_ids[BACKFILL]}'):
            self._api.take_slot(name)

    def start(self) -> None:
        """Start the worker, beside one that is never heard of again, and open the stories."""
        self._api.send_heartbeat(WORK_POOL, 'killed', interval_seconds=1)
        self._worker.start()
        self._started_at = time.monotonic()
        stories: tuple[Callable[[], Story], ...] = (
            self._nobody_fetches,
            self._cancelled_while_running,
            self._retried_by_hand,
            self._waits_for_approval,
            self._retries_with_delay,
            self._takes_every_task_state,
            self._crashes,
            self._has_subflows,
            self._stays_in_short_states,
            self._times_out,
            self._shares_one_slot,
            self._awaits_a_slot,
            self._runs_without_deployment,
            self._runs_in_the_background,
            self._loses_its_process,
            self._runs_on_schedule,
        )
        self._stories = {(story.__doc__ or '').strip(): story() for story in stories}

    @property
    def is_done(self) -> bool:
        return not self._stories

    @property
    def activities(self) -> tuple[str, ...]:
        """What goes on now: the stories that have not ended."""
        return tuple(self._stories)

    @property
    def seconds(self) -> float:
        """How long the stories have been going on."""
        return time.monotonic() - self._started_at

    @property
    def flow_run_ids(self) -> Collection[str]:
        """The flow runs that the stories asked for (not those of schedules and scripts)."""
        return tuple(self._state_types)

    @property
    def log_paths(self) -> dict[str, Path]:
        """The logs of what was started: of the worker with its flow runs, and of the script."""
        return {'worker': self._worker.log_path} | {script.file_path.stem: script.log_path for script in self._scripts}

    def tick(self) -> None:
        """Look at the server once and let every story go on as far as it can.

        Raises WorkloadError when the worker has ended or the stories take longer than the limit.
        """
        if not self._worker.is_running:
            raise WorkloadError(f'the worker ended:\n{self._worker.process.log_tail()}')
        if self.seconds > self._limit_seconds:
            waiting = '; '.join(self.activities)
            raise WorkloadError(
                f'after {self.seconds:.0f} s these did not come to an end: {waiting}\n{self._worker.process.log_tail()}'
            )
        self._state_types.update(self._api.flow_run_state_types(self._state_types))
        ended = [description for description, story in self._stories.items() if next(story, 'ended') == 'ended']
        for description in ended:
            del self._stories[description]

    def run(self) -> None:
        """Play all stories to their end (for callers that have nothing else to do meanwhile)."""
        while not self.is_done:
            self.tick()
            time.sleep(TICK_SECONDS)

    # What the stories are made of

    def _ask_for(self, deployment: Deployment, **parameters: float) -> str:
        flow_run_id = self._api.create_flow_run(self._deployment_ids[deployment], parameters=parameters)
        self._state_types[flow_run_id] = 'SCHEDULED'
        return flow_run_id

    def _until(self, flow_run_id: str, *state_types: str) -> Story:
        """Wait until the run is in one of these states; a run that ends otherwise is an error."""
        while (now := self._state_types[flow_run_id]) not in state_types:
            if now in TERMINAL_STATE_TYPES:
                flow_run = self._api.flow_run(flow_run_id)
                if not NOT_SUBMITTED.match(flow_run['state']['message'] or ''):
                    wanted = f'{now}, not {" or ".join(state_types)}'
                    raise WorkloadError(f'flow run {flow_run["name"]} is {wanted}:\n{self._worker.process.log_tail()}')
                # A worker gives up if SQLite stays locked (3.8.8 on a busy machine). Then a person retries.
                yield from self._retry(flow_run_id, *state_types)
                return
            yield

    def _retry(self, flow_run_id: str, *state_types: str) -> Story:
        """Retry by hand, and wait until the run is in one of these states."""
        self._api.retry_flow_run(flow_run_id)
        self._state_types[flow_run_id] = 'SCHEDULED'
        yield from self._until(flow_run_id, *state_types)

    def _cancel_unstarted(self, flow_run_id: str) -> None:
        """Cancel a run that never started, which is done at once: the server has no process to wait for."""
        self._api.set_flow_run_state(flow_run_id, 'CANCELLED')
        self._state_types[flow_run_id] = 'CANCELLED'

    @staticmethod
    def _pause(seconds: float) -> Story:
        """Wait for the ticks of so many seconds: what goes on between them gets its turns, on a slow server, too."""
        for _ in range(round(seconds / TICK_SECONDS)):
            yield

    # The stories

    def _cancelled_while_running(self) -> Story:
        """a long flow run takes longer than its deployment says, and is cancelled by hand"""
        flow_run = self._ask_for(BACKFILL)
        yield from self._until(flow_run, 'RUNNING')
        # Long enough for a check, three seconds after the last one, to see that it takes more than two.
        yield from self._pause(8)
        self._api.cancel_flow_run(flow_run)
        self._state_types[flow_run] = 'CANCELLING'
        yield from self._until(flow_run, 'CANCELLED')

    def _retried_by_hand(self) -> Story:
        """a failed flow run is retried by hand"""
        flow_run = self._ask_for(INVOICES)
        yield from self._until(flow_run, 'FAILED')
        # At once: checks in between never see the run FAILED, only the history of its states tells it. The worker, and
        # in it the runner, may each take the end of the failed process for a crash of the run that waits (3.0-3.7).
        for _ in range(3):
            if self._state_types[flow_run] != 'COMPLETED':
                yield from self._retry(flow_run, 'COMPLETED', 'CRASHED')
        yield from self._until(flow_run, 'COMPLETED')

    def _waits_for_approval(self) -> Story:
        """a flow run pauses until somebody resumes it"""
        flow_run = self._ask_for(PAYOUT)
        yield from self._until(flow_run, 'PAUSED')
        yield from self._pause(6)
        self._api.resume_flow_run(flow_run)
        yield from self._until(flow_run, 'COMPLETED')

    def _retries_with_delay(self) -> Story:
        """a flow fails twice and retries by itself, 4 s later each time"""
        yield from self._until(self._ask_for(WEATHER), 'COMPLETED')

    def _takes_every_task_state(self) -> Story:
        """tasks fail, crash, time out, pause, are cancelled, wait for others, keep the slot of a tag"""
        flow_run = self._ask_for(BANK_STATEMENTS)
        yield from self._until(flow_run, 'COMPLETED')
        ended = {'flow_run_id': {'any_': [flow_run]}, 'state': {'type': {'any_': ['COMPLETED']}}}
        while not (task_runs := self._api.read_all('task_runs/filter', {'task_runs': ended})):
            yield
        self._api.take_tag_slot(LIMITED_TAG, task_runs[0]['id'])

    def _crashes(self) -> Story:
        """a flow run's process is killed (SIGKILL)"""
        yield from self._until(self._ask_for(IMAGE_IMPORT), 'CRASHED')

    def _has_subflows(self) -> Story:
        """a flow runs subflows"""
        yield from self._until(self._ask_for(REGIONS), 'COMPLETED')

    def _stays_in_short_states(self) -> Story:
        """a flow run and its task run, driven over the REST API, stay in states that usually pass quickly"""
        # While a server stands still no check sees what a process enters and leaves.
        created = {'flow_id': self._api.create_flow(DRIVEN_FLOW), 'state': {'type': 'RUNNING'}}
        flow_run = self._api.request('POST', 'flow_runs/', created)['id']
        task_run = self._api.create_task_run(flow_run, 'stands_in')
        for state_type, name in (('SCHEDULED', 'AwaitingRetry'), ('PAUSED', None)):
            self._api.set_task_run_state(task_run, state_type, name=name)
            yield from self._pause(SEEN_SECONDS)
        self._api.set_task_run_state(task_run, 'COMPLETED')
        for state_type, name in (('SCHEDULED', 'AwaitingRetry'), ('PENDING', None), ('CANCELLING', None)):
            self._api.set_flow_run_state(flow_run, state_type, name=name, force=True)
            yield from self._pause(SEEN_SECONDS)
        self._api.set_flow_run_state(flow_run, 'CANCELLED', force=True)

    def _times_out(self) -> Story:
        """a flow run exceeds its timeout"""
        yield from self._until(self._ask_for(INVENTORY), 'FAILED')

    def _shares_one_slot(self) -> Story:
        """three flow runs share a queue with one slot"""
        # So long that a server which stands still does not hide what waits: a worker counts as offline meanwhile.
        for flow_run in [self._ask_for(REPORT, seconds=8) for _ in range(3)]:
            yield from self._until(flow_run, 'COMPLETED')

    def _awaits_a_slot(self) -> Story:
        """the only slot of a deployment is taken: a flow run waits for it"""
        # Taken over the API and not by another flow run: in a full work pool the two may run one after the other.
        slot = f'deployment:{self._deployment_ids[LIMITED_REPORT]}'
        self._api.take_slot(slot)
        flow_run = self._ask_for(LIMITED_REPORT)
        while self._api.flow_run(flow_run)['state_name'] != 'AwaitingConcurrencySlot':
            yield
        yield from self._pause(10)
        self._api.give_slot_back(slot)
        # A worker of that age never again takes a flow run that got no slot (seen on 3.0.11, no longer on 3.2.15).
        if release(self._api.version()) < (3, 2):
            self._cancel_unstarted(flow_run)
        else:
            yield from self._until(flow_run, 'COMPLETED')

    def _runs_without_deployment(self) -> Story:
        """a script runs flows without a deployment"""
        yield from self._until_ended(self._start_script('script.py'))

    def _runs_in_the_background(self) -> Story:
        """background tasks wait until a task worker is started, one of them forever"""
        yield from self._until_ended(self._start_script('thumbnails.py'))
        yield from self._pause(6)
        # It listens until the end.
        workers = [self._start_script('thumbnail_worker.py')]
        of_none = {'flow_run_id': {'is_null_': True}, 'state': {'type': {'any_': ['COMPLETED']}}}
        asked_at = time.monotonic()
        while self._api.count_task_runs(task_runs=of_none) < 3:
            if not workers[-1].is_running:
                if len(workers) == MOST_TASK_WORKERS:
                    raise WorkloadError(f'the task worker ended:\n{workers[-1].process.log_tail()}')
                # It ends if the server does not accept its connection in time (3.0.11 on a busy machine).
                workers.append(self._start_script('thumbnail_worker.py'))
            if time.monotonic() - asked_at > THUMBNAIL_SECONDS:
                # A busy server with SQLite can lose the event that says that a task run has ended.
                yield from self._until_ended(self._start_script('thumbnails.py', ONE_THUMBNAIL='1'))
                asked_at = time.monotonic()
            yield

    def _start_script(self, file_name: str, **settings: str) -> FlowScript:
        script = FlowScript(self._api_url, file_name, python=self._python, settings={**self._settings, **settings})
        self._scripts.append(script.start())
        return script

    @staticmethod
    def _until_ended(script: FlowScript) -> Story:
        while script.is_running:
            yield
        if script.process.exit_status:
            raise WorkloadError(f'the script failed:\n{script.process.log_tail()}')

    def _loses_its_process(self) -> Story:
        """a flow run stays RUNNING without its process, then somebody calls it crashed: an automation reacts"""
        # Its heartbeats are sent over the REST API, so that they are nearer together than those of a process.
        flow = self._api.request('POST', 'flows/', {'name': ABANDONED_FLOW})['id']
        running = {'type': 'RUNNING', 'name': 'Running'}
        flow_run = self._api.request('POST', 'flow_runs/', {'flow_id': flow, 'state': running})['id']
        beats = []
        for _ in range(4):
            yield from self._pause(BEAT_SECONDS)
            self._api.send_flow_run_heartbeat(flow_run)
            beats.append(time.monotonic())
        # The server writes them down every 5 s. The run is lost three intervals later; a busy machine makes them long.
        yield from self._pause(LOST_SECONDS + 3 * max(later - earlier for earlier, later in pairwise(beats)))
        self._api.set_flow_run_state(flow_run, 'CRASHED', force=True)
        while self._api.count_events(['prefect.automation.action.failed']) == 0:
            yield from self._pause(1)

    def _nobody_fetches(self) -> Story:
        """flow runs go Late: no worker in the pool, a paused pool, a paused queue, where a success is expected"""
        self._ask_for(FROZEN_REPORT)
        self._ask_for(PAUSED_REPORT)
        first = self._ask_for(NIGHTLY_REPORT)
        second = self._ask_for(NIGHTLY_REPORT)
        while self._api.count_flow_runs(flow_runs={'state': {'name': {'any_': ['Late']}}}) < 4:
            yield from self._pause(2)
        self._cancel_unstarted(first)
        yield from self._pause(SETTLE_SECONDS)
        if self._state_types[second] != 'SCHEDULED':
            raise WorkloadError('a flow run was fetched from a pool that has no worker')

    def _runs_on_schedule(self) -> Story:
        """a pipeline of tasks runs every 30 s"""
        while len(self._stories) > 1 or self._count_orders('COMPLETED') < 2:
            yield
        # To pause deletes what is scheduled; what has started comes to its end.
        self._api.pause_deployment(self._deployment_ids[ORDERS])
        while self._count_orders('SCHEDULED', 'PENDING', 'RUNNING'):
            yield
        yield from self._pause(SETTLE_SECONDS)

    def _count_orders(self, *state_types: str) -> int:
        return self._api.count_flow_runs(
            flow_runs={
                'deployment_id': {'any_': [self._deployment_ids[ORDERS]]},
                'state': {'type': {'any_': list(state_types)}},
            }
        )
