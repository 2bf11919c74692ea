"""The log pipeline, its facets and tests, saved views and the Agent's rule for lines, against recorded logs."""

from __future__ import annotations

import json
import re
from collections import Counter
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
    is_parsed,
    log_configurations,
    multi_line_rule,
)
from tests.log_pipeline import Log, LogTest, Query, Reading
from tests.log_pipeline.processors import GrokParser, Pipeline
from tests.unit.lint import for_each
from tools.record_logs import shape

ASSET_TEXT = (FOLDER / 'assets' / 'logs' / 'prefect.yaml').read_text()
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
SHAPES = {shape(record.split('\n')) for record in ALL_RECORDS}


COLLECTED = RECORDS['records-collected.log']
PRINTED = sorted(name for name in RECORDS if name != 'records-collected.log')

# What stands before each line in files of syslog and of container runtimes, in what `journalctl` and `docker compose
# logs` print.
PREFIXES = {
    'journalctl': 'Nov 23 09:24:53 node-3 prefect[4112]: ',
    'journalctl of the first days': 'Nov  3 09:24:53 node-3 prefect[4112]: ',
    'journalctl -o short-iso': '2026-11-23T09:24:53+0000 node-3 prefect[4112]: ',
    'rsyslog': '2026-11-23T09:24:53.080123+01:00 node-3 prefect: ',
    'syslog on the wire': '<30>Nov 23 09:24:53 node-3 prefect[4112]: ',
    'RFC 5424': '<30>1 2026-11-23T09:24:53.080Z node-3 prefect 4112 - - ',
    'container runtime': '2026-11-23T09:24:53.080123456Z stderr F ',
    'docker compose': 'prefect-worker-1  | ',
}
# Lines of Prefect 3.0, of uvicorn in a terminal, those that the lab seldom prints, and two forms of dates.
NOT_RECORDED = re.compile(
    r"(?s).*(?:Completed submission|could not be submitted|Worker channel heartbeat|Discovered type|it's-355|- a blank"
    r'|- a zone).*|\x1b.*'
)


def without_prefix(record: str) -> str:
    prefix = next((prefix for prefix in PREFIXES.values() if record.startswith(prefix)), '')
    return '\n'.join(line.removeprefix(prefix) for line in record.split('\n'))


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
    sample = without_prefix(test.sample)

    assert NOT_RECORDED.fullmatch(sample) or shape(sample.split('\n')) in SHAPES


def test_every_grok_rule_has_a_sample() -> None:
    rules = {rule.name for parser in ASSET.pipeline.walk() if isinstance(parser, GrokParser) for rule in parser.rules}
    used = set()
    for test in ASSET.tests:
        for reading in Reading:
            used |= set(process(test.sample, reading).rules)

    assert rules - used == set()


@pytest.mark.parametrize('reading', [Reading.TEXT, Reading.RESERVED])
def test_json_becomes_the_same_whatever_the_intake_did_to_it(reading: Reading) -> None:
    # The intake always takes apart what it gets from the check.
    records = [record for record in ALL_RECORDS if record.startswith('{"name":')]
    assert records
    for record in records:
        one_way, other_way = process(record), process(record, reading)
        assert (other_way.status, other_way.timestamp) == (one_way.status, one_way.timestamp)
        assert other_way.message == one_way.message
        if (text := json.loads(record).get('message')) is not None:
            assert one_way.message == text
        for family in ('prefect', 'error', 'logger'):
            assert other_way.get(family) == one_way.get(family), record


# What was recorded


@for_each({name: name for name in sorted(RECORDS)})
def test_every_record_is_parsed_or_listed(name: str) -> None:
    unparsed = [record for record in RECORDS[name] if not is_parsed(process(record))]

    assert [record for record in unparsed if not is_listed(record)] == []


def test_every_listed_line_was_recorded() -> None:
    for pattern in UNPARSED:
        assert any(re.fullmatch(pattern, record) for record in ALL_RECORDS), pattern


@pytest.mark.parametrize('configuration', log_configurations(), ids=lambda configuration: configuration['type'])
@pytest.mark.parametrize('name', PRINTED)
def test_lines_are_joined_to_the_records_that_were_printed(name: str, configuration: dict[str, Any]) -> None:
    rule = multi_line_rule(configuration)

    assert ['\n'.join(lines) for lines in rule.join(read_lines(name))] == RECORDS[name]


def test_logs_are_collected_from_the_server_files_and_containers() -> None:
    configurations = all_log_configurations()

    assert [configuration['type'] for configuration in configurations] == ['integration', 'file', 'docker']
    assert {configuration['source'] for configuration in configurations} == {'prefect'}


@pytest.mark.parametrize('page', ['docs/logs.md', 'docs/deploying.md'])
def test_pages_show_the_rule_of_the_example_wherever_they_show_one(page: str) -> None:
    text = (FOLDER.parent / page).read_text()
    pattern = log_configurations()[0]['log_processing_rules'][0]['pattern']
    # In JSON, as labels and annotations are, and within the JSON of a job template.
    forms = (pattern, json.dumps(pattern)[1:-1], json.dumps(json.dumps(pattern)[1:-1])[1:-1])

    assert text.count('multi_line') == sum(text.count(form) for form in forms) > 0


def test_job_templates_have_the_rule_of_the_example() -> None:
    page = (FOLDER.parent / 'docs' / 'deploying.md').read_text()
    templates = [json.loads(block) for block in re.findall('```json\n(.*?)```', page, re.DOTALL)]
    pod = templates[0]['job_configuration']['job_manifest']['spec']['template']['metadata']['annotations']
    container = templates[1]['variables']['properties']['labels']['default']

    for (settings,) in (json.loads(part) for labels in (pod, container) for part in labels.values()):
        assert settings['source'] == 'prefect'
        assert settings['log_processing_rules'] == log_configurations()[0]['log_processing_rules']


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
    logs = [log for form in ('standard', 'internal') for record, log in processed(form) if record[2] == ':']

    assert {log.timestamp for log in logs} == {None}


def test_dated_lines_have_their_own_time() -> None:
    for record, log in processed('iso'):
        if not re.match(r'\S+T\S+ \| ', record):
            continue
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


# Ends of runs, processes and containers

REPORTS = {
    form: {log.message: log for _, log in processed(form) if log.message.startswith('Reported flow run ')}
    for form in ('standard', 'json')
}


@pytest.mark.parametrize('form', ['standard', 'json'])
def test_every_report_of_a_crash_is_an_error_with_state_and_id(form: str) -> None:
    assert len(REPORTS[form]) > 10
    for message, log in REPORTS[form].items():
        assert (log.status, log.get('prefect.state'), log.get('prefect.state_type')) == ('error', 'Crashed', 'CRASHED')
        assert log.get('prefect.flow_run_id') == message.split("'")[1]
    assert all(message in in_view('failed_runs') and message in in_view('worker_errors') for message in REPORTS[form])


@pytest.mark.parametrize('form', ['standard', 'json'])
@pytest.mark.parametrize(
    ('text', 'exit_code', 'signal'),
    [
        ('Flow run infrastructure exited with non-zero status code 137. ', 137, 'SIGKILL'),
        ('Flow run infrastructure exited with non-zero status code 143. ', 143, 'SIGTERM'),
        ('Flow run infrastructure exited with non-zero status code 139. ', 139, 'SIGSEGV'),
        ('Flow run infrastructure exited with non-zero status code 247. ', 247, 'SIGKILL'),
        ('Flow run infrastructure exited with non-zero status code -9. ', -9, 'SIGKILL'),
        ('Flow run infrastructure exited with non-zero status code -15. ', -15, 'SIGTERM'),
        ('Flow run infrastructure exited with non-zero status code 125. ', 125, None),
        ('Flow run process exited with non-zero status code 1.', 1, None),
        ('Flow run process exited with non-zero status code 137.', 137, 'SIGKILL'),
        ('Flow run process exited with non-zero status code -9.', -9, 'SIGKILL'),
        ('Process exited with status code: -9. ', -9, 'SIGKILL'),
    ],
)
def test_report_of_a_crash_has_exit_code_and_signal(form: str, text: str, exit_code: int, signal: str | None) -> None:
    logs = [log for message, log in REPORTS[form].items() if f' as crashed: {text}' in message]

    assert logs
    assert {(log.get('prefect.exit_code'), log.get('prefect.signal')) for log in logs} == {(exit_code, signal)}


@pytest.mark.parametrize(
    ('signal', 'exit_codes'),
    [
        ('SIGHUP', (-1, 129)),
        ('SIGINT', (-2, 130)),
        ('SIGQUIT', (-3, 131)),
        ('SIGABRT', (-6, 134)),
        ('SIGBUS', (-7, 135)),
        ('SIGKILL', (-9, 137, 247)),
        ('SIGSEGV', (-11, 139)),
        ('SIGTERM', (-15, 143)),
        (None, (1, 2, 125, 127, 255)),
    ],
)
def test_signal_is_known_by_the_exit_code_alone(signal: str | None, exit_codes: tuple[int, ...]) -> None:
    for code in exit_codes:
        text = f"Process for flow run 'x' exited with status code: {code}"
        log = process(f'09:24:53.080 | INFO    | prefect.flow_runs.runner - {text}')
        assert (log.get('prefect.exit_code'), log.get('prefect.signal')) == (code, signal)


@pytest.mark.parametrize('form', ['standard', 'json'])
def test_report_of_a_submission_that_failed_has_the_exception(form: str) -> None:
    (log,) = (log for message, log in REPORTS[form].items() if ' as crashed: Failed to submit ' in message)

    assert log.get('error.kind') == 'RuntimeError'
    assert log.get('error.message') == "cannot pull the image 'shop:7': 404 Client Error: Not Found"


@pytest.mark.parametrize(
    ('end', 'exit_code', 'signal', 'status'),
    [
        ('exited with status code: 1; Process exited with a general error.', 1, None, 'error'),
        ('exited with status code: 137; Process was killed, likely', 137, 'SIGKILL', 'error'),
        ('exited with status code: -9; Process exited due to a SIGKILL signal.', -9, 'SIGKILL', 'error'),
    ],
)
@pytest.mark.parametrize('form', ['standard', 'json'])
def test_end_of_a_process_has_run_exit_code_and_signal(
    form: str, end: str, exit_code: int, signal: str | None, status: str
) -> None:
    logs = [log for _, log in processed(form) if log.message.startswith('Process for flow run ') and end in log.message]

    assert logs
    for log in logs:
        assert log.get('prefect.flow_run_name') == log.message.split("'")[1]
        assert (log.get('prefect.exit_code'), log.get('prefect.signal'), log.status) == (exit_code, signal, status)


@pytest.mark.parametrize(
    ('state', 'status'),
    [('Paused', 'info'), ('NotReady', 'info'), ('Cancelled', 'warn'), ('Failed', 'error'), ('TimedOut', 'error')],
)
@pytest.mark.parametrize('form', ['standard', 'json', 'iso', 'zone', 'colors', 'collected'])
def test_end_of_a_task_run_has_the_status_of_its_state(form: str, state: str, status: str) -> None:
    ends = [log for _, log in processed(form) if log.get('prefect.state') == state and log.get('prefect.task_run_name')]

    assert ends
    assert {log.status for log in ends} == {status}


@pytest.mark.parametrize(
    'beginning',
    [
        'Failed to submit flow run ',
        'Lost connection to flow run ',
        'Infrastructure returned without reporting flow run ',
        'Runner failed to retrieve flow to execute on_crashed hooks for flow run ',
    ],
)
@pytest.mark.parametrize('form', ['standard', 'json'])
def test_flow_run_that_a_worker_or_runner_names_is_taken(form: str, beginning: str) -> None:
    logs = [log for _, log in processed(form) if log.message.startswith(beginning)]

    assert logs
    for log in logs:
        named = log.message.split("'")[1]
        assert named in {log.get('prefect.flow_run_id'), log.get('prefect.flow_run_name')}


@pytest.mark.parametrize(
    ('message', 'attribute'),
    [
        ("Completed submission of flow run '{id}'", 'flow_run_id'),
        ("Failed to submit flow run '{id}'", 'flow_run_id'),
        ("Aborted submission of flow run '{id}': Server returned a non-pending state 'CANCELLED'", 'flow_run_id'),
        ('Deployment {other} no longer exists. Flow run {id} will not be submitted for execution', 'flow_run_id'),
        ("Failed to kill process 7 for flow run '{id}'", 'flow_run_id'),
        ("Flow run '{id}' is cancelling, marking as cancelled.", 'flow_run_id'),
        ("Execution of flow run '{id}' was terminated.", 'flow_run_id'),
    ],
)
def test_id_is_taken_from_messages_that_the_lab_does_not_print(message: str, attribute: str) -> None:
    run_id, other = '99128c03-0f63-4889-8a85-f65a4c39a1ae', '0d3cf2f0-5b53-4c3a-9f0c-6b1f7f0a1c22'
    log = process(f'09:24:53.080 | INFO    | prefect.flow_runs.worker - {message.format(id=run_id, other=other)}')

    assert log.get('prefect') == {attribute: run_id}


def test_id_is_taken_from_the_arguments_of_a_template_of_the_runner() -> None:
    run_id = '99128c03-0f63-4889-8a85-f65a4c39a1ae'
    record = {'name': 'prefect.runner.scheduled_run_poller', 'levelname': 'ERROR', 'args': [run_id]}

    log = process(json.dumps({**record, 'msg': "Failed to submit flow run '%s'"}))

    assert log.get('prefect.flow_run_id') == run_id
    assert log.get('prefect.flow_run_name') is None


def test_words_of_a_flow_name_no_other_run() -> None:
    text = "Failed to submit flow run 'other' to infrastructure."
    log = process(f"09:24:53.080 | INFO    | Flow run 'mine' - {text}")
    record = process('{"name":"prefect.flow_runs","msg":"' + text + '","levelname":"INFO","flow_run_name":"mine"}')

    assert log.get('prefect') == record.get('prefect') == {'flow_run_name': 'mine'}


@pytest.mark.parametrize('form', ['standard', 'json'])
def test_logger_of_a_worker_is_split_from_its_name(form: str) -> None:
    (log,) = (log for _, log in processed(form) if log.message.startswith('Worker has not polled'))

    assert log.get('logger.name') == 'prefect.workers.container'
    assert re.fullmatch('containerworker [0-9a-f-]{36}', log.get('prefect.worker_name'))
    assert not any(re.search('[0-9a-f]{8}-', process(record).get('logger.name') or '') for record in ALL_RECORDS)


def test_worker_and_work_pool_are_taken_from_the_link_to_a_worker() -> None:
    log = one(lambda record: 'Running on worker id: ' in record)

    assert log.get('prefect.worker_id') == '5f0f2c5e-6a3b-4c19-9d52-0f3c6e1b7a84'
    assert log.get('prefect.work_pool_name') == 'containers'


# Other forms of lines


def told(log: Log, prefix: str = '') -> dict[str, Any]:
    """Return what a prefix must not change. Each line has the prefix, so only the first one of an error is the same."""
    error = {key: value.partition('\n')[0] for key, value in (log.get('error') or {}).items() if key != 'stack'}
    families = {family: log.get(family) for family in ('prefect', 'logger', 'http', 'network')}
    # A line without a text of its own stays as it is.
    first_line = log.message.removeprefix(prefix).partition('\n')[0]
    return families | {'status': log.status, 'error': error, 'first line': first_line}


@pytest.mark.parametrize('prefix', PREFIXES.values(), ids=PREFIXES)
def test_prefix_of_each_line_changes_nothing(prefix: str) -> None:
    rule = multi_line_rule(log_configurations()[0])
    for name in ('flows-standard', 'flows-zone', 'container_worker-json', 'server-standard', 'worker-standard'):
        for record in filter(lambda record: is_parsed(process(record)), RECORDS[f'{name}.log']):
            lines = [f'{prefix}{line}' for line in record.split('\n')]
            assert list(rule.join(lines)) == [lines]
            assert told(process('\n'.join(lines)), prefix) == told(process(record)), record


@pytest.mark.parametrize('form', ['iso', 'zone', 'colors'])
def test_other_forms_of_the_same_flows_become_the_same(form: str) -> None:
    def known(form: str) -> Counter[tuple[Any, ...]]:
        paths = ('prefect.state', 'prefect.state_type', 'prefect.flow_name', 'error.kind', 'prefect.exit_code')
        logs = (process(record) for record in RECORDS[f'flows-{form}.log'])
        return Counter((log.status, *(log.get(path) for path in paths)) for log in logs)

    assert known(form) == known('standard')


@pytest.mark.parametrize(
    ('line', 'milliseconds'),
    [
        ('2026-11-23T09:24:53.080 | INFO    | a - b', 1_795_425_893_080),
        ('2026-11-23 09:24:53.080 | INFO    | a - b', 1_795_425_893_080),
        ('2026-11-23T10:24:53+0100.080 | INFO    | a - b', 1_795_425_893_080),
        ('2026-11-23 04:24:53-0500.080 | INFO    | a - b', 1_795_425_893_080),
        ('2026-11-23 09:24:53,080 - distributed.worker - INFO - b', 1_795_425_893_080),
        ('Nov 23 09:24:53 node-3 prefect[1]: 2026-11-23 09:24:53.080 | INFO    | a - b', 1_795_425_893_080),
        ('09:24:53.080 | INFO    | a - b', None),
    ],
)
def test_date_is_read_in_each_form(line: str, milliseconds: int | None) -> None:
    log = process(line)

    assert (log.timestamp, log.message, log.status) == (milliseconds, 'b', 'info')


def test_lines_of_other_libraries_are_logs_of_their_own() -> None:
    logs = [process(record) for record in json.loads((LOGS.parent / 'foreign_lines.json').read_text())]

    assert [(log.status, log.get('logger.name')) for log in logs] == [
        ('warn', 'distributed.nanny'),
        ('error', 'distributed.worker'),
        ('warn', 'py4j.clientserver'),
        ('error', 'root'),
        ('error', 'retry.cc'),
        ('info', 'mutable_catalog.cc'),
        ('warn', 'tensorflow/core/framework/allocator.cc'),
        ('warn', 'NativeCodeLoader'),
        ('warn', None),
    ]
    assert [log.get('error.kind') for log in logs if log.get('error')] == ['MemoryError', 'FileNotFoundError']
    assert not any(set(log.get('prefect') or {}) - {'severity'} for log in logs)


@pytest.mark.parametrize(
    'line',
    [
        '\x1b[32mINFO\x1b[0m:     127.0.0.1:37328 - "\x1b[1mGET /api/health HTTP/1.1\x1b[0m" \x1b[32m200 OK\x1b[0m',
        'INFO:     127.0.0.1:37328 - "GET /api/health HTTP/1.1" 200 OK',
    ],
)
def test_uvicorn_in_a_terminal(line: str) -> None:
    log = process(line)

    assert list(multi_line_rule(log_configurations()[0]).join([line, line])) == [[line], [line]]
    assert (log.get('http.status_code'), log.get('http.method'), log.status) == (200, 'GET', 'info')


def test_support_rules_of_one_name_are_the_same_everywhere() -> None:
    texts: dict[str, set[str]] = {}
    for text in re.findall(r'(?m)^ +(_(?:before|color|stack|flow_run_id) .*)$', ASSET_TEXT):
        texts.setdefault(text.partition(' ')[0], set()).add(text)

    assert {name: len(versions) for name, versions in texts.items()} == dict.fromkeys(texts, 1)


# Records that the check sends (`collect_logs`)


@pytest.mark.parametrize('reading', [Reading.ATTRIBUTES, Reading.RESERVED])
def test_collected_record_keeps_what_the_check_says_of_it(reading: Reading) -> None:
    assert len(COLLECTED) > 30
    for record in COLLECTED:
        sent, log = json.loads(record), process(record, reading)
        assert (log.message, log.timestamp) == (sent['message'], sent['timestamp'])
        assert log.get('logger') == sent['logger'], record
        assert (log.get('prefect') or {}).items() >= sent['prefect'].items(), record
        assert (log.get('error') or {}).items() >= sent.get('error', {}).items()
        assert log.status == sent['status'] or log.get('prefect.severity'), record
        assert log.get('msg') is None
        assert log.get('level') is None


@pytest.mark.parametrize('text', ['WARNING: no space', '09:24:53.080 | ERROR   | x - no space', 'ERROR:root:no space'])
@pytest.mark.parametrize('reading', [Reading.ATTRIBUTES, Reading.RESERVED])
@pytest.mark.parametrize('mark', [{'prefect': {'log_id': '1'}, 'status': 'info'}, {'levelname': 'INFO'}])
def test_text_that_looks_like_a_line_is_left_alone(text: str, reading: Reading, mark: dict[str, Any]) -> None:
    log = process(json.dumps({'message': text, **mark}), reading)

    assert (log.message, log.status, log.get('logger.name')) == (text, 'info', None)


def test_collected_record_has_the_attributes_of_the_line_of_a_file() -> None:
    def known(records: list[str]) -> dict[str, dict[str, Any]]:
        paths = ('prefect.state', 'prefect.state_type', 'prefect.exit_code', 'prefect.signal', 'error.kind')
        logs = [process(record) for record in records]
        return {
            re.sub('[0-9a-f-]{36}|[a-z]+-[a-z]+', '*', log.message): {
                'status': log.status,
                'logger': log.get('logger.name'),
                **{path: log.get(path) for path in paths},
            }
            for log in logs
            if log.get('prefect.flow_run_id') or log.get('prefect.flow_run_name')
        }

    lines = known([*RECORDS['flows-json.log'], *RECORDS['container_worker-json.log']])
    collected = known(COLLECTED)
    both = lines.keys() & collected.keys()

    assert any(message.startswith('Finished in state ') for message in both)
    assert any(' as crashed: ' in message for message in both)
    assert {message: collected[message] for message in both} == {message: lines[message] for message in both}


def test_collected_records_are_in_the_views() -> None:
    messages = in_view('failed_runs', COLLECTED)

    assert any(message.startswith('Finished in state Failed') for message in messages)
    assert any(' as crashed: ' in message for message in messages)
    assert any(' as crashed: ' in message for message in in_view('worker_errors', COLLECTED))


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


def in_view(stem: str, records: list[str] = ALL_RECORDS) -> set[str]:
    """Return the messages of the recorded logs that a saved view shows."""
    _, query = view_test(FOLDER / 'assets' / 'saved_views' / f'{stem}.json')
    logs = (process(record) for record in records)
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
    assert not any(message.startswith(('Finished in state', 'Beginning', "Worker '")) for message in messages)


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
