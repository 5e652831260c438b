"""What somebody who mistyped a word may have meant: one rule for settings, commands, user names and addresses."""

from __future__ import annotations

import sys
from collections.abc import Iterable

_LETTERS = 4  # for each so many one may be wrong, and always one


def is_like(word: str, other: str) -> bool:
    """Whether one is the other mistyped: a letter too many, missing, changed or swapped with its neighbour counts one.

    A word of two letters or less is like no other: one letter would be half of it.
    """
    a, b = _plain(word), _plain(other)
    least, most = sorted((len(a), len(b)))
    wrong = max(1, most // _LETTERS)
    if least < 3 or most - least > wrong or len(set(a) ^ set(b)) > 2 * wrong:  # most words end here, soon
        return False
    return distance(a, b, wrong) <= wrong


def closest(word: object, options: Iterable[str]) -> str:
    """The option that was meant, or "" where none has enough in common with it: the nearest, else the only one that
    begins like that."""
    given, known = str(word), list(options)
    if like := [option for option in known if is_like(given, option)]:
        return max(like, key=lambda option: (-distance(_plain(given), _plain(option)), option))
    short = [option for option in known if len(given) > 2 and _plain(option).startswith(_plain(given))]
    return short[0] if len(short) == 1 else ""


def distance(a: str, b: str, most: int = sys.maxsize) -> int:
    """Letters that were mistyped (optimal string alignment); of those that are more than ``most`` some more."""
    start = _same(a, b)
    a, b = a[start:], b[start:]
    end = _same(a[::-1], b[::-1])
    a, b = a[: len(a) - end], b[: len(b) - end]
    before, last = [0] * (len(b) + 1), list(range(len(b) + 1))
    for i, letter in enumerate(a, 1):
        row = [i]
        for j, other in enumerate(b, 1):
            row.append(min(last[j] + 1, row[-1] + 1, last[j - 1] + (letter != other)))
            if i > 1 and j > 1 and letter == b[j - 2] and a[i - 2] == other:
                row[-1] = min(row[-1], before[j - 2] + 1)
        if min(row) > most:
            return most + 1
        before, last = last, row
    return last[-1]


def _same(a: str, b: str) -> int:
    """With how many of the same letters they begin."""
    return next((n for n, (one, other) in enumerate(zip(a, b, strict=False)) if one != other), min(len(a), len(b)))


def _plain(word: str) -> str:
    """Without what surrounds it, as a list or quotes do; case and the choice of dash count for nothing."""
    return word.strip("-[]()'\" ").casefold().replace("-", "_")
