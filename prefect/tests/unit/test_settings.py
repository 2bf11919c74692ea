from __future__ import annotations

from datetime import timedelta

import pytest

from datadog_checks.prefect.settings import Settings
from tests.unit.harness import Row, options

URL = 'http://prefect.test:4200/api'
FILTERS_1_0: Row = {
    'work_pool_names': {'include': ['a'], 'exclude': ['b']},
    'flow_names': {'exclude': ['c']},
    'event_names': {'include': ['d']},
}


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
    assert settings.tags == ('prefect_url:http://prefect.test:4200', 'team:data')
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


@pytest.mark.parametrize(
    ('url', 'ui_url', 'tag'),
    [
        (URL, None, 'http://prefect.test:4200'),
        ('http://user:sesame@prefect.test:4200/api', None, 'http://prefect.test:4200'),
        (f'{URL}/', None, 'http://prefect.test:4200'),
        ('https://prefect.test/team/api', None, 'https://prefect.test/team'),
        ('https://prefect.test/rest/', None, 'https://prefect.test/rest'),
        (
            'https://api.prefect.cloud/api/accounts/a1/workspaces/w1',
            None,
            'https://app.prefect.cloud/account/a1/workspace/w1',
        ),
        ('http://10.0.0.7:4200/api', 'https://prefect.example.com', 'https://prefect.example.com'),
        ('http://10.0.0.7:4200/api', 'https://prefect.example.com/team//', 'https://prefect.example.com/team'),
    ],
)
def test_tag_and_links_are_the_address_at_which_people_open_the_server(url: str, ui_url: str | None, tag: str) -> None:
    settings = Settings.from_options(options(url, **({'ui_url': ui_url} if ui_url else {})))
    assert settings.ui_url == tag
    assert settings.tags == (f'prefect_url:{tag}',)


class TestIds:
    @pytest.mark.parametrize(
        ('changes', 'is_the_same'),
        [
            ({'url': 'http://user:sesame@prefect.test:4200/api/'}, True),
            ({'url': 'http://10.0.0.7/api', 'ui_url': 'http://prefect.test:4200'}, True),
            ({'tags': ('a:b',)}, True),
            ({'late_start_threshold': 99.0}, True),
            ({'url': 'http://prefect.test:4201/api'}, False),
            ({'ui_url': 'http://prefect.test:4201'}, False),
            ({'work_pool_names': {'include': ('a',)}}, False),
            ({'work_queue_names': {'include': ('a',)}}, False),
            ({'deployment_names': {'include': ('a',)}}, False),
            ({'flow_names': {'include': ('a',)}}, False),
            ({'event_names': {'include': ('a',)}}, True),
            ({'prefect_tags': {'include': ('a',)}}, True),
            ({'collect': {'late_runs': False}}, True),
        ],
        ids=lambda value: next(iter(value)) if isinstance(value, dict) else '',
    )
    def test_state_id_is_that_of_what_is_counted(self, changes: Row, is_the_same: bool) -> None:
        same = Settings.from_options(options(**changes)).state_id == Settings.from_options(options()).state_id
        assert same is is_the_same

    def test_include_and_exclude_are_not_the_same(self) -> None:
        one, other = (Settings.from_options(options(work_pool_names={key: ('a',)})) for key in ('include', 'exclude'))
        assert one.state_id != other.state_id

    @pytest.mark.parametrize(
        ('changes', 'is_the_same'),
        [
            ({'url': 'http://user:sesame@prefect.test:4200/api/'}, True),
            ({'url': 'http://10.0.0.7/api', 'ui_url': 'http://prefect.test:4200'}, False),
            ({'tags': ('a:b',)}, False),
            ({'collect_events': True}, False),
            ({'collect_logs': True}, False),
            ({'log_level': 'ERROR'}, True),
            ({'min_collection_interval': 60}, False),
            ({'timeout': 60}, True),
        ],
        ids=lambda value: next(iter(value)) if isinstance(value, dict) else '',
    )
    def test_instance_id_tells_apart_what_counts_the_same(self, changes: Row, is_the_same: bool) -> None:
        same = Settings.from_options(options(**changes)).instance_id == Settings.from_options(options()).instance_id
        assert same is is_the_same

    @pytest.mark.parametrize(
        ('changes', 'made_by_1_0'),
        [
            ({}, 'd3c361254cc527c8'),
            ({'ui_url': 'https://prefect.example.com'}, 'd3c361254cc527c8'),
            (FILTERS_1_0, '02088272a62f8cc2'),
        ],
    )
    def test_former_state_id_is_that_of_version_1_0(self, changes: Row, made_by_1_0: str) -> None:
        """As commit 486a0bc made them."""
        assert Settings.from_options(options(**changes)).former_state_id == made_by_1_0


class TestClusterCheck:
    @pytest.mark.parametrize(
        ('changes', 'catchup', 'age'),
        [
            ({}, 3600, None),
            ({'max_catchup': 600}, 600, None),
            ({'empty_default_hostname': True}, 120, 60),
            ({'empty_default_hostname': True, 'min_collection_interval': 20}, 120, 60),
            ({'empty_default_hostname': True, 'min_collection_interval': 100}, 200, 300),
            ({'empty_default_hostname': True, 'min_collection_interval': 7200}, 14400, 21600),
            ({'empty_default_hostname': True, 'max_catchup': 600}, 600, 60),
        ],
    )
    def test_goes_back_less_far_than_an_instance_of_one_agent(
        self, changes: Row, catchup: int, age: int | None
    ) -> None:
        settings = Settings.from_options(options(**changes))
        assert settings.max_catchup == timedelta(seconds=catchup)
        assert settings.max_state_age == (None if age is None else timedelta(seconds=age))


def test_user_info_of_the_url_is_not_shown() -> None:
    settings = Settings.from_options(options('http://reader:sesame@prefect.test:4200/api'))

    assert 'sesame' not in repr(settings)
