"""Regular expressions whose search takes a bounded time for any name.

`re` backtracks: `(a+)+$` on 40 characters takes longer than anybody waits, and Python can neither interrupt it nor run
anything else meanwhile. So the ways that `re` may have to try are counted beforehand from the parsed pattern. Where
there may be too many, all of them are followed at the same time, character by character, as Thompson did in 1968: that
takes at most the length of the name times that of the pattern, and finds the same.
"""

from __future__ import annotations

import re
from functools import lru_cache
from re import _compiler, _constants, _parser  # type: ignore[attr-defined]
from typing import Any

# Of a name so many characters are matched.
LONGEST_NAME = 255
# Ways that `re` may try: some 50 ms.
_MAX_WAYS = 10**6
# Steps of a pattern in which each repetition is written out.
_MAX_STEPS = 2_500

_CHARACTERS = (_constants.LITERAL, _constants.NOT_LITERAL, _constants.ANY, _constants.IN)
_REPEATS = (_constants.MAX_REPEAT, _constants.MIN_REPEAT)
_ASSERTIONS = (_constants.ASSERT, _constants.ASSERT_NOT)


class TooSlow(ValueError):
    """A pattern that may take forever and cannot be followed in another way; the text says why."""


class Pattern:
    """Raises re.error for a `text` that does not compile, TooSlow for one of which no search of a name is bounded.

    `most` is the length of the longest name.
    """

    def __init__(self, text: str, most: int = LONGEST_NAME) -> None:
        self.text = text
        self._pattern = re.compile(text)
        self._tree = _parser.parse(text)
        self._ways_in = lru_cache(maxsize=most + 1)(lambda length: (length + 1) * _ways(self._tree, length))
        self._program = _Program(self._tree) if self._ways_in(most) > _MAX_WAYS else None

    def finds(self, name: str) -> bool:
        """As `re.search`, in a bounded time."""
        if self._program is None or self._ways_in(len(name)) <= _MAX_WAYS:
            return self._pattern.search(name) is not None
        return self._program.finds(name)


def _ways(tree: Any, length: int) -> int:
    """In how many ways the parts of a pattern may be laid on a text of that length at most, by an upper bound."""
    ways = 1
    for kind, details in tree:
        ways = min(ways * max(1, _ways_of(kind, details, length)), _MAX_WAYS + 1)
    return ways


def _ways_of(kind: Any, details: Any, length: int) -> int:
    if kind is _constants.BRANCH:
        return sum(_ways(branch, length) for branch in details[1])
    if kind in (*_REPEATS, _constants.POSSESSIVE_REPEAT):
        least, most, body = details
        ways = _ways(body, length)
        # An empty body is not repeated without end.
        times = range(least, min(int(most), max(least, length)) + 1)
        return len(times) if ways == 1 else _sum_of_powers(ways, times)
    if kind is _constants.GROUPREF_EXISTS:
        return sum(_ways(branch, length) for branch in details[1:] if branch is not None)
    if kind is _constants.ATOMIC_GROUP:
        return _ways(details, length)
    return _ways(details[-1], length) if kind in (_constants.SUBPATTERN, *_ASSERTIONS) else 1


def _sum_of_powers(base: int, exponents: range) -> int:
    total = 0
    for exponent in exponents:
        total += base**exponent
        if total > _MAX_WAYS:
            break
    return total


class _Program:
    """Steps to follow: ('character', test), ('assertion', test), ('split', targets), ('end', None)."""

    def __init__(self, tree: Any) -> None:
        self._steps: list[tuple[str, Any]] = []
        self._emit(tree, ())
        self._steps.append(('end', None))

    def finds(self, name: str) -> bool:
        reached: set[int] = set()
        for position in range(len(name) + 1):
            # A match may begin anywhere.
            reached = self._closure(reached | {0}, name, position)
            if len(self._steps) - 1 in reached:
                return True
            if position < len(name):
                character = name[position]
                reached = {
                    step + 1
                    for step in reached
                    if self._steps[step][0] == 'character' and self._steps[step][1](character)
                }
        return False

    def _closure(self, steps: set[int], name: str, position: int) -> set[int]:
        """All steps that can be reached from these without another character."""
        found: set[int] = set()
        pending = list(steps)
        while pending:
            step = pending.pop()
            if step in found:
                continue
            found.add(step)
            kind, details = self._steps[step]
            if kind == 'split':
                pending += details
            elif kind == 'assertion' and details(name, position) is not None:
                pending.append(step + 1)
        return found

    def _emit(self, tree: Any, shells: tuple[Any, ...]) -> None:
        """`shells` are the groups around, which may have flags of their own."""
        for kind, details in tree:
            if kind in _CHARACTERS:
                self._add('character', lru_cache(maxsize=1024)(_compiled(tree, kind, details, shells).match))
            elif kind is _constants.AT or (kind in _ASSERTIONS and _ways(details[1], LONGEST_NAME) <= _MAX_WAYS):
                self._add('assertion', _compiled(tree, kind, details, shells).match)
            elif kind is _constants.SUBPATTERN:
                self._emit(details[3], (*shells, details[:3]))
            elif kind is _constants.BRANCH:
                self._branch(details[1], shells)
            elif kind in _REPEATS:
                least, most, body = details
                self._repeat(least, most, body, shells)
            else:
                raise TooSlow('it repeats a repetition, and has a reference or a group that is taken as a whole')

    def _add(self, kind: str, details: Any) -> int:
        if len(self._steps) >= _MAX_STEPS:
            raise TooSlow('it repeats too much')
        self._steps.append((kind, details))
        return len(self._steps) - 1

    def _branch(self, branches: list[Any], shells: tuple[Any, ...]) -> None:
        split = self._add('split', [])
        ends = []
        for branch in branches:
            self._steps[split][1].append(len(self._steps))
            self._emit(branch, shells)
            ends.append(self._add('split', []))
        for end in ends:
            self._steps[end][1].append(len(self._steps))

    def _repeat(self, least: int, most: Any, body: Any, shells: tuple[Any, ...]) -> None:
        for _ in range(least):
            self._emit(body, shells)
        if most is _constants.MAXREPEAT:
            split = self._add('split', [])
            self._emit(body, shells)
            self._add('split', [split])
            self._steps[split][1].extend((split + 1, len(self._steps)))
            return
        splits = []
        for _ in range(int(most) - least):
            split = self._add('split', [])
            self._steps[split][1].append(split + 1)
            splits.append(split)
            self._emit(body, shells)
        for split in splits:
            self._steps[split][1].append(len(self._steps))


def _compiled(tree: Any, kind: Any, details: Any, shells: tuple[Any, ...]) -> re.Pattern[str]:
    """One step as a pattern of its own, in the same flags."""
    part = _parser.SubPattern(tree.state, [(kind, details)])
    for group, added, removed in reversed(shells):
        part = _parser.SubPattern(tree.state, [(_constants.SUBPATTERN, (group and None, added, removed, part))])
    compiled: re.Pattern[str] = _compiler.compile(part)
    return compiled
