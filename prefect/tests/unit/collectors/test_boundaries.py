"""What the modules of `collectors/` may touch: the inventory, and no other collector."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from datadog_checks.prefect import collectors

FOLDER = Path(collectors.__path__[0])
PACKAGE = 'datadog_checks.prefect'
# `health` runs before there is an inventory, for it tells whether there is a server at all.
ASKS_THE_CLIENT = {'health'}
# What several of them share. None of it asks the server.
COMMON = {'base', 'deployment_outcomes', 'deployment_schedules', 'failure_reason', 'service_verdict'}

MODULES = {path.stem: ast.parse(path.read_text()) for path in FOLDER.glob('*.py') if path.stem != '__init__'}
each_module = pytest.mark.parametrize('module', MODULES)


def imports(tree: ast.Module) -> Iterator[str]:
    """The full names of what a module imports, also under TYPE_CHECKING."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield from (f'{node.module}.{item.name}' for item in node.names)
        elif isinstance(node, ast.Import):
            yield from (item.name for item in node.names)


def siblings(module: str) -> set[str]:
    """The other modules of the folder that a module imports."""
    beginning = f'{PACKAGE}.collectors.'
    found = {name.removeprefix(beginning).partition('.')[0] for name in imports(MODULES[module]) if beginning in name}
    return found - COMMON


def is_collector(module: str) -> bool:
    """Whether a module has a class with a name for the tag `collector`, and collects."""
    for node in ast.walk(MODULES[module]):
        if isinstance(node, ast.ClassDef):
            names = [
                ast.unparse(target) for item in node.body if isinstance(item, ast.Assign) for target in item.targets
            ]
            if 'name' in names and any(
                isinstance(item, ast.FunctionDef) and item.name == 'collect' for item in node.body
            ):
                return True
    return False


@each_module
def test_requests_are_made_by_the_inventory(module: str) -> None:
    uses = [node for node in ast.walk(MODULES[module]) if isinstance(node, ast.Attribute) and node.attr == 'client']
    ways_to_ask = {
        f'{PACKAGE}.api.client.PrefectClient',
        f'{PACKAGE}.api.transport.Transport',
        f'{PACKAGE}.api.queries',
    }
    assert not uses
    assert bool(ways_to_ask.intersection(imports(MODULES[module]))) is (module in ASKS_THE_CLIENT)


@each_module
def test_no_collector_uses_another_one(module: str) -> None:
    assert not {other for other in siblings(module) if is_collector(other)}


def test_each_helper_serves_one_collector() -> None:
    """What several need is in the inventory."""
    helpers = Counter(other for module in MODULES for other in siblings(module))
    assert helpers
    assert set(helpers.values()) == {1}


def test_collectors_are_told_from_helpers() -> None:
    assert is_collector('work_pools')
    assert not is_collector('late_reason')
    assert siblings('late_runs') == {'late_reason'}
