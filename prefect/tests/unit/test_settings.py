from __future__ import annotations

from datetime import timedelta

import pytest

from datadog_checks.prefect.settings import Settings
from tests.unit.harness import Row, options

URL = 'http://prefect.test:4200/api'


def test_options_become_settings() -> None:
    settings = Settings.from_options(
        options(
            URL,
            tags=('team:data',),
            late_start_threshold=0.5,
            max_catchup=600.0,
            work_pool_names={'include': ('prod',), 'exclude': ('test',)},
            work_queue_names={'include': ('high',)},
            deployment_names={'exclude': ('hourly',)},
            flow_names={'include': ('etl',)},
            prefect_tags={'include': ('^team:',)},
        )
    )
    assert settings.tags == (f'prefect_url:{URL}', 'team:data')
    assert settings.late_start_threshold == timedelta(milliseconds=500)
    assert settings.max_catchup == timedelta(minutes=10)
    assert [settings.filters.work_pools.allows(name) for name in ('prod', 'prod test', 'x')] == [True, False, False]
    assert [settings.filters.work_queues.allows(name) for name in ('high', 'low')] == [True, False]
    assert [settings.filters.deployments.allows(name) for name in ('hourly', 'daily')] == [False, True]
    assert [settings.filters.flows.allows(name) for name in ('etl', 'ml')] == [True, False]
    assert settings.prefect_tags is not None
    assert [settings.prefect_tags.allows(tag) for tag in ('team:data', 'nightly')] == [True, False]


def test_no_filters_let_everything_pass() -> None:
    assert not Settings.from_options(options()).filters.is_active


def test_no_tag_of_prefect_passes_by_default() -> None:
    assert Settings.from_options(options()).prefect_tags is None


def test_threshold_of_0_stays_0() -> None:
    assert Settings.from_options(options(late_start_threshold=0.0)).late_start_threshold == timedelta()


@pytest.mark.parametrize('url', ['http://user:sesame@prefect.test:4200/api', f'{URL}/'])
def test_url_tag_holds_no_user_info_and_no_trailing_slash(url: str) -> None:
    assert Settings.from_options(options(url)).tags == (f'prefect_url:{URL}',)


@pytest.mark.parametrize(
    ('changes', 'is_the_same'),
    [
        ({'url': 'http://user:sesame@prefect.test:4200/api/'}, True),
        ({'tags': ('a:b',)}, True),
        ({'late_start_threshold': 99.0}, True),
        ({'url': 'http://prefect.test:4201/api'}, False),
        ({'work_pool_names': {'include': ('a',)}}, False),
        ({'work_queue_names': {'include': ('a',)}}, False),
        ({'deployment_names': {'include': ('a',)}}, False),
        ({'flow_names': {'include': ('a',)}}, False),
        ({'event_names': {'include': ('a',)}}, False),
        ({'prefect_tags': {'include': ('a',)}}, True),
        ({'collect': {'late_runs': False}}, True),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else '',
)
def test_fingerprint_is_that_of_what_is_counted(changes: Row, is_the_same: bool) -> None:
    assert (Settings.from_options(options(**changes)).fingerprint == Settings.from_options(options()).fingerprint) is (
        is_the_same
    )


def test_include_and_exclude_are_not_the_same() -> None:
    one, other = (Settings.from_options(options(work_pool_names={key: ('a',)})) for key in ('include', 'exclude'))
    assert one.fingerprint != other.fingerprint
