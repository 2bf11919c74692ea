"""What an account lacks of the assets, and how it gets there without ever doubling one or undoing a person's work.

An object carries the name of its asset and two hashes: of what was sent, and of what Datadog made of it (it adds
defaults and identities). If the object still has the second hash, no person has changed it, and it may be replaced. If
the asset still has the first one, there is nothing to do. Monitors, objectives and pipelines carry them as tags,
dashboards at the end of their description. An object with a name and without a second hash was left behind by an
import that was interrupted; it is replaced.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import unified_diff
from enum import Enum
from typing import Any, NamedTuple

from tools.importing.account import Account, ImportFailed, Object, Refused
from tools.importing.assets import Asset

NAME_TAG, HASH_TAG = 'prefect_asset:', 'prefect_import:'
_MARK = re.compile(r'\n*\(Imported: (\S+?) (\w+)(?:-(\w+))?\)$')
# What a person who looks at the object may change. The rest is Datadog's own, or changes by itself.
_KEYS = {
    'monitors': ('name', 'type', 'query', 'message', 'tags', 'options', 'priority'),
    'dashboards': (
        *('title', 'description', 'layout_type', 'reflow_type', 'template_variables', 'template_variable_presets'),
        *('notify_list', 'tags', 'widgets'),
    ),
    'slos': ('name', 'description', 'type', 'query', 'sli_specification', 'thresholds', 'tags'),
    'logs': ('name', 'description', 'filter', 'is_enabled', 'processors', 'tags'),
}
# Identities that Datadog gives anew, and mutes, which are no change of a monitor.
_VOLATILE = {'id', 'silenced'}


class Outcome(Enum):
    """What has been done with an asset, or would be in a dry run."""

    CREATED = 'created'
    UPDATED = 'updated'
    SAME = 'nothing to do'
    KEPT = 'kept: changed by a person (FORCE=1 replaces it)'
    FAILED = 'failed'


@dataclass(frozen=True)
class Result:
    asset: Asset
    outcome: Outcome
    difference: str = ''
    error: str = ''


class _Mark(NamedTuple):
    """Which asset an object is, and the hashes of what was sent and of what was read after that."""

    name: str
    sent: str = ''
    read: str = ''


def run(
    account: Account,
    wanted: Sequence[Asset],
    *,
    dry_run: bool = False,
    force: bool = False,
    progress: Callable[[Result], None] = lambda result: None,
) -> list[Result]:
    """Bring the assets into the account; `progress` is told of each when it is done. Raises ImportFailed."""
    results = []
    for kind in dict.fromkeys(asset.kind for asset in wanted):
        present = _present(account, kind)
        for asset in wanted:
            if asset.kind != kind:
                continue
            try:
                result = _bring(account, asset, present.get(asset.name, []), dry_run=dry_run, force=force)
            except Refused as error:
                result = Result(asset, Outcome.FAILED, error=str(error))
            results.append(result)
            progress(result)
    return results


def _present(account: Account, kind: str) -> dict[str, list[Any]]:
    """The identities of the objects of each asset."""
    found: dict[str, list[Any]] = {}
    for summary in account.summaries(kind):
        mark = _mark_of(kind, summary)
        if mark:
            found.setdefault(mark.name, []).append(summary['id'])
    return found


def _bring(account: Account, asset: Asset, identities: Sequence[Any], *, dry_run: bool, force: bool) -> Result:
    sent = _hash(asset.body)
    if len(identities) > 1:
        ids = ', '.join(map(str, identities))
        raise Refused(
            f'{len(identities)} objects carry the name of this asset (a copy?): {ids}. Untag or delete all but one.'
        )
    if not identities:
        if not dry_run:
            made = account.create(asset.kind, _marked(asset, _Mark(asset.name, sent)))
            _seal(account, asset, made['id'], sent)
        return Result(asset, Outcome.CREATED)
    (identity,) = identities
    present = account.get(asset.kind, identity)
    mark = _mark_of(asset.kind, present) or _Mark(asset.name)
    is_changed = bool(mark.read) and mark.read != _hash(_bare(asset.kind, present))
    if mark.read and mark.sent == sent and not is_changed:
        return Result(asset, Outcome.SAME)
    difference = _difference(asset, present)
    if is_changed and not force:
        return Result(asset, Outcome.KEPT, difference)
    if not dry_run:
        account.update(asset.kind, identity, _marked(asset, _Mark(asset.name, sent)))
        _seal(account, asset, identity, sent)
    return Result(asset, Outcome.UPDATED, difference)


def _seal(account: Account, asset: Asset, identity: Any, sent: str) -> None:
    """Add the hash of what Datadog made of the asset."""
    read = _hash(_bare(asset.kind, account.get(asset.kind, identity)))
    account.update(asset.kind, identity, _marked(asset, _Mark(asset.name, sent, read)))


def _marked(asset: Asset, mark: _Mark) -> Object:
    hashes = f'{mark.sent}-{mark.read}' if mark.read else mark.sent
    if asset.kind == 'dashboards':
        return {**asset.body, 'description': f'{asset.body["description"]}\n\n(Imported: {mark.name} {hashes})'}
    tags = [*asset.body.get('tags', []), f'{NAME_TAG}{mark.name}', f'{HASH_TAG}{hashes}']
    return {**asset.body, 'tags': tags}


def _mark_of(kind: str, present: Mapping[str, Any]) -> _Mark | None:
    if kind == 'dashboards':
        match = _MARK.search(present.get('description') or '')
        return _Mark(*match.groups(default='')) if match else None
    tags: Iterable[str] = present.get('tags') or ()
    name = next((tag.removeprefix(NAME_TAG) for tag in tags if tag.startswith(NAME_TAG)), None)
    if name is None:
        return None
    hashes = next((tag.removeprefix(HASH_TAG) for tag in tags if tag.startswith(HASH_TAG)), '')
    sent, _, read = hashes.partition('-')
    return _Mark(name, sent, read)


def _bare(kind: str, present: Mapping[str, Any]) -> Object:
    """What people see of an object, without our marks."""
    bare = {key: present[key] for key in _KEYS[kind] if present.get(key) is not None}
    if kind == 'dashboards':
        bare['description'] = _MARK.sub('', bare.get('description', ''))
    elif 'tags' in bare:
        bare['tags'] = sorted(tag for tag in bare['tags'] if not tag.startswith((NAME_TAG, HASH_TAG)))
    return dict(_without_volatile(bare))


def _without_volatile(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_volatile(item) for key, item in value.items() if key not in _VOLATILE}
    if isinstance(value, list):
        return [_without_volatile(item) for item in value]
    return value


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def _difference(asset: Asset, present: Mapping[str, Any]) -> str:
    """What an import would change, line by line, in what the asset says: Datadog's defaults are no difference."""
    there = _as_lines(_like(_bare(asset.kind, present), _bare(asset.kind, asset.body)))
    ours = _as_lines(_bare(asset.kind, asset.body))
    return '\n'.join(unified_diff(there, ours, 'in Datadog', 'to be imported', lineterm='', n=1))


def _like(value: Any, pattern: Any) -> Any:
    """A value without the keys that the pattern lacks."""
    if isinstance(value, Mapping) and isinstance(pattern, Mapping):
        return {key: _like(value[key], item) for key, item in pattern.items() if key in value}
    if isinstance(value, list) and isinstance(pattern, list) and len(value) == len(pattern):
        return [_like(one, other) for one, other in zip(value, pattern, strict=True)]
    return value


def _as_lines(value: Any) -> list[str]:
    return list(_lines(value))


def _lines(value: Any, path: str = '') -> Iterator[str]:
    if isinstance(value, Mapping):
        for key in sorted(value):
            yield from _lines(value[key], f'{path}.{key}' if path else str(key))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _lines(item, f'{path}[{number}]')
    else:
        yield from (f'{path}: {line}' for line in str(value).splitlines() or [''])


__all__ = ['ImportFailed', 'Outcome', 'Result', 'run']
