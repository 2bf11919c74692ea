"""Import the assets into a Datadog account: `python -m tools.importing --site datadoghq.com`. `make import` runs it.

The keys come from the environment: DD_API_KEY and DD_APP_KEY. Exit codes: 0 all is there, 1 something failed or was
kept because a person changed it, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from tools.importing.account import Account, ImportFailed
from tools.importing.assets import DIST, KINDS, Choices, assets, facets, saved_views, write
from tools.importing.importer import Outcome, Result, run


def main(arguments: Sequence[str]) -> int:
    options = _options(arguments)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    choices = Choices(options.notify, tuple(options.tags), options.runbook)
    files = write(choices)
    console.print(f'{len(files)} assets, as the API takes them: {DIST}')
    if options.files_only:
        return 0
    try:
        results = _import(options, choices, console)
    except ImportFailed as error:
        console.print(f'error: {error}')
        return 1
    _conclude(results, options, console)
    return 1 if any(result.outcome in {Outcome.FAILED, Outcome.KEPT} for result in results) else 0


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser('make import')
    parser.add_argument('--site', default='')
    parser.add_argument('--only', choices=KINDS, action='append')
    parser.add_argument('--notify', default='', help="whom monitors notify: '@team-data @pagerduty-data'")
    parser.add_argument('--tags', type=_words, default=[], help='service:prefect,team:data')
    parser.add_argument('--runbook', default='', help='the address of docs/runbook.md, for links in messages')
    parser.add_argument('--dry-run', action='store_true')
    parser.add_argument('--force', action='store_true')
    parser.add_argument('--files-only', action='store_true')
    options = parser.parse_args(arguments)
    if not options.site and not options.files_only:
        parser.error('name the site of your account: make import SITE=datadoghq.com')
    return options


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(',') if word.strip()]


def _import(options: argparse.Namespace, choices: Choices, console: Console) -> list[Result]:
    api_key, app_key = os.environ.get('DD_API_KEY', ''), os.environ.get('DD_APP_KEY', '')
    if not api_key or not app_key:
        raise ImportFailed('put both DD_API_KEY and DD_APP_KEY into the environment')
    wanted = list(assets(choices, options.only or KINDS))
    number = 0

    def progress(result: Result) -> None:
        nonlocal number
        number += 1
        verb = 'would be ' if options.dry_run and result.outcome in {Outcome.CREATED, Outcome.UPDATED} else ''
        console.print(f'{number:3}/{len(wanted)} {result.asset.kind}/{result.asset.name}: {verb}{result.outcome.value}')
        for text in filter(None, (result.error, result.difference)):
            console.print('\n'.join(f'        {line}' for line in text.splitlines()))

    account = Account(options.site, api_key, app_key, say=console.print)
    try:
        account.check_keys()
        return run(account, wanted, dry_run=options.dry_run, force=options.force, progress=progress)
    finally:
        account.close()


def _conclude(results: Sequence[Result], options: argparse.Namespace, console: Console) -> None:
    outcomes = list(Outcome)
    table = Table('', *(outcome.name.lower() for outcome in outcomes), title='dry run' if options.dry_run else None)
    for kind in KINDS:
        counts = [sum(one.asset.kind == kind and one.outcome is outcome for one in results) for outcome in outcomes]
        if any(counts):
            table.add_row(kind, *map(str, counts))
    console.print(table)
    console.print('Datadog has no API for saved views. For each: open Logs, paste the query, Save as new view.')
    for name, query in saved_views().items():
        console.print(f'  {name}: {query}')
    console.print('Nor for facets. For each: open a log of source:prefect, click the attribute, Create facet.')
    console.print('  ' + ', '.join(facets()))


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
