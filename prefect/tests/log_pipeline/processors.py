"""Datadog's log processors, those that the pipeline uses, and the log that they change."""

from __future__ import annotations

import ast
import copy
import json
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Protocol

from tests.log_pipeline.errors import PipelineError
from tests.log_pipeline.grok import MAXIMUM_SAMPLES, Rule, parse_rules
from tests.log_pipeline.query import Query

SOURCE = 'prefect'

Definition = Mapping[str, Any]


class Reading(Enum):
    """What may have become of a line of JSON when a pipeline gets to see it."""

    TEXT = 'nothing, it is the message'
    ATTRIBUTES = 'attributes, and the message is still the whole line'
    RESERVED = 'attributes, and the message is that of `message` or `msg`, which is no attribute any more'


@dataclass
class Log:
    """A log on its way through a pipeline; `rules` are the names of the grok rules that matched."""

    message: str
    attributes: dict[str, Any] = field(default_factory=dict)
    status: str | None = None
    timestamp: int | None = None
    rules: list[str] = field(default_factory=list)

    @classmethod
    def from_text(cls, text: str, reading: Reading = Reading.ATTRIBUTES) -> Log:
        """Take a text as the intake does."""
        if reading is Reading.TEXT or not text.startswith('{'):
            return cls(text)
        try:
            log = cls(text, json.loads(text))
        except json.JSONDecodeError:
            return cls(text)
        for name in ('ddsource', 'ddtags', 'service'):
            log.attributes.pop(name, None)
        if reading is Reading.RESERVED:
            status = log.attributes.pop('status', None)
            log.status = status if status is None else status_of(status)
            reserved = next((name for name in ('message', 'msg') if name in log.attributes), None)
            if reserved is not None:
                log.message = str(log.attributes.pop(reserved))
        return log

    def get(self, path: str) -> Any:
        """Return the attribute of this path; None if there is none, or if it is null."""
        value: Any = self.attributes
        for key in path.split('.'):
            if not isinstance(value, dict) or key not in value:
                return None
            value = value[key]
        return value

    def text(self, path: str) -> Any:
        """Return the attribute, or the message of the log where a processor names `message`."""
        return self.message if path == 'message' else self.get(path)

    def set(self, path: str, value: Any) -> None:
        *parents, name = path.split('.')
        target = self.attributes
        for key in parents:
            target = target.setdefault(key, {})
            if not isinstance(target, dict):
                raise PipelineError(f'{path}: {key} has a value of its own')
        target[name] = value

    def remove(self, path: str) -> None:
        *parents, name = path.split('.')
        holders = [self.attributes]
        for key in parents:
            holders.append(holders[-1][key])
        del holders[-1][name]
        for holder, key in zip(reversed(holders[:-1]), reversed(parents), strict=True):
            if not holder[key]:
                del holder[key]

    def field(self, name: str) -> Any:
        """Return the value of a field of a query."""
        if name.startswith('@'):
            return self.get(name[1:])
        return {'source': SOURCE, 'status': self.status}.get(name)


class Processor(Protocol):
    @property
    def targets(self) -> frozenset[str]:
        """The attributes that it may set."""

    def apply(self, log: Log) -> None: ...


@dataclass(frozen=True)
class GrokParser:
    source: str
    rules: tuple[Rule, ...]
    samples: tuple[str, ...]

    @classmethod
    def read(cls, definition: Definition) -> GrokParser:
        keys = _keys(definition, {'source', 'samples', 'grok'})
        grok = _keys(keys['grok'], {'matchRules'}, {'supportRules'}, common=set())
        if not 1 <= len(keys['samples']) <= MAXIMUM_SAMPLES:
            raise PipelineError(f'{definition["name"]}: 1 to {MAXIMUM_SAMPLES} samples')
        parser = cls(
            keys['source'], parse_rules(grok['matchRules'], grok.get('supportRules', '')), tuple(keys['samples'])
        )
        for sample in parser.samples:
            if parser.match(sample) is None:
                raise PipelineError(f'{definition["name"]}: no rule matches the sample {sample!r}')
        return parser

    @property
    def targets(self) -> frozenset[str]:
        return frozenset().union(*(rule.attributes for rule in self.rules))

    def match(self, text: str) -> tuple[str, dict[str, Any]] | None:
        """Return the name of the first rule that matches, and what it extracts."""
        for rule in self.rules:
            if (found := rule.match(text)) is not None:
                return rule.name, found
        return None

    def apply(self, log: Log) -> None:
        text = log.text(self.source)
        match = self.match(text) if isinstance(text, str) else None
        if match is not None:
            log.rules.append(match[0])
            for path, value in match[1].items():
                log.set(path, value)


@dataclass(frozen=True)
class AttributeRemapper:
    sources: tuple[str, ...]
    target: str
    preserve_source: bool
    override_on_conflict: bool

    @classmethod
    def read(cls, definition: Definition) -> AttributeRemapper:
        keys = _keys(
            definition, {'sources', 'sourceType', 'target', 'targetType', 'preserveSource', 'overrideOnConflict'}
        )
        if (keys['sourceType'], keys['targetType']) != ('attribute', 'attribute'):
            raise PipelineError(f'{definition["name"]}: only from attribute to attribute')
        return cls(tuple(keys['sources']), keys['target'], keys['preserveSource'], keys['overrideOnConflict'])

    @property
    def targets(self) -> frozenset[str]:
        return frozenset({self.target})

    def apply(self, log: Log) -> None:
        for source in self.sources:
            value = log.get(source)
            if value is None or (log.get(self.target) is not None and not self.override_on_conflict):
                continue
            log.set(self.target, copy.deepcopy(value))
            if not self.preserve_source:
                log.remove(source)


@dataclass(frozen=True)
class MessageRemapper:
    sources: tuple[str, ...]
    targets: frozenset[str] = frozenset()

    @classmethod
    def read(cls, definition: Definition) -> MessageRemapper:
        return cls(tuple(_keys(definition, {'sources'})['sources']))

    def apply(self, log: Log) -> None:
        source = next((path for path in self.sources if log.get(path) is not None), None)
        if source is not None:
            log.message = str(log.get(source))
            log.remove(source)


@dataclass(frozen=True)
class StatusRemapper:
    sources: tuple[str, ...]
    targets: frozenset[str] = frozenset()

    @classmethod
    def read(cls, definition: Definition) -> StatusRemapper:
        return cls(tuple(_keys(definition, {'sources'})['sources']))

    def apply(self, log: Log) -> None:
        value = next((log.get(path) for path in self.sources if log.get(path) is not None), None)
        if value is not None:
            log.status = status_of(str(value))


def status_of(level: str) -> str:
    """Return the status that Datadog makes of the name of a level."""
    beginnings = {
        'emerg': 'emergency',
        'f': 'emergency',
        'a': 'alert',
        'c': 'critical',
        'err': 'error',
        'w': 'warn',
        'n': 'notice',
        'i': 'info',
        'd': 'debug',
        'trace': 'debug',
        'verbose': 'debug',
        'o': 'ok',
        'success': 'ok',
    }
    return next((status for start, status in beginnings.items() if level.lower().startswith(start)), 'info')


@dataclass(frozen=True)
class DateRemapper:
    sources: tuple[str, ...]
    targets: frozenset[str] = frozenset()

    @classmethod
    def read(cls, definition: Definition) -> DateRemapper:
        return cls(tuple(_keys(definition, {'sources'})['sources']))

    def apply(self, log: Log) -> None:
        value = next((log.get(path) for path in self.sources if log.get(path) is not None), None)
        if isinstance(value, str):
            moment = datetime.fromisoformat(value)
            value = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000
        if value is not None:
            log.timestamp = int(value)


@dataclass(frozen=True)
class CategoryProcessor:
    target: str
    categories: tuple[tuple[Query, str], ...]

    @classmethod
    def read(cls, definition: Definition) -> CategoryProcessor:
        keys = _keys(definition, {'target', 'categories'})
        categories = []
        for category in keys['categories']:
            parts = _keys(category, {'filter', 'name'}, common=set())
            categories.append((_filter(parts), parts['name']))
        return cls(keys['target'], tuple(categories))

    @property
    def targets(self) -> frozenset[str]:
        return frozenset({self.target})

    def apply(self, log: Log) -> None:
        name = next((name for query, name in self.categories if query.matches(log.field)), None)
        if name is not None:
            log.set(self.target, name)


@dataclass(frozen=True)
class LookupProcessor:
    source: str
    target: str
    table: Mapping[str, str]

    @classmethod
    def read(cls, definition: Definition) -> LookupProcessor:
        keys = _keys(definition, {'source', 'target', 'lookupTable'})
        rows = [row.partition(',') for row in keys['lookupTable'].splitlines()]
        return cls(keys['source'], keys['target'], {key: value for key, _, value in rows})

    @property
    def targets(self) -> frozenset[str]:
        return frozenset({self.target})

    def apply(self, log: Log) -> None:
        value = self.table.get(str(log.get(self.source)))
        if value is not None:
            log.set(self.target, value)


@dataclass(frozen=True)
class ArithmeticProcessor:
    """`expression` is one operation on two attributes or numbers."""

    expression: str
    target: str
    replace_missing: bool

    @classmethod
    def read(cls, definition: Definition) -> ArithmeticProcessor:
        keys = _keys(definition, {'expression', 'target', 'replaceMissing'})
        processor = cls(keys['expression'], keys['target'], keys['replaceMissing'])
        processor.apply(Log(''))
        return processor

    @property
    def targets(self) -> frozenset[str]:
        return frozenset({self.target})

    def apply(self, log: Log) -> None:
        value = self._value(ast.parse(self.expression, mode='eval').body, log)
        if value is not None:
            log.set(self.target, value)

    def _value(self, node: ast.expr, log: Log) -> float | None:
        operators: dict[type[ast.operator], Callable[[float, float], float]] = {
            ast.Add: operator.add,
            ast.Sub: operator.sub,
            ast.Mult: operator.mul,
            ast.Div: operator.truediv,
        }
        match node:
            case ast.BinOp() if type(node.op) in operators:
                left, right = self._value(node.left, log), self._value(node.right, log)
                if left is None or right is None:
                    return None
                return operators[type(node.op)](left, right)
            case ast.Constant(value=int() | float() as number):
                return number
            case ast.Name() | ast.Attribute():
                number = log.get(ast.unparse(node))
                if isinstance(number, int | float):
                    return number
                return 0 if self.replace_missing else None
        raise PipelineError(f'not an expression of the four operations: {self.expression}')


@dataclass(frozen=True)
class StringBuilder:
    template: str
    target: str
    replace_missing: bool

    @classmethod
    def read(cls, definition: Definition) -> StringBuilder:
        keys = _keys(definition, {'template', 'target', 'replaceMissing'})
        return cls(keys['template'], keys['target'], keys['replaceMissing'])

    @property
    def targets(self) -> frozenset[str]:
        return frozenset({self.target})

    def apply(self, log: Log) -> None:
        blocks = re.findall(r'%\{([\w.]+)\}', self.template)
        if not self.replace_missing and any(log.get(path) is None for path in blocks):
            return
        log.set(self.target, re.sub(r'%\{([\w.]+)\}', lambda block: self._text(log.get(block[1])), self.template))

    @staticmethod
    def _text(value: Any) -> str:
        if isinstance(value, list):
            return ','.join(map(str, value))
        return '' if value is None else str(value)


@dataclass(frozen=True)
class Pipeline:
    name: str
    query: Query
    processors: tuple[Processor, ...]

    @classmethod
    def read(cls, definition: Definition) -> Pipeline:
        keys = _keys(definition, {'filter', 'processors'})
        return cls(keys['name'], _filter(keys), tuple(map(read_processor, keys['processors'])))

    @property
    def targets(self) -> frozenset[str]:
        return frozenset().union(*(processor.targets for processor in self.processors))

    def apply(self, log: Log) -> None:
        if self.query.matches(log.field):
            for processor in self.processors:
                processor.apply(log)

    def walk(self) -> Iterator[Processor]:
        """Yield all processors, those of nested pipelines too."""
        for processor in self.processors:
            yield processor
            if isinstance(processor, Pipeline):
                yield from processor.walk()


READERS: dict[str, Callable[[Definition], Processor]] = {
    'arithmetic-processor': ArithmeticProcessor.read,
    'attribute-remapper': AttributeRemapper.read,
    'category-processor': CategoryProcessor.read,
    'date-remapper': DateRemapper.read,
    'grok-parser': GrokParser.read,
    'lookup-processor': LookupProcessor.read,
    'message-remapper': MessageRemapper.read,
    'pipeline': Pipeline.read,
    'status-remapper': StatusRemapper.read,
    'string-builder-processor': StringBuilder.read,
}


def read_processor(definition: Definition) -> Processor:
    kind = definition.get('type')
    if kind not in READERS:
        raise PipelineError(f'unknown processor: {kind}')
    return READERS[kind](definition)


def _keys(
    definition: Definition,
    required: set[str],
    optional: set[str] = frozenset(),  # type: ignore[assignment]
    *,
    common: set[str] = frozenset({'type', 'name', 'enabled'}),  # type: ignore[assignment]
) -> Definition:
    """Return the definition if it has these keys and no others, and is enabled."""
    missing, unknown = (required | common) - set(definition), set(definition) - required - optional - common
    if missing or unknown:
        raise PipelineError(f'{definition.get("name", definition)}: missing {missing or "-"}, unknown {unknown or "-"}')
    if definition.get('enabled') is False:
        raise PipelineError(f'{definition["name"]} is not enabled: leave it out')
    return definition


def _filter(definition: Definition) -> Query:
    return Query.parse(_keys(definition['filter'], {'query'}, common=set())['query'])
