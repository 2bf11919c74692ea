"""Write what `datadog_checks.prefect.metrics` declares to `prefect/metadata.csv` and the tables of `prefect/README.md`.

`--write` writes both, `--check` prints the difference to what is there and exits with 1 if there is any.
"""

from __future__ import annotations

import argparse
import csv
import difflib
import io
import sys
from collections.abc import Iterable
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


def readme_tables(specs: Iterable[MetricSpec]) -> str:
    """Return a table in Markdown for each row of series that have their tags in common."""
    groups = groupby(specs, key=lambda spec: spec.tag_keys)
    return '\n'.join(_readme_table(tag_keys, group) for tag_keys, group in groups)


def _readme_table(tag_keys: tuple[str, ...], specs: Iterable[MetricSpec]) -> str:
    tags = ', '.join(f'`{key}`' for key in tag_keys)
    head = [f'Tags: {tags}', ''] if tags else []
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
