"""Errors of the check as the documents show them: without what differs from one run of the tests to the next."""

from __future__ import annotations

import re


def shown(message: str) -> str:
    """An error as a cell of a Markdown table; `M` is the number of all collectors, and long lists of them are cut."""
    message = re.sub(r' of \d+ collectors failed', ' of M collectors failed', message)
    message = re.sub(r'((?:^|; |failed: )[a-z_.]+, [a-z_.]+)(?:, [a-z_.]+){2,}: ', r'\1 and others: ', message)
    return f'`{message.replace("|", " ")}`' if message else 'none'
