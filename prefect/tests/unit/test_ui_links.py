from __future__ import annotations

import pytest

from datadog_checks.prefect.ui_links import object_path, ui_url


@pytest.mark.parametrize(
    ('api', 'ui'),
    [
        ('http://localhost:4200/api', 'http://localhost:4200'),
        ('https://prefect.example.com/team/api', 'https://prefect.example.com/team'),
        ('https://prefect.example.com/rest', 'https://prefect.example.com/rest'),
        (
            'https://api.prefect.cloud/api/accounts/a1/workspaces/w1',
            'https://app.prefect.cloud/account/a1/workspace/w1',
        ),
    ],
)
def test_it_is_derived_from_the_url_of_the_api(api: str, ui: str) -> None:
    assert ui_url(api) == ui


@pytest.mark.parametrize(
    ('kind', 'object_id', 'name', 'work_pool_name', 'path'),
    [
        ('flow-run', '1', 'a', None, '/runs/flow-run/1'),
        ('task-run', '1', 'a', None, '/runs/task-run/1'),
        ('flow', '1', 'a', None, '/flows/flow/1'),
        ('deployment', '1', 'a', None, '/deployments/deployment/1'),
        ('work-pool', '1', 'a/b c', None, '/work-pools/work-pool/a%2Fb%20c'),
        ('work-queue', '1', 'q', 'a b', '/work-pools/work-pool/a%20b/queue/q'),
        ('work-queue', '1', 'q', None, None),
        ('work-pool', '1', None, None, None),
        ('worker', '1', 'a', 'b', None),
        ('flow-run', ')[x](y', None, None, '/runs/flow-run/%29%5Bx%5D%28y'),
    ],
)
def test_page_of_an_object(
    kind: str, object_id: str, name: str | None, work_pool_name: str | None, path: str | None
) -> None:
    assert object_path(kind, object_id, name, work_pool_name) == path
