"""The spelling of every tag key, the keys that each family of series carries, and how a tag list is made."""

from __future__ import annotations

from functools import lru_cache
from typing import TypeAlias

from datadog_checks.prefect.safe_text import without_control

# Sorted 'key:value' strings of one object or run: hashable, so that values can be summed up by it.
Tags: TypeAlias = tuple[str, ...]

# What Datadog keeps of a tag.
_MAX_LENGTH = 200

PREFECT_URL = 'prefect_url'
ACTION_TYPE = 'action_type'
AUTOMATION_ID = 'automation_id'
AUTOMATION_NAME = 'automation_name'
BACKGROUND_SERVICE = 'background_service'
COLLECTOR = 'collector'
CONCURRENCY_LIMIT_ID = 'concurrency_limit_id'
CONCURRENCY_LIMIT_NAME = 'concurrency_limit_name'
CONCURRENCY_LIMIT_TYPE = 'concurrency_limit_type'
ENDPOINT_FAMILY = 'endpoint_family'
EXIT_CODE = 'exit_code'
EXPECTATION_SOURCE = 'expectation_source'
FAILURE_REASON = 'failure_reason'
FAMILY = 'family'
DEPLOYMENT_ID = 'deployment_id'
DEPLOYMENT_NAME = 'deployment_name'
FLOW_ID = 'flow_id'
FLOW_NAME = 'flow_name'
IS_PAUSED = 'is_paused'
PREFECT_TAG = 'prefect_tag'
LATE_REASON = 'late_reason'
STATE_NAME = 'state_name'
STATE_TYPE = 'state_type'
TASK_KEY = 'task_key'
TASK_NAME = 'task_name'
WORK_POOL_ID = 'work_pool_id'
WORK_POOL_NAME = 'work_pool_name'
WORK_POOL_TYPE = 'work_pool_type'
WORK_QUEUE_ID = 'work_queue_id'
WORK_QUEUE_NAME = 'work_queue_name'
WORK_QUEUE_PRIORITY = 'work_queue_priority'
WORK_QUEUE_STATUS = 'work_queue_status'
WORKER_ID = 'worker_id'
WORKER_NAME = 'worker_name'

WORK_POOL_KEYS = (WORK_POOL_ID, WORK_POOL_NAME, WORK_POOL_TYPE)
WORK_POOL_EXIT_KEYS = (*WORK_POOL_KEYS, EXIT_CODE)
WORKER_KEYS = (WORK_POOL_ID, WORK_POOL_NAME, WORKER_ID, WORKER_NAME)
WORK_QUEUE_KEYS = (WORK_QUEUE_ID, WORK_QUEUE_NAME, WORK_POOL_ID, WORK_POOL_NAME, WORK_QUEUE_PRIORITY)
WORK_QUEUE_STATUS_KEYS = (*WORK_QUEUE_KEYS, WORK_QUEUE_STATUS)
FLOW_RUN_KEYS = (
    WORK_POOL_ID,
    WORK_POOL_NAME,
    WORK_QUEUE_ID,
    WORK_QUEUE_NAME,
    DEPLOYMENT_ID,
    DEPLOYMENT_NAME,
    FLOW_ID,
    FLOW_NAME,
    PREFECT_TAG,
)
DEPLOYMENT_KEYS = (*FLOW_RUN_KEYS, IS_PAUSED)
EXPECTATION_KEYS = (*DEPLOYMENT_KEYS, EXPECTATION_SOURCE)
LATE_RUN_KEYS = (*FLOW_RUN_KEYS, LATE_REASON)
TASK_RUN_KEYS = (*FLOW_RUN_KEYS, TASK_KEY, TASK_NAME)
TASK_KEYS = (TASK_KEY, TASK_NAME)
FAILED_FLOW_RUN_KEYS = (*FLOW_RUN_KEYS, STATE_NAME, FAILURE_REASON)
FAILED_TASK_RUN_KEYS = (*TASK_RUN_KEYS, STATE_NAME, FAILURE_REASON)
AUTOMATION_KEYS = (AUTOMATION_ID, AUTOMATION_NAME)
AUTOMATION_ACTION_KEYS = (*AUTOMATION_KEYS, ACTION_TYPE)
CONCURRENCY_LIMIT_KEYS = (CONCURRENCY_LIMIT_ID, CONCURRENCY_LIMIT_NAME, CONCURRENCY_LIMIT_TYPE)


def make_tags(values: dict[str, object]) -> Tags:
    """The tags of `values` (tag key -> value, or a tuple of values: one tag of that key each).

    An unknown value, None or '', is left out, never sent as text.
    """
    made = set()
    for key, value in values.items():
        for item in value if isinstance(value, tuple) else (value,):
            if item is not None and item != '':
                # The Agent would cut a tag at NUL.
                made.add(without_control(f'{key}:{item}'[:_MAX_LENGTH]))
    return tuple(sorted(made))


# The same deployments and tasks are met at every check; about 10 MB if the names are long.
@lru_cache(maxsize=10_000)
def merge_tags(tags: Tags, more: Tags) -> Tags:
    """Both of them, sorted; no key is in both."""
    return tuple(sorted((*tags, *more)))
