"""The log pipeline, its facets and tests, saved views and the Agent's rule for lines, against recorded logs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.log_lines import (
    ASSET,
    FOLDER,
    UNPARSED,
    all_log_configurations,
    is_listed,
    log_configurations,
    multi_line_rule,
)
from tests.log_pipeline import Log, LogTest, Query, Reading
from tests.log_pipeline.processors import GrokParser, Pipeline
from tests.unit.lint import for_each
from tools.record_logs import shape

LOGS = FOLDER / 'tests' / 'fixtures' / 'logs'
SAVED_VIEWS = sorted((FOLDER / 'assets' / 'saved_views').glob('*.json'))

# Standard attributes of Datadog, which facets of all integrations share.
STANDARD_FACETS = {
    'logger.name': 'Source Code',
    'logger.thread_name': 'Source Code',
    'error.kind': 'Source Code',
    'error.message': 'Source Code',
    'http.method': 'Web Access',
    'http.status_code': 'Web Access',
    'http.url_details.path': 'Web Access',
    'network.client.ip': 'Web Access',
}
RESERVED_FACETS = {'service', 'status'}
LEVELS = {'DEBUG': 'debug', 'INFO': 'info', 'WARNING': 'warn', 'ERROR': 'error', 'CRITICAL': 'critical'}
UNSUCCESSFUL = ('Failed', 'Crashed', 'TimedOut', 'Rejected')


@cache
def process(text: str, reading: Reading = Reading.ATTRIBUTES) -> Log:
    return ASSET.process(text, reading)


def read_records() -> dict[str, list[str]]:
    """Return, per file, the records as they were printed one by one."""
    lengths: dict[str, list[int]] = json.loads((LOGS / 'records.json').read_text())
    records = {}
    for name, counts in lengths.items():
        lines = iter(read_lines(name))
        records[name] = ['\n'.join(next(lines) for _ in range(count)) for count in counts]
        assert next(lines, None) is None, f'{name} has more lines than records.json says'
    return records


def read_lines(name: str) -> list[str]:
    return (LOGS / name).read_text().removesuffix('\n').split('\n')


RECORDS = read_records()
ALL_RECORDS = [record for records in RECORDS.values() for record in records]


def processed(form: str) -> Iterator[tuple[str, Log]]:
    """Process each record of the files of one form: `standard`, `json`, `iso` or `internal`."""
    for name, records in RECORDS.items():
        if name.endswith(f'-{form}.log'):
            for record in records:
                yield record, process(record)


def one(condition: Callable[[str], bool]) -> Log:
    """Process the first record of which the condition is true."""
    return process(next(record for record in ALL_RECORDS if condition(record)))


def paths(value: Any, parent: str = '') -> set[str]:
    """Return the paths of all attributes that have a value."""
    if isinstance(value, dict):
        return set().union(*(paths(item, f'{parent}.{key}' if parent else key) for key, item in value.items()))
    return {parent} if value is not None else set()


def attributes_of(test: LogTest) -> set[str]:
    return paths(test.result.get('custom') or {})


# The samples of the asset


def test_lines_that_the_lab_prints_seldom_or_never() -> None:
    named = process("""09:24:54.731 | ERROR   | Task run "it's-355" - Crash detected! Terminated.""")
    ended = process(
        """09:24:54.731 | INFO    | prefect.flow_runs.runner - Process for flow run 'a b' exited with status"""
        """ code: 137; Process exited due to a SIGKILL signal. Typically caused by an out-of-memory."""
    )
    discovered = process("Discovered type 'process' for work pool 'workshop'.")
    channel = process(
        '09:24:49.656 | ERROR   | prefect.server.utilities.worker_channel - Worker channel heartbeat'
        ' persistence failed: work_pool=workshop worker_name=w 1'
    )

    assert named.get('prefect') == {'task_run_name': "it's-355"}
    assert (ended.get('prefect.flow_run_name'), ended.get('prefect.exit_code'), ended.status) == ('a b', 137, 'error')
    assert discovered.get('prefect') == {'work_pool_name': 'workshop'}
    assert channel.get('prefect') == {'work_pool_name': 'workshop', 'worker_name': 'w 1'}


@for_each({test.sample: test for test in ASSET.tests})
def test_sample_becomes_what_it_should(test: LogTest) -> None:
    assert ASSET.result(test.sample) == test.result


@for_each({test.sample: test for test in ASSET.tests})
def test_sample_is_of_a_recorded_kind(test: LogTest) -> None:
    assert shape(test.sample.splitlines()) in {shape(record.splitlines()) for record in ALL_RECORDS}


def test_every_grok_rule_has_a_sample() -> None:
    rules = {rule.name for parser in ASSET.pipeline.walk() if isinstance(parser, GrokParser) for rule in parser.rules}
    used = set()
    for test in ASSET.tests:
        for reading in Reading:
            used |= set(process(test.sample, reading).rules)

    # The lab's processes print these seldom or never.
    assert rules - used == {'task_run_with_quote', 'exited_of_flow_run', 'work_pool_type', 'channel'}


@pytest.mark.parametrize('reading', [Reading.TEXT, Reading.RESERVED])
def test_json_becomes_the_same_whatever_the_intake_did_to_it(reading: Reading) -> None:
    records = [record for record in ALL_RECORDS if record.startswith('{')]
    assert records
    for record in records:
        one_way, other_way = process(record), process(record, reading)
        assert (other_way.status, other_way.timestamp) == (one_way.status, one_way.timestamp)
        # `msg` alone is a template. Only the intake makes it the text, where there is no `message`.
        if 'message' in json.loads(record):
            assert other_way.message == one_way.message == json.loads(record)['message']
        for family in ('prefect', 'error', 'logger'):
            assert other_way.get(family) == one_way.get(family), record


# What was recorded


@for_each({name: name for name in sorted(RECORDS)})
def test_every_record_is_parsed_or_listed(name: str) -> None:
    unparsed = [record for record in RECORDS[name] if not process(record).rules]

    assert [record for record in unparsed if not is_listed(record)] == []


def test_every_listed_line_was_recorded() -> None:
    for pattern in UNPARSED:
        assert any(re.fullmatch(pattern, record) for record in ALL_RECORDS), pattern


@pytest.mark.parametrize('configuration', log_configurations(), ids=lambda configuration: configuration['type'])
@pytest.mark.parametrize('name', sorted(RECORDS))
def test_lines_are_joined_to_the_records_that_were_printed(name: str, configuration: dict[str, Any]) -> None:
    rule = multi_line_rule(configuration)

    assert ['\n'.join(lines) for lines in rule.join(read_lines(name))] == RECORDS[name]


def test_logs_are_collected_from_the_server_files_and_containers() -> None:
    configurations = all_log_configurations()

    assert [configuration['type'] for configuration in configurations] == ['integration', 'file', 'docker']
    assert {configuration['source'] for configuration in configurations} == {'prefect'}


def test_readme_shows_the_rule_of_the_example_wherever_it_shows_one() -> None:
    readme = (FOLDER / 'README.md').read_text()
    pattern = log_configurations()[0]['log_processing_rules'][0]['pattern']

    assert f"pattern: '{pattern}'" in readme
    # In JSON, as labels and annotations are.
    assert json.dumps(pattern) in readme
    assert readme.count('multi_line') == readme.count(pattern) + readme.count(json.dumps(pattern)[1:-1])


@pytest.mark.parametrize('form', ['standard', 'json', 'iso'])
def test_end_of_a_run_has_its_state_and_is_an_error_unless_it_ended_well(form: str) -> None:
    seen = set()
    for record, log in processed(form):
        if 'Finished in state ' in log.message:
            state = log.message.removeprefix('Finished in state ').partition('(')[0]
            seen.add(state)
            assert log.get('prefect.state') == state, record
            assert log.get('prefect.state_type') in {
                'COMPLETED',
                'FAILED',
                'CRASHED',
                'CANCELLED',
                'RUNNING',
                'PAUSED',
                'PENDING',
            }, record
            if state in UNSUCCESSFUL:
                assert log.status == 'error', record
            elif state in {'Completed', 'Skipped', 'Running'}:
                assert log.status == 'info', record

    assert seen >= {'Completed', 'Skipped', *UNSUCCESSFUL}


@pytest.mark.parametrize('form', ['standard', 'json'])
def test_killed_process_is_an_error_with_its_signal(form: str) -> None:
    killed = [(record, log) for record, log in processed(form) if 'Process exited with status code: -9' in record]
    reports = [log for record, log in killed if ' as crashed: ' in record]
    ends = [log for record, log in killed if ' as crashed: ' not in record]

    assert reports
    assert ends
    for log in reports:
        assert log.get('prefect.state') == 'Crashed'
        assert log.get('prefect.state_type') == 'CRASHED'
        assert re.fullmatch('[0-9a-f-]{36}', log.get('prefect.flow_run_id'))
    for log in reports + ends:
        assert log.status == 'error'
        assert (log.get('prefect.exit_code'), log.get('prefect.signal')) == (-9, 'SIGKILL')


def test_status_is_the_printed_level_where_nothing_else_is_known() -> None:
    for form in ('standard', 'iso', 'internal'):
        seen: set[str] = set()
        for record, log in processed(form):
            level = re.match(r'\S+ \| (\w+) *\|', record) or re.match(r'([A-Z]+): ', record)
            if level and log.get('prefect.severity') is None:
                seen.add(level[1])
                assert log.status == LEVELS[level[1]], record
        assert len(seen) > 1, form


def test_time_without_a_date_is_left_to_the_intake() -> None:
    assert {log.timestamp for form in ('standard', 'internal') for _, log in processed(form)} == {None}


def test_dated_lines_have_their_own_time() -> None:
    for record, log in processed('iso'):
        moment = datetime.fromisoformat(record.partition(' ')[0]).replace(tzinfo=UTC)
        assert log.timestamp == round(moment.timestamp() * 1000)


def test_json_has_its_own_time() -> None:
    for record, log in processed('json'):
        if record.startswith('{'):
            assert log.timestamp == int(json.loads(record)['created'] * 1000)


def test_names_of_runs_are_taken_whole() -> None:
    names = {log.get('prefect.flow_run_name') for _, log in processed('json')}
    printed = {log.get('prefect.flow_run_name') for _, log in processed('standard')}

    weird, both = "it's a | weird - name", 'both \' and " - of them'
    assert {weird, both} <= names
    # Python's way to print both kinds of quotes is left as it is.
    assert {weird, both.replace("'", r'\'')} <= printed


def test_run_of_every_line_is_the_run_that_printed_it() -> None:
    """The names in the standard form are those that precede ` - ` in the line."""
    seen: set[str] = set()
    for form in ('standard', 'iso', 'internal'):
        for record, log in processed(form):
            if run := re.match(r"\S+ \| \w+ *\| (Flow|Task) run '([a-z_]+-[a-z0-9]+|[a-z]+)' - ", record):
                seen.add(run[1])
                assert log.get(f'prefect.{run[1].lower()}_run_name') == run[2], record
    assert seen == {'Flow', 'Task'}


@pytest.mark.parametrize('form', ['standard', 'json', 'iso'])
def test_no_traceback_stays_in_a_message(form: str) -> None:
    assert any('Traceback (most recent' in record for record, _ in processed(form))
    for record, log in processed(form):
        assert 'Traceback (most recent' not in log.message, record
        if 'Traceback (most recent' in record:
            assert 'Traceback (most recent' in log.get('error.stack')
            assert log.get('error.kind'), record
            assert record.startswith('{') or record.endswith(log.get('error.stack'))


@pytest.mark.parametrize(
    ('beginning', 'kind', 'message'),
    [
        ("Task run 'chained-", 'RuntimeError', 'the lookup failed | it\'s "gone"'),
        ("Task run 'without_message-", 'ConnectionLost', None),
        ("Task run 'of_many_lines-", 'ValueError', '2 problems\nname\n  is missing: fill it in\nage\n  is negative'),
        ("Task run 'grouped-", 'ExceptionGroup', 'two at once (2 sub-exceptions)'),
        ("Task run 'times_out-", 'prefect.task_engine.TaskRunTimeoutError', 'Scope timed out after 1.0 second(s).'),
        ("Flow run 'talkative'", 'OSError', '[Errno 28] No space left on device'),
        ('warehouse.client', 'OSError', '[Errno 28] No space left on device'),
    ],
)
def test_exception_is_the_last_of_its_traceback(beginning: str, kind: str, message: str | None) -> None:
    log = one(lambda record: f'| {beginning}' in record and '\n' in record and 'Traceback' in record)

    assert (log.get('error.kind'), log.get('error.message')) == (kind, message)


@pytest.mark.parametrize(
    ('name', 'kind', 'message'),
    [
        ('chained', 'RuntimeError', 'the lookup failed | it\'s "gone"'),
        ('without_message', 'ConnectionLost', ''),
        ('grouped', 'ExceptionGroup', 'two at once (2 sub-exceptions)'),
    ],
)
def test_exception_of_a_json_line(name: str, kind: str, message: str) -> None:
    log = one(lambda record: record.startswith('{') and f'"task_name":"{name}"' in record and '"traceback":' in record)

    assert (log.get('error.kind'), log.get('error.message')) == (kind, message)
    # With the exceptions that led to it, which `exc_info.traceback` leaves out.
    assert log.get('error.stack').startswith(('Traceback (most recent', '  + Exception Group'))


def test_unknown_flow_names_are_no_facet_value() -> None:
    logs = [log for _, log in processed('json')]

    assert '<unknown>' in {log.get('flow_name') for log in logs}
    assert '<unknown>' not in {log.get('prefect.flow_name') for log in logs}


def test_access_line_has_the_attributes_of_web_access() -> None:
    log = process('INFO:     10.0.0.7:34598 - "GET /api/csrf-token?client=1f2 HTTP/1.1" 422 Unprocessable Entity')

    assert log.get('http') == {
        'method': 'GET',
        'status_code': 422,
        'url_details': {'path': '/api/csrf-token'},
        'version': '1.1',
    }
    assert log.get('network') == {'client': {'ip': '10.0.0.7', 'port': 34598}}
    assert log.status == 'info'


@pytest.mark.parametrize(
    ('line', 'status'),
    [
        ('INFO:     10.0.0.7:34598 - "POST /api/flow_runs/ HTTP/1.1" 503 Service Unavailable', 'error'),
        ('INFO:     ::1:34598 - "POST /api/flow_runs/ HTTP/1.1" 500 Internal Server Error', 'error'),
        ('INFO:     ::1:34598 - "WebSocket /api/events/in" 403', 'info'),
        ('INFO:      - "GET /api/health HTTP/1.1" 200 OK', 'info'),
        ('WARNING:  Invalid HTTP request received.', 'warn'),
        (
            'ERROR:    Exception in ASGI application\nTraceback (most recent call last):\n  File "x"\nValueError: y',
            'error',
        ),
    ],
)
def test_lines_of_uvicorn(line: str, status: str) -> None:
    log = process(line)

    assert log.rules[0] in {'access', 'websocket', 'uvicorn'} or 'exception' in log.rules
    assert log.status == status


# Facets and saved views


def test_asset_is_of_this_integration() -> None:
    manifest = json.loads((FOLDER / 'manifest.json').read_text())

    assert ASSET.identity == manifest['app_id'] == manifest['assets']['logs']['source']
    assert ASSET.pipeline.query.text == f'source:{ASSET.identity}'


def test_facets_are_shaped_as_datadog_wants_them() -> None:
    for facet in ASSET.facets:
        assert set(facet) - {'type', 'facetType'} == {'groups', 'name', 'path', 'source'}
        assert facet['source'] == 'log'
        # Only numbers say what they are.
        assert facet.get('type', 'integer') == 'integer'
        assert ('type' in facet) == ('facetType' in facet)
        assert facet.get('facetType', 'list') in {'list', 'range'}
        expected = STANDARD_FACETS.get(facet['path'], 'Prefect')
        assert facet['groups'] == [expected]
        assert expected != 'Prefect' or facet['path'].startswith('prefect.')
    for key in ('path', 'name'):
        assert len({facet[key] for facet in ASSET.facets}) == len(ASSET.facets)


def test_every_facet_is_in_some_sample() -> None:
    found = set().union(*(attributes_of(test) for test in ASSET.tests))

    assert {facet['path'] for facet in ASSET.facets} - found == set()


def test_numbers_are_numbers() -> None:
    for facet in ASSET.facets:
        values = {type(process(record).get(facet['path'])) for record in ALL_RECORDS} - {type(None)}
        assert values == ({int} if facet.get('type') == 'integer' else {str}), facet['path']


def test_pipelines_are_of_the_advised_size() -> None:
    pipelines = [ASSET.pipeline, *(part for part in ASSET.pipeline.walk() if isinstance(part, Pipeline))]

    assert all(len(pipeline.processors) <= 20 for pipeline in pipelines)


def view_test(path: Path) -> tuple[dict[str, Any], Query]:
    view = json.loads(path.read_text())
    return view, Query.parse(view['query'])


@pytest.mark.parametrize('path', SAVED_VIEWS, ids=lambda path: path.stem)
def test_saved_view_refers_to_what_exists(path: Path) -> None:
    view, query = view_test(path)
    facets = {facet['path'] for facet in ASSET.facets}

    assert {field.removeprefix('@') for field in query.fields if field.startswith('@')} <= facets | {'error.stack'}
    assert 'source' in query.fields
    assert view['query'].startswith('source:prefect ')
    assert set(view['visible_facets']) <= facets | RESERVED_FACETS
    assert set(view['options']['columns']) <= facets


def in_view(stem: str) -> set[str]:
    """Return the messages of the recorded logs that a saved view shows."""
    _, query = view_test(FOLDER / 'assets' / 'saved_views' / f'{stem}.json')
    logs = (process(record) for record in ALL_RECORDS)
    return {log.message for log in logs if query.matches(log.field)}


def test_view_of_failed_runs_shows_ends_and_tracebacks() -> None:
    messages = in_view('failed_runs')

    assert any(message.startswith('Finished in state TimedOut') for message in messages)
    assert any(message.startswith('Encountered exception during execution') for message in messages)
    assert any(' as crashed: ' in message for message in messages)
    assert not any('Completed' in message or 'heartbeat persistence' in message for message in messages)


def test_view_of_worker_errors_shows_the_runner_and_not_the_runs() -> None:
    messages = in_view('worker_errors')

    assert any(' as crashed: ' in message for message in messages)
    assert not any(message.startswith(('Finished in state', 'Beginning', 'Worker ')) for message in messages)


def test_view_of_server_errors_shows_the_server_and_not_its_workers() -> None:
    _, query = view_test(FOLDER / 'assets' / 'saved_views' / 'server_errors.json')
    logs = (
        process('INFO:     10.0.0.7:1 - "GET /api/ready HTTP/1.1" 503 Service Unavailable'),
        process('09:24:53.482 | ERROR   | prefect.server - Encountered error during state validation'),
        process('INFO:     10.0.0.7:1 - "GET /api/ready HTTP/1.1" 200 OK'),
        process('09:24:32.940 | INFO    | prefect.server.events.actions - Starting action message handler'),
        process('09:24:53.482 | ERROR   | prefect.worker.process.w1 - no'),
    )

    assert [query.matches(log.field) for log in logs] == [True, True, False, False, False]
