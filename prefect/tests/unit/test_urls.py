from __future__ import annotations

import pytest

from datadog_checks.prefect.urls import CLOUD_URL, path_segment

WORKSPACE = '/accounts/4b0c/workspaces/9d21'


@pytest.mark.parametrize('name', ['a/b', 'ä b', '../admin', 'a?b#c'])
def test_name_is_one_segment_of_a_path(name: str) -> None:
    assert not set('/?# ').intersection(path_segment(name))


@pytest.mark.parametrize(
    ('api', 'host'),
    [
        ('https://api.prefect.cloud/api', 'prefect.cloud'),
        ('https://prefect.firm.example/api', 'prefect.firm.example'),
        ('http://proxy:8080/cloud', 'proxy:8080'),
    ],
)
def test_workspace_of_prefect_cloud_is_told_from_its_api(api: str, host: str) -> None:
    cloud = CLOUD_URL.fullmatch(api + WORKSPACE)
    assert cloud is not None
    assert (cloud['api'], cloud['host'], cloud['account'], cloud['workspace']) == (api, host, '4b0c', '9d21')


@pytest.mark.parametrize('url', ['http://127.0.0.1:4200/api', 'https://api.prefect.cloud/api', f'{WORKSPACE}/more'])
def test_other_url_is_none_of_prefect_cloud(url: str) -> None:
    assert CLOUD_URL.fullmatch(url) is None
