"""Write what `datadog_checks.prefect.metrics` declares to `prefect/metadata.csv` and the tables of `prefect/README.md`.

`--write` writes both, `--check` prints the difference to what is there and exits with 1 if there is any.
"""

from __future__ import annotations

import argparse
import csv
import difflib
import io
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import groupby
from pathlib import Path

from datadog_checks.prefect.metrics import METRICS, MetricSpec
from tools.marked import with_part

INTEGRATION = Path(__file__).resolve().parent.parent / 'prefect'
METADATA = INTEGRATION / 'metadata.csv'
README = INTEGRATION / 'README.md'

WRITER = 'tools/metadata.py'
COLUMNS = (
    'metric_name',
    'metric_type',
    'interval',
    'unit_name',
    'per_unit_name',
    'description',
    'orientation',
    'integration',
    'short_name',
    'curated_metric',
    'sample_tags',
)


def metadata_csv(specs: Iterable[MetricSpec]) -> str:
    """Return the whole of `metadata.csv`, one row per series, sorted by name."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval='', lineterminator='\n')
    writer.writeheader()
    for spec in sorted(specs, key=lambda spec: spec.full_name):
        writer.writerow(
            {
                'metric_name': spec.full_name,
                'metric_type': spec.type,
                'unit_name': spec.unit,
                'description': spec.description,
                'orientation': spec.orientation,
                'integration': 'prefect',
                'short_name': spec.name.replace('.', ' ').replace('_', ' '),
                'sample_tags': ','.join(spec.tag_keys),
            }
        )
    return text.getvalue()


@dataclass(frozen=True)
class Question:
    """What a person asks, and the series that answer it, as patterns of a shell for their names without the namespace.

    `anchor` is the heading of docs/series.md that says how the check decides, '' if there is nothing to decide.
    """

    text: str
    names: tuple[str, ...]
    anchor: str = ''

    def is_answered_by(self, spec: MetricSpec) -> bool:
        return any(fnmatchcase(spec.name, name) for name in self.names)


QUESTIONS = (
    Question('Is the server up, and does it reach its database?', ('health', 'ready')),
    Question('Do its background services work?', ('service.*',), 'whether-background-services-live'),
    Question('Does the check itself work?', ('collector.success', 'api.authorized', 'events.pending', 'logs.pending')),
    Question(
        'What does the check cost the server, and how many series does it send?',
        ('collector.duration_seconds', 'api.requests', 'api.response_bytes', 'api.duration_seconds', 'check.series'),
    ),
    Question(
        'Which runs should have started and have not, for how long, and what do they wait for?',
        ('flow_runs.late', 'flow_runs.late.max_age'),
        'why-runs-are-late',
    ),
    Question(
        'What is planned, waits, runs or is paused now?',
        (
            'flow_runs.scheduled',
            *(f'{runs}.{state}' for runs in ('flow_runs', 'task_runs') for state in ('pending', 'running', 'paused')),
        ),
    ),
    Question(
        'Does a run hang, or is it stuck between submission and its process?',
        ('*_runs.pending.max_age', '*_runs.running.max_age'),
    ),
    Question('Did somebody forget to resume a run?', ('flow_runs.paused.max_age',)),
    Question('Is a cancellation stuck?', ('flow_runs.cancelling*',)),
    Question('Which runs wait for a retry, which for a slot of their deployment?', ('*_runs.awaiting_*',)),
    Question(
        'Which flow runs have lost their process?', ('flow_runs.heartbeat*',), 'whether-a-run-has-lost-its-process'
    ),
    Question(
        'How many runs ended, and how?',
        (
            '*_runs.completed.count',
            '*_runs.failed.count',
            '*_runs.crashed.count',
            '*_runs.cancelled.count',
            '*_runs.throughput',
        ),
    ),
    Question(
        'Why do runs fail: an exception, a timeout, memory, the infrastructure?',
        ('*_runs.failures.count',),
        'why-runs-fail',
    ),
    Question(
        'How late do runs start, and how long do they wait?', ('*_runs.late_start.count', '*_runs.*_wait_duration.*')
    ),
    Question(
        'How long do runs take, and how long until they are tried again?', ('*_runs.execution_*', '*_runs.retry_*')
    ),
    Question('Is a work pool ready, and does it have workers?', ('work_pool.is_*', 'work_pool.worker*')),
    Question('What did workers start, and with which exit code did it end?', ('work_pool.flow_runs.*',)),
    Question(
        'Is a work queue polled, and what waits in it?',
        ('work_queue.is_*', 'work_queue.last_polled_age_seconds', 'work_queue.backlog.*'),
    ),
    Question(
        'Which slots are taken by no live run?',
        ('*.leaked_slots',),
        'when-slots-are-leaked-and-how-fresh-deployments-are',
    ),
    Question(
        'Which limit holds work back: that of a work pool, a queue, a deployment, a tag or a global one?',
        ('*.concurrency.*', 'concurrency_limit.*'),
    ),
    Question(
        'Is a deployment ready, when did it last succeed, and how often has it failed since?',
        ('deployment.is_ready', 'deployment.seconds_since_success', 'deployment.consecutive_failures'),
    ),
    Question(
        'When does a deployment run next, and is it scheduled at all?',
        ('deployment.seconds_until_next_run', 'deployment.schedules.*'),
    ),
    Question(
        'Is a success overdue, hourly or monthly, or does a run take longer than it should?',
        ('deployment.expectation.*',),
        'what-is-expected-of-deployments',
    ),
    Question(
        'Do background tasks pile up, and is a task worker there?',
        ('task_runs.scheduled*', 'task_workers.online'),
        'background-tasks',
    ),
    Question('Did an automation fire, did its action work, or has somebody disabled it?', ('automation.*',)),
)


def readme_tables(specs: Iterable[MetricSpec]) -> str:
    """Return the questions with tables in Markdown."""
    return '\n'.join(_readme_part(question, answers) for question, answers in answers_by_question(specs))


def answers_by_question(specs: Iterable[MetricSpec]) -> Iterator[tuple[Question, list[MetricSpec]]]:
    """Each question with its series; a series belongs to the first one that it answers, and to one at least."""
    left = list(specs)
    for question in QUESTIONS:
        answers = [spec for spec in left if question.is_answered_by(spec)]
        left = [spec for spec in left if spec not in answers]
        yield question, answers
    if left:
        raise ValueError(f'no question for {", ".join(spec.name for spec in left)}')


def _readme_part(question: Question, specs: list[MetricSpec]) -> str:
    """A table for each set of tags and group."""
    more = [f'[How the check decides](../docs/series.md#{question.anchor})', ''] if question.anchor else []
    tables = [
        _readme_table(tag_keys, group, answers)
        for (tag_keys, group), answers in groupby(specs, key=lambda spec: (spec.tag_keys, spec.group))
    ]
    return '\n'.join([f'#### {question.text}', '', *more, *tables])


def _readme_table(tag_keys: tuple[str, ...], group: str, specs: Iterable[MetricSpec]) -> str:
    facts = []
    if tag_keys:
        facts.append('Tags: ' + ', '.join(f'`{key}`' for key in tag_keys) + '.')
    if group:
        facts.append(f'Group: `{group}`.')
    head = [' '.join(facts), ''] if facts else []
    rows = [f'| `{spec.full_name}` | {spec.type} | {spec.unit or "-"} | {spec.description} |' for spec in specs]
    return '\n'.join([*head, '| Metric | Type | Unit | Description |', '|---|---|---|---|', *rows, ''])


def wanted() -> dict[Path, str]:
    """Return each generated file with the text that it should have."""
    specs = METRICS.values()
    return {
        METADATA: metadata_csv(specs),
        README: with_part(README.read_text(), WRITER, readme_tables(specs)),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description='Generate metadata.csv and the metric tables of the README.')
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument('--write', action='store_true', help='write both files')
    mode.add_argument('--check', action='store_true', help='print the difference, exit with 1 if there is one')
    arguments = parser.parse_args()

    difference = ''
    for path, text in wanted().items():
        present = path.read_text() if path.exists() else ''
        if arguments.write:
            path.write_text(text)
        difference += ''.join(
            difflib.unified_diff(
                present.splitlines(keepends=True),
                text.splitlines(keepends=True),
                f'{path.name}',
                f'{path.name}, as declared',
            )
        )
    if arguments.check and difference:
        print(difference, end='')
        print('\nThe files differ from what metrics.py declares: run `make generate`.')
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
