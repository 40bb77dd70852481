"""Content Credentials (C2PA): who says they made a picture, how, and whether it may be trained on.

A manifest is embedded in the picture and signed; the package `c2pa-python` checks the signature, and that it belongs to
these bytes. It is native code on a stranger's bytes, so that it runs in the processes that decode, which hold
themselves to memory and CPU time (`decoding.read_picture_credentials`), and only where the bytes hold a manifest at
all. Nothing is fetched: a manifest on a server that the picture names is not looked at, nor is any list of revoked
certificates. Whom to trust is not decided here either: `valid` says that a signature holds, not whose it is.

Source: C2PA specification 2.1, sections on actions and on assertions of training and data mining, and CAWG training and
data mining assertion 1.1.
"""

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from io import BytesIO
from typing import Any, NamedTuple

from curate.errors import MissingExtra
from curate.ops.images.embedded import BY_MODEL, SOURCE_TYPES

MARKS = (b"jumb", b"c2pa")
"""What every embedded manifest holds: the kind of its box, and its label."""
MAX_JSON = 8 << 20
"""Characters of what the package tells of a manifest that are read."""
MAX_TEXT = 200
"""Characters of a text that are kept."""
MIME = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "TIFF": "image/tiff",
    "HEIF": "image/heif",
    "AVIF": "image/avif",
    "JXL": "image/jxl",
}
"""Formats, as `images` calls them, in which manifests are read."""
PERMISSIONS = ("notAllowed", "constrained", "allowed")
"""What may be said of a use, the strictest first."""
TRAINING = ("ai_training", "ai_generative_training", "data_mining")
"""Uses that are training, or its preparation, without the prefix of who defined them."""
SETTINGS = {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False}, "trust": {}}


class Credentials(NamedTuple):
    """What a picture's manifest says."""

    signature: str
    """valid: it holds, whoever signed; trusted: by one whom the package trusts; invalid: it does not hold, or the
    picture was changed since; unreadable: it cannot be read within bounds."""
    generator: str | None = None
    """Program or device that made the claim."""
    signer: str | None = None
    """Organization of the certificate."""
    training: str | None = None
    """allowed, notAllowed or constrained: the strictest word on training and data mining; None: none is said."""
    source_type: str | None = None
    """IPTC code of how the picture was made; one that says it was made by a model comes first."""


def may_hold_credentials(data: bytes, form: str | None) -> bool:
    """Whether a picture may have a manifest embedded, so that it is worth to look."""
    return form in MIME and all(mark in data for mark in MARKS)


def package_version() -> str:
    """Version of the package that reads manifests.

    Raises:
        MissingExtra: it is not installed.
    """
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("c2pa-python")
    except PackageNotFoundError:
        raise MissingExtra("c2pa-python", "c2pa") from None


def read_credentials(data: bytes, form: str) -> Credentials | None:
    """What the manifest in an encoded picture says; None: there is none. Not bounded: see `decoding`.

    Raises:
        MissingExtra: `c2pa-python` is not installed.
    """
    c2pa, context = _package()
    try:
        reader = c2pa.Reader.try_create(MIME[form], BytesIO(data), context=context)
        if reader is None:
            return None
        with reader:
            text, state = reader.json(), reader.get_validation_state()
    except c2pa.C2paError:
        return Credentials("unreadable")
    return describe(text, state)


def describe(text: str, state: str | None) -> Credentials:
    """What the JSON of a store of manifests says; all of it may be a stranger's.

    Args:
        state: what the package says of its signatures.
    """
    try:
        found = json.loads(text) if len(text) <= MAX_JSON else None
    except (ValueError, RecursionError):
        found = None
    store = _mapping(found)
    manifests = [_mapping(one) for one in _mapping(store.get("manifests")).values()]
    active = _mapping(_mapping(store.get("manifests")).get(str(store.get("active_manifest"))))
    if not active:
        return Credentials("unreadable")
    types = [kind for one in [active, *manifests] for kind in _source_types(one)]
    said = {use for one in manifests for use in _training(one)}
    return Credentials(
        signature=str(state).lower() if state in ("Trusted", "Valid", "Invalid") else "unreadable",
        generator=_generator(active),
        signer=_text(_mapping(active.get("signature_info")).get("issuer")),
        training=next((word for word in PERMISSIONS if word in said), None),
        source_type=next((kind for kind in types if kind in BY_MODEL), types[0] if types else None),
    )


@lru_cache(maxsize=1)
def _package() -> tuple[Any, Any]:
    try:
        import c2pa
    except ImportError:
        raise MissingExtra("c2pa-python", "c2pa") from None
    return c2pa, c2pa.Context.from_dict(SETTINGS)


def _generator(manifest: Mapping[str, Any]) -> str | None:
    told = manifest.get("claim_generator_info")
    first = _mapping(told[0]) if isinstance(told, list) and told else {}
    words = [_text(first.get("name")), _text(first.get("version"))]
    return _text(" ".join(word for word in words if word)) or _text(manifest.get("claim_generator"))


def _assertions(manifest: Mapping[str, Any], kind: str) -> Iterator[Mapping[str, Any]]:
    """Data of the assertions of a kind, whatever their version: `c2pa.actions` is also `c2pa.actions.v2__1`."""
    listed = manifest.get("assertions")
    for one in map(_mapping, listed if isinstance(listed, list) else []):
        label = str(one.get("label"))
        if label.partition("__")[0].removesuffix(".v2") == kind:
            yield _mapping(one.get("data"))


def _source_types(manifest: Mapping[str, Any]) -> Iterator[str]:
    for data in _assertions(manifest, "c2pa.actions"):
        listed = data.get("actions")
        for action in map(_mapping, listed if isinstance(listed, list) else []):
            kind = _text(action.get("digitalSourceType"))
            if kind is not None:
                yield kind.rpartition(SOURCE_TYPES)[2]


def _training(manifest: Mapping[str, Any]) -> Iterator[str]:
    for prefix in ("c2pa", "cawg"):
        for data in _assertions(manifest, f"{prefix}.training-mining"):
            for name, entry in _mapping(data.get("entries")).items():
                if str(name).rpartition(".")[2] in TRAINING:
                    yield str(_mapping(entry).get("use"))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str | None:
    text = " ".join(value.split())[:MAX_TEXT] if isinstance(value, str) else ""
    return text.encode("utf-8", "replace").decode() or None
