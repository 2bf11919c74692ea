"""What is expected of a deployment: by the option `expectations`, and by its tags in Prefect (`expect:max_age=26h`)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from datadog_checks.prefect.filters import NameFilter

MAX_AGE = 'max_age'
MAX_RUN_TIME = 'max_run_time'
KEYS = (MAX_AGE, MAX_RUN_TIME)
# Nothing is expected: no time is too long.
OFF = math.inf

_TAG = 'expect:'
_UNITS = {'': 1, 's': 1, 'm': 60, 'h': 3600, 'd': 86400, 'w': 604800}
_DURATION = re.compile(r'([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*([smhdw]?)')


@dataclass(frozen=True)
class Rule:
    """One entry of the option `expectations`; the durations that it has are in seconds, by their keys."""

    deployments: NameFilter
    durations: Mapping[str, float]


def seconds(value: object) -> float:
    """A duration such as `26h` or `90` in seconds, OFF for `off`, which YAML reads as false.

    Raises ValueError for anything else, and for 0.
    """
    text = '' if isinstance(value, bool) else str(value).strip()
    if value is False or text.lower() == 'off':
        return OFF
    match = _DURATION.fullmatch(text)
    duration = float(match[1]) * _UNITS[match[2]] if match else 0.0
    if not duration:
        raise ValueError('no duration')
    return duration


def of_options(rules: Iterable[Rule], deployment_name: str) -> dict[str, float]:
    """What the option says of a deployment: of each key the first entry that matches and has it."""
    found: dict[str, float] = {}
    for rule in rules:
        if rule.deployments.allows(deployment_name):
            found = {**rule.durations, **found}
    return found


def of_tags(tags: Iterable[str]) -> tuple[dict[str, float], list[str]]:
    """What the tags of a deployment say, and those that begin as if they did and say nothing.

    Of two tags with one key the longer duration counts.
    """
    found: dict[str, float] = {}
    bad: list[str] = []
    for tag in tags:
        if not tag.startswith(_TAG):
            continue
        key, _, text = tag.removeprefix(_TAG).partition('=')
        key = key.strip()
        try:
            duration = seconds(text)
        except ValueError:
            duration = 0.0
        if key in KEYS and duration:
            found[key] = max(duration, found.get(key, 0.0))
        else:
            bad.append(tag)
    return found, bad
