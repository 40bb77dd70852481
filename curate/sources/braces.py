"""Braces in paths, as bash expands them: `{00000..00012}`, `{a..e}`, `{0..10..2}`, `{train,val}`, also nested."""

import re
from collections.abc import Iterator

from curate.errors import SourceError

MAX_PATHS = 1_000_000
"""Paths that one path may stand for."""

_RANGE = re.compile(r"(-?\d{1,18})\.\.(-?\d{1,18})(?:\.\.(-?\d{1,18}))?|([A-Za-z])\.\.([A-Za-z])(?:\.\.(-?\d{1,18}))?")


def has_braces(path: str) -> bool:
    """Whether bash would make several paths of this one."""
    return next(_find_group(path), None) is not None


def expand_braces(path: str) -> list[str]:
    """The paths that a path with braces stands for, in bash's order, each once; a path without any is itself.

    Raises:
        SourceError: there are more than `MAX_PATHS`.
    """
    paths: dict[str, None] = {}
    for expanded in _expand(path):
        paths[expanded] = None
        if len(paths) > MAX_PATHS:
            raise SourceError(f"{path}: its braces stand for more than {MAX_PATHS:,} paths; give a glob or the folder")
    return list(paths)


def _expand(path: str) -> Iterator[str]:
    group = next(_find_group(path), None)
    if group is None:
        yield path
        return
    start, end, items = group
    for item in items:
        for middle in _expand(item):
            for rest in _expand(path[end:]):
                yield path[:start] + middle + rest


def _find_group(path: str) -> Iterator[tuple[int, int, Iterator[str]]]:
    """(start, end, what it stands for) of the groups in braces that are no plain text, the outer ones first."""
    for start in (n for n, char in enumerate(path) if char == "{"):
        commas, depth = [start], 0
        for place in range(start, len(path)):
            depth += {"{": 1, "}": -1}.get(path[place], 0)
            if path[place] == "," and depth == 1:
                commas.append(place)
            if depth == 0:
                inner = path[start + 1 : place]
                found = _RANGE.fullmatch(inner)
                if len(commas) > 1:
                    ends = [*commas[1:], place]
                    yield start, place + 1, iter([path[a + 1 : b] for a, b in zip(commas, ends, strict=True)])
                elif found:
                    yield start, place + 1, _range(found)
                break


def _range(found: re.Match[str]) -> Iterator[str]:
    first, last, step, letter, until, letter_step = found.groups()
    if first is not None:
        a, b, stride = int(first), int(last), abs(int(step or 1)) or 1
        padded = any(re.match(r"-?0\d", text) for text in (first, last))
        width = max(len(first), len(last)) if padded else 0
        return (f"{n:0{width}d}" for n in range(a, b + (1 if b >= a else -1), stride if b >= a else -stride))
    a, b, stride = ord(letter), ord(until), abs(int(letter_step or 1)) or 1
    return (chr(n) for n in range(a, b + (1 if b >= a else -1), stride if b >= a else -stride))
