"""A warning for each option that nobody reads: a typo would otherwise leave a default in force unnoticed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Any

from datadog_checks.base.utils.http import DEFAULT_REMAPPED_FIELDS, STANDARD_FIELDS
from datadog_checks.prefect.api.log import Log

# Options of `instances` and `init_config` of any check that the Agent and its base read themselves.
_OF_THE_AGENT = frozenset(
    [
        'ignore_autodiscovery_tags',
        'loader',
        'name',
        'namespace',
        'no_index',
        'process_isolation',
        'profile_memory',
        'set_breakpoint',
        'use_agent_proxy',
    ]
)


def warn_of_unknown_options(options: Mapping[str, Any], known: Collection[str], log: Log) -> None:
    """Name each of `options` that is none of `known`, and the one that was probably meant."""
    read_elsewhere = {*STANDARD_FIELDS, *DEFAULT_REMAPPED_FIELDS, *_OF_THE_AGENT}
    for option in sorted(set(map(str, options)) - set(known) - read_elsewhere):
        nearest = get_close_matches(option, known, n=1, cutoff=0.5) or sorted(name for name in known if option in name)
        meant = f'did you mean `{nearest[0]}`?' if nearest else 'see conf.yaml.example for those that there are'
        log.warning('Unknown option `%s` is ignored: %s', option[:100], meant)
