"""`Prefect deployments`: all that is known of one deployment, and of what it waits for."""

from __future__ import annotations

from tools.dashboards.overview import (
    FAILED_OR_CRASHED,
    FAILURES_IN_A_ROW,
    outcomes,
    per_deployment,
    per_task,
    states_of_flow_runs,
)
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
    MINUTES_LATE,
    MUST_BE_ONE,
    NEUTRAL,
    OR_ZERO,
    PERCENT_OF_EXPECTED,
    PERCENT_TAKEN,
    STARTING,
    TO_DEPLOYMENT,
    TO_FLOW,
    WARN,
    Dashboard,
    Formula,
    events,
    graph,
    group,
    late_start_rate,
    logs,
    note,
    number,
    query,
    show,
    success_rate,
    table,
    top,
)

BY_IDENTITY = (*BY_DEPLOYMENT, *BY_SERVER)
SHOWN = Formula(
    'default_zero(count_not_null(deployments)) + 0 * alive',
    (query('max', 'deployment.is_ready', BY_IDENTITY, name='deployments'), ALIVE),
    limits=MUST_BE_ONE,
)
PAUSED = Formula(
    'default_zero(count_not_null(paused)) + 0 * alive',
    (query('max', 'deployment.is_ready', BY_IDENTITY, name='paused', where='is_paused:true'), ALIVE),
)


def statistics(series: str) -> tuple[Formula, ...]:
    """Median, 95th percentile and longest; of several deployments, those of the slowest."""
    return (
        show('max', f'{series}.median', alias='median', color=STARTING),
        show('max', f'{series}.95percentile', alias='95th percentile', color=ACTIVE),
        show('max', f'{series}.max', alias='longest', color=WARN),
    )


STATE = group(
    'How is it doing?',
    note(
        'Choose **flow_name** and **deployment_name** above: a deployment is named by both. Without a choice, each '
        'number is of all deployments, and each age of the worst. Then read from the top: does it work, what did '
        'its runs do, why do they wait, how long do they take, which task is it. **Do**: a success that is missing, '
        'or failures in a row: read *Errors of its runs* below. A schedule without a run: see *Background services '
        'of the server* on [Prefect overview](/dashboard/lists?q=Prefect%20overview).\n\n'
        '**Idle**: counts are 0, rates and durations are No data. **Paused**: *Until the next run* and what is '
        'expected are No data. **Gone**, or left out by a filter of the check: *Deployments shown* is 0 after five '
        'minutes, and the graphs keep its past. **No data** in all tiles: the Agent is dead.',
    ),
    number('Deployments shown', SHOWN),
    number('Paused', PAUSED),
    number('Active schedules', show('sum', 'deployment.schedules.active')),
    number('Schedules without a run', show('sum', 'deployment.schedules.is_without_run', limits=ANY_IS_BAD)),
    number('Until the next run', show('min', 'deployment.seconds_until_next_run')),
    number('Since the last success', show('max', 'deployment.seconds_since_success')),
    number('Failures in a row', show('max', 'deployment.consecutive_failures', limits=FAILURES_IN_A_ROW)),
    number(
        'Success age, of expected',
        show('max', 'deployment.expectation.max_age_ratio', form=AS_PERCENT, limits=PERCENT_OF_EXPECTED),
    ),
    number(
        'Run time, of expected',
        show('max', 'deployment.expectation.max_run_time_ratio', form=AS_PERCENT, limits=PERCENT_OF_EXPECTED),
    ),
    number('Oldest late run', show('max', 'flow_runs.late.max_age', form=OR_ZERO, limits=MINUTES_LATE), graph=True),
    number('Runs without a heartbeat', show('sum', 'flow_runs.heartbeat_lost', form=OR_ZERO, limits=ANY_IS_BAD)),
    number('Own slots in use', show('max', 'deployment.concurrency.in_use', limits=PERCENT_TAKEN)),
    number('Success rate', success_rate('flow_runs'), span='1h'),
    number('Failed or crashed', FAILED_OR_CRASHED, span='1h'),
    number('Started late', late_start_rate('flow_runs'), span='1h'),
    number('Late now', show('sum', 'flow_runs.late', form=OR_ZERO), graph=True),
    number('Running now', show('sum', 'flow_runs.running', form=OR_ZERO), graph=True),
    number('Longest running now', show('max', 'flow_runs.running.max_age', form=OR_ZERO), graph=True),
    table(
        'Deployments',
        per_deployment('max', 'deployment.consecutive_failures', alias='failures in a row', limits=FAILURES_IN_A_ROW),
        per_deployment('max', 'deployment.seconds_since_success', alias='since the last success'),
        per_deployment('min', 'deployment.seconds_until_next_run', alias='until the next run'),
        per_deployment('sum', 'flow_runs.throughput', alias='started', is_bar=True),
        per_deployment('sum', 'flow_runs.completed.count', alias='completed'),
        per_deployment('sum', 'flow_runs.failed.count', alias='failed', limits=ANY_IS_BAD),
        per_deployment('sum', 'flow_runs.crashed.count', alias='crashed', limits=ANY_IS_BAD),
        per_deployment('sum', 'flow_runs.late_start.count', alias='started late'),
        links=(TO_DEPLOYMENT,),
    ),
    color='vivid_blue',
)

RUNS = group(
    'What did its runs do?',
    note(
        '**Look at** whether failures come with every run or now and then, and at their reason. **Do**: every run: '
        'something changed, the code or what it talks to. Now and then: retries may be enough. Crashes: the process '
        'was killed; look at memory and at the worker. A run that has sent no heartbeat for three of its intervals '
        'has lost its process. Scheduled runs are counted up to the horizon of the scheduler.'
    ),
    graph('Flow runs that ended', *outcomes('flow_runs'), display='bars', has_events=True),
    graph('Failures by reason', show('sum', 'flow_runs.failures.count', BY_FAILURE), display='bars', has_events=True),
    graph('Flow runs now', *states_of_flow_runs(), display='area'),
    graph('Scheduled runs', show('sum', 'flow_runs.scheduled', alias='scheduled', color=NEUTRAL), width=6),
    graph(
        'Time since the last heartbeat',
        show('max', 'flow_runs.heartbeat.max_age', alias='silent for', color=BAD),
        width=6,
    ),
    events('Its events'),
    logs('Errors of its runs', 'status:(error OR critical)'),
    color='vivid_purple',
)

WAITS = group(
    'Why do its runs wait?',
    note(
        '**Look at** the reason of late runs, then at the queue and the pool (choose them above: queues and pools '
        'do not know deployments). **Do**: no worker online: start one. Queue not polled: no worker serves it. '
        'Slots full: raise the limit, or find the run that holds one. Long waits without a reason: the worker is '
        'slow to start processes.'
    ),
    graph('Late runs by reason', show('sum', 'flow_runs.late', BY_REASON), display='bars'),
    graph('Wait for a start', *statistics('flow_runs.queue_wait_duration')),
    graph(
        'Longest wait now',
        show('max', 'flow_runs.late.max_age', alias='late', color=BAD),
        show('max', 'flow_runs.pending.max_age', alias='pending', color=STARTING),
        show('max', 'flow_runs.paused.max_age', alias='paused', color=NEUTRAL),
        show('max', 'flow_runs.cancelling.max_age', alias='cancelling', color=ENDING),
        limits=MINUTES_LATE,
    ),
    graph('Backlog of the queue', show('sum', 'work_queue.backlog.size', BY_QUEUE), display='area', width=3),
    top('Queue not polled for', show('max', 'work_queue.last_polled_age_seconds', BY_QUEUE), width=3),
    top(
        'Slots of the queue in use',
        show('max', 'work_queue.concurrency.in_use', BY_QUEUE, limits=PERCENT_TAKEN),
        width=3,
    ),
    top('Workers online in the pool', show('sum', 'work_pool.workers.online', BY_POOL), order='asc', width=3),
    graph(
        'Slots of its own limit',
        show('sum', 'deployment.concurrency.active_slots', alias='in use', color=ACTIVE),
        show('sum', 'deployment.concurrency.limit', alias='limit', color=NEUTRAL),
        show('sum', 'deployment.concurrency.leaked_slots', alias='leaked', color=BAD),
        width=6,
    ),
    graph(
        'Slots of the pool',
        show('sum', 'work_pool.concurrency.active_slots', alias='in use', color=ACTIVE),
        show('sum', 'work_pool.concurrency.limit', alias='limit', color=NEUTRAL),
        width=6,
    ),
    color='vivid_orange',
)

DURATIONS = group(
    'How long do its runs take?',
    note(
        '**Look at** the longest against the median, and at what runs now against what is expected: above 100 % it '
        'takes too long. **Do**: a run that runs much longer than the longest that ended may be hung: open it in '
        'Prefect, cancel it. Longer from run to run: more data, or a task that slows down (below).'
    ),
    graph('Execution', *statistics('flow_runs.execution_duration'), has_events=True, width=6),
    graph('Waits for a retry', *statistics('flow_runs.retry_gaps_duration'), width=6),
    graph('Running now for', show('max', 'flow_runs.running.max_age', BY_DEPLOYMENT), width=6),
    graph(
        'Time now, of what is expected',
        show(
            'max', 'deployment.expectation.max_age_ratio', alias='since the last success', form=AS_PERCENT, color=ACTIVE
        ),
        show('max', 'deployment.expectation.max_run_time_ratio', alias='run time', form=AS_PERCENT, color=WARN),
        limits=PERCENT_OF_EXPECTED,
        width=6,
    ),
)

TASKS = group(
    'Which task is it?',
    note(
        '**Look at** the task that fails, or that takes most of the time. **Do**: click it to open its flow in '
        'Prefect. A long wait for other tasks says what the flow could do at the same time.'
    ),
    graph('Task runs that ended', *outcomes('task_runs'), display='bars', has_events=True),
    graph(
        'Execution: slowest 5 % by task',
        show('max', 'task_runs.execution_duration.95percentile', BY_TASK),
        has_events=True,
    ),
    graph(
        'Wait for other tasks: slowest 5 % by task',
        show('max', 'task_runs.dependency_wait_duration.95percentile', BY_TASK),
    ),
    graph('Running by task', show('sum', 'task_runs.running', BY_TASK), display='area'),
    graph('Pending by task', show('sum', 'task_runs.pending', BY_TASK), display='area'),
    graph('Longest pending now by task', show('max', 'task_runs.pending.max_age', BY_TASK), limits=MINUTES_LATE),
    table(
        'Task runs by task',
        per_task('sum', 'task_runs.throughput', alias='started'),
        per_task('sum', 'task_runs.completed.count', alias='completed'),
        per_task('sum', 'task_runs.failed.count', alias='failed', limits=ANY_IS_BAD),
        per_task('sum', 'task_runs.crashed.count', alias='crashed', limits=ANY_IS_BAD),
        per_task('sum', 'task_runs.cancelled.count', alias='cancelled'),
        per_task('max', 'task_runs.execution_duration.max', alias='longest run', is_bar=True),
        sort_by=2,
        links=(TO_FLOW,),
        height=5,
    ),
)

DEPLOYMENTS = Dashboard(
    title='Prefect deployments',
    description=(
        'One Prefect deployment in depth: whether it works, what its runs did, why they wait, how long they take, '
        'and which of its tasks is the cause.'
    ),
    groups=(STATE, RUNS, WAITS, DURATIONS, TASKS),
)
