"""GET /health and GET /ready: whether the server answers, and whether it reaches its database."""

from __future__ import annotations

from datadog_checks.prefect.api.client import PrefectClient
from datadog_checks.prefect.api.errors import PrefectApiError
from datadog_checks.prefect.metrics import HEALTH, READY
from datadog_checks.prefect.sample import Sample

NAME = 'health'


def collect(client: PrefectClient) -> tuple[list[Sample], PrefectApiError | None]:
    """Both samples, always, and the error that made one of them 0.

    Runs before there is a run context, for it sets the server's clock, and decides whether the others run at all: not
    if `health` is 0.
    """
    try:
        client.check_health()
    except PrefectApiError as error:
        return [Sample(HEALTH, 0), Sample(READY, 0)], error
    try:
        client.check_ready()
    except PrefectApiError as error:
        return [Sample(HEALTH, 1), Sample(READY, 0)], error
    return [Sample(HEALTH, 1), Sample(READY, 1)], None
