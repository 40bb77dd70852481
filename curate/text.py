"""Text of others: how their files are read, and how names that they chose are shown.

Text files come as other systems write them: with a byte order mark, as UTF-16 or UTF-32, with any ends of lines.

A file that a person made on another machine often begins with a byte order mark (BOM), which Windows writes before
UTF-8 too. Read as plain UTF-8, the mark becomes a part of the first name, which is then not found. Without a mark a
list is bytes of which nothing is known: the names of files need not be text, so its lines stay bytes.
"""

import codecs
import itertools
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from curate.errors import ConfigError
from curate.opening import NotRegularFile, open_regular, read_regular

MAX_LINE_BYTES = 1 << 16
"""A longer line names no file and no URL: what is read is no text, and memory must not grow by it."""
_BLOCK_BYTES = 1 << 20

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def encoding_of(head: bytes) -> tuple[str, int]:
    """The encoding that a byte order mark tells, UTF-8 without one; and the bytes of the mark."""
    return next(((name, len(mark)) for mark, name in _MARKS if head.startswith(mark)), ("utf-8", 0))


def decode_text(data: bytes, *, errors: str = "strict") -> str:
    """Bytes of a text file, without its byte order mark.

    Raises:
        UnicodeDecodeError: they are not in the encoding of the mark, or without one in UTF-8.
    """
    encoding, start = encoding_of(data)
    return data[start:].decode(encoding, errors)


def read_text(path: Path) -> str:
    r"""A text file that a person gave; every end of a line becomes `\n`.

    Raises:
        ConfigError: its bytes are no text, or it is no regular file.
    """
    try:
        text = decode_text(read_regular(path))
    except NotRegularFile as error:
        raise ConfigError(f"{path}: {error.strerror}; give a text file") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not text ({error}); save it as UTF-8") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_lines(path: Path) -> Iterator[str]:
    r"""The lines of a text file of names, without their ends; bytes that are no UTF-8 become `\xNN`, as in tables.

    Raises:
        ConfigError: it is no regular file.
        ValueError: as of `iterate_lines`.
    """
    try:
        file = open_regular(path)
    except NotRegularFile as error:
        raise ConfigError(f"{path}: {error.strerror}; give a text file") from error
    with file:
        for line in iterate_lines(file):
            yield line.decode("utf-8", "backslashreplace")


def iterate_lines(file: Any) -> Iterator[bytes]:
    r"""The lines of a file opened for bytes, without their ends and whatever encoding its mark tells, as UTF-8.

    Lines end with `\n`, or `\r\n`; with `\r` where the first block holds no `\n`, as on old Macs. Memory: one block.

    Raises:
        ValueError: the file breaks the encoding of its mark, or a line is longer than `MAX_LINE_BYTES` or holds a NUL
            byte; the text says which.
    """
    end, rest, number = b"", b"", 1
    for block in _utf8_blocks(file):
        end = end or (b"\r" if b"\r" in block and b"\n" not in block else b"\n")
        *lines, rest = (rest + block).split(end)
        for line in lines:
            yield _checked(line, number)
            number += 1
        _checked(rest, number)
    if rest:
        yield _checked(rest, number)


def _utf8_blocks(file: Any) -> Iterator[bytes]:
    first = file.read(_BLOCK_BYTES)
    encoding, start = encoding_of(first)
    blocks = itertools.chain([first[start:]], iter(lambda: file.read(_BLOCK_BYTES), b""))
    if encoding == "utf-8":  # and need not be: names are bytes
        yield from blocks
        return
    decoder = codecs.getincrementaldecoder(encoding)("surrogatepass")
    try:
        for block in blocks:
            yield decoder.decode(block).encode("utf-8", "surrogatepass")
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise ValueError(f"begins with the mark of {encoding}, but is none ({error.reason})") from error


def _checked(line: bytes, number: int) -> bytes:
    if len(line) > MAX_LINE_BYTES:
        raise ValueError(f"line {number} is longer than {MAX_LINE_BYTES} bytes")
    if b"\0" in line:
        raise ValueError(f"line {number} holds a NUL byte")
    return line.rstrip(b"\r")


MAX_WORD, MAX_LINE = 400, 4000
"""Characters of a word, such as a file name, and of a line that are shown; longer ones lose their middle."""
_HARMLESS = frozenset({"Zs", "Co", "Cn"})
"""Categories of Unicode without a visible form that no terminal acts on: spaces, private and unassigned characters."""


def visible(text: str, *, keep: str = "\n\t") -> str:
    r"""Text with what would act unseen written out, such as `\x1b`: a terminal or a reader sees what is there.

    Names of files, keys, captions and errors are chosen by strangers. Control characters (C0 and C1) command a
    terminal, bidirectional overrides and characters without width make one name look like another.

    Args:
        keep: characters that stay as they are; empty: the text becomes one line.
    """
    if text.isprintable():
        return text
    return "".join(
        letter
        if letter.isprintable() or letter in keep or unicodedata.category(letter) in _HARMLESS
        else letter.encode("unicode_escape").decode()
        for letter in text
    )


def visible_line(text: str) -> str:
    """One line of text from others, such as a name: visible, and without its middle where it is long."""
    return shortened(visible(text, keep=""), MAX_WORD)


def visible_text(text: str) -> str:
    """Whole text with names of others in it: visible, and overlong words and lines without their middle."""
    plain = re.sub(rf"\S{{{MAX_WORD + 1},}}", lambda word: shortened(word[0], MAX_WORD), visible(text))
    return "\n".join(shortened(line, MAX_LINE) for line in plain.split("\n"))


def shortened(text: str, limit: int) -> str:
    """The beginning and the end of a text longer than `limit` characters, and its length between them."""
    if len(text) <= limit:
        return text
    return f"{text[: limit // 2]}...({len(text):,} characters)...{text[-(limit // 2) :]}"


def indented(text: str) -> str:
    """Text whose further lines are set in, so that a line of a name cannot pass for a message of its own."""
    first, *others = text.split("\n")
    return "\n".join([first, *(line if line.startswith("  ") or not line else f"  {line}" for line in others)])
