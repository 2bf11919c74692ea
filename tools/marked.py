"""Parts of a page that a program writes, between two comments that name it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def with_part(page: str, writer: str, part: str) -> str:
    """The page with what is between the two marks of `writer` replaced; raises ValueError without exactly one pair."""
    begin, end = f'<!-- Written by {writer}: begin -->', f'<!-- Written by {writer}: end -->'
    before, rest = page.split(begin)
    _, after = rest.split(end)
    return f'{before}{begin}\n\n{part.strip()}\n\n{end}{after}'


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    head, *body = (f'| {" | ".join(cells)} |' for cells in (columns, *rows))
    return '\n'.join([head, '|' + '---|' * len(columns), *body])
