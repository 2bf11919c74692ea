"""Checks that follow the background services of a real server, with less patience than an Agent's check has."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest

from datadog_checks.prefect.collectors import service_verdict
from lab.agent import CheckResult, CheckRunner
from lab.prefect_server import FlowScript, PrefectServer

PATIENCE_SECONDS = 8
PATIENCE_WITHOUT_PROOF_SECONDS = 40
LIMIT_SECONDS = 150


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_verdict, 'PATIENCE', timedelta(seconds=PATIENCE_SECONDS))
    monkeypatch.setattr(service_verdict, 'PATIENCE_WITHOUT_PROOF', timedelta(seconds=PATIENCE_WITHOUT_PROOF_SECONDS))


def verdicts(result: CheckResult) -> dict[str, float]:
    assert result.error is None, result.error
    found = {}
    for point in result.points:
        if point.name == 'prefect.server.service.is_healthy':
            (service,) = (tag.partition(':')[2] for tag in point.tags if tag.startswith('background_service:'))
            found[service] = point.value
    return found


def run_tasks(server: PrefectServer) -> None:
    with FlowScript(server.api_url, 'script.py') as script:
        assert script.wait(60) == 0


def follow(runner: CheckRunner, seconds: float, *, until: dict[str, float] | None = None) -> list[dict[str, float]]:
    """The verdicts of the checks of some seconds, one each second, or until they are these."""
    found = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found.append(verdicts(runner.run()))
        if until is not None and until.items() <= found[-1].items():
            break
        time.sleep(1)
    return found
