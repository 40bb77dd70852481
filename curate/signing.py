"""Signatures in the format of OpenSSH, made and checked with Ed25519 keys.

Whoever publishes data has an SSH key already, its public half often stands where others look for it (a forge, a home
page), and whoever checks has `ssh-keygen`. So a signature is the file that `ssh-keygen -Y sign` writes: it is checked
with or without this package, and keys with a passphrase or on a hardware token sign by `ssh-keygen` itself. minisign
and bare Ed25519 were weighed: they have the same cryptography, but need a program, or a format of keys, that few have.

Format: OpenSSH, PROTOCOL.sshsig. Ed25519: RFC 8032, deterministic, so that equal files get equal signatures.
"""

import base64
import binascii
import hashlib
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curate.errors import ConfigError, MissingExtra

NAMESPACE = "curate-manifest"
"""What a signature is for: one of another namespace does not count."""
MAGIC, VERSION = b"SSHSIG", 1
BEGIN, END = "-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----"
ALGORITHM = b"ssh-ed25519"
HASHES = {b"sha512": hashlib.sha512, b"sha256": hashlib.sha256}
MAX_BYTES = 64 << 10
"""Bytes of a file of keys or of a signature that are read."""
_KEY = re.compile(r"(?:^|\s)ssh-ed25519\s+([A-Za-z0-9+/=]{20,200})(?=\s|$)")


@dataclass(frozen=True)
class Signature:
    """A signature as a file holds it."""

    public_key: bytes
    """Of whoever signed, 32 bytes."""
    namespace: str
    hash_name: bytes
    signature: bytes
    """64 bytes."""

    @property
    def fingerprint(self) -> str:
        """Of the public key, as `ssh-keygen -l` shows it."""
        return fingerprint(self.public_key)


def sign(message: bytes, key_file: str | Path, *, where: str) -> bytes:
    """The text of a signature of a message, as `ssh-keygen -Y sign -n curate-manifest` writes it.

    Args:
        key_file: a private key; its path is told by no message.
        where: the setting or option that names it, for messages.

    Raises:
        ConfigError: it is no such key, or cannot be read without a passphrase.
        MissingExtra: `cryptography` is not installed.
    """
    serialization, _ = _cryptography()
    private = _load_private(serialization, _read_key(key_file, where), where)
    public = private.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    signed = private.sign(_signed_text(message, NAMESPACE.encode(), b"sha512"))
    parts = [_public_blob(public), NAMESPACE.encode(), b"", b"sha512", _string(ALGORITHM) + _string(signed)]
    text = base64.b64encode(MAGIC + struct.pack(">I", VERSION) + b"".join(map(_string, parts))).decode()
    lines = [text[start : start + 70] for start in range(0, len(text), 70)]
    return "\n".join([BEGIN, *lines, END, ""]).encode()


def parse_signature(data: bytes) -> Signature:
    """What the text of a signature holds.

    Raises:
        ValueError: it is none of an Ed25519 key, in the format of OpenSSH.
    """
    text = data.decode("ascii", "replace").strip()
    if not text.startswith(BEGIN) or not text.endswith(END) or len(data) > MAX_BYTES:
        raise ValueError("no signature in the format of OpenSSH")
    try:
        blob = base64.b64decode("".join(text[len(BEGIN) : -len(END)].split()), validate=True)
        if blob[:6] != MAGIC or struct.unpack(">I", blob[6:10]) != (VERSION,):
            raise ValueError("no signature of version 1")
        public, namespace, _, hash_name, signature = _strings(blob[10:], 5)
        kind, key = _strings(public, 2)
        kind_of_signature, signed = _strings(signature, 2)
    except (binascii.Error, struct.error) as error:
        raise ValueError("a signature that is cut or changed") from error
    if (kind, kind_of_signature) != (ALGORITHM, ALGORITHM):
        raise ValueError(f"a signature of a key of type {kind[:40]!r}; check it with ssh-keygen -Y verify")
    if len(key) != 32 or len(signed) != 64 or hash_name not in HASHES:
        raise ValueError("a signature that is cut or changed")
    return Signature(key, namespace.decode("utf-8", "replace"), hash_name, signed)


def check(message: bytes, found: Signature) -> bool:
    """Whether the owner of the key that a signature names has signed the message, for this purpose.

    Raises:
        MissingExtra: `cryptography` is not installed.
    """
    _, ed25519 = _cryptography()
    from cryptography.exceptions import InvalidSignature

    if found.namespace != NAMESPACE:
        return False
    text = _signed_text(message, found.namespace.encode(), found.hash_name)
    try:
        ed25519.Ed25519PublicKey.from_public_bytes(found.public_key).verify(found.signature, text)
    except (InvalidSignature, ValueError):
        return False
    return True


def read_public_keys(file: str | Path, *, where: str) -> list[bytes]:
    """The Ed25519 keys that a file trusts: public keys (`id_ed25519.pub`) or lines of `allowed_signers`.

    Raises:
        ConfigError: there is none in it.
    """
    lines = _read_key(file, where).decode("utf-8", "replace").splitlines()
    found = [key for line in lines if not line.lstrip().startswith("#") for key in _keys_of(line)]
    if not found:
        raise ConfigError(f"{where}: holds no line with ssh-ed25519 and a key; give the .pub file of whoever signed")
    return found


def fingerprint(public_key: bytes) -> str:
    """Of an Ed25519 key, as `ssh-keygen -l` shows it."""
    digest = hashlib.sha256(_public_blob(public_key)).digest()
    return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"


def _keys_of(line: str) -> Iterator[bytes]:
    for found in _KEY.finditer(line):
        try:
            kind, key = _strings(base64.b64decode(found[1], validate=True), 2)
        except (binascii.Error, struct.error, ValueError):
            continue
        if kind == ALGORITHM and len(key) == 32:
            yield key


def _read_key(file: str | Path, where: str) -> bytes:
    path = Path(file).expanduser()
    try:
        if not path.is_file():
            raise ConfigError(f"{where}: there is no such file; give the file of a key")
        with path.open("rb") as opened:
            return opened.read(MAX_BYTES)
    except OSError as error:
        raise ConfigError(f"{where}: cannot be read ({error.strerror}); give a file that you may read") from None


def _load_private(serialization: Any, data: bytes, where: str) -> Any:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    again = "sign with it by: ssh-keygen -Y sign -n curate-manifest -f KEY shards/manifest.json"
    try:
        private = serialization.load_ssh_private_key(data, password=None)
    except Exception as error:  # of the library and of its backend: a passphrase, another format, a damaged file
        kind = "has a passphrase" if "assword" in str(error) else "is no private key of OpenSSH"
        raise ConfigError(f"{where}: {kind}; {again}, or give one made by: ssh-keygen -t ed25519 -N ''") from None
    if not isinstance(private, Ed25519PrivateKey):
        raise ConfigError(f"{where}: is a {type(private).__name__}; give an Ed25519 key (ssh-keygen -t ed25519)")
    return private


def _cryptography() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError:
        raise MissingExtra("cryptography", "sign") from None
    return serialization, ed25519


def _public_blob(key: bytes) -> bytes:
    return _string(ALGORITHM) + _string(key)


def _signed_text(message: bytes, namespace: bytes, hash_name: bytes) -> bytes:
    return MAGIC + b"".join(map(_string, (namespace, b"", hash_name, HASHES[hash_name](message).digest())))


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def _strings(data: bytes, number: int) -> Sequence[bytes]:
    """So many length-prefixed strings, and nothing behind them."""
    found, place = [], 0
    for _ in range(number):
        (length,) = struct.unpack_from(">I", data, place)
        piece = data[place + 4 : place + 4 + length]
        if len(piece) != length:
            raise ValueError("a signature that is cut or changed")
        found.append(piece)
        place += 4 + length
    if place != len(data):
        raise ValueError("a signature that is cut or changed")
    return found
