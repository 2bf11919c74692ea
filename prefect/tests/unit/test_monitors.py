"""The monitors that come with the integration: their form, their queries, and where their messages lead."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

from tests.unit.lint import for_each
from tools.datadog_queries import MonitorQuery, metric_queries, parse_monitor, problems
from tools.importing.assets import anchor

FOLDER = Path(__file__).parents[2]
RUNBOOK = (FOLDER.parent / 'docs' / 'runbook.md').read_text()
MANIFEST = json.loads((FOLDER / 'manifest.json').read_text())
MONITORS = {path.stem: json.loads(path.read_text()) for path in sorted((FOLDER / 'assets' / 'monitors').glob('*.json'))}
# The keys of an exported monitor, in the second version of the form.
KEYS = ['version', 'created_at', 'last_updated_at', 'title', 'description', 'tags', 'definition']
DEFINITION_KEYS = ['name', 'type', 'query', 'message', 'tags', 'options', 'priority']
MISSING_DATA = {'default', 'show_and_notify_no_data', 'show_no_data', 'resolve'}
# Tags that a message may name without grouping by them: those of the value itself.
ALWAYS = {'value'}

every_monitor = for_each(MONITORS)


def query_of(monitor: Any) -> MonitorQuery:
    return parse_monitor(monitor['definition']['query'])


def groups_of(monitor: Any) -> set[str]:
    return {tag for query in metric_queries(query_of(monitor).expression) for tag in query.group_by}


@every_monitor
def test_form_is_that_of_an_exported_monitor(monitor: Any) -> None:
    assert list(monitor) == KEYS
    assert list(monitor['definition']) == DEFINITION_KEYS
    assert monitor['version'] == 2
    assert date.fromisoformat(monitor['created_at']) <= date.fromisoformat(monitor['last_updated_at'])
    assert 'integration:prefect' in monitor['tags']
    assert 'integration:prefect' in monitor['definition']['tags']
    assert monitor['definition']['type'] == 'query alert'
    assert monitor['definition']['priority'] in {1, 2, 3, 4, 5}
    assert monitor['definition']['options']['on_missing_data'] in MISSING_DATA


@every_monitor
def test_title_and_description_fit(monitor: Any) -> None:
    assert len(monitor['title']) <= 80
    assert 40 <= len(monitor['description']) <= 300
    assert monitor['definition']['name'].startswith('[Prefect] ')


def test_manifest_lists_each_by_its_title() -> None:
    listed = {title: Path(path).stem for title, path in MANIFEST['assets']['monitors'].items()}

    assert listed == {monitor['title']: name for name, monitor in MONITORS.items()}


@every_monitor
def test_queries_ask_for_what_is_declared(monitor: Any) -> None:
    queries = metric_queries(query_of(monitor).expression)

    assert queries
    assert [problem for query in queries for problem in problems(query)] == []
    assert len({query.group_by for query in queries}) == 1, 'what is put together must have the same groups'


@every_monitor
def test_servers_stay_apart(monitor: Any) -> None:
    assert 'prefect_url' in groups_of(monitor)


@every_monitor
def test_thresholds_agree_with_the_query_and_with_each_other(monitor: Any) -> None:
    query, thresholds = query_of(monitor), monitor['definition']['options']['thresholds']
    order = ['critical', 'critical_recovery', 'warning', 'warning_recovery']
    falling = [thresholds[key] for key in order if key in thresholds]
    if 'critical_recovery' in thresholds and 'warning' in thresholds:
        # A warning may lie on either side of the recovery from critical.
        falling = [thresholds['critical'], thresholds['warning'], thresholds.get('warning_recovery', float('-inf'))]

    assert query.threshold == thresholds['critical']
    assert set(thresholds) <= set(order)
    assert falling == sorted(falling, reverse=query.comparator.startswith('>'))
    if query.comparator.startswith('>'):
        assert thresholds.get('critical_recovery', float('-inf')) <= thresholds['critical']
    else:
        assert thresholds.get('critical_recovery', float('inf')) >= thresholds['critical']


@every_monitor
def test_message_says_what_why_and_what_to_do(monitor: Any) -> None:
    message = monitor['definition']['message']
    order = ['{{#is_alert}}', '{{#is_recovery}}', '{{^is_recovery}}', 'Causes, the most likely first:', '1. ']
    order += ['What to do:', '- ', '{{/is_recovery}}\n\nRunbook: docs/runbook.md#']
    places = [message.index(part) for part in order]

    assert places == sorted(places)
    assert ('{{#is_warning}}' in message) == ('warning' in monitor['definition']['options']['thresholds'])
    assert ('{{#is_no_data}}' in message) == ('notify' in monitor['definition']['options']['on_missing_data'])
    for opened, closed in zip(re.findall(r'{{[#^](\w+)}}', message), re.findall(r'{{/(\w+)}}', message), strict=True):
        assert opened == closed


@every_monitor
def test_name_holds_no_value(monitor: Any) -> None:
    assert 'value' not in monitor['definition']['name'], 'each value would be an alert of another name'


@every_monitor
def test_durations_are_in_minutes_or_hours(monitor: Any) -> None:
    assert ' seconds' not in monitor['definition']['message']


@every_monitor
def test_what_is_gone_recovers_but_for_the_server(monitor: Any) -> None:
    definition = monitor['definition']
    is_count = all(query.is_as_count for query in metric_queries(query_of(monitor).expression))

    if 'server.ready' in definition['query']:
        assert definition['options']['on_missing_data'] == 'show_and_notify_no_data'
    else:
        assert is_count or definition['options']['on_missing_data'] == 'resolve'


@every_monitor
def test_message_names_only_tags_of_its_groups(monitor: Any) -> None:
    definition = monitor['definition']
    named = set(re.findall(r'{{(\w+)(?:\.name)?}}', definition['name'] + definition['message']))

    assert named - ALWAYS <= groups_of(monitor)


@every_monitor
def test_series_that_a_message_names_are_declared(monitor: Any) -> None:
    for name in re.findall(r'`(prefect\.server\.[\w.]+)`', monitor['definition']['message']):
        query = f'max:{name}{{*}}'
        assert not [text for text in problems_of(query) if 'not declared' in text]


@every_monitor
def test_message_leads_to_a_section_of_the_runbook(monitor: Any) -> None:
    (section,) = re.findall(r'^Runbook: docs/runbook\.md#([\w-]+)$', monitor['definition']['message'], re.M)

    assert section in anchors(RUNBOOK)


def test_every_section_of_the_runbook_but_the_recipes_belongs_to_a_monitor() -> None:
    messages = [monitor['definition']['message'] for monitor in MONITORS.values()]
    led_to = {found for message in messages for found in re.findall(r'runbook\.md#([\w-]+)', message)}

    assert anchors(RUNBOOK) - led_to == {'five-alerts-at-once-begin-here', 'maintenance', 'service-level-objectives'}


def test_series_of_the_runbook_are_declared() -> None:
    names = set(re.findall(r'\bprefect\.server\.[a-z_]\w*(?:\.\w+)*', RUNBOOK))
    assert len(names) > 10
    for name in names:
        assert not [text for text in problems_of(f'max:{name}{{*}}') if 'not declared' in text], name


def anchors(page: str) -> set[str]:
    """The anchors of the sections of a page, as Markdown is rendered."""
    return {anchor(title) for title in re.findall(r'^## (.+)$', page, re.M)}


def problems_of(query: str) -> list[str]:
    (found,) = metric_queries(parse_monitor(f'max(last_5m):{query} > 0').expression)
    return problems(found)


def queries_of(value: Any) -> Iterator[str]:
    """The metric queries of an objective, wherever they stand."""
    if isinstance(value, dict):
        yield from (value[key] for key in ('numerator', 'denominator') if key in value)
        if isinstance(value.get('query'), str):
            yield value['query']
        for item in value.values():
            yield from queries_of(item)
    elif isinstance(value, list):
        for item in value:
            yield from queries_of(item)


@for_each({path.stem: json.loads(path.read_text()) for path in (FOLDER / 'assets' / 'slos').glob('*.json')})
def test_objectives_ask_for_what_is_declared(objective: Any) -> None:
    found = [
        query
        for text in queries_of(objective)
        for query in metric_queries(parse_monitor(f'max(last_5m):{text} > 0').expression)
    ]

    assert found
    assert [problem for query in found for problem in problems(query)] == []
    assert all('prefect_url' in query.group_by for query in found)
