"""What real processes print is parsed to the last line: a server that tells all, and flows that fail in many ways.

The worker and the stories of the demo are in `test_full_run.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from lab.prefect_server import FlowScript, PrefectServer
from tests.log_lines import ASSET, FOLDER, log_configurations, multi_line_rule, unparsed

FLOWS = str(FOLDER / 'tests' / 'fixtures' / 'logged_flows.py')
FORMS = {
    'standard': {},
    'json': {'PREFECT_LOGGING_HANDLERS_CONSOLE_FORMATTER': 'json'},
    'iso': {'PREFECT_LOGGING_FORMATTERS_STANDARD_DATEFMT': '%Y-%m-%dT%H:%M:%S'},
}


@pytest.fixture(scope='module')
def logs() -> Iterator[dict[str, str]]:
    """What was printed, by the form of the flows, and by `server`."""
    with PrefectServer(settings={'PREFECT_SERVER_LOGGING_LEVEL': 'INFO'}) as server, ExitStack() as running:
        scripts = {
            form: running.enter_context(FlowScript(server.api_url, FLOWS, settings=settings))
            for form, settings in FORMS.items()
        }
        for script in scripts.values():
            assert script.wait(120) == 0, script.process.log_tail()
        paths = {form: script.log_path for form, script in scripts.items()} | {'server': server.log_path}
        yield {name: path.read_text() for name, path in paths.items()}


@pytest.mark.parametrize('process', [*FORMS, 'server'])
def test_every_line_is_parsed_or_listed(logs: dict[str, str], process: str) -> None:
    assert logs[process]
    assert unparsed(logs[process]) == []


def test_same_flows_end_in_the_same_states_in_every_form(logs: dict[str, str]) -> None:
    rule = multi_line_rule(log_configurations()[0])
    ends = {}
    for form in FORMS:
        processed = [ASSET.process('\n'.join(lines)) for lines in rule.join(logs[form].splitlines())]
        ends[form] = Counter((log.get('prefect.state'), log.status) for log in processed if log.get('prefect.state'))

    assert ends['standard'] == ends['json'] == ends['iso']
    assert ends['standard']['Failed', 'error'] >= 4
    assert ends['standard']['Crashed', 'error'] == 1
