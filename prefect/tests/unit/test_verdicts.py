"""What `make check` says is wrong on a server: the recommended monitors, read against one run of the check."""

from __future__ import annotations

import re

import pytest

from lab import verdicts
from lab.agent import CheckRunner
from lab.recording import Recording
from lab.report import watching_line
from lab.verdicts import Finding, judge
from tests.fake_prefect import FakePrefect
from tests.unit.harness import at, failing
from tests.unit.lint import for_each
from tools.monitor_evaluation import Status

HOURS = 3600.0


def findings(fake: FakePrefect, url: str) -> dict[str, Finding]:
    runner = CheckRunner({'prefect_url': url})
    try:
        result = runner.run()
    finally:
        runner.cancel()
    assert result.error is None
    return {finding.monitor: finding for finding in judge(result).findings}


def test_a_server_at_work_has_nothing_wrong(fake: FakePrefect, prefect_url: str) -> None:
    pool = fake.add_work_pool('Prod')
    fake.add_worker(pool)
    fake.add_deployment(name='nightly', work_queue=fake.add_work_queue(pool, 'high'))

    assert findings(fake, prefect_url) == {}


def test_trouble_comes_with_its_object_its_age_the_causes_and_the_advice(fake: FakePrefect, prefect_url: str) -> None:
    queue = fake.add_work_queue(fake.add_work_pool('Prod'), 'high')
    fake.add_flow_run(deployment=fake.add_deployment(name='nightly', work_queue=queue), scheduled_time=at(-3 * HOURS))

    found = findings(fake, prefect_url)['Prefect work pool has no online worker though work waits']

    assert (found.status, found.priority) == (Status.ALERT, 2)
    assert found.seconds == pytest.approx(3 * HOURS)
    # The case is kept: `prefect worker start --pool prod` would make another pool.
    assert 'the work pool Prod has been due for 180 minutes' in found.text
    assert len(found.causes) == 3
    assert any('prefect worker start' in line for line in found.advice)


def test_what_one_check_cannot_know_is_not_claimed(fake: FakePrefect, prefect_url: str) -> None:
    fake.add_concurrency_limit('GPU', 2, 2)

    found = findings(fake, prefect_url)['Prefect global or tag limit has had no free slot for hours']

    assert found.text == 'Concurrency limit GPU has had no free slot. Alerts if it stays so for 4 h.'


def test_less_than_an_alert_is_a_warning(fake: FakePrefect, prefect_url: str) -> None:
    pool = fake.add_work_pool('Prod')
    fake.add_worker(pool)
    queue = fake.add_work_queue(pool, 'high')
    deployment = fake.add_deployment(name='nightly', work_queue=queue)
    fake.add_flow_run(deployment=deployment, scheduled_time=at(-700))

    (late,) = (one for title, one in findings(fake, prefect_url).items() if 'are late' in title)
    assert late.status is Status.WARN


def test_tags_that_datadog_lower_cases_pass_the_filters(fake: FakePrefect, prefect_url: str) -> None:
    deployment = fake.add_deployment(name='nightly')
    for second in (1, 2, 3):
        end = at(-second)
        fake.add_flow_run(deployment=deployment, state=('FAILED', 'Failed'), start_time=end, end_time=end)

    # `is_paused:False` is what the check sends, `is_paused:false` what the monitor asks for.
    assert 'The last 3 flow runs' in findings(fake, prefect_url)['Prefect deployment fails again and again'].text


def test_monitors_that_sum_up_over_time_are_not_judged(fake: FakePrefect, prefect_url: str) -> None:
    runner = CheckRunner({'prefect_url': prefect_url})
    judged = judge(runner.run())
    runner.cancel()

    assert 'Prefect flow runs crash' in judged.not_judged
    assert judged.judged + len(judged.not_judged) == len(list(verdicts.MONITORS.glob('*.json')))


def test_requests_are_told_of_a_run_in_which_a_part_failed(fake: FakePrefect, prefect_url: str) -> None:
    fake.fault = failing('/work_pools/filter', 500)
    runner, recording = CheckRunner({'prefect_url': prefect_url}), Recording()
    recording.add(runner.run())
    runner.cancel()

    assert recording.errors
    assert f': {len(fake.requests)} requests' in watching_line(recording).plain


@for_each({monitor.title: monitor for monitor in verdicts._monitors()})
def test_each_monitor_can_be_told_in_words(monitor: verdicts._Monitor) -> None:
    message = monitor.definition['message']
    for status in (Status.ALERT, Status.WARN):
        text = verdicts._filled_in(monitor.text(status), {}, 120.0)
        assert not re.search(r'[Ff]or \d+ (minutes|hours)', monitor.text(status))
        assert text
        assert '{{' not in text
    assert verdicts._CAUSE.findall(message)
    assert verdicts._ADVICE.findall(message)
