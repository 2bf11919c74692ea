from __future__ import annotations

import logging

import pytest

from datadog_checks.prefect.unknown_options import warn_of_unknown_options

KNOWN = ('prefect_url', 'work_pool_names', 'deployment_names')


def warnings(caplog: pytest.LogCaptureFixture, *options: str) -> list[str]:
    with caplog.at_level(logging.WARNING):
        warn_of_unknown_options(dict.fromkeys(options, 'sesame'), KNOWN, logging.getLogger('test'))
    return [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize(
    ('option', 'meant'),
    [
        ('prefect_ulr', 'did you mean `prefect_url`?'),
        ('pool', 'did you mean `work_pool_names`?'),
        ('zzz', 'see conf.yaml.example for those that there are'),
    ],
)
def test_it_is_named_with_the_one_that_was_meant(caplog: pytest.LogCaptureFixture, option: str, meant: str) -> None:
    assert warnings(caplog, option) == [f'Unknown option `{option}` is ignored: {meant}']


def test_each_is_named_in_order_and_no_value_is_told(caplog: pytest.LogCaptureFixture) -> None:
    found = warnings(caplog, 'zzz', 'yyy', 'prefect_url')

    assert [text.split('`')[1] for text in found] == ['yyy', 'zzz']
    assert not [text for text in found if 'sesame' in text]


@pytest.mark.parametrize('option', ['timeout', 'password', 'loader', 'namespace', 'tls_verify'])
def test_what_the_agent_and_its_base_read_is_known(caplog: pytest.LogCaptureFixture, option: str) -> None:
    assert warnings(caplog, option) == []


def test_a_long_name_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    (text,) = warnings(caplog, 'x' * 1000)
    assert len(text) < 200
