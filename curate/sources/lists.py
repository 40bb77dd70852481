"""Text files that name images, archives or folders, one path or URL a line."""

# ruff: noqa: PTH118, PTH120
# Paths are bytes here, which pathlib does not take: a name need not be text.

import os
import re
from collections.abc import Iterator

from curate.errors import SourceError
from curate.sources.files import open_file
from curate.sources.suffixes import begins_as_image, compressed_as
from curate.sources.uri import encode_uri, is_remote, local_path
from curate.text import decode_text, iterate_lines

_HEAD_BYTES = 512


_HEADERS = frozenset({"path", "file", "filename", "file_name", "filepath", "file_path", "uri", "url", "key"}) | {
    f"image{word}" for word in ("", "_path", "_file", "_name", "_url", "_uri", "_id", "path", "url", "id")
}
"""Names of a column that holds paths, in the first line of a table that was given as a list."""


def list_entries(path: str) -> Iterator[str]:
    """What the lines of a list name, as `find_listed` counts them: URLs with their secrets; others need not be text."""
    for _, entry in read_list(path):
        yield entry.decode(errors="replace")


def read_list(path: str) -> Iterator[tuple[bytes, bytes]]:
    """(the line, what it names) of a list."""
    parent = os.fsencode(path.rsplit("/", 1)[0])
    for written in _listed_lines(path):
        line = os.fsencode(local_path(os.fsdecode(_without_blanks(written, parent))))
        yield line, line if is_remote(line.decode(errors="replace")) else os.path.join(parent, line)


def _without_blanks(line: bytes, parent: bytes) -> bytes:
    """The name that a line means: a file's may end in blanks, but mostly an editor left them there."""
    bare = line.strip()
    if bare == line or (not is_remote(bare.decode(errors="replace")) and os.path.lexists(os.path.join(parent, line))):
        return line
    return bare


def _listed_lines(path: str) -> Iterator[bytes]:
    where = encode_uri(os.fsencode(path))
    with open_file(where) as file:
        what = _why_no_list(file.read(_HEAD_BYTES))
        if what is not None:
            raise _no_list(where, what)
        file.seek(0)
        lines = (line for line in iterate_lines(file) if line.strip())
        try:
            first = next(lines, b"")
            if _is_header(first) and not os.path.lexists(os.path.join(os.path.dirname(os.fsencode(path)), first)):
                raise _no_list(where, f"its first line, {encode_uri(first[:80])!r}, is the header of a table")
            yield from [first] if first else []
            yield from lines
        except ValueError as error:
            raise _no_list(where, str(error)) from error


def _no_list(where: str, what: str) -> SourceError:
    return SourceError(
        f"{where}: not a list of paths: {what}; a list is a text file with one path or URL a line, and nothing else"
    )


def _why_no_list(head: bytes) -> str | None:
    """What a file that was given as a list is instead, by its first bytes; None: it may be one."""
    suffix = compressed_as(head)
    if suffix:
        return f"its content is compressed ({suffix[1:]})"
    if head.startswith(b"PAR1"):
        return "it is a Parquet file"
    if head[257:262] == b"ustar":
        return "it is a tar archive"
    if begins_as_image(head):
        return "it is a picture"
    text = decode_text(head, errors="replace").lstrip().lower()
    if text.startswith(("<!doctype", "<html", "<?xml", "<head", "<body")):
        return "it is a page of HTML or XML"
    return "it is JSON" if text.startswith(('{"', '[{"', '["')) else None


def _is_header(line: bytes) -> bool:
    """Whether a line names the columns of a table (CSV, TSV), and no file."""
    cells = re.split(r"[,;\t]", line.decode(errors="replace"))
    return any(cell.strip(" \"'").lower() in _HEADERS for cell in cells)
