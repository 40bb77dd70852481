r"""Which image of a run a person means.

The catalog is gone through once, part by part, and only a few rows are kept, whatever its size. What is typed may be
an image_id, a key, SOURCE/KEY, a path or URL, the end of one of these, or a part of a name; an exact match wins over an
end, an end over a part. Names come in several spellings: with `\` between folders as on Windows, with the escapes
that tables hold (`\\` for a backslash, `\xNN` for a byte that is no text), or with those that are shown (`\n`).
"""

import codecs
import difflib
import heapq
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from curate import command
from curate.engine.finished import MAX_NAMED, Finished
from curate.engine.numbers import count, plural
from curate.errors import CurateError
from curate.sources.files import File
from curate.sources.folder import looks_like_image
from curate.sources.secrets import MARK, NUMBERED, strip_text
from curate.sources.suffixes import why_not_image
from curate.sources.uri import encode_uri, is_remote
from curate.stages.images.catalog import Catalog
from curate.text import visible

MAX_NEAR = 5
"""Near names that are told."""
MAX_COMPARED = 200_000
"""Names that are compared letter by letter for near ones, at most; of more those that come first."""
_ESCAPES = re.compile(r"\\(x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8}|[nrt])")


@dataclass
class _Hits:
    """Images that fit in one way: the first of them, and how many there are."""

    first: list[int] = field(default_factory=list)
    total: int = 0

    def add(self, rows: pa.Table, mask: pa.ChunkedArray) -> None:
        found = rows.filter(mask)["image_id"]
        self.total += len(found)
        self.first += found.slice(0, MAX_NAMED - len(self.first)).to_pylist()


def find_image(run: Finished, image: str) -> int:
    """The image_id that a person means.

    Raises:
        CurateError: no image or more than one fits; the message names candidates, and files that are no pictures.
    """
    if image.isdecimal() and image == str(int(image)) and run.parts.has(int(image)):
        return int(image)
    for hits in _search(run, image):
        if hits.total == 1:
            return hits.first[0]
        if hits.total:
            raise CurateError(_which(run, image, hits))
    raise CurateError("\n".join([_nothing(run, image), *_advice(run, image)]))


def _search(run: Finished, image: str) -> tuple[_Hits, _Hits, _Hits]:
    """Images of exactly that name, of names that end in it, and of names that hold it, in one pass."""
    whole, ends, parts = _Hits(), _Hits(), _Hits()
    assert run.catalog is not None
    names = _spellings(image)
    absolute = encode_uri(os.fsencode(os.path.abspath(image)))  # noqa: PTH100  # keeps symlinks, as listing does
    stored = strip_text(image)
    wanted, places = pa.array(names), pa.array([*names, absolute, stored])
    for rows in run.catalog.scan(["image_id", "source", "key", "uri"]) if image else ():
        key, uri = rows["key"], rows["uri"]
        named = pc.binary_join_element_wise(rows["source"].cast(pa.string()), key, "/")
        mask = _any([pc.is_in(key, wanted), pc.is_in(named, wanted), pc.is_in(uri, places)])
        if MARK in stored:  # a URL of a list, where the number of the line follows the mark
            mask = pc.or_(mask, pc.equal(pc.replace_substring_regex(uri, NUMBERED, MARK), stored))
        whole.add(rows, mask)
        ends.add(rows, _any([pc.ends_with(column, f"/{name}") for name in names for column in (key, uri)]))
        parts.add(rows, _any([pc.match_substring(key, name, ignore_case=True) for name in names]))
    return whole, ends, parts


def _any(masks: list[pa.ChunkedArray]) -> pa.ChunkedArray:
    found = masks[0]
    for mask in masks[1:]:
        found = pc.or_(found, mask)
    return found


def _spellings(image: str) -> list[str]:
    """The ways in which a table may hold the name that was typed, that of the table itself first."""
    shown = _ESCAPES.sub(lambda found: codecs.decode(found[0], "unicode_escape"), image)
    found = [image, image.replace("\\", "/"), image.replace("\\", "\\\\"), shown]
    return list(dict.fromkeys(found))


def _which(run: Finished, image: str, hits: _Hits) -> str:
    named = [f"  {image_id}  {_named(run, image_id)}" for image_id in hits.first]
    more = [f"  and {count(hits.total - len(named))} more"] if hits.total > len(named) else []
    again = command.line("explain", run.store.root, str(hits.first[0]))
    return "\n".join([f"{image}: {count(hits.total)} images fit; name one by its id, such as {again}:", *named, *more])


def _named(run: Finished, image_id: int) -> str:
    row = run.place(image_id).row
    return visible(f"{row['source']}: {row['key']}", keep="")


def _nothing(run: Finished, image: str) -> str:
    assert run.catalog is not None
    return (
        f"{strip_text(image)}: none of the {plural(run.catalog.num_rows(), 'image')} of {run.store.root} has this "
        f"image_id, key or path; see the columns key and uri of {run.store.root}/{run.catalog.name}"
    )


def _advice(run: Finished, image: str) -> Iterator[str]:
    """What the file is, where there is one, and which names are near."""
    told = next(_told_of_files(run, image), None)
    if told is not None:
        yield f"  {told}"
        return
    near = _near(run, image)
    if near:
        yield "  near names:"
        yield from (f"  {image_id}  {_named(run, image_id)}" for image_id in near)


def _told_of_files(run: Finished, image: str) -> Iterator[str]:
    """Why a file that is in a source is no image of the run."""
    listed = run.only(Catalog)
    for _, source in listed[0].sources.by_role() if listed is not None else ():
        for name in _spellings(image) if image and not is_remote(source.path) else ():
            for path in (Path(source.path) / name, Path(name).absolute()):
                if not path.is_file() or not path.is_relative_to(source.path):
                    continue
                place = visible(str(path), keep="")
                if not looks_like_image(File(encode_uri(os.fsencode(path)), name, path.stat().st_size, None)):
                    yield f"{place} was left out, since it is no picture: {why_not_image(path.name)}"
                else:
                    yield f"{place} is there, but is not in the catalog; added since? a run with --rescan lists it"


def _near(run: Finished, image: str) -> list[int]:
    """Images whose file names are most like the one that was typed.

    Letters are compared in Python, which takes some microseconds a name; so only names of about the same length that
    share the beginning or the end of the stem are, and no more than `MAX_COMPARED`.
    """
    assert run.catalog is not None
    typed = image.replace("\\", "/").rstrip("/").rpartition("/")[2].lower()
    stem = typed.rpartition(".")[0] or typed
    if len(stem) < 3:
        return []
    matcher = difflib.SequenceMatcher(b=typed, autojunk=False)
    best: list[tuple[float, int]] = []
    compared = 0
    for rows in run.catalog.scan(["image_id", "key"]):
        names = pc.utf8_lower(pc.replace_substring_regex(rows["key"], r"^.*/", ""))
        off = pc.abs(pc.subtract(pc.utf8_length(names), len(typed)))
        alike = _any([pc.match_substring(names, stem[:3]), pc.match_substring(names, stem[-3:])])
        chosen = pc.and_(alike, pc.less_equal(off, 3))
        kept = names.filter(chosen).to_pylist()[: MAX_COMPARED - compared]
        compared += len(kept)
        for name, image_id in zip(kept, rows["image_id"].filter(chosen).to_pylist(), strict=False):
            matcher.set_seq1(name)
            if matcher.real_quick_ratio() > 0.6 and (likeness := matcher.ratio()) > 0.6:
                best = heapq.nsmallest(MAX_NEAR, [*best, (-likeness, image_id)])
    return [image_id for _, image_id in best]
