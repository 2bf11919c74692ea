"""The rows of an answer as models, read by pydantic, and the types of their fields.

A row that does not hold what its model says becomes a MalformedRow: it is skipped and counted, but paging needs it.
Works with pydantic 2.12 and 2.13.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from sys import getsizeof
from typing import Annotated, Any, Protocol, TypeVar

from pydantic import (
    AfterValidator,
    AliasPath,
    BeforeValidator,
    Field,
    PlainValidator,
    TypeAdapter,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic_core import PydanticCustomError, PydanticUseDefault

from datadog_checks.prefect.api import decoding
from datadog_checks.prefect.api.times import parse_time

Row = Mapping[str, Any]


class HasId(Protocol):
    @property
    def id(self) -> str | None: ...


M = TypeVar('M', bound=HasId)

# The integers of the server's databases. Python cannot always make a float of a larger one.
_MAX_INTEGER = 2**63
_MAX_COUNT = 10**12
_BEGINNING = 300


# What the texts of an object may take before they count: more than those of any that people make.
_ORDINARY_BYTES = 2 * 2**10


class UnexpectedAnswer(Exception):
    """An answer is JSON, but not what the endpoint promises. The text holds no value of the answer."""


@dataclass(frozen=True, slots=True)
class MalformedRow:
    """A JSON object that is not what the endpoint promises."""

    row: Row

    @property
    def id(self) -> str | None:
        found = self.row.get('id')
        return found if isinstance(found, str) else None

    def time(self, key: str) -> datetime | None:
        """The time at `key`, None if it is null or absent. Raises ValueError, TypeError or OverflowError."""
        value = self.row.get(key)
        return None if value is None else parse_time(value)

    def problem(self, model: type) -> str:
        """Why it is no `model`, without any value: `id is null, expected a string`."""
        try:
            _adapter(model).validate_python(self.row)
        except ValidationError as error:
            return _problem(error)
        return 'not understood'


def _malformed_row(value: object) -> MalformedRow:
    if not isinstance(value, dict):
        raise PydanticCustomError('object_type', 'not an object')
    return MalformedRow(value)


def kept_bytes(rows: Iterable[object]) -> int:
    """What rows take in memory beyond what those of any server take."""
    return sum(max(0, _bytes(row) - _ORDINARY_BYTES) for row in rows)


def _bytes(row: object) -> int:
    """Of a model its texts, of what is none everything."""
    fields = getattr(type(row), '__dataclass_fields__', ())
    rest: list[object] = [getattr(row, field) for field in fields]
    size = 0
    while rest:
        value = rest.pop()
        if isinstance(value, dict):
            rest += value.values()
        elif isinstance(value, (list, tuple)):
            rest += value
        if isinstance(value, (str, dict, list)):
            size += getsizeof(value)
    return size


# A JSON list of objects.
Rows = Annotated[
    list[Annotated[M | Annotated[MalformedRow, PlainValidator(_malformed_row)], Field(union_mode='left_to_right')]],
    Field(fail_fast=True),
]


def read_rows(model: type[M], content: bytes) -> Rows[M]:
    """The rows of a list. Raises UnexpectedAnswer; for what is not JSON ValueError or RecursionError."""
    rows: Rows[M] = read(Rows[model], content, 'a list of objects')  # type: ignore[valid-type]
    return rows


def read(kind: Any, content: bytes, name: str) -> Any:
    """An answer as a `kind`, called `name` in errors. Keys that no field names are not built. Raises as `read_rows`."""
    adapter = _adapter(kind)
    try:
        return adapter.validate_json(content)
    except ValidationError as error:
        if error.errors(include_input=False, include_url=False)[0]['type'] != 'json_invalid':
            raise UnexpectedAnswer(f'the answer is not {name}') from None
    # pydantic reads no half of a surrogate pair and no more than about 200 levels. The parameters of a flow run may
    # have 254 (3.8.8).
    try:
        return adapter.validate_python(decoding.loads(content))
    except ValidationError:
        raise UnexpectedAnswer(f'the answer is not {name}') from None


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


_EXPECTED = {
    'dataclass_type': 'an object',
    'float_type': 'a number',
    'int_type': 'an integer',
    'list_type': 'a list',
    'object_type': 'an object',
    'string_type': 'a string',
    'time_type': 'a time',
    'tuple_type': 'a list',
}
_PROBLEMS = {
    'finite_number': 'is out of range',
    'greater_than_equal': 'is out of range',
    'less_than_equal': 'is out of range',
    'missing': 'is missing',
    'string_pattern_mismatch': 'is not a UUID',
    'string_too_short': 'is an empty string',
    'time': 'is not a time',
}


def _problem(error: ValidationError) -> str:
    """The first problem: the field and the JSON type of its value, and never the value, which may be the user's data.

    The strings in the path of an error (`loc`) are keys that the models name.
    """
    first = error.errors(include_context=False, include_url=False)[0]
    field = '.'.join(part if isinstance(part, str) else '*' for part in first['loc'])
    expected, found = _EXPECTED.get(first['type']), _json_type(first['input'])
    if expected is None:
        return f'{field} {_PROBLEMS.get(first["type"], "is not valid")}'
    return f'{field} is out of range' if found == expected else f'{field} is {found}, expected {expected}'


def _json_type(value: object) -> str:
    names = {type(None): 'null', bool: 'a boolean', int: 'a number', float: 'a number', str: 'a string'}
    return names.get(type(value), 'a list' if isinstance(value, list) else 'an object')


def _time(value: object) -> datetime:
    if not isinstance(value, str):
        raise PydanticCustomError('time_type', 'not a string')
    try:
        return parse_time(value)
    except (ValueError, OverflowError):
        raise PydanticCustomError('time', 'not a time') from None


def _optional_time(value: object) -> datetime | None:
    return None if value is None else _time(value)


def _default_if_null(value: object) -> object:
    if value is None:
        raise PydanticUseDefault
    return value


def _default_if_wrong(value: object, validate: ValidatorFunctionWrapHandler) -> object:
    try:
        return validate(value)
    except ValidationError:
        raise PydanticUseDefault from None


def at(*keys: str) -> Any:
    """Where a field is in the row, if not at its own name: `at('state', 'timestamp')`."""
    return Field(validation_alias=AliasPath(*keys))


_STRICT = Field(strict=True)
_STRICT_INTEGER = Field(strict=True, ge=-_MAX_INTEGER, le=_MAX_INTEGER)
_NULL_IS_DEFAULT = BeforeValidator(_default_if_null)
_SENSIBLE = Field(ge=timedelta(), le=timedelta(days=365))
_WRONG_IS_DEFAULT = WrapValidator(_default_if_wrong)

Text = Annotated[str, Field(strict=True, min_length=1)]
AnyText = Annotated[str, _STRICT]
OptionalText = Annotated[str | None, _STRICT]
# Of a text that may be long only so many characters are kept: enough for a sentence of Prefect's own.
Beginning = Annotated[str | None, _STRICT, AfterValidator(lambda text: text and text[:_BEGINNING])]
Texts = Annotated[tuple[Annotated[str, _STRICT], ...], _NULL_IS_DEFAULT]
# An id that is remembered and asked for again: the server refuses any request with one that is no UUID.
Identifier = Annotated[str, Field(strict=True, pattern='^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$')]
Integer = Annotated[int, _STRICT_INTEGER, _NULL_IS_DEFAULT]
OptionalInteger = Annotated[int | None, _STRICT_INTEGER]
Count = Annotated[int, Field(strict=True, ge=0, le=_MAX_COUNT)]
# No duration is negative, even if the clocks of the server went back.
Seconds = Annotated[
    float, Field(strict=True, allow_inf_nan=False), AfterValidator(lambda seconds: max(0.0, seconds)), _NULL_IS_DEFAULT
]
# A setting in seconds or as ISO 8601 ('PT15S'). One that cannot be read or makes no sense is the default.
Duration = Annotated[timedelta, _SENSIBLE, _WRONG_IS_DEFAULT]
OptionalDuration = Annotated[timedelta | None, _SENSIBLE, _WRONG_IS_DEFAULT]
Time = Annotated[datetime, PlainValidator(_time)]
OptionalTime = Annotated[datetime | None, PlainValidator(_optional_time)]
IsTrue = Annotated[bool, PlainValidator(lambda value: value is True)]
IsNotFalse = Annotated[bool, PlainValidator(lambda value: value is not False)]
