"""The direction of the package's imports, and the map of its modules in DEVELOPING.md."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import datadog_checks.prefect

NAME = 'datadog_checks.prefect'
PACKAGE = Path(datadog_checks.prefect.__file__).parent
MAP = (Path(__file__).parents[3] / 'DEVELOPING.md').read_text().partition('## The map')[2].partition('\n## ')[0]
# From the top: a module may import those of its own layer and of the layers above it, for its types too.
LAYERS = (
    (
        'tags',
        'metrics',
        'sample',
        'aggregation',
        'filters',
        'patterns',
        'event_names',
        'expectations',
        'safe_text',
        'urls',
        'ui_links',
        'settings',
        'submitted',
    ),
    ('api',),
    ('streams',),
    ('inventory',),
    ('collectors',),
    ('check', 'unknown_options'),
)
RANKS = {part: rank for rank, layer in enumerate(LAYERS) for part in layer}
# Written by ddev, but for the validators, and read by the check only; the files that name the package.
GENERATED = 'config_models'
OF_THE_PACKAGE = ('__init__', '__about__')


def modules() -> Iterator[tuple[str, Path]]:
    """The modules of the layers: their names below the package ('api.client', a folder as 'api.__init__') and files."""
    for path in sorted(PACKAGE.rglob('*.py')):
        name = '.'.join(path.relative_to(PACKAGE).with_suffix('').parts)
        if not name.startswith(f'{GENERATED}.') and name not in OF_THE_PACKAGE:
            yield name, path


def imported(source: str) -> Iterator[str]:
    """The names below the package that a module imports anywhere, also within functions and for type checkers."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.removeprefix(f'{NAME}.') for alias in node.names if alias.name.startswith(NAME))
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, 'a relative import'
            if node.module == NAME:
                yield from (alias.name for alias in node.names)
            elif node.module and node.module.startswith(f'{NAME}.'):
                yield from (f'{node.module.removeprefix(f"{NAME}.")}.{alias.name}' for alias in node.names)


def part_of(name: str) -> str:
    return name.partition('.')[0]


def test_imports_of_every_kind_are_read() -> None:
    source = """
import datadog_checks.prefect.check
from datadog_checks.prefect import tags
if TYPE_CHECKING:
    from datadog_checks.prefect.api.client import PrefectClient
def late():
    from datadog_checks.prefect.streams import cursor
"""
    assert set(imported(source)) == {'check', 'tags', 'api.client.PrefectClient', 'streams.cursor'}


def test_every_module_has_its_layer() -> None:
    assert {part_of(name) for name, _ in modules()} == set(RANKS)


def test_no_module_imports_from_a_layer_below() -> None:
    wrong = [
        f'{name} imports {other}'
        for name, path in modules()
        for other in imported(path.read_text())
        if part_of(other) != GENERATED and RANKS[part_of(other)] > RANKS[part_of(name)]
    ]

    assert wrong == []


def test_only_the_check_reads_the_generated_models() -> None:
    readers = {name for name, path in modules() for other in imported(path.read_text()) if part_of(other) == GENERATED}

    assert readers == {'check'}


def test_map_names_each_module_in_its_folder() -> None:
    rows = [re.findall(r'`([\w/.]+)`', row.split('|')[1]) for row in MAP.splitlines() if row.startswith('| `')]
    named = [name for row in rows for name in row]
    there = [
        path.relative_to(PACKAGE).as_posix()
        for name, path in modules()
        if not name.endswith('__init__') and part_of(name) != 'collectors'
    ]
    folders = [f'{path.parent.relative_to(PACKAGE)}/' for path in PACKAGE.glob('*/__init__.py')]

    assert sorted(named) == sorted([*there, *folders])


def test_map_is_in_the_order_of_the_layers() -> None:
    parts = [part_of(name.replace('/', '.')) for name in re.findall(r'^\| `([\w/.]+)`', MAP, re.MULTILINE)]
    ranks = [RANKS[part] for part in parts if part != GENERATED]

    assert ranks == sorted(ranks)
