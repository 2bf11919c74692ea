"""A warning for each option that nobody reads: a typo would otherwise leave a default in force unnoticed."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from datadog_checks.base.utils import http
from datadog_checks.base.utils.http import DEFAULT_REMAPPED_FIELDS, STANDARD_FIELDS
from datadog_checks.prefect.api.log import Log
from datadog_checks.prefect.safe_text import without_control

# Options of `instances` and `init_config` of any check that the Agent reads, which is not written in Python.
_OF_THE_AGENT = frozenset(['ignore_autodiscovery_tags', 'loader', 'name', 'namespace', 'no_index'])
# Where the Agent base reads options of its own, and how.
_SOURCES = ('checks/base.py', 'utils/http.py', 'utils/replay/*.py', 'utils/tls.py', 'utils/tracing.py')
_READ = re.compile(r"\b(?:instance|init_config)(?:\.get|\.pop)?[\[(]'(\w+)'")
# Options of the base that it offers to every check.
_NOT_HONOURED = {
    'allow_redirects': 'no redirect is followed, for it would take the credentials to another host',
    'request_size': 'the check reads answers by 64 KiB',
}


def warn_of_unknown_options(options: Mapping[str, Any], known: Collection[str], log: Log) -> None:
    """Name each of `options` that is none of `known`, and the one that was probably meant; and those of no effect."""
    for option in sorted(_NOT_HONOURED.keys() & options):
        log.warning('Option `%s` has no effect: %s', option, _NOT_HONOURED[option])
    unknown = set(map(str, options)) - set(known) - {*STANDARD_FIELDS, *DEFAULT_REMAPPED_FIELDS, *_OF_THE_AGENT}
    for option in sorted(unknown - options_of_the_base() if unknown else ()):
        nearest = get_close_matches(option, known, n=1, cutoff=0.5) or sorted(name for name in known if option in name)
        meant = f'did you mean `{nearest[0]}`?' if nearest else 'see conf.yaml.example for those that there are'
        log.warning('Unknown option `%s` is ignored: %s', without_control(option[:100]), meant)


@cache
def options_of_the_base() -> frozenset[str]:
    """The options that the Agent base reads itself, out of its source: each version has others."""
    folder = Path(http.__file__).parent.parent
    files = [file for pattern in _SOURCES for file in folder.glob(pattern)]
    return frozenset(option for file in files for option in _READ.findall(file.read_text(encoding='utf-8')))
