"""URLs without what lets one in: user, password and signature are taken off before a URL is stored or shown.

The difficulty is that pictures must still be asked for with them, in a later pass and by another process too. A file of
secrets beside the tables would have to be kept from whoever may read the workdir, and would hold signatures that are
over. So the secret stays where it is, in the user's list or table, and is read there again when a picture is wanted.
A mark stands for it in the stored URL:

    https://me:secret@host/a.jpg?w=100&X-Amz-Signature=...     in line 17 of a list
    https://***@host/a.jpg?w=100&***17                         in tables

In a list the number of the line follows, since two lines may differ in their secrets alone; in a table of URLs the key
names the row. What is left is compared when the secret is read, so that a list may be written anew with fresh
signatures, and one that was changed otherwise is noticed.
"""

import re
import threading
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import unquote_plus

MARK = "***"
"""What stands for a secret."""
NUMBERED = r"\*\*\*(\d+)"
"""A mark that tells the line of a list, as a regular expression."""
_MARK = re.compile(NUMBERED)
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s<>\"'`]+")
_USER = re.compile(r"^((?!abfss?://[^/?#\s:@]*@)[A-Za-z][A-Za-z0-9+.-]*://)[^/?#\s]*@")
"""What stands before a host; of Azure's `abfs://CONTAINER@ACCOUNT...` it is the container."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_PREFIXES = ("x-amz-", "x-goog-", "q-sign-", "q-ak", "q-signature", "q-key-time", "q-header-list", "q-url-param-list")
"""Of parameters that belong to a signature, whatever follows: AWS, Google, Tencent and those that took them over."""
_SECRET = _words(
    """
    signature sig sign hmac awsaccesskeyid googleaccessid ossaccesskeyid accesskeyid key-pair-id security-token
    x-oss-signature x-oss-credential x-oss-security-token x-oss-date x-oss-expires x-oss-signature-version
    x-obs-security-token token access_token accesstoken auth_token authtoken auth_key authkey id_token refresh_token
    oauth_token session_token sessiontoken verify_token download_token x-token sas jwt bearer auth authorization
    credential credentials api_key apikey api-key x-api-key app_key appkey subscription-key client_secret secret
    password passwd pwd pass session sessionid session_id phpsessid jsessionid hdnts hdnea hdntl __token__ __gda__
    """
)
"""Parameters, in lower case, that let one in."""
_BESIDE = _words(
    """
    expires expire exp e policy user username login se st sp spr sr srt ss sv si skoid sktid skt ske sks skv ses sdd sip
    """
)
"""Parameters that belong to such a one where it is there, and change with it; kept where it is not."""
_DISCORD = frozenset({"ex", "is", "hm"})
_GOOGLE_KEY = re.compile(r"AIza[\w-]{30,}")


def strip_secrets(url: str, *, line: int | None = None) -> str:
    """A URL with a mark in place of user, password and signature; one that has none as it is.

    Args:
        line: number of the line of a list, from 1, that the mark tells.
    """
    if "?" not in url and "@" not in url and "#" not in url:
        return url
    mark = MARK if line is None else f"{MARK}{line}"
    head, hash_sign, fragment = url.partition("#")
    before, question, query = head.partition("?")
    bare = _USER.sub(rf"\g<1>{mark}@", before, count=1)
    kept = _without_signature(query, mark) if question else query
    if "=" in fragment:
        fragment = _without_signature(fragment, mark)
    return f"{bare}{question}{kept}{hash_sign}{fragment}"


def _without_signature(query: str, mark: str) -> str:
    separator = ";" if ";" in query and "&" not in query else "&"
    fields = query.split(separator)
    names = [unquote_plus(field.partition("=")[0]).lower() for field in fields]
    signed = any(name in _SECRET or name.startswith(_PREFIXES) for name in names)
    discord = set(names) >= _DISCORD
    kept, removed = [], False
    for field, name in zip(fields, names, strict=True):
        secret = name in _SECRET or name.startswith(_PREFIXES) or (signed and name in _BESIDE)
        secret = secret or (discord and name in _DISCORD) or _GOOGLE_KEY.search(field) is not None
        if not secret:
            kept.append(field)
        removed = removed or secret
    return separator.join([*kept, mark] if removed else kept)


def strip_text(text: str) -> str:
    """A text in which every URL is without secrets."""
    return _URL.sub(lambda found: strip_secrets(found[0]), text) if "://" in text else text


def strip_values(value: Any) -> Any:
    """A JSON-ready value in whose texts every URL is without secrets."""
    if isinstance(value, str):
        return strip_text(value)
    if isinstance(value, dict):
        return {strip_text(name): strip_values(inner) for name, inner in value.items()}
    return [strip_values(inner) for inner in value] if isinstance(value, list) else value


def lacks_secret(url: str) -> bool:
    """Whether a stored URL may be one from which a secret was taken off."""
    return MARK in url


class Secrets:
    """Puts back the secrets of a list's lines; whole URLs of some lines are held, so that many need one reading."""

    HELD = 16_384
    """Lines that are held, from the first one that was asked for."""

    def __init__(self, lines: Callable[[], Iterable[str]]) -> None:
        """Nothing is read yet.

        Args:
            lines: reads the lines of the list, from the first.
        """
        self._lines = lines
        self._held: dict[int, str] = {}
        self._lock = threading.Lock()

    def whole(self, url: str) -> str | None:
        """The URL that a line has, of which `url` is what is stored; None: the line is another one."""
        found = _MARK.search(url)
        if found is None:
            return url
        number = int(found[1])
        with self._lock:  # several threads that want the next lines read them once
            if number not in self._held:
                self._held = self._read(number)
            whole = self._held.get(number)
        return whole if whole is not None and strip_secrets(whole, line=number) == url else None

    def _read(self, first: int) -> dict[int, str]:
        held: dict[int, str] = {}
        for number, line in enumerate(self._lines(), 1):
            if number >= first + self.HELD:
                break
            if number >= first:
                held[number] = line
        return held
