"""The log pipeline of the integration, the Agent's rule for lines, and the lines that are left unparsed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

import datadog_checks.prefect
from tests.log_pipeline import Asset, Log, MultiLineRule

FOLDER = Path(__file__).parents[1]
EXAMPLE = Path(datadog_checks.prefect.__file__).parent / 'data' / 'conf.yaml.example'
ASSET = Asset.read(FOLDER / 'assets' / 'logs' / 'prefect.yaml')

# What is left as it is, and why.
UNPARSED = {
    r'(?s)\n ___ ___ .*': 'the banner of the server: no field in it is of use',
    r'Received SIG\w+\. Sending SIG\w+ to .*': 'the command line tells how it stops its child: neither level nor name',
}


def log_configurations() -> list[dict[str, Any]]:
    """Return the entries of the logs section of conf.yaml.example whose lines the Agent has to join."""
    return [entry for entry in all_log_configurations() if entry['type'] != 'integration']


def all_log_configurations() -> list[dict[str, Any]]:
    """Return the entries of the logs section of conf.yaml.example."""
    text = EXAMPLE.read_text()
    section = text[text.index('# logs:\n') :]
    entries: list[dict[str, Any]] = yaml.safe_load(re.sub('(?m)^# ?', '', section))['logs']
    return entries


def multi_line_rule(configuration: dict[str, Any]) -> MultiLineRule:
    (rule,) = configuration['log_processing_rules']
    return MultiLineRule.from_configuration(rule)


def unparsed(text: str) -> list[str]:
    """Return the logs in what a process printed that no rule parses, and that are not listed either."""
    rule = multi_line_rule(log_configurations()[0])
    logs = ('\n'.join(lines) for lines in rule.join(text.removesuffix('\n').split('\n')))
    return [log for log in logs if not is_parsed(ASSET.process(log)) and not is_listed(log)]


def is_parsed(log: Log) -> bool:
    """Whether more than a date was found. The intake takes JSON apart without any rule."""
    return log.get('logger.name') is not None or any(not rule.startswith('date') for rule in log.rules)


def is_listed(log: str) -> bool:
    return any(re.fullmatch(pattern, log) for pattern in UNPARSED)
