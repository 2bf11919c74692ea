"""`Prefect deployments`: all that is known of one deployment, and of what it waits for."""

from __future__ import annotations

from tools.dashboards.overview import (
    FAILED_OR_CRASHED,
    FAILURES_IN_A_ROW,
    MINUTES_UNPOLLED,
    outcomes,
    per_deployment,
    per_task,
    states_of_flow_runs,
)
from tools.dashboards.widgets import (
    ACTIVE,
    ANY_IS_BAD,
    ANY_IS_WORTH_A_LOOK,
    BAD,
    BY_DEPLOYMENT,
    BY_POOL,
    BY_QUEUE,
    BY_REASON,
    BY_TASK,
    ENDING,
    MINUTES_LATE,
    MUST_BE_ONE,
    MUST_NOT_BE_NONE,
    NEUTRAL,
    OR_ZERO,
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
    logs,
    note,
    number,
    show,
    success_rate,
    table,
    top,
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
        'its runs do, why do they wait, how long do they take, which task is it. **Do**: failures in a row or an '
        'old success: read *Errors of its runs* below. A schedule without a run: see *Background services* on the '
        'overview.',
    ),
    number('Failures in a row', show('max', 'deployment.consecutive_failures', limits=FAILURES_IN_A_ROW)),
    number('Since the last success', show('max', 'deployment.seconds_since_success')),
    number('Until the next run', show('min', 'deployment.seconds_until_next_run')),
    number('Success rate', success_rate('flow_runs')),
    number('Failed or crashed', FAILED_OR_CRASHED),
    number('Late now', show('sum', 'flow_runs.late', form=OR_ZERO, limits=ANY_IS_WORTH_A_LOOK)),
    number('Running now', show('sum', 'flow_runs.running'), graph=True),
    number('Longest running now', show('max', 'flow_runs.running.max_age', form=OR_ZERO), graph=True),
    number('Active schedules', show('sum', 'deployment.schedules.active')),
    number('Schedule without a run (1 = yes)', show('max', 'deployment.schedules.is_without_run', limits=ANY_IS_BAD)),
    number('Ready (1 = yes)', show('min', 'deployment.is_ready', limits=MUST_BE_ONE)),
    number('Slots of its own limit in use', show('max', 'deployment.concurrency.in_use', limits=PERCENT_TAKEN)),
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
        links=(TO_DEPLOYMENT, TO_FLOW),
    ),
    color='vivid_blue',
)

RUNS = group(
    'What did its runs do?',
    note(
        '**Look at** whether failures come with every run or now and then. **Do**: every run: something changed, '
        'the code or what it talks to. Now and then: retries may be enough. Crashes: the process was killed; look '
        'at memory and at the worker. Scheduled runs are counted up to the horizon of the scheduler.'
    ),
    graph('Flow runs that ended', *outcomes('flow_runs'), display='bars', has_events=True),
    graph('Flow runs now', *states_of_flow_runs(), display='area'),
    graph('Scheduled runs', show('sum', 'flow_runs.scheduled', alias='scheduled', color=NEUTRAL)),
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
    top(
        'Queue not polled for',
        show('max', 'work_queue.last_polled_age_seconds', BY_QUEUE, limits=MINUTES_UNPOLLED),
        width=3,
    ),
    top(
        'Slots of the queue in use',
        show('max', 'work_queue.concurrency.in_use', BY_QUEUE, limits=PERCENT_TAKEN),
        width=3,
    ),
    top(
        'Workers online in the pool',
        show('sum', 'work_pool.workers.online', BY_POOL, limits=MUST_NOT_BE_NONE),
        order='asc',
        width=3,
    ),
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
        '**Look at** the longest against the median, and at what runs now against what used to be. **Do**: a run '
        'that runs much longer than the longest that ended may be hung: open it in Prefect, cancel it. Longer from '
        'run to run: more data, or a task that slows down (below).'
    ),
    graph('Execution', *statistics('flow_runs.execution_duration')),
    graph('Running now for', show('max', 'flow_runs.running.max_age', BY_DEPLOYMENT)),
    graph('Waits for a retry', *statistics('flow_runs.retry_gaps_duration')),
)

TASKS = group(
    'Which task is it?',
    note(
        '**Look at** the task that fails, or that takes most of the time. **Do**: click it to open its flow in '
        'Prefect. A long wait for other tasks says what the flow could do at the same time.'
    ),
    graph('Task runs that ended', *outcomes('task_runs'), display='bars'),
    graph('Execution: slowest 5 % by task', show('max', 'task_runs.execution_duration.95percentile', BY_TASK)),
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
