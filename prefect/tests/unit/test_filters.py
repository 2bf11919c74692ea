from __future__ import annotations

import re
import time

import pytest

from datadog_checks.prefect import filters
from datadog_checks.prefect.filters import NameFilter, ResourceFilters


@pytest.mark.parametrize(
    ('include', 'exclude', 'allowed'),
    [
        pytest.param([], [], {'prod', 'prod-test', 'test', None}, id='no filter'),
        pytest.param(None, None, {'prod', 'prod-test', 'test', None}, id='null'),
        pytest.param(['prod'], [], {'prod', 'prod-test'}, id='include'),
        pytest.param(['^prod$', '^test$'], [], {'prod', 'test'}, id='any include'),
        pytest.param([], ['test'], {'prod', None}, id='exclude'),
        pytest.param([], ['^prod', '^test'], {None}, id='any exclude'),
        pytest.param(['prod'], ['test'], {'prod'}, id='exclude wins'),
        pytest.param(['^$'], [], set(), id='include nothing'),
        pytest.param([], ['.*'], {None}, id='exclude everything'),
        pytest.param(['PROD'], [], set(), id='case counts'),
        pytest.param(['(?i)PROD$'], [], {'prod'}, id='flags in the pattern'),
    ],
)
def test_filter_allows_names(include: list[str] | None, exclude: list[str] | None, allowed: set[str | None]) -> None:
    names = NameFilter.compile(include, exclude)
    assert {name for name in ('prod', 'prod-test', 'test', None) if names.allows(name)} == allowed
    assert names.is_active is bool(include or exclude)


def test_pattern_that_does_not_compile_is_an_error() -> None:
    with pytest.raises(re.error):
        NameFilter.compile(['('], None)


@pytest.mark.parametrize('kind', ['work_pools', 'work_queues', 'deployments', 'flows'])
def test_what_has_no_parent_is_kept_unless_one_is_included(kind: str) -> None:
    included = ResourceFilters(**{kind: NameFilter.compile(['.'], None)})
    excluded = ResourceFilters(**{kind: NameFilter.compile(None, ['.'])})
    assert (included.keep_parentless, included.is_active) == (False, True)
    assert (excluded.keep_parentless, excluded.is_active) == (True, True)


def test_no_filter_is_not_active() -> None:
    assert not ResourceFilters().is_active
    assert ResourceFilters().keep_parentless


class TestNamesOfStrangers:
    def test_first_255_characters_are_matched(self) -> None:
        names = NameFilter.compile(['end'], None)
        assert names.allows('x' * 252 + 'end')
        assert not names.allows('x' * 253 + 'end')

    def test_long_name_takes_no_time(self) -> None:
        names = NameFilter.compile(['prod.*etl.*v2'], None)
        started = time.thread_time()
        assert not names.allows('prodetl' * 3000)
        assert time.thread_time() - started < 0.05

    def test_verdicts_are_remembered_up_to_a_bound(self) -> None:
        names = NameFilter.compile(['7$'], ['77$'])
        for number in range(50_000):
            assert names.allows(str(number)) is (number % 10 == 7 and number % 100 != 77)
        assert len(names._verdicts) <= 20_000
        assert names.allows('7') is names.allows('7') is True

    def test_slow_pattern_is_warned_of_once_by_its_option(
        self, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(filters, '_SLOW_SECONDS', 0.0)
        names = NameFilter.compile(['(a+)+$'], None, 'deployment_names')
        for end in '!?':
            assert not names.allows('a' * 22 + '\x1b' + end)
        (warning,) = caplog.messages
        assert warning.startswith('deployment_names: the pattern `(a+)+$` took ')
        assert '\x1b' not in warning
