from __future__ import annotations

import json
import re
import tracemalloc
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Annotated, Any

import pytest

from datadog_checks.prefect.api.models import Flow, FlowRun
from datadog_checks.prefect.api.rows import (
    Count,
    Duration,
    Identifier,
    Integer,
    IsNotFalse,
    IsTrue,
    MalformedRow,
    OptionalDuration,
    OptionalInteger,
    OptionalText,
    OptionalTime,
    Seconds,
    Text,
    Texts,
    Time,
    UnexpectedAnswer,
    at,
    read_rows,
)
from tests.fake_prefect import recorded
from tests.unit.harness import Row, read_row
from tests.unit.harness import at as moment

FLOW = {'id': 'a', 'name': 'etl'}


@dataclass(frozen=True)
class Everything:
    """A field of each type, at keys of its own."""

    id: Identifier
    text: Text
    time: Time
    count: Count
    inner: Annotated[Text, at('outer', 'inner key')]
    optional_text: OptionalText = None
    texts: Texts = ()
    integer: Integer = 3
    optional_integer: OptionalInteger = None
    seconds: Seconds = 1.5
    optional_time: OptionalTime = None
    duration: Duration = timedelta(seconds=9)
    optional_duration: OptionalDuration = None
    is_true: IsTrue = False
    is_not_false: IsNotFalse = True


ID = '00000000-0000-4000-8000-00000000000a'
LEAST = {'id': ID, 'text': 'a', 'time': '2026-11-23T08:00:00Z', 'count': 0, 'outer': {'inner key': 'b'}}
DEFAULTS = Everything(id=ID, text='a', time=moment(0), count=0, inner='b')


class TestRead:
    def test_malformed_row_stands_among_the_others(self) -> None:
        bad = {'id': 'b', 'name': None}
        content = json.dumps([FLOW, bad, FLOW]).encode()
        assert read_rows(Flow, content) == [Flow('a', 'etl'), MalformedRow(bad), Flow('a', 'etl')]

    @pytest.mark.parametrize('content', [b'', b'[', b'<html>', b'[{}] x', b'\xff'])
    def test_what_is_not_json_is_an_error_of_the_decoder(self, content: bytes) -> None:
        with pytest.raises((json.JSONDecodeError, UnicodeDecodeError)):
            read_rows(Flow, content)

    @pytest.mark.parametrize(
        'content',
        [
            *(b'null', b'7', b'"sesame"', b'{}', b'[null]', b'[{}, "sesame"]', b'[[{}]]', b'[[], [], []]'),
            # Read by json, for pydantic does not take them.
            *(rb'"\ud800"', rb'["\ud800"]', rb'[{}, ["\ud800"]]', rb'{"a": "\ud800"}'),
        ],
        ids=repr,
    )
    def test_other_shape_than_a_list_of_objects_is_an_error(self, content: bytes) -> None:
        with pytest.raises(UnexpectedAnswer) as raised:
            read_rows(Flow, content)
        assert str(raised.value) == 'the answer is not a list of objects'

    def test_parameters_as_deep_as_the_server_stores_them_are_no_obstacle(self) -> None:
        """Prefect 3.8.8 answers with 254 levels; with more it cannot answer itself."""
        deep = '[' * 254 + ']' * 254
        content = f'[{json.dumps(FLOW)[:-1]}, "parameters": {deep}}}, {{"id": "b", "parameters": {deep}}}]'
        assert [row.id for row in read_rows(Flow, content.encode())] == ['a', 'b']

    def test_half_of_a_surrogate_pair_is_replaced(self) -> None:
        assert read_row(Flow, {'id': 'a', 'name': 'et\ud800l'}) == Flow('a', 'et?l')

    def test_keys_that_no_model_names_cost_no_memory(self) -> None:
        row = recorded.row('flow_runs_filter', 'completed')
        row['parameters'] = {f'key {index}': [index, {'text': 'x' * 10}] for index in range(200)}
        content = json.dumps([row] * 200).encode()
        read_rows(FlowRun, content)
        peaks = []
        for read in (lambda: read_rows(FlowRun, content), lambda: json.loads(content)):
            tracemalloc.start()
            assert len(read()) == 200
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        assert peaks[0] < peaks[1] / 50


class TestMalformedRow:
    def test_paging_can_tell_it_by_id_and_time(self) -> None:
        row = MalformedRow({'id': 'a', 'end_time': '2026-11-23T08:00:01Z', 'start_time': None})
        assert (row.id, row.time('end_time'), row.time('start_time')) == ('a', moment(1), None)
        assert MalformedRow({'id': 7}).id is None

    @pytest.mark.parametrize('time', ['soon', 7, '2026-11-23T08:00:01', '0001-01-01T00:00:00+14:00'])
    def test_time_that_cannot_be_read_is_an_error(self, time: object) -> None:
        with pytest.raises((ValueError, TypeError, OverflowError)):
            MalformedRow({'end_time': time}).time('end_time')

    def test_row_that_is_well_formed_has_no_problem_that_could_be_named(self) -> None:
        assert MalformedRow(FLOW).problem(Flow) == 'not understood'


class TestTypes:
    def test_absent_fields_have_their_defaults(self) -> None:
        assert read_row(Everything, LEAST) == DEFAULTS

    @pytest.mark.parametrize(
        'key', ['optional_text', 'texts', 'integer', 'optional_integer', 'seconds', 'optional_time', 'duration']
    )
    def test_null_is_the_default(self, key: str) -> None:
        assert read_row(Everything, LEAST | {key: None}) == DEFAULTS

    @pytest.mark.parametrize(
        ('key', 'value', 'read'),
        [
            pytest.param('optional_text', '', '', id='empty text'),
            pytest.param('text', 'a\0b', 'a\0b', id='NUL'),
            pytest.param('texts', ['b', 'a', 'b'], ('b', 'a', 'b'), id='texts'),
            pytest.param('integer', 2**63, 2**63, id='largest integer'),
            pytest.param('integer', -(2**63), -(2**63), id='smallest integer'),
            pytest.param('count', 10**12, 10**12, id='largest count'),
            pytest.param('seconds', 7, 7.0, id='integer as a duration'),
            pytest.param('seconds', -0.5, 0.0, id='negative duration'),
            pytest.param('optional_time', '2026-11-23T09:00:01+01:00', moment(1), id='another zone'),
            pytest.param('duration', 2.5, timedelta(seconds=2.5), id='seconds'),
            pytest.param('duration', 'PT1M', timedelta(minutes=1), id='ISO 8601'),
            pytest.param('duration', 'soon', timedelta(seconds=9), id='no duration'),
            pytest.param('duration', -1, timedelta(seconds=9), id='negative setting'),
            pytest.param('duration', 8e13, timedelta(seconds=9), id='absurd setting'),
            pytest.param('optional_duration', 8e13, None, id='absurd optional setting'),
            pytest.param('is_true', True, True, id='true'),
            pytest.param('is_true', 1, False, id='not true'),
            pytest.param('is_not_false', False, False, id='false'),
            pytest.param('is_not_false', 0, True, id='not false'),
        ],
    )
    def test_value_is_read(self, key: str, value: object, read: Any) -> None:
        assert read_row(Everything, LEAST | {key: value}) == replace(DEFAULTS, **{key: read})

    @pytest.mark.parametrize(
        ('changes', 'problem'),
        [
            pytest.param({'id': None}, 'id is null, expected a string', id='null'),
            pytest.param({'id': 'sesame'}, 'id is not a UUID', id='no UUID'),
            pytest.param({'id': f'{ID}\n'}, 'id is not a UUID', id='UUID and more'),
            pytest.param({'text': ''}, 'text is an empty string', id='empty'),
            pytest.param({'text': 7, 'time': 7}, 'text is a number, expected a string', id='the first of two'),
            pytest.param({'optional_text': True}, 'optional_text is a boolean, expected a string', id='boolean'),
            pytest.param({'texts': 'sesame'}, 'texts is a string, expected a list', id='text for texts'),
            pytest.param({'texts': ['a', {}]}, 'texts.* is an object, expected a string', id='one of the texts'),
            pytest.param({'outer': {}}, 'outer.inner key is missing', id='absent inside'),
            pytest.param({'outer': 'sesame'}, 'outer.inner key is missing', id='text for an object'),
            pytest.param({'outer': {'inner key': []}}, 'outer.inner key is a list, expected a string', id='inside'),
            pytest.param({'integer': 1.0}, 'integer is a number, expected an integer', id='integer as a float'),
            pytest.param({'integer': True}, 'integer is a boolean, expected an integer', id='boolean for integer'),
            pytest.param({'integer': 2**63 + 1}, 'integer is out of range', id='large integer'),
            pytest.param({'optional_integer': -(10**400)}, 'optional_integer is out of range', id='huge integer'),
            pytest.param({'count': -1}, 'count is out of range', id='negative count'),
            pytest.param({'seconds': '1'}, 'seconds is a string, expected a number', id='text for seconds'),
            pytest.param({'seconds': False}, 'seconds is a boolean, expected a number', id='boolean for seconds'),
            pytest.param({'seconds': float('nan')}, 'seconds is out of range', id='NaN'),
            pytest.param({'seconds': float('-inf')}, 'seconds is out of range', id='infinity'),
            pytest.param({'seconds': 10**400}, 'seconds is out of range', id='more than a float'),
            pytest.param({'time': None}, 'time is null, expected a time', id='no time'),
            pytest.param({'time': 1700000000}, 'time is a number, expected a time', id='number for a time'),
            pytest.param({'time': '1700000000'}, 'time is not a time', id='number as text for a time'),
            pytest.param({'optional_time': 'sesame'}, 'optional_time is not a time', id='no time'),
            pytest.param({'time': '2026-11-23T08:00:00'}, 'time is not a time', id='no zone'),
            pytest.param({'time': '0001-01-01T00:00:00+14:00'}, 'time is not a time', id='before the first year'),
        ],
    )
    def test_problem_names_the_field_and_not_the_value(self, changes: Row, problem: str) -> None:
        found = read_row(Everything, LEAST | changes)
        assert isinstance(found, MalformedRow)
        assert found.problem(Everything) == problem
        assert not re.search('sesame', found.problem(Everything))
