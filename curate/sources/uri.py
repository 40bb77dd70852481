"""How a file is named in tables: as readable text, in which bytes that are no text are kept by a reversible escape.

Percent-encoding was not taken: it makes most names of a crawl in other scripts unreadable, and a name that has percent
signs of its own ambiguous.
"""

import re

from curate.errors import SourceError

_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_ESCAPE = re.compile(rb"\\(\\|x[0-9a-f]{2})")


def encode_uri(raw: bytes) -> str:
    r"""Bytes of a path or URL as text: bytes that are no UTF-8 become `\xNN`, a backslash becomes `\\`.

    Everything else (spaces, newlines, percent signs, accents) stays as it is, so most names read unchanged.
    """
    return raw.replace(b"\\", b"\\\\").decode("utf-8", errors="backslashreplace")


def decode_uri(uri: str) -> bytes:
    r"""The bytes that `encode_uri` was given.

    Raises:
        SourceError: a backslash that starts neither `\\` nor `\xNN`.
    """
    raw = uri.encode("utf-8")
    if b"\\" in _ESCAPE.sub(b"", raw):
        raise SourceError(rf"{uri!r}: a lone backslash; write it as \\, or \xNN for the byte NN")
    return _ESCAPE.sub(_unescape, raw)


def _unescape(match: re.Match[bytes]) -> bytes:
    body = match.group(1)
    return b"\\" if body == b"\\" else bytes([int(body[1:], 16)])


def is_remote(uri: str) -> bool:
    """Whether the text is a URL (`s3://...`); local files are absolute paths."""
    return _REMOTE.match(uri) is not None


def local_path(path: str) -> str:
    """The path of a `file://` URL, so that local files are treated alike however they are named; others as they are.

    Schemes are the same in small letters and in capitals (RFC 3986, section 3.1).
    """
    for protocol in ("file://", "local://"):
        if path[: len(protocol)].lower() == protocol:
            return path[len(protocol) :]
    return path
