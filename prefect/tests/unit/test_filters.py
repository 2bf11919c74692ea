from __future__ import annotations

import re

import pytest

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
