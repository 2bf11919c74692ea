from __future__ import annotations

import json
import tracemalloc

import pytest

from datadog_checks.prefect.api.times import parse_time
from datadog_checks.prefect.streams.cursor import VERSION, CheckState, StateError, StreamCursor
from tests.unit.harness import START, at

CURSOR = {
    'floor': '2026-11-23T08:00:00.000000Z',
    'until': '2026-11-23T08:00:15.250000Z',
    'seen': {'7': 'a b', '9': 'c'},
}


def document(**cursor: object) -> str:
    return json.dumps({'version': VERSION, 'serial': 1, 'streams': {'runs': CURSOR | cursor}})


def test_round_trip_keeps_everything() -> None:
    cursor = StreamCursor(floor=START, until=parse_time('2026-11-23T08:00:15.000001Z'), seen={'a': 1, 'b': 2, 'c': 1})
    state = CheckState().advanced('one', cursor).advanced('two', StreamCursor(at(1), at(2)))
    assert CheckState.loads(state.dumps()) == state


def test_read_that_was_cut_is_kept() -> None:
    state = CheckState().advanced('one', StreamCursor(at(0), at(15), {'a': 1}, reached=at(7.25)))
    assert CheckState.loads(state.dumps()) == state


def test_format_of_version_1_stays_readable() -> None:
    """What an older release persisted."""
    assert CheckState.loads(document()).cursor('runs') == StreamCursor(START, at(15.25), {'a': 7, 'b': 7, 'c': 9})
    assert VERSION == 1


def test_times_of_the_edge_are_kept() -> None:
    """Clocks step back by minutes; a floor that is a little ahead of the last read is no damage."""
    cursor = StreamCursor(at(120), at(0), {'a': int(at(240).timestamp())}, reached=at(120))
    assert CheckState.loads(CheckState({'runs': cursor}).dumps()).cursor('runs') == cursor


def test_as_many_identities_as_a_stream_remembers_are_kept() -> None:
    seen = {f'{number:011}': int(at(number % 240 - 240).timestamp()) for number in range(100_000)}
    state = CheckState({'runs': StreamCursor(at(0), at(0), seen)})
    assert CheckState.loads(state.dumps()) == state


def test_when_and_by_whom_it_was_saved_is_kept() -> None:
    state = CheckState({}, 7, at(15), 'a')
    assert CheckState.loads(state.dumps()) == state
    assert state.used_until == at(15)


def test_state_of_version_1_0_was_used_until_its_last_read() -> None:
    streams = {'a': StreamCursor(at(0), at(15)), 'b': StreamCursor(at(0), at(30))}
    assert CheckState(streams).used_until == at(30)
    assert CheckState().used_until is None


def test_bad_state_costs_a_bounded_amount() -> None:
    """What is parsed is no larger than what a state may be."""
    texts = ('[' + '[],' * 8_000_000, document(seen={'1': 'a ' * 10_000_000}), document(seen={'9' * 20_000_000: 'a'}))
    for text in texts:
        tracemalloc.start()
        with pytest.raises(StateError):
            CheckState.loads(text)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 100 * 2**20


def test_advancing_one_stream_leaves_the_others_and_the_state_itself() -> None:
    before = CheckState({'one': StreamCursor(at(0), at(1)), 'two': StreamCursor(at(0), at(1))})
    after = before.advanced('one', StreamCursor(at(0), at(9)))
    assert after.cursor('one') == StreamCursor(at(0), at(9))
    assert after.serial == before.serial + 1
    assert after.cursor('two') == before.cursor('two') == before.cursor('one')


def test_unknown_stream_has_no_cursor() -> None:
    assert CheckState().cursor('runs') is None


def test_nothing_persisted_is_an_empty_state() -> None:
    assert CheckState.loads('') == CheckState()


@pytest.mark.parametrize(
    'text',
    [
        pytest.param('nonsense', id='garbage'),
        pytest.param('{"version": 1', id='cut off'),
        pytest.param('null', id='null'),
        pytest.param('[]', id='a list'),
        pytest.param('{}', id='no version'),
        pytest.param('{"version": 2, "streams": {}}', id='later version'),
        pytest.param('{"version": "1", "streams": {}}', id='version as a text'),
        pytest.param('{"version": null, "streams": {}}', id='version null'),
        pytest.param('{"version": 1, "serial": 1}', id='no streams'),
        pytest.param('{"version": 1, "serial": 1, "streams": []}', id='streams are a list'),
        pytest.param('{"version": 1, "serial": 1, "streams": {"runs": null}}', id='cursor null'),
        pytest.param('{"version": 1, "serial": 1, "streams": {"runs": {}}}', id='cursor empty'),
        pytest.param('{"version": 1, "streams": {}}', id='no serial'),
        pytest.param('{"version": 1, "serial": "1", "streams": {}}', id='serial as a text'),
        pytest.param('{"version": 1, "serial": true, "streams": {}}', id='serial is a boolean'),
        pytest.param('[' * 100_000, id='deep'),
        pytest.param(document(until='yesterday'), id='no time'),
        pytest.param(document(until='2026-11-23T08:00:00'), id='time without a zone'),
        pytest.param(document(until=None), id='time null'),
        pytest.param(document(floor=7), id='time is a number'),
        pytest.param(document(reached=7), id='reached is a number'),
        pytest.param(document(seen=[]), id='seen is a list'),
        pytest.param(document(seen={'a': 'b'}), id='second is no number'),
        pytest.param(document(seen={'1.5': 'b'}), id='second is a fraction'),
        pytest.param(document(seen={'1': 7}), id='identities are a number'),
        pytest.param(document(seen={'1': ['a']}), id='identities are a list'),
        pytest.param(document(seen=None), id='seen null'),
        pytest.param(document(until='0001-01-01T00:00:00Z'), id='read in year 1'),
        pytest.param(document(until='1999-12-31T23:59:59Z'), id='read before there was Prefect'),
        pytest.param(document(until='9999-12-31T23:59:59Z'), id='read in year 9999'),
        pytest.param(document(floor='9999-12-31T23:59:59Z'), id='begun in year 9999'),
        pytest.param(document(floor='2026-11-23T09:01:00Z'), id='begun an hour after the last read'),
        pytest.param(document(floor='0001-01-01T00:00:00+23:59'), id='before year 1 in UTC'),
        pytest.param(document(until='9999-12-31T23:59:59-23:59'), id='after year 9999 in UTC'),
        pytest.param(document(reached='2026-11-23T09:01:00Z'), id='cut an hour after the last read'),
        pytest.param(document(seen={'99999999999': 'a'}), id='seen in the year 5138'),
        pytest.param(document(seen={'9' * 1_000_000: 'a'}), id='a million digits'),
        pytest.param(document(seen={'1': ' '.join(['01234567890'] * 1_000_000)}), id='a million identities'),
        pytest.param(document(seen={str(second): 'a' for second in range(1_000_000)}), id='a million seconds'),
        pytest.param('[' + '[],' * 1_000_000, id='a million values'),
        pytest.param('{"version": 1, "serial": -1, "streams": {}}', id='serial is negative'),
        pytest.param(f'{{"version": 1, "serial": {"9" * 4000}, "streams": {{}}}}', id='serial is too large'),
        pytest.param('{"version": 1, "serial": 1, "saved": 7, "streams": {}}', id='saved is a number'),
        pytest.param('{"version": 1, "serial": 1, "saved": "0001-01-01T00:00:00Z", "streams": {}}', id='saved in 1'),
    ],
)
def test_anything_else_is_an_error(text: str) -> None:
    with pytest.raises(StateError):
        CheckState.loads(text)


def test_error_does_not_repeat_what_was_read() -> None:
    with pytest.raises(StateError) as raised:
        CheckState.loads(json.dumps({'version': 'x' * 1000}))
    assert len(str(raised.value)) < 100
