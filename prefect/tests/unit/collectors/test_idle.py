"""The option `report_idle`: what deployments without work send."""

from __future__ import annotations

from collections.abc import Callable

from datadog_checks.base.stubs.aggregator import AggregatorStub
from datadog_checks.prefect import PrefectCheck
from tests.fake_prefect import FakePrefect
from tests.unit.harness import Row, at, failing, run_through

NewCheck = Callable[..., PrefectCheck]
RunCheck = Callable[[PrefectCheck], AggregatorStub]

SCHEDULE = {'id': '5b1c0f3e-0b7b-4c6f-8f2e-5b8a4b5c7d11', 'active': True, 'schedule': {'cron': '0 * * * *'}}
FLOW_RUN_SERIES = {
    *(f'flow_runs.{state}' for state in ('scheduled', 'pending', 'running', 'paused')),
    *(f'flow_runs.{end}.count' for end in ('completed', 'failed', 'crashed', 'cancelled', 'late_start')),
    'flow_runs.throughput',
}


def of_deployment(aggregator: AggregatorStub, deployment: Row) -> dict[str, float]:
    """What was sent of a deployment and its runs."""
    return {
        metric.name.removeprefix('prefect.server.'): metric.value
        for name in aggregator.metric_names
        for metric in aggregator.metrics(name)
        if f'deployment_id:{deployment["id"]}' in metric.tags
    }


def test_deployments_without_work_send_less_than_three_series_each(
    fake: FakePrefect, new_check: NewCheck, run_check: RunCheck
) -> None:
    queue = fake.default_queue(fake.add_work_pool('prod'))
    for number in range(200):
        deployment = fake.add_deployment(name=f'deployment-{number}', work_queue=queue, schedules=[SCHEDULE])
        fake.add_flow_run(deployment=deployment, scheduled_time=at(3600 + number), auto_scheduled=True)

    def sent(check: PrefectCheck) -> int:
        for _ in range(2):
            aggregator = run_check(check)
            fake.now = at(15)
        return sum(len(aggregator.metrics(name)) for name in aggregator.metric_names)

    assert sent(new_check()) > 14 * 200
    assert sent(new_check(report_idle=False, tags=[])) < 3 * 200


def test_a_deployment_is_reported_while_it_works_and_for_five_minutes_after(
    fake: FakePrefect, new_check: NewCheck, run_check: RunCheck
) -> None:
    deployment = fake.add_deployment(name='hourly')
    check = new_check(report_idle=False)
    assert of_deployment(run_check(check), deployment) == {'deployment.is_ready': 1}

    run = fake.add_flow_run(deployment=deployment, scheduled_time=at(5))
    fake.now = at(15)
    assert of_deployment(run_check(check), deployment)['flow_runs.scheduled'] == 1
    fake.set_flow_run_state(run, 'RUNNING', at=at(20))
    fake.now = at(30)
    found = of_deployment(run_check(check), deployment)
    assert (found['flow_runs.scheduled'], found['flow_runs.running'], found['flow_runs.throughput']) == (0, 1, 1)
    fake.set_flow_run_state(run, 'COMPLETED', at=at(40))
    fake.now = at(45)
    found = of_deployment(run_check(check), deployment)
    assert (found['flow_runs.running'], found['flow_runs.completed.count']) == (0, 1)

    fake.now = at(335)
    found = of_deployment(run_check(check), deployment)
    assert {name: found[name] for name in FLOW_RUN_SERIES} == dict.fromkeys(FLOW_RUN_SERIES, 0)
    fake.now = at(341)
    assert of_deployment(run_check(check), deployment) == {'deployment.is_ready': 1}


def test_a_deployment_that_worked_before_a_restart_is_reported_to_the_end(
    fake: FakePrefect, new_check: NewCheck, run_check: RunCheck
) -> None:
    deployment = fake.add_deployment(name='hourly')
    fake.now = at(200)
    run_through(fake, deployment=deployment, start=at(0), seconds=10)

    assert of_deployment(run_check(new_check(report_idle=False)), deployment).keys() >= FLOW_RUN_SERIES


def test_what_lasts_is_reported_while_it_is_not_0_and_for_five_minutes_after(
    fake: FakePrefect, new_check: NewCheck, run_check: RunCheck
) -> None:
    deployment = fake.add_deployment(name='hourly', schedules=[SCHEDULE])
    run = run_through(fake, deployment=deployment, start=at(1), seconds=2, end=('FAILED', 'Failed'))
    check = new_check(report_idle=False)
    for moment in (600, 900):
        fake.now = at(moment)
        found = of_deployment(run_check(check), deployment)
    lasting = {'deployment.consecutive_failures': 1, 'deployment.schedules.is_without_run': 1}
    assert found == {'deployment.is_ready': 1, **lasting}

    # The scheduler comes by, and a person says that the run was good.
    fake.add_flow_run(deployment=deployment, scheduled_time=at(9000), auto_scheduled=True)
    run['state_type'], run['state_name'] = 'COMPLETED', 'Completed'
    run['state'] |= {'type': 'COMPLETED', 'name': 'Completed'}
    for moment in (1000, 1199):
        fake.now = at(moment)
        always = {'deployment.is_ready': 1, 'deployment.expectation.max_age_ratio': (moment - 3) / (8997 + 62)}
        assert of_deployment(run_check(check), deployment) == {**always, **dict.fromkeys(lasting, 0)}
    fake.now = at(1201)
    assert of_deployment(run_check(check), deployment).keys() == always.keys()


def test_no_count_is_lost_when_it_shows_after_the_five_minutes(
    fake: FakePrefect, new_check: NewCheck, run_check: RunCheck
) -> None:
    deployment = fake.add_deployment(name='hourly')
    check = new_check(report_idle=False)
    run_check(check)
    run_through(fake, deployment=deployment, start=at(1), seconds=2)
    fake.now = at(1200)
    found = of_deployment(run_check(check), deployment)

    assert (found['flow_runs.completed.count'], found['flow_runs.throughput']) == (1, 1)
    assert found['flow_runs.execution_duration.count'] == 1
    assert 'flow_runs.running' not in found


def test_runs_of_no_deployment_are_reported_as_ever(
    fake: FakePrefect, new_check: NewCheck, run_check: RunCheck
) -> None:
    fake.add_flow_run(flow=fake.add_flow('ad hoc'), state=('RUNNING', 'Running'))
    run_check(new_check(report_idle=False)).assert_metric('prefect.server.flow_runs.running', value=1)


def test_what_works_is_known_from_before_when_the_server_fails(
    fake: FakePrefect, new_check: NewCheck, run_check: RunCheck, aggregator: AggregatorStub
) -> None:
    deployment = fake.add_deployment(name='hourly')
    check = new_check(report_idle=False)
    run_check(check)
    fake.fault = failing('/flow_runs/filter')
    aggregator.reset()
    assert check.run()

    assert of_deployment(aggregator, deployment) == {'deployment.is_ready': 1}
