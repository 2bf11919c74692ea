"""Retries with a delay: of the flow (twice), and of a task."""

from __future__ import annotations

from prefect import flow, task
from prefect.runtime import flow_run, task_run
from tasks import work


@task(retries=1, retry_delay_seconds=8)
def ask_weather_service() -> str:
    if task_run.run_count == 1:
        raise ConnectionError('the weather service does not answer')
    return 'sunny'


@flow(name='weather', retries=2, retry_delay_seconds=4)
def weather() -> str:
    """COMPLETED at the third attempt; between attempts SCHEDULED, with the state name AwaitingRetry."""
    work(0.5)
    if flow_run.run_count < 3:
        raise ConnectionError('the weather service does not answer')
    return ask_weather_service()
