"""Who may ask: the server shows pictures and names of a run, and writes decisions, so it answers its own page alone.

It listens on 127.0.0.1. Still, every page that a browser has open can send requests there, and every user of the
machine. What keeps them out:

- A random token in each address. It is compared in constant time, is in no log, and no `Referer` carries it on.
- The `Host` of a request must be this machine. A page of another origin whose name is made to mean 127.0.0.1 (DNS
  rebinding) has its own name there.
- What changes something is a POST of JSON, and its `Origin` must be the address itself.
- No address holds a path of a file: images are asked for by number, and the files of the page by three names.
- Answers may be used by the page alone: scripts, styles, pictures and requests of its own origin, no frames around it,
  types as they are said. Pictures of strangers come as pictures or not at all.
"""

import hmac
import secrets
from collections.abc import Mapping

TOKEN_BYTES = 24
HOSTS = frozenset({"127.0.0.1", "localhost"})
"""What this machine is called in addresses; a forwarded port may have another number."""
POLICY = (
    "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PICTURE_POLICY = "default-src 'none'; sandbox"
"""Of pictures: opened alone, they can do nothing."""
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def new_token() -> str:
    """A word for addresses that nobody guesses."""
    return secrets.token_urlsafe(TOKEN_BYTES)


def is_token(given: str, token: str) -> bool:
    """Whether they are equal, in a time that tells nothing."""
    return hmac.compare_digest(given.encode(), token.encode())


def is_own_host(host: str) -> bool:
    """Whether the header `Host` means this machine."""
    return host.rpartition(":")[0] in HOSTS or host in HOSTS


def is_own_origin(origin: str | None, host: str) -> bool:
    """Whether the header `Origin` of a request that changes something is the address that it went to."""
    return origin == f"http://{host}"
