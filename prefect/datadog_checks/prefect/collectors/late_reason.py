"""Why a flow run that is due has not started: the first reason that holds, in the order in which they stand here.

The order is that in which the server decides (3.8.8): what is paused is handed out to nobody, without a worker nobody
asks, a full work pool or work queue hands out nothing, and a full deployment takes back what was handed out.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class LateReason(StrEnum):
    """The values of the tag `late_reason`, in their order."""

    POOL_PAUSED = 'pool_paused'
    QUEUE_PAUSED = 'queue_paused'
    QUEUE_DELETED = 'queue_deleted'
    DEPLOYMENT_PAUSED = 'deployment_paused'
    NO_WORKER = 'no_worker'
    POOL_LIMIT = 'pool_limit'
    QUEUE_LIMIT = 'queue_limit'
    DEPLOYMENT_LIMIT = 'deployment_limit'
    WORK_NOT_PICKED_UP = 'work_not_picked_up'
    UNKNOWN = 'unknown'


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What is so around a flow run.

    `is_deployment_paused` only of a deployment without a work pool, which a process serves: it pauses the deployment
    when it stops. The pause itself blocks no run (3.8.8): the server deletes those that it had scheduled, and workers
    and serving processes take up those that somebody asked for.

    `is_attended` tells whether somebody asks for work: a worker of the pool that is ONLINE, a process that serves the
    deployment. None stands for unknown.

    `is_queue_gone` of a run that has no work queue any more, while its deployment has one: the queue, or its work pool,
    was deleted, and the deployment has been given another (3.8.8).
    """

    is_pool_paused: bool = False
    is_queue_paused: bool = False
    is_queue_gone: bool = False
    is_deployment_paused: bool = False
    is_attended: bool | None = None
    is_pool_full: bool = False
    is_queue_full: bool = False
    is_deployment_full: bool = False


def late_reason(now: Circumstances) -> LateReason:
    """The first reason that holds."""
    reasons = (
        (now.is_pool_paused, LateReason.POOL_PAUSED),
        (now.is_queue_paused, LateReason.QUEUE_PAUSED),
        (now.is_queue_gone, LateReason.QUEUE_DELETED),
        (now.is_deployment_paused, LateReason.DEPLOYMENT_PAUSED),
        (now.is_attended is False, LateReason.NO_WORKER),
        (now.is_pool_full, LateReason.POOL_LIMIT),
        (now.is_queue_full, LateReason.QUEUE_LIMIT),
        (now.is_deployment_full, LateReason.DEPLOYMENT_LIMIT),
        (now.is_attended is True, LateReason.WORK_NOT_PICKED_UP),
    )
    return next((reason for holds, reason in reasons if holds), LateReason.UNKNOWN)
