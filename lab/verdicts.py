"""What is wrong on a server now: the recommended monitors, read against what the check sent last.

The monitors of `prefect/assets/monitors/` are the only rules. Their thresholds are compared with the values of the last
check, without their windows, so a finding here is what would alert if it stayed so. Monitors on counts need minutes of
checks, and are only listed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lab.agent import CheckResult
from lab.timeline import Timeline
from tools.datadog_queries import MetricQuery, MonitorQuery, parse_monitor, walk
from tools.monitor_evaluation import Status, status_of, values_now

MONITORS = Path(__file__).resolve().parent.parent / 'prefect' / 'assets' / 'monitors'
AGE_ENDING = '_age'
_SECTION = r'\{\{#is_%s\}\}\n(.*?)\n\{\{/is_%s\}\}'
# In the words of Datadog's messages.
_SECTIONS = {Status.ALERT: ('alert',), Status.WARN: ('warning', 'alert')}
_WINDOW = re.compile(r'\bfor \d+ (?:minutes|hours)\b', re.IGNORECASE)
_NAME = re.compile(r'\{\{(\w+)\.name\}\}')
_EVAL = re.compile(r'\{\{(?:value|eval "value(?:/(\d+))?")\}\}')
_CAUSE = re.compile(r'^\d+\. (.*)$', re.MULTILINE)
_ADVICE = re.compile(r'^- (.*)$', re.MULTILINE)


@dataclass(frozen=True)
class Finding:
    """One group of a monitor that is beyond a threshold.

    `monitor` is its title; `priority` is Datadog's, 1 the most urgent; `seconds` is how long it has been so, None if no
    age tells it.
    """

    monitor: str
    status: Status
    priority: int
    text: str
    seconds: float | None
    causes: tuple[str, ...]
    advice: tuple[str, ...]


@dataclass(frozen=True)
class Verdicts:
    """`findings` the most urgent first; `not_judged` the names of the monitors that need more checks."""

    findings: tuple[Finding, ...]
    judged: int
    not_judged: tuple[str, ...]


@dataclass(frozen=True)
class _Monitor:
    title: str
    definition: Mapping[str, Any]
    query: MonitorQuery

    @property
    def needs_time(self) -> bool:
        """Whether it sums up what happened, which one check cannot tell."""
        return self.query.method == 'sum'

    @property
    def is_of_an_age(self) -> bool:
        expression = self.query.expression
        return isinstance(expression, MetricQuery) and expression.metric.endswith(AGE_ENDING)

    def text(self, status: Status) -> str:
        """What the monitor says in this status; its name where it says for how long, which one check cannot know."""
        text = _section(self.definition['message'], status)
        if not _WINDOW.search(text):
            return text
        name = self.definition['name'].removeprefix('[Prefect] ')
        return f'{name}. Alerts if it stays so for {_duration(self.query.window_seconds)}.'


def judge(result: CheckResult) -> Verdicts:
    """Judge what one run of the check sent. Values of tags keep their case, unlike in Datadog."""
    timeline = Timeline.of_results([result], keeps_case=True)
    monitors = _monitors()
    findings = [finding for monitor in monitors if not monitor.needs_time for finding in _findings(monitor, timeline)]
    not_judged = tuple(monitor.title for monitor in monitors if monitor.needs_time)
    findings.sort(key=lambda one: (one.status is not Status.ALERT, one.priority, -(one.seconds or 0.0), one.text))
    return Verdicts(tuple(findings), len(monitors) - len(not_judged), not_judged)


@cache
def _monitors() -> Sequence[_Monitor]:
    documents = [json.loads(path.read_text()) for path in sorted(MONITORS.glob('*.json'))]
    return [_Monitor(one['title'], one['definition'], parse_monitor(one['definition']['query'])) for one in documents]


def _findings(monitor: _Monitor, timeline: Timeline) -> Iterator[Finding]:
    keys = next(one for one in walk(monitor.query.expression) if isinstance(one, MetricQuery)).group_by
    message = monitor.definition['message']
    for group, value in values_now(monitor.query, timeline).items():
        status = status_of(value, monitor.query.comparator, monitor.definition['options']['thresholds'])
        if status is Status.OK:
            continue
        tags = dict(zip(keys, group, strict=True))
        yield Finding(
            monitor=monitor.title,
            status=status,
            priority=monitor.definition['priority'],
            text=_filled_in(monitor.text(status), tags, value),
            seconds=value if monitor.is_of_an_age else None,
            causes=tuple(_filled_in(text, tags, value) for text in _CAUSE.findall(message)),
            advice=tuple(_filled_in(text, tags, value) for text in _ADVICE.findall(message)),
        )


def _section(message: str, status: Status) -> str:
    """The text of the monitor for this status: for a warning without a text of its own, that for an alert."""
    for name in _SECTIONS[status]:
        if found := re.search(_SECTION % (name, name), message, re.DOTALL):
            return found[1]
    raise ValueError(f'no section for an alert: {message}')


def _duration(seconds: int) -> str:
    return f'{seconds // 3600} h' if seconds % 3600 == 0 else f'{seconds // 60} min'


def _filled_in(text: str, tags: Mapping[str, str], value: float) -> str:
    text = _NAME.sub(lambda match: tags.get(match[1], ''), text)
    return _EVAL.sub(lambda match: f'{value / float(match[1] or 1):,.1f}'.removesuffix('.0'), text)
