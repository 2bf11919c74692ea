"""The assets of the integration in the form that Datadog's API takes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / 'prefect' / 'assets'
DIST = ROOT / 'dist' / 'assets'
# In this order: dashboards show the objectives.
KINDS = ('slos', 'monitors', 'dashboards', 'logs')
# What the message of a monitor says of the runbook, and an import replaces.
_RUNBOOK_LINE = re.compile(r'^Runbook: docs/runbook\.md#([\w-]+)$', re.MULTILINE)
_LINK = re.compile(r'\[([^\]]+)\]\([^)]+\)')
# Datadog takes no other tags on a dashboard.
_TEAM = 'team:'


@dataclass(frozen=True)
class Choices:
    """What the owner of an account wants: whom monitors notify, extra tags, and the address of the runbook."""

    notify: str = ''
    tags: Sequence[str] = ()
    runbook: str = ''


@dataclass(frozen=True)
class Asset:
    """One object as Datadog's API takes it, for example Asset('monitors', 'late_runs', {'name': ...})."""

    kind: str
    name: str
    body: Mapping[str, Any] = field(repr=False)

    @property
    def title(self) -> str:
        """The name that people see in Datadog."""
        return str(self.body['title' if self.kind == 'dashboards' else 'name'])


def assets(choices: Choices = Choices(), kinds: Sequence[str] = KINDS) -> Iterator[Asset]:
    """Each asset of these kinds, in the order of the import."""
    forms = {'slos': _slo, 'monitors': _monitor, 'dashboards': _dashboard}
    for kind in kinds:
        if kind == 'logs':
            pipeline = yaml.safe_load((FOLDER / 'logs' / 'prefect.yaml').read_text())['pipeline']
            yield Asset(kind, 'prefect', _pipeline(pipeline))
            continue
        for path in sorted((FOLDER / kind).glob('*.json')):
            yield Asset(kind, path.stem, forms[kind](json.loads(path.read_text()), choices))


def write(choices: Choices) -> list[Path]:
    """Write each asset into `dist/assets/<kind>/<name>.json`, and return the paths."""
    paths = []
    for asset in assets(choices):
        path = DIST / asset.kind / f'{asset.name}.json'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asset.body, indent=2) + '\n')
        paths.append(path)
    return paths


def facets() -> list[str]:
    """The facets of the log pipeline, for which Datadog has no API, as 'Name: path'."""
    described = yaml.safe_load((FOLDER / 'logs' / 'prefect.yaml').read_text())['facets']
    return [f'{facet["name"]}: @{facet["path"]}' for facet in described]


def saved_views() -> dict[str, str]:
    """The query of each saved view by its name; Datadog has no API for them."""
    views = [json.loads(path.read_text()) for path in sorted((FOLDER / 'saved_views').glob('*.json'))]
    return {view['name']: view['query'] for view in views}


def _slo(body: Mapping[str, Any], choices: Choices) -> dict[str, Any]:
    return {**body, 'tags': _tags(body, choices)}


def _monitor(exported: Mapping[str, Any], choices: Choices) -> dict[str, Any]:
    definition = exported['definition']
    message = _RUNBOOK_LINE.sub(lambda line: _runbook(line[1], choices.runbook), definition['message'])
    if choices.notify:
        message = f'{message}\n\n{choices.notify}'
    return {**definition, 'message': message, 'tags': _tags(definition, choices)}


def _dashboard(exported: Mapping[str, Any], choices: Choices) -> dict[str, Any]:
    teams = [tag for tag in choices.tags if tag.startswith(_TEAM)]
    text = json.dumps(exported)
    if choices.runbook:
        text = text.replace('Runbook: docs/runbook.md', f'[Runbook]({choices.runbook})')
    return {**json.loads(text), 'tags': [*exported['tags'], *teams]}


def _tags(body: Mapping[str, Any], choices: Choices) -> list[str]:
    return list(dict.fromkeys((*body['tags'], *choices.tags)))


def _pipeline(pipeline: Mapping[str, Any]) -> dict[str, Any]:
    """Files of integrations spell the keys in another way than the API does."""
    body = _snake_case(pipeline)
    # The API gives a pipeline its type itself.
    del body['type']
    return dict(body)


def _snake_case(value: Any) -> Any:
    if isinstance(value, Mapping):
        converted = {_key(key): _snake_case(item) for key, item in value.items()}
        if 'lookup_table' in converted:
            converted['lookup_table'] = converted['lookup_table'].splitlines()
        return converted
    if isinstance(value, list):
        return [_snake_case(item) for item in value]
    return value


def _key(key: str) -> str:
    if key == 'enabled':
        return 'is_enabled'
    # `replaceMissing` is `is_replace_missing` there.
    return 'is_replace_missing' if key == 'replaceMissing' else re.sub(r'(?<=[a-z])[A-Z]', _lower, key)


def _lower(match: re.Match[str]) -> str:
    return '_' + match[0].lower()


def _runbook(anchor: str, address: str) -> str:
    """A link to a section of the runbook, or its text where no address is known."""
    if address:
        return f'[Runbook]({address}#{anchor})'
    title, text = sections()[anchor]
    return f'**Runbook: {title}**\n\n{text}'


@cache
def sections() -> dict[str, tuple[str, str]]:
    """Title and text of each section of the runbook by its anchor; links inside it are only their words."""
    page = (ROOT / 'docs' / 'runbook.md').read_text()
    parts = re.split(r'^## ', page, flags=re.MULTILINE)[1:]
    titled = [part.partition('\n') for part in parts]
    return {anchor(title): (title, _LINK.sub(r'\1', text).strip()) for title, _, text in titled}


def anchor(title: str) -> str:
    """The anchor of a section, as Markdown is rendered."""
    return re.sub(r'[^\w -]', '', title).lower().replace(' ', '-')
