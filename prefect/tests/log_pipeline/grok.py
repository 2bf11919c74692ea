"""Grok rules as Datadog writes them: `%{MATCHER(arguments):attribute:filter}` within a regular expression."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tests.log_pipeline.errors import PipelineError

MAXIMUM_RULES = 10
MAXIMUM_SAMPLES = 5

MATCHERS = {
    'data': r'(?s:.*)',
    'integer': r'[+-]?\d+',
    'notSpace': r'\S+',
    'number': r'[+-]?\d+(?:\.\d+)?',
    'quotedString': r"""(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')""",
    'word': r'\b\w+\b',
}
CONVERTERS: dict[str, Callable[[str], Any]] = {'integer': int, 'number': float}
FILTERS: dict[str, Callable[[Any], Any]] = {'json': json.loads, 'uppercase': str.upper}
DATE_LETTERS = {'yyyy': ('[0-9]{4}', '%Y'), 'MM': ('[0-9]{2}', '%m'), 'dd': ('[0-9]{2}', '%d')}
TIME_LETTERS = {'HH': ('[0-9]{2}', '%H'), 'mm': ('[0-9]{2}', '%M'), 'ss': ('[0-9]{2}', '%S'), 'SSS': ('[0-9]{3}', '%f')}
ZONE_LETTERS = {'Z': ('[+-][0-9]{4}', '%z')}

TOKEN = re.compile(
    r'%\{(?P<matcher>_?\w+)(?:\("(?P<argument>(?:[^"\\]|\\.)*)"\))?'
    r'(?::(?P<attribute>[\w.]*)(?::(?P<filter>\w+))?)?\}'
)
NOT_RE2 = re.compile(r'\(\?[=!]|\(\?<[=!]|\(\?>|\(\?P=|\(\?\(|\\[1-9]|[*+?}]\+')
OPEN_BEGINNING = re.compile(r'%\{(?:data|greedyData)\b|\.[*+]|\(\?:\.\|\\n\)[*+]')


@dataclass(frozen=True)
class Capture:
    """What becomes of the text of one group: `attribute` '' is the root."""

    group: str
    attribute: str
    convert: Callable[[str], Any]


@dataclass(frozen=True)
class Rule:
    name: str
    pattern: re.Pattern[str]
    captures: tuple[Capture, ...]

    @property
    def attributes(self) -> frozenset[str]:
        return frozenset(capture.attribute for capture in self.captures if capture.attribute)

    def match(self, text: str) -> dict[str, Any] | None:
        """Return the attributes that the rule extracts from the whole text, None if it does not match."""
        match = self.pattern.fullmatch(text)
        if match is None:
            return None
        found: dict[str, Any] = {}
        for capture in self.captures:
            if match[capture.group] is None:
                continue
            try:
                value = capture.convert(match[capture.group])
            except ValueError:
                # A filter that fails leaves the attribute out (text that only looks like JSON).
                continue
            if capture.attribute:
                found[capture.attribute] = value
            elif isinstance(value, dict):
                found |= value
        return found


def refuse_what_re2_lacks(pattern: str) -> None:
    if lacking := NOT_RE2.search(pattern):
        raise PipelineError(f'RE2 has no {lacking[0]!r}: {pattern}')


def parse_rules(match_rules: str, support_rules: str = '') -> tuple[Rule, ...]:
    """Translate the rules of a grok parser; each line is `name rule`.

    Raises PipelineError for what Datadog would refuse, is ambiguous, or is not known here.
    """
    helpers = dict(_named_lines(support_rules))
    rules = tuple(_Translation(name, helpers).rule(text) for name, text in _named_lines(match_rules))
    names = [rule.name for rule in rules]
    if not 1 <= len(rules) <= MAXIMUM_RULES or len(set(names)) < len(names):
        raise PipelineError(f'a parser has up to {MAXIMUM_RULES} rules, each of a name of its own: {names}')
    unused = {name for name in helpers if not any(f'%{{{name}}}' in text for text in (match_rules, support_rules))}
    if unused:
        raise PipelineError(f'support rules that no rule uses: {sorted(unused)}')
    return rules


def _named_lines(text: str) -> list[tuple[str, str]]:
    lines = []
    for line in filter(None, (line.strip() for line in text.splitlines())):
        name, _, rule = line.partition(' ')
        if not re.fullmatch(r'_?[a-z]\w*', name) or not rule:
            raise PipelineError(f'not a rule with a name: {line}')
        lines.append((name, rule.strip()))
    return lines


class _Translation:
    """One rule on its way to a regular expression."""

    def __init__(self, name: str, helpers: dict[str, str]) -> None:
        self._name = name
        self._helpers = helpers
        self._captures: list[Capture] = []

    def rule(self, text: str) -> Rule:
        if OPEN_BEGINNING.match(text):
            raise PipelineError(f'{self._name}: a rule that begins with anything is slow on all that it does not match')
        pattern = self._expression(text)
        attributes = [capture.attribute for capture in self._captures]
        if len(set(attributes)) < len(attributes):
            raise PipelineError(f'{self._name}: an attribute is extracted twice: {attributes}')
        try:
            return Rule(self._name, re.compile(pattern), tuple(self._captures))
        except re.error as error:
            raise PipelineError(f'{self._name}: {error}') from error

    def _expression(self, text: str) -> str:
        refuse_what_re2_lacks(TOKEN.sub('', text))
        expression = TOKEN.sub(self._token, text)
        if '%{' in expression:
            raise PipelineError(f'{self._name}: not understood: {expression[expression.index("%{") :]}')
        return expression

    def _token(self, token: re.Match[str]) -> str:
        name, argument = token['matcher'], token['argument']
        if name.startswith('_'):
            if name not in self._helpers or argument is not None or token['attribute'] is not None:
                raise PipelineError(f'{self._name}: not a support rule: {token[0]}')
            return f'(?:{self._expression(self._helpers[name])})'
        expression, convert = self._matcher(name, argument)
        if token['attribute'] is None:
            return f'(?:{expression})'
        group = f'g{len(self._captures)}'
        self._captures.append(Capture(group, token['attribute'], self._with_filter(convert, token)))
        return f'(?P<{group}>{expression})'

    def _matcher(self, name: str, argument: str | None) -> tuple[str, Callable[[str], Any]]:
        if name == 'regex' and argument:
            refuse_what_re2_lacks(argument)
            if '\\' in argument.replace(r'\n', ''):
                raise PipelineError(f'{self._name}: a backslash in quotes is ambiguous: {argument}')
            return argument, str
        if name == 'date' and argument:
            return _date(argument)
        if name in MATCHERS and argument is None:
            return MATCHERS[name], CONVERTERS.get(name, str)
        raise PipelineError(f'{self._name}: unknown matcher {name}({argument or ""})')

    def _with_filter(self, convert: Callable[[str], Any], token: re.Match[str]) -> Callable[[str], Any]:
        name = token['filter']
        if name is None:
            if not token['attribute']:
                raise PipelineError(f'{self._name}: extracts to nowhere: {token[0]}')
            return convert
        if name not in FILTERS or (name == 'json') != (not token['attribute']):
            raise PipelineError(f'{self._name}: unknown filter: {token[0]}')
        apply = FILTERS[name]
        return lambda text: apply(convert(text))


def _date(letters: str) -> tuple[str, Callable[[str], int]]:
    """Translate a date pattern; the value is milliseconds since 1970."""
    expression, directives = '', ''
    for part in (found[0] for found in re.finditer(r"'[^']*'|([A-Za-z])\1*|[^A-Za-z']+", letters)):
        if part.startswith("'") or not part.isalpha():
            literal = part.strip("'")
            expression, directives = expression + re.escape(literal), directives + literal
        elif known := (DATE_LETTERS | TIME_LETTERS | ZONE_LETTERS).get(part):
            expression, directives = expression + known[0], directives + known[1]
        else:
            raise PipelineError(f'unknown letters in a date: {letters}')
    if not all(part in letters for part in DATE_LETTERS):
        raise PipelineError(f'a time without a date has no place in time: {letters}')

    def convert(text: str) -> int:
        moment = datetime.strptime(text, directives)  # noqa: DTZ007 (the zone is UTC if none is printed)
        return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)

    return expression, convert
