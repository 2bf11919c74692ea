"""The part of Datadog's log search that filters, categories and saved views of the assets use.

`@attribute:value`, `source:`, `service:` and `status:`; values are words, quoted, `*`, with `*` in them, `[1 TO 2]` or
`(a OR b)`; `AND` (also by a space), `OR`, `NOT` and `-`, and parentheses. Free text and facets without `@` are refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from tests.log_pipeline.errors import PipelineError

RESERVED = ('source', 'service', 'status')
TOKEN = re.compile(
    r'\s*(?:(?P<field>@?[A-Za-z_][\w.]*):|(?P<range>\[(?P<low>\d+) TO (?P<high>\d+)\])|(?P<bracket>[()])'
    r'|(?P<not>NOT\b|-(?=[@\w(]))|(?P<operator>AND\b|OR\b)|"(?P<quoted>[^"\\]*)"|(?P<word>[\w.*/-]+))'
)

# What a query asks: the value of an attribute (by its path) or of a reserved one.
Lookup = Callable[[str], Any]
Test = Callable[[Lookup], bool]


@dataclass(frozen=True)
class Query:
    """A query, and the fields that it refers to (attributes with their `@`)."""

    text: str
    fields: frozenset[str]
    _test: Test

    @classmethod
    def parse(cls, text: str) -> Query:
        parser = _Parser(text)
        return cls(text, frozenset(parser.fields), parser.test)

    def matches(self, values: Mapping[str, Any] | Lookup) -> bool:
        """Whether the query is true for values by field, `@` included."""
        return self._test(values.get if isinstance(values, Mapping) else values)


class _Parser:
    """Recursive descent: OR binds least, then AND, then NOT."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = self._split()
        self.fields: set[str] = set()
        self.test = self._any(self._term)
        if self._tokens:
            raise self._not_understood()

    def _split(self) -> list[re.Match[str]]:
        tokens, position = [], 0
        text = self._text.rstrip()
        while position < len(text):
            token = TOKEN.match(text, position)
            if token is None:
                raise PipelineError(f'query not understood at {text[position:]!r}: {text}')
            tokens.append(token)
            position = token.end()
        return tokens

    def _not_understood(self) -> PipelineError:
        return PipelineError(f'query not understood: {self._text}')

    def _next_is(self, group: str, value: str | None = None) -> bool:
        return bool(self._tokens) and self._tokens[0][group] is not None and value in (None, self._tokens[0][group])

    def _take(self, group: str, value: str | None = None) -> bool:
        if self._next_is(group, value):
            self._tokens.pop(0)
            return True
        return False

    def _any(self, term: Callable[[], Test]) -> Test:
        tests = [self._all(term)]
        while self._take('operator', 'OR'):
            tests.append(self._all(term))
        return tests[0] if len(tests) == 1 else lambda lookup: any(test(lookup) for test in tests)

    def _all(self, term: Callable[[], Test]) -> Test:
        tests = [self._not(term)]
        while self._tokens and not self._next_is('bracket', ')') and not self._next_is('operator', 'OR'):
            self._take('operator', 'AND')
            tests.append(self._not(term))
        return tests[0] if len(tests) == 1 else lambda lookup: all(test(lookup) for test in tests)

    def _not(self, term: Callable[[], Test]) -> Test:
        if self._take('not'):
            test = self._not(term)
            return lambda lookup: not test(lookup)
        if self._take('bracket', '('):
            test = self._any(term)
            if not self._take('bracket', ')'):
                raise self._not_understood()
            return test
        return term()

    def _term(self) -> Test:
        if not self._next_is('field'):
            raise self._not_understood()
        field = self._tokens.pop(0)['field']
        if not field.startswith('@') and field not in RESERVED:
            raise PipelineError(f'{field} is neither an attribute (@{field}) nor one of {RESERVED}: {self._text}')
        self.fields.add(field)
        if self._next_is('bracket', '('):
            return self._not(lambda: self._value(field))
        return self._value(field)

    def _value(self, field: str) -> Test:
        if not self._tokens:
            raise self._not_understood()
        token = self._tokens.pop(0)
        if token['range']:
            low, high = float(token['low']), float(token['high'])
            return lambda lookup: isinstance(number := lookup(field), int | float) and low <= number <= high
        if token['quoted'] is not None:
            return lambda lookup: lookup(field) == token['quoted']
        if token['word'] is not None:
            if token['word'] == '*':
                # An array without elements has no value that a search could find.
                return lambda lookup: lookup(field) not in (None, [])
            pattern = token['word'].replace('[', '[[]')
            return lambda lookup: (value := lookup(field)) is not None and fnmatchcase(str(value), pattern)
        raise self._not_understood()
