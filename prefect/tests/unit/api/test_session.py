from __future__ import annotations

import pytest

from datadog_checks.prefect.api.session import BoundedHttp

VARIABLES = ('REQUESTS_CA_BUNDLE', 'CURL_CA_BUNDLE')


@pytest.mark.parametrize('variable', VARIABLES)
@pytest.mark.parametrize(
    ('options', 'verify'),
    [
        pytest.param({}, '/of/the/environment', id='none are configured'),
        pytest.param({'tls_ca_cert': '/configured'}, '/configured', id='others are configured'),
        pytest.param({'tls_verify': False}, False, id='none are wanted'),
    ],
)
def test_authorities_of_the_environment_apply_where_none_are_configured(
    monkeypatch: pytest.MonkeyPatch, variable: str, options: dict[str, object], verify: object
) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, '/of/the/environment')
    assert BoundedHttp(options, {}).options['verify'] == verify
