from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import datadog_checks.prefect
from datadog_checks.prefect.api.errors import HINTS, CollectionError, NotFound, PrefectApiError, Rejected, status_error

PACKAGE = Path(datadog_checks.prefect.__file__).parent
README = Path(__file__).resolve().parents[3] / 'README.md'
FAILURES = README.parent.parent / 'docs' / 'failures.md'


def test_collection_error_names_each_collector_with_its_error() -> None:
    failures = {'workers': PrefectApiError('POST /x', 'HTTP 500'), 'flow_runs': ValueError('sesame\nsesame')}
    error = CollectionError(failures, total=18)
    assert str(error) == (
        '2 of 18 collectors failed: workers: POST /x: HTTP 500; '
        'flow_runs: unexpected ValueError, a defect of the check. See the log of the Agent'
    )
    assert error.failures is failures


@pytest.mark.parametrize(
    ('status', 'kind'), [(404, NotFound), (422, Rejected), (500, PrefectApiError), (302, PrefectApiError)]
)
def test_status_gives_the_kind_of_error(status: int, kind: type[PrefectApiError]) -> None:
    error = status_error('GET /x', status, '', retry_after=None)
    assert type(error) is kind
    assert error.cause.startswith(f'HTTP {status}, ')


def test_what_the_server_says_comes_last() -> None:
    error = status_error('GET /x', 503, 'database is locked', retry_after='5')
    assert str(error).endswith('(Retry-After: 5) (the server says: database is locked)')


@pytest.mark.parametrize('retry_after', [None, ''])
def test_nothing_is_said_of_what_is_not_known(retry_after: str | None) -> None:
    message = str(status_error('GET /x', 500, '', retry_after=retry_after))
    assert 'Retry-After' not in message
    assert 'says' not in message


def told(head: str) -> list[str]:
    """What the table of the README with this head says of errors: the quoted words of its first column."""
    rows = README.read_text().partition(f'| {head} |')[2].partition('\n\n')[0].splitlines()[2:]
    return [words for row in rows for words in re.findall('`([^`]+)`', row.split(' | ')[0])]


def texts(tree: ast.AST) -> Iterator[str]:
    """The texts of a module as they are written, with an ellipsis for each value in them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield ''.join(str(part.value) if isinstance(part, ast.Constant) else '...' for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def written() -> list[str]:
    return [text for path in sorted(PACKAGE.rglob('*.py')) for text in texts(ast.parse(path.read_text()))]


def causes_in_code() -> Iterator[str]:
    """What the code gives as the cause of an error: to an exception, or as the description of a failed request."""
    for path in sorted(PACKAGE.rglob('*.py')):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, 'id', '') == 'PrefectApiError':
                yield from (text for argument in node.args[1:] for text in list(texts(argument))[:1])
            if path.stem == 'failed_request' and isinstance(node, ast.Lambda):
                yield from list(texts(node.body))[:1]
            if isinstance(node, ast.FunctionDef) and node.name.lstrip('_').startswith('describe_'):
                for answer in (part for part in ast.walk(node) if isinstance(part, ast.Return) and part.value):
                    yield from list(texts(answer))[:1]


@pytest.mark.parametrize('head', ['The error says', "The Agent's log warns"])
def test_readme_tells_only_what_is_said(head: str) -> None:
    statuses = [f'HTTP {status}, {hint}' for status, hint in HINTS.items()]
    said = [*written(), *statuses, 'Detected 1 error while loading configuration model']
    assert told(head)
    for words in told(head):
        assert any(words in text for text in said), words


@pytest.mark.parametrize('status', [*HINTS, 302, 418])
def test_readme_tells_of_each_status(status: int) -> None:
    location = 'http://x.test/' if status == 302 else ''
    message = str(status_error('GET /x', status, '', retry_after=None, location=location))
    assert [words for words in told('The error says') if words in message], message


def test_readme_tells_of_each_error_that_a_fault_gave() -> None:
    errors = [row.split(' | ')[1].strip('`') for row in FAILURES.read_text().splitlines() if row.startswith('| ')][1:]
    assert len(errors) > 50
    for error in errors:
        for cause in re.split('; (?=[a-z_., ]+: )', error.partition('failed: ')[2]):
            known = [words for words in told('The error says') if words in cause]
            assert not cause or cause.endswith('same cause') or known, cause


def test_readme_tells_of_each_error_in_the_code() -> None:
    causes = list(causes_in_code())
    assert len(causes) > 15
    # To be heard of the version is no part of a check's success.
    for cause in set(causes) - {'the answer is not a string'}:
        assert [words for words in told('The error says') if words in cause], cause
