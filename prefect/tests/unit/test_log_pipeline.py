"""The interpreter of log pipelines itself: what it understands, and that it refuses the rest."""

from __future__ import annotations

from typing import Any

import pytest

from tests.log_pipeline import Log, MultiLineRule, PipelineError, Query, Reading
from tests.log_pipeline.grok import parse_rules
from tests.log_pipeline.processors import read_processor

LOG = Log(
    'text',
    {'http': {'status_code': 503}, 'name': 'prefect.runner', 'flow_name': '<unknown>', 'empty': []},
    status='error',
)


def processor(kind: str, **keys: Any) -> dict[str, Any]:
    return {'type': kind, 'name': kind, 'enabled': True, **keys}


def grok(rules: str, sample: str = 'x', **keys: Any) -> dict[str, Any]:
    return processor('grok-parser', source='message', samples=[sample], grok={'matchRules': rules}, **keys)


@pytest.mark.parametrize(
    ('rule', 'text', 'found'),
    [
        ('r a %{integer:n} b', 'a -7 b', {'n': -7}),
        ('r a %{number:n}', 'a 7.5', {'n': 7.5}),
        ('r %{word:w} %{notSpace:s} %{data:d}', 'a b: c\nd', {'w': 'a', 's': 'b:', 'd': 'c\nd'}),
        ('r %{quotedString:q}', '"it\'s"', {'q': '"it\'s"'}),
        ('r %{regex("[a-z]+"):w:uppercase}', 'abc', {'w': 'ABC'}),
        ('r x(?: %{integer:n})?', 'x', {}),
        ('r %{date("yyyy-MM-dd HH:mm:ss.SSS"):t}', '1970-01-02 00:00:00.007', {'t': 86_400_007}),
        ('r %{date("yyyy-MM-dd HH:mm:ssZ.SSS"):t}', '1970-01-02 01:00:00+0100.007', {'t': 86_400_007}),
        ('r j %{data::json}', 'j {"a": {"b": 1}}', {'a': {'b': 1}}),
        ('r j %{data::json}', 'j {', {}),
        ('r a', 'ab', None),
    ],
)
def test_grok_rule_extracts(rule: str, text: str, found: dict[str, Any] | None) -> None:
    assert parse_rules(rule)[0].match(text) == found


def test_first_rule_that_matches_wins() -> None:
    parser = read_processor(grok('one x%{data:a}\ntwo x%{data:b}'))
    log = Log('xy')
    parser.apply(log)

    assert (log.rules, log.attributes) == (['one'], {'a': 'y'})


@pytest.mark.parametrize(
    'rules',
    [
        pytest.param('r %{greedyDatum:x}', id='unknown matcher'),
        pytest.param('r %{word:x:base64}', id='unknown filter'),
        pytest.param('r x%{word:x', id='open token'),
        pytest.param('r %{_helper}', id='unknown support rule'),
        pytest.param('r x%{date("HH:mm:ss"):x}', id='time without a date'),
        pytest.param('r x%{date("yyyy-MM-dd z"):x}', id='unknown letters of a date'),
        pytest.param('r %{word:x} %{word:x}', id='attribute twice'),
        pytest.param('r (?=x)%{word:x}', id='lookahead'),
        pytest.param('r (?<!x)%{word:x}', id='lookbehind'),
        pytest.param(r'r (a)\1', id='backreference'),
        pytest.param('r a++', id='possessive'),
        pytest.param('r x%{regex("(?!a)b"):x}', id='lookahead in a regex matcher'),
        pytest.param(r'r x%{regex("\d"):x}', id='backslash in quotes'),
        pytest.param('r %{data:x} y', id='begins with anything'),
        pytest.param('r .*y', id='begins with anything, raw'),
        pytest.param('r x(', id='not an expression'),
        pytest.param('Rule x', id='not a name'),
        pytest.param('r x\nr y', id='name twice'),
        pytest.param('\n'.join(f'r{number} x' for number in range(11)), id='eleven rules'),
    ],
)
def test_rule_that_cannot_be_trusted_is_refused(rules: str) -> None:
    with pytest.raises(PipelineError):
        parse_rules(rules)


def test_support_rule_without_use_is_refused() -> None:
    with pytest.raises(PipelineError, match='_lonely'):
        parse_rules('r x', '_lonely y')


@pytest.mark.parametrize(
    ('query', 'matches'),
    [
        ('source:prefect', True),
        ('source:other', False),
        ('@name:prefect.runner', True),
        ('@name:prefect*', True),
        ('@name:runner', False),
        ('@name:(other OR prefect.runner)', True),
        ('@http.status_code:[500 TO 599]', True),
        ('@http.status_code:[400 TO 499]', False),
        ('@http.status_code:503', True),
        ('@http.status_code:*', True),
        ('-@missing:*', True),
        ('@empty:*', False),
        ('NOT @name:*', False),
        ('@missing:* OR @name:* status:error', True),
        ('(@missing:* OR @name:*) status:warn', False),
        ('status:(warn OR error) (@missing:* OR (-@missing:* -@other:*))', True),
        ('@flow_name:* -@flow_name:"<unknown>"', False),
    ],
)
def test_query(query: str, *, matches: bool) -> None:
    assert Query.parse(query).matches(LOG.field) is matches


@pytest.mark.parametrize('query', ['', 'free text', 'name:x', '@name:', '(@name:x', '@name:x)', '@n:{1 TO 2}', '@n:>5'])
def test_query_that_is_not_understood_is_refused(query: str) -> None:
    with pytest.raises(PipelineError):
        Query.parse(query)


@pytest.mark.parametrize(
    'definition',
    [
        pytest.param(processor('geo-ip-parser', sources=['x']), id='unknown processor'),
        pytest.param(processor('status-remapper', sources=['x'], target='y'), id='unknown key'),
        pytest.param(processor('status-remapper'), id='missing key'),
        pytest.param(processor('status-remapper', sources=['x']) | {'enabled': False}, id='not enabled'),
        pytest.param(grok('r y'), id='sample that does not match'),
        pytest.param(
            processor('arithmetic-processor', expression='abs(x)', target='y', replaceMissing=False), id='a function'
        ),
        pytest.param(
            processor('category-processor', target='x', categories=[{'filter': {'query': 'text'}, 'name': 'y'}]),
            id='query of a category',
        ),
    ],
)
def test_processor_that_is_not_known_is_refused(definition: dict[str, Any]) -> None:
    with pytest.raises(PipelineError):
        read_processor(definition)


def test_attribute_remapper_takes_the_first_source_and_moves_it() -> None:
    remapper = read_processor(
        processor(
            'attribute-remapper',
            sources=['a', 'b.c'],
            sourceType='attribute',
            target='d.e',
            targetType='attribute',
            preserveSource=False,
            overrideOnConflict=False,
        )
    )
    both, second = Log('', {'a': 1, 'b': {'c': 2}}), Log('', {'a': None, 'b': {'c': 2}})
    remapper.apply(both)
    remapper.apply(second)

    assert both.attributes == {'b': {'c': 2}, 'd': {'e': 1}}
    assert second.attributes == {'a': None, 'd': {'e': 2}}


def test_reading_of_json_by_the_intake() -> None:
    text = '{"message": "m", "msg": "t"}'

    assert Log.from_text(text, Reading.TEXT) == Log(text)
    assert Log.from_text(text, Reading.ATTRIBUTES) == Log(text, {'message': 'm', 'msg': 't'})
    assert Log.from_text(text, Reading.RESERVED) == Log('m', {'msg': 't'})
    assert Log.from_text('{not json') == Log('{not json')


def test_what_the_agent_adds_to_json_is_no_attribute() -> None:
    text = '{"message": "m", "status": "warning", "ddsource": "prefect", "ddtags": "a:b", "service": "s"}'

    assert Log.from_text(text, Reading.ATTRIBUTES) == Log(text, {'message': 'm', 'status': 'warning'})
    assert Log.from_text(text, Reading.RESERVED) == Log('m', {}, status='warn')


def test_multi_line_rule_joins_what_does_not_begin_a_log() -> None:
    rule = MultiLineRule.from_configuration({'type': 'multi_line', 'name': 'x', 'pattern': '^[0-9]'})

    assert list(rule.join(['banner', '', '1 a', '  b', '2'])) == [['banner', ''], ['1 a', '  b'], ['2']]


@pytest.mark.parametrize(
    'rule',
    [
        {'type': 'exclude_at_match', 'name': 'x', 'pattern': 'y'},
        {'type': 'multi_line', 'name': 'x', 'pattern': '(?=y)'},
    ],
)
def test_rule_of_another_kind_is_refused(rule: dict[str, str]) -> None:
    with pytest.raises(PipelineError):
        MultiLineRule.from_configuration(rule)
