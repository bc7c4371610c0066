"""Names of many files in one text, as WebDataset and shells write them: `shard-{000..012}.tar`, `{train,extra}-{0..3}.tar`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

from coverslip.errors import InputError

MOST = 100_000
"""Names that one text may stand for."""
_INNERMOST = re.compile(r"\{(?P<first>-?\d+)\.\.(?P<last>-?\d+)(\.\.(?P<step>-?\d+))?\}|\{(?P<list>[^{}]*,[^{}]*)\}")


def has_braces(text: str) -> bool:
    """Whether a text stands for several names.

    >>> has_braces("shard-{000..012}.tar"), has_braces("{Id}.tar")
    (True, False)
    """
    return _INNERMOST.search(text) is not None


def expand_braces(text: str) -> list[str]:
    """The names that a text stands for, in its order; numbers are as wide as the wider end where one of them begins with 0.

    Raises:
        InputError: more than 100,000.

    >>> expand_braces("{a,b}-{08..10}.tar")
    ['a-08.tar', 'a-09.tar', 'a-10.tar', 'b-08.tar', 'b-09.tar', 'b-10.tar']
    """
    names = list(dict.fromkeys(islice(_expanded(text), MOST + 1)))  # the inner of nested lists repeats the others of the outer
    if len(names) > MOST:
        raise InputError(f"{text} stands for more than {MOST:,} names")
    return names


def _expanded(text: str) -> Iterator[str]:
    found = _INNERMOST.search(text)
    if found is None:
        yield text
        return
    before, after = text[: found.start()], text[found.end() :]
    for piece in _pieces(found):
        yield from _expanded(before + piece + after)


def _pieces(found: re.Match[str]) -> Iterator[str]:
    if found["list"] is not None:
        yield from found["list"].split(",")
        return
    first, last = int(found["first"]), int(found["last"])
    padded = any(re.match(r"-?0\d", end) for end in (found["first"], found["last"]))
    width = max(len(found["first"]), len(found["last"])) if padded else 0
    step = max(1, abs(int(found["step"] or 1)))
    numbers = range(first, last + 1, step) if first <= last else range(first, last - 1, -step)
    for number in numbers:
        yield f"{number:0{width}d}"
