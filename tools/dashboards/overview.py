"""`Prefect overview`: from the question whether anything is wrong down to the cause, for whole servers."""

from __future__ import annotations

from functools import partial

from datadog_checks.prefect import tags
from tools.dashboards.widgets import (
    ACTIVE,
    ALIVE,
    ANY_IS_BAD,
    AS_PERCENT,
    BAD,
    BY_DEPLOYMENT,
    BY_FAILURE,
    BY_POOL,
    BY_QUEUE,
    BY_REASON,
    BY_SERVER,
    BY_TASK,
    ENDING,
    GOOD,
    IF_ONE,
    IF_ZERO,
    MINUTES_LATE,
    MUST_BE_ONE,
    NEUTRAL,
    NOT_ZERO,
    OR_ZERO,
    PERCENT_OF_EXPECTED,
    PERCENT_TAKEN,
    STARTING,
    SUCCESS_PERCENT,
    TO_AUTOMATION,
    TO_DEPLOYMENT,
    TO_FLOW,
    TO_LIMITS,
    TO_POOLS,
    WAITING,
    WARN,
    Dashboard,
    Formula,
    Limits,
    Widget,
    events,
    flag,
    graph,
    group,
    late_start_rate,
    logs,
    monitors,
    note,
    number,
    number_of_zeros,
    objectives,
    of_hosts,
    query,
    show,
    starts,
    success_rate,
    table,
    top,
)

HEARTBEAT_AGE = Limits(45, 90)
FAILURES_IN_A_ROW = Limits(0, 2)
SECONDS_OF_LAG = Limits(60, 300)
SECONDS_OF_CHECK = Limits(5, 10)
BY_LIMIT = ('concurrency_limit_name', 'concurrency_limit_type')
BY_BACKGROUND_TASK = (tags.TASK_NAME, tags.TASK_KEY)
BY_AUTOMATION = (tags.AUTOMATION_NAME, tags.AUTOMATION_ID)

# What the rows of tables are. Links need the ids.
ROW_OF_DEPLOYMENT = (*BY_DEPLOYMENT, *BY_SERVER, tags.DEPLOYMENT_ID)
ROW_OF_QUEUE = (*BY_QUEUE, tags.WORK_QUEUE_PRIORITY, *BY_SERVER)
ROW_OF_LIMIT = (*BY_LIMIT, *BY_SERVER)
ROW_OF_AUTOMATION = (tags.AUTOMATION_NAME, *BY_SERVER, tags.AUTOMATION_ID)
per_deployment = partial(show, by=ROW_OF_DEPLOYMENT)
per_queue = partial(show, by=ROW_OF_QUEUE)
per_task = partial(show, by=(*BY_TASK, *BY_SERVER, tags.FLOW_ID))
per_limit = partial(show, by=ROW_OF_LIMIT)
per_automation = partial(show, by=ROW_OF_AUTOMATION)
per_cause = partial(show, by=(*BY_REASON, *BY_QUEUE, *ROW_OF_DEPLOYMENT), form=NOT_ZERO)

FAILED_OR_CRASHED = Formula(
    'default_zero(failed + crashed) + 0 * alive',
    (
        query('sum', 'flow_runs.failed.count', name='failed'),
        query('sum', 'flow_runs.crashed.count', name='crashed'),
        ALIVE,
    ),
    unit='run',
)
LEAKED_SLOTS = Formula(
    'default_zero(of_limits) + default_zero(of_deployments) + 0 * alive',
    (
        query('sum', 'concurrency_limit.leaked_slots', name='of_limits'),
        query('sum', 'deployment.concurrency.leaked_slots', name='of_deployments'),
        ALIVE,
    ),
    limits=ANY_IS_BAD,
)
MISSED_SUCCESSES = Formula(
    'default_zero(count_nonzero(cutoff_min(ratios, 1))) + 0 * alive',
    (query('max', 'deployment.expectation.max_age_ratio', (*BY_DEPLOYMENT, *BY_SERVER), name='ratios'), ALIVE),
    limits=ANY_IS_BAD,
)
# Where the credentials are refused, all parts fail: that has a tile of its own.
FAILED_PARTS = Formula(
    '(count_not_null(parts) - count_nonzero(parts)) * authorized',
    (
        query('min', 'collector.success', ('collector', *BY_SERVER), name='parts', reducer='min'),
        query('min', 'api.authorized', name='authorized'),
    ),
    limits=ANY_IS_BAD,
)


def outcomes(family: str) -> tuple[Formula, ...]:
    """What ended, in the colours of both dashboards."""
    return (
        show('sum', f'{family}.completed.count', alias='completed', color=GOOD),
        show('sum', f'{family}.failed.count', alias='failed', color=BAD),
        show('sum', f'{family}.crashed.count', alias='crashed', color=WARN),
        show('sum', f'{family}.cancelled.count', alias='cancelled', color=NEUTRAL),
    )


def of_expected(title: str, ratio: str) -> Widget:
    """A ratio of `deployment.expectation.*` by deployment and by where the expectation comes from, in percent."""
    by = (*BY_DEPLOYMENT, tags.EXPECTATION_SOURCE)
    value = show('max', f'deployment.expectation.{ratio}', by, form=AS_PERCENT)
    return graph(title, value, limits=PERCENT_OF_EXPECTED, width=6)


def states_of_flow_runs() -> tuple[Formula, ...]:
    """What flow runs do now, from those that work to those that wait."""
    return (
        show('sum', 'flow_runs.running', alias='running', color=ACTIVE),
        show('sum', 'flow_runs.pending', alias='pending', color=STARTING),
        show('sum', 'flow_runs.late', alias='late', color=BAD),
        show('sum', 'flow_runs.awaiting_retry', alias='awaiting retry', color=WARN),
        show('sum', 'flow_runs.awaiting_concurrency', alias='awaiting a concurrency slot', color=WAITING),
        show('sum', 'flow_runs.paused', alias='paused', color=NEUTRAL),
        show('sum', 'flow_runs.cancelling', alias='cancelling', color=ENDING),
    )


ABOUT = note(
    '**Read from the top**: is anything wrong, what does not start, what fails, and then the parts that may be the '
    'cause. **Green** is good, **yellow** deserves a look, **red** needs somebody; a number without a color is no '
    'verdict. In graphs blue works, purple waits and gray is neither; vertical lines are changes of objects (with '
    '`collect_events` and the names of changes in `event_names`). The variables above narrow each widget that knows '
    'them: pools know no deployment, services only the server. **No data** in a tile: the check has sent nothing for '
    'five minutes. A click on a row of a table opens the object in Prefect.\n\n'
    '[Prefect deployments](/dashboard/lists?q=Prefect%20deployments) | Runbook: docs/runbook.md | '
    '[Work pools, queues and workers](https://docs.prefect.io/v3/concepts/work-pools) | '
    '[Concurrency limits](https://docs.prefect.io/v3/concepts/global-concurrency-limits) | '
    '[States of a run](https://docs.prefect.io/v3/concepts/states)',
    color='white',
)

NOW = group(
    'Is anything wrong now?',
    note(
        '**Look at** what is red, the first row first: it explains the others. **Do**: *Servers that report* is No '
        'data: the Agent is dead, and the rest of this page is old. A server is down, or without its database: see '
        'its log. It refuses the check (401, 403): correct the credentials; runs go on. A service is dead: see '
        '*Background services of the server*. Late runs: *What does not start?* has the reason. A low success rate: '
        'see *What fails, and what takes long?* '
        'The third row is of the last hour.',
    ),
    number(
        'Servers that report',
        Formula('count_not_null(servers)', (query('min', 'health', BY_SERVER, name='servers'),), limits=MUST_BE_ONE),
    ),
    number('Servers down', number_of_zeros('health', BY_SERVER)),
    number(
        'Servers without database',
        Formula(
            'count_nonzero(up) - count_nonzero(ready)',
            (query('min', 'health', BY_SERVER, name='up'), query('min', 'ready', BY_SERVER, name='ready')),
            limits=ANY_IS_BAD,
        ),
    ),
    number('Servers refuse the check', number_of_zeros('api.authorized', BY_SERVER)),
    number('Parts of the check failed', FAILED_PARTS),
    number('Dead background services', number_of_zeros('service.is_healthy', ('background_service', *BY_SERVER))),
    number('Oldest late run', show('max', 'flow_runs.late.max_age', form=OR_ZERO, limits=MINUTES_LATE), graph=True),
    number('Late runs', show('sum', 'flow_runs.late', form=OR_ZERO), graph=True),
    number('Successes missing', MISSED_SUCCESSES),
    number('Runs without a heartbeat', show('sum', 'flow_runs.heartbeat_lost', form=OR_ZERO, limits=ANY_IS_BAD)),
    number('Leaked slots', LEAKED_SLOTS),
    number('Workers online', show('sum', 'work_pool.workers.online'), graph=True),
    number('Success rate', success_rate('flow_runs', limits=SUCCESS_PERCENT), span='1h'),
    number('Failed or crashed', FAILED_OR_CRASHED, span='1h'),
    number('Started late', late_start_rate('flow_runs'), span='1h'),
    number('Slowest 5 % of runs', show('max', 'flow_runs.execution_duration.95percentile'), span='1h'),
    number('Longest wait for a retry', show('max', 'flow_runs.retry_gaps_duration.max'), span='1h'),
    number(
        'Failed actions',
        show('sum', 'automation.action.failed.count', form=OR_ZERO, limits=ANY_IS_BAD),
        span='1h',
    ),
    top('Late runs by reason', show('sum', 'flow_runs.late', BY_REASON, form=NOT_ZERO)),
    top(
        'Failures in a row by deployment',
        show('max', 'deployment.consecutive_failures', BY_DEPLOYMENT, form=NOT_ZERO, limits=FAILURES_IN_A_ROW),
    ),
    objectives(),
    monitors(height=3),
    events('Warnings and errors among the events', 'status:(error OR warning)', width=4, height=3),
    logs('Errors in the logs', 'status:(error OR critical)', width=4, height=3),
    color='vivid_blue',
)

LATE = group(
    'What does not start?',
    note(
        '**Look at** the reason, then at the age. **Do**: `no_worker`: start a worker of the pool. `pool_paused`, '
        '`queue_paused`, `deployment_paused`: somebody paused it; resume it, or cancel the runs. `pool_limit`, '
        '`queue_limit`, `deployment_limit`: raise the limit, or find what holds the slots (*Concurrency limits*). '
        '`work_not_picked_up`: the worker is online and does not poll this queue: read its log, restart it.'
    ),
    graph('Late runs by reason', show('sum', 'flow_runs.late', BY_REASON), display='bars'),
    graph(
        'Age of the oldest late run by reason',
        show('max', 'flow_runs.late.max_age', BY_REASON),
        limits=MINUTES_LATE,
    ),
    graph(
        'Wait for a start: slowest 5 % by deployment',
        show('max', 'flow_runs.queue_wait_duration.95percentile', BY_DEPLOYMENT),
        has_events=True,
    ),
    table(
        'Late runs by reason, queue and deployment',
        per_cause('sum', 'flow_runs.late', alias='late runs'),
        per_cause('max', 'flow_runs.late.max_age', alias='age of the oldest', limits=MINUTES_LATE),
        sort_by=1,
        links=(TO_DEPLOYMENT, TO_POOLS),
        height=3,
    ),
    color='vivid_orange',
)

FLOW_RUNS = group(
    'What fails, and what takes long?',
    note(
        '**Look at** the reasons, then at the deployments. A *crash* is a process that died (memory, eviction), a '
        '*failure* is an exception or a time-out. **Do**: open the deployment in Prefect from the table, read the '
        'log of its last run. `out_of_memory`, `killed`: give it more memory. A run without a heartbeat has lost its '
        'process: set it to Crashed. One that runs far longer than usual may be hung: see *Longest running now*. '
        'Percentiles are of the slowest deployment: those of several cannot be averaged.'
    ),
    graph('Flow runs that ended', *outcomes('flow_runs'), display='bars', has_events=True),
    graph('Failures by reason', show('sum', 'flow_runs.failures.count', BY_FAILURE), display='bars', has_events=True),
    top(
        'Most failures by deployment and reason',
        show('sum', 'flow_runs.failures.count', (*BY_DEPLOYMENT, *BY_FAILURE), form=NOT_ZERO),
    ),
    graph('Flow runs now', *states_of_flow_runs(), display='area'),
    graph('Flow runs that started', *starts('flow_runs'), display='bars'),
    top(
        'Lowest success rate by deployment',
        success_rate('flow_runs', BY_DEPLOYMENT, limits=SUCCESS_PERCENT),
        order='asc',
    ),
    graph(
        'Execution: slowest 5 % by deployment',
        show('max', 'flow_runs.execution_duration.95percentile', BY_DEPLOYMENT),
        has_events=True,
    ),
    graph('Waits for a retry: longest by deployment', show('max', 'flow_runs.retry_gaps_duration.max', BY_DEPLOYMENT)),
    graph('Longest running now by deployment', show('max', 'flow_runs.running.max_age', BY_DEPLOYMENT)),
    graph(
        'Longest in a state that should pass',
        show('max', 'flow_runs.pending.max_age', alias='pending', color=STARTING),
        show('max', 'flow_runs.cancelling.max_age', alias='cancelling', color=ENDING),
        show('max', 'flow_runs.paused.max_age', alias='paused', color=NEUTRAL),
        limits=MINUTES_LATE,
        width=6,
    ),
    graph('Time since the last heartbeat', show('max', 'flow_runs.heartbeat.max_age', BY_DEPLOYMENT), width=6),
    table(
        'Flow runs by deployment',
        per_deployment('sum', 'flow_runs.throughput', alias='started'),
        per_deployment('sum', 'flow_runs.completed.count', alias='completed'),
        per_deployment('sum', 'flow_runs.failed.count', alias='failed', limits=ANY_IS_BAD),
        per_deployment('sum', 'flow_runs.crashed.count', alias='crashed', limits=ANY_IS_BAD),
        per_deployment('sum', 'flow_runs.cancelled.count', alias='cancelled'),
        per_deployment('max', 'flow_runs.execution_duration.max', alias='longest run', is_bar=True),
        sort_by=2,
        links=(TO_DEPLOYMENT,),
        height=5,
    ),
    color='vivid_purple',
)

FRESHNESS = group(
    'Are deployments up to date?',
    note(
        '**Look at** what is above 100 %: a success is missing, or a run takes too long. Expected is what '
        '`expectations` or a tag in Prefect says, else what schedule and history tell. **Do**: failures in a row: read '
        'the log of its last run. A schedule without a run: the scheduler of the server does not keep up (*Background '
        'services of the server*), or the schedule has ended. A paused deployment, and one on demand, has no '
        'expectation: its cells are empty. One that was deleted is gone after five minutes.'
    ),
    of_expected('Time since the last success, of what is expected', 'max_age_ratio'),
    of_expected('Run time now, of what is expected', 'max_run_time_ratio'),
    table(
        'Freshness by deployment',
        per_deployment(
            'max',
            'deployment.expectation.max_age_ratio',
            alias='success, of expected age',
            form=AS_PERCENT,
            limits=PERCENT_OF_EXPECTED,
        ),
        per_deployment('max', 'deployment.consecutive_failures', alias='failures in a row', limits=FAILURES_IN_A_ROW),
        per_deployment('max', 'deployment.seconds_since_success', alias='since the last success'),
        per_deployment('min', 'deployment.seconds_until_next_run', alias='until the next run'),
        per_deployment('sum', 'deployment.schedules.active', alias='active schedules'),
        flag('max', 'deployment.schedules.is_without_run', IF_ONE, ROW_OF_DEPLOYMENT, 'schedule without run'),
        flag('min', 'deployment.is_ready', IF_ZERO, ROW_OF_DEPLOYMENT, 'not ready', is_bad=False),
        links=(TO_DEPLOYMENT,),
        height=5,
    ),
)

QUEUES = group(
    'Work pools and work queues',
    note(
        '**Look at** queues by pool *and* name: each pool has one called `default`. **Do**: a backlog that ages in '
        'a queue that is polled: the workers or the slots do not suffice. A queue that is not polled: no worker '
        'serves it. Slots at 100 % for long: raise the limit of the queue or pool, or look for runs that hang.'
    ),
    graph('Backlog by queue', show('sum', 'work_queue.backlog.size', BY_QUEUE), display='area'),
    graph('Age of the backlog by queue', show('max', 'work_queue.backlog.age', BY_QUEUE), limits=MINUTES_LATE),
    top('Longest not polled by queue', show('max', 'work_queue.last_polled_age_seconds', BY_QUEUE)),
    top('Slots in use by queue', show('max', 'work_queue.concurrency.in_use', BY_QUEUE, limits=PERCENT_TAKEN)),
    graph('Slots in use by pool', show('max', 'work_pool.concurrency.in_use', BY_POOL), limits=PERCENT_TAKEN),
    graph(
        'Work pools by status',
        show('sum', 'work_pool.is_ready', alias='ready', color=GOOD),
        show('sum', 'work_pool.is_not_ready', alias='not ready', color=BAD),
        show('sum', 'work_pool.is_paused', alias='paused', color=NEUTRAL),
        display='area',
    ),
    table(
        'Work queues',
        per_queue('max', 'work_queue.backlog.size', alias='due runs', is_bar=True),
        per_queue('max', 'work_queue.backlog.age', alias='the oldest of them', limits=MINUTES_LATE),
        per_queue('max', 'work_queue.last_polled_age_seconds', alias='since the last poll'),
        per_queue('max', 'work_queue.concurrency.active_slots', alias='slots in use'),
        per_queue('max', 'work_queue.concurrency.limit', alias='limit'),
        flag('max', 'work_queue.is_not_ready', IF_ONE, ROW_OF_QUEUE, 'not ready', is_bad=False),
        flag('max', 'work_queue.is_paused', IF_ONE, ROW_OF_QUEUE, 'paused', is_bad=False),
        links=(TO_POOLS,),
    ),
)

WORKERS = group(
    'Workers',
    note(
        '**Look at** pools whose workers went away, at heartbeats older than 90 s, and at exit codes: 137 and -9 are '
        'kills, most often for memory. **Do**: start or restart the worker; if many are offline at once, look at what '
        'they run on: choose **worker_host** above. A worker counts as offline until `worker_retention` has passed '
        'since its last heartbeat, then it is forgotten. Push and managed pools have none.'
    ),
    graph('Workers online by pool', show('sum', 'work_pool.workers.online', BY_POOL), display='area'),
    graph('Workers offline by pool', show('sum', 'work_pool.workers.offline', BY_POOL), display='area'),
    top(
        'Oldest heartbeats',
        show('max', 'work_pool.worker.heartbeat_age_seconds', (*BY_POOL, 'worker_name'), limits=HEARTBEAT_AGE),
    ),
    graph(
        'Flow runs that workers started, by pool',
        show('sum', 'work_pool.flow_runs.submitted.count', BY_POOL),
        display='bars',
        width=3,
    ),
    graph(
        'Flow runs that ended, by exit code',
        show('sum', 'work_pool.flow_runs.exited.count', (*BY_POOL, tags.EXIT_CODE)),
        display='bars',
        width=3,
    ),
    graph('Load per processor, by host', of_hosts('max', 'system.load.norm.1', '{}', ''), width=3),
    graph('Memory in use, by host', of_hosts('min', 'system.mem.pct_usable', '100 * (1 - {})', 'percent'), width=3),
)

TASKS = group(
    'Tasks',
    note(
        '**Look at** the task that fails or takes long, then at its flow. **Do**: failures of one task with many '
        'flows point to what it talks to. A long wait for dependencies is a flow that is too narrow, a long wait in '
        'Pending a task runner without free threads. Only tasks of flow runs that run now are counted as running or '
        'pending.'
    ),
    graph('Task runs that ended', *outcomes('task_runs'), display='bars', has_events=True),
    graph(
        'Failures of tasks by reason',
        show('sum', 'task_runs.failures.count', BY_FAILURE),
        display='bars',
        has_events=True,
    ),
    top('Most failures by task', show('sum', 'task_runs.failed.count', BY_TASK, form=NOT_ZERO)),
    graph(
        'Task runs now',
        show('sum', 'task_runs.running', alias='running', color=ACTIVE),
        show('sum', 'task_runs.pending', alias='pending', color=STARTING),
        show('sum', 'task_runs.awaiting_retry', alias='awaiting retry', color=WARN),
        show('sum', 'task_runs.paused', alias='paused', color=NEUTRAL),
        display='area',
        width=3,
    ),
    graph(
        'Execution: slowest 5 % by task',
        show('max', 'task_runs.execution_duration.95percentile', BY_TASK),
        width=3,
        has_events=True,
    ),
    graph('Longest running now by task', show('max', 'task_runs.running.max_age', BY_TASK), width=3),
    top('Longest wait for other tasks', show('max', 'task_runs.dependency_wait_duration.max', BY_TASK), width=3),
    table(
        'Task runs by flow and task',
        per_task('sum', 'task_runs.throughput', alias='started'),
        per_task('sum', 'task_runs.completed.count', alias='completed'),
        per_task('sum', 'task_runs.failed.count', alias='failed', limits=ANY_IS_BAD),
        per_task('sum', 'task_runs.crashed.count', alias='crashed', limits=ANY_IS_BAD),
        per_task('sum', 'task_runs.late_start.count', alias='started late'),
        per_task('max', 'task_runs.execution_duration.max', alias='longest run', is_bar=True),
        per_task('max', 'task_runs.dependency_wait_duration.max', alias='longest wait for other tasks'),
        sort_by=2,
        links=(TO_FLOW,),
        height=5,
    ),
)

BACKGROUND_TASKS = group(
    'Background tasks',
    note(
        '**Look at** tasks that wait while no task worker listens for them. **Do**: start the process that calls '
        '`serve()`. If one listens and the wait grows, start more of them. If one listens under another key, the task '
        'was renamed or moved: restart it with the new code. Tasks that are called within flows are not meant here.'
    ),
    graph('Background tasks that wait', show('sum', 'task_runs.scheduled', BY_BACKGROUND_TASK), display='area'),
    graph(
        'Longest wait of a background task',
        show('max', 'task_runs.scheduled.max_age', BY_BACKGROUND_TASK),
        limits=MINUTES_LATE,
    ),
    graph('Task workers that listen, by task', show('sum', 'task_workers.online', (tags.TASK_KEY,)), display='area'),
)

LIMITS = group(
    'Concurrency limits',
    note(
        '**Look at** limits that are full while runs are late for them, and at leaked slots: taken while no run that '
        'could hold them is alive. **Do**: full for long: raise the limit, or find the run that holds it (*Longest '
        'running now*). Leaked: give the slots back in Prefect, the limit does not recover by itself.'
    ),
    top('Slots in use by limit', show('max', 'concurrency_limit.in_use', BY_LIMIT, limits=PERCENT_TAKEN)),
    top(
        'Slots in use by deployment', show('max', 'deployment.concurrency.in_use', BY_DEPLOYMENT, limits=PERCENT_TAKEN)
    ),
    graph(
        'Leaked slots by their limit',
        show('sum', 'concurrency_limit.leaked_slots', alias='of global and tag limits', color=BAD),
        show('sum', 'deployment.concurrency.leaked_slots', alias='of deployments', color=WARN),
        display='area',
    ),
    table(
        'Global and tag limits',
        per_limit('max', 'concurrency_limit.active_slots', alias='slots in use', is_bar=True),
        per_limit('max', 'concurrency_limit.limit', alias='limit'),
        per_limit('max', 'concurrency_limit.leaked_slots', alias='leaked slots', limits=ANY_IS_BAD),
        flag('min', 'concurrency_limit.is_active', IF_ZERO, ROW_OF_LIMIT, 'switched off', is_bad=False),
        links=(TO_LIMITS,),
        height=3,
    ),
)

AUTOMATIONS = group(
    'Automations',
    note(
        '**Look at** actions that failed: nobody was told, nothing was started. And at automations that never '
        'trigger, or are switched off. **Do**: open the automation in Prefect; the event '
        '`prefect.automation.action.failed` has the reason. Test the block of a webhook or notification.'
    ),
    graph(
        'Triggers and actions',
        show('sum', 'automation.triggered.count', alias='triggered', color=ACTIVE),
        show('sum', 'automation.action.executed.count', alias='actions that worked', color=GOOD),
        show('sum', 'automation.action.failed.count', alias='actions that failed', color=BAD),
        display='bars',
    ),
    table(
        'Automations by name',
        per_automation('sum', 'automation.triggered.count', alias='triggered', is_bar=True),
        per_automation('sum', 'automation.action.executed.count', alias='actions that worked'),
        per_automation('sum', 'automation.action.failed.count', alias='actions that failed', limits=ANY_IS_BAD),
        flag('min', 'automation.is_enabled', IF_ZERO, ROW_OF_AUTOMATION, 'switched off', is_bad=False),
        sort_by=2,
        links=(TO_AUTOMATION,),
        width=8,
        height=3,
    ),
)

SERVICES = group(
    'Background services of the server',
    note(
        '**Look at** the lag: the age of the oldest piece of work that the service should have done by now. The '
        'server stays healthy while a service is dead. **Do**: restart the server (or `prefect server services '
        'start`, where they run apart), and read its log for the name of the service. A service that has shown no '
        'work yet is not judged, and not here.'
    ),
    top(
        'Services',
        show('min', 'service.is_healthy', ('background_service',), limits=MUST_BE_ONE, label='alive'),
        order='asc',
    ),
    graph(
        'Lag by service', show('max', 'service.lag_seconds', ('background_service',)), limits=SECONDS_OF_LAG, width=8
    ),
)

COLLECTION = group(
    'The check itself: health and cost',
    note(
        '**Look at** parts that failed, at what the check asks of the server, and at what it costs. **Do**: a part '
        'that failed: `agent status` names endpoint and cause; its counts are sent later, none is lost. Too many '
        'requests: raise `min_collection_interval`, or filter by names. Too many series: `make check` says which '
        'option or filter would save most. Events or log records that wait for long: narrow `event_names`, raise '
        '`log_level`.'
    ),
    top(
        'Parts of the check',
        show('min', 'collector.success', ('collector',), limits=MUST_BE_ONE, label='complete'),
        order='asc',
    ),
    graph(
        'Time by part',
        show('sum', 'collector.duration_seconds', ('collector',)),
        display='area',
        limits=SECONDS_OF_CHECK,
    ),
    graph('Series that the check sends', show('sum', 'check.series', ('family',)), display='area'),
    graph('Requests by endpoint', show('sum', 'api.requests', ('endpoint_family',)), display='bars'),
    graph('Bytes by endpoint', show('sum', 'api.response_bytes', ('endpoint_family',)), display='bars'),
    graph('Wait for answers by endpoint', show('sum', 'api.duration_seconds', ('endpoint_family',))),
    graph('Events that wait to be read', show('sum', 'events.pending', BY_SERVER), width=6, height=2),
    graph('Log records: how far behind', show('max', 'logs.pending', BY_SERVER), width=6, height=2),
)

OVERVIEW = Dashboard(
    title='Prefect overview',
    description=(
        'Whether a Prefect server and its workers do what they should, and if not, why: late runs, failures, missing '
        'successes, workers, limits, services, the check itself.'
    ),
    groups=(
        group('About this dashboard', ABOUT, color='white'),
        NOW,
        LATE,
        FLOW_RUNS,
        FRESHNESS,
        QUEUES,
        WORKERS,
        TASKS,
        BACKGROUND_TASKS,
        LIMITS,
        AUTOMATIONS,
        SERVICES,
        COLLECTION,
    ),
)
