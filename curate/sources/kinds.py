"""What the suffixes of a name say that a file or member is: picture, mask, caption, label or JSON."""

import posixpath
from typing import TYPE_CHECKING, Literal, NamedTuple

from curate.sources.suffixes import is_hidden, may_be_image, suffix_of, why_not_image

if TYPE_CHECKING:
    from curate.sources.config import Source

Kind = Literal["image", "mask", "json", "caption", "label"]
SETTINGS: dict[Kind, str] = {
    "image": "image_suffixes",
    "mask": "mask_suffixes",
    "json": "json_suffixes",
    "caption": "caption_suffixes",
    "label": "label_suffixes",
}
"""The field of `Source` that lists the suffixes of each kind."""
DESCRIBING: tuple[Kind, ...] = ("json", "caption", "label")
"""Kinds of files that are columns of the image beside them."""


class Named(NamedTuple):
    """A name, taken apart at the longest of the listed suffixes that it ends with."""

    base: str
    """The name with its folder, without the suffix and the dot before it."""
    suffix: str
    """As it is listed, without a dot in front."""
    kind: Kind


class Kinds:
    """The suffixes of a source. Of those that a name ends with, the one of most steps decides: `0001.seg.png` is what
    `seg.png` says, not what `png` says."""

    def __init__(self, source: "Source") -> None:
        self._kinds: dict[str, Kind] = {}
        for kind, setting in SETTINGS.items():
            self._kinds |= dict.fromkeys(getattr(source, setting) or (), kind)
        self._only_listed = source.image_suffixes is not None
        longest_first = sorted(self._kinds, key=lambda suffix: -suffix.count("."))
        self._ends: dict[str, list[tuple[str, str, Kind]]] = {}  # by the last step: quick, since all names are asked
        for suffix in longest_first:
            self._ends.setdefault(suffix.rpartition(".")[2], []).append((f".{suffix}", suffix, self._kinds[suffix]))
        self._describing = frozenset(
            suffix.rpartition(".")[2].encode() for suffix, kind in self._kinds.items() if kind in DESCRIBING
        )

    def split(self, name: str) -> Named | None:
        """The name taken apart, with its folder or without; None: it ends with no suffix that is listed."""
        if name.startswith(("http://", "https://")):
            name = name.split("?", 1)[0].split("#", 1)[0]
        for end, suffix, kind in self._ends.get(name[name.rfind(".") + 1 :].lower(), ()):
            if name.endswith(end) or name.lower().endswith(end):
                return Named(name[: -len(end)], suffix, kind)
        return None

    def may_describe(self, name: bytes) -> bool:
        """Whether `split` may find a caption, label or JSON; quick, since most names of a folder are none."""
        return name[name.rfind(b".") + 1 :].lower() in self._describing

    def describing(self) -> tuple[str, ...]:
        """The suffixes of captions, labels and JSON, as listed."""
        return tuple(suffix for suffix, kind in self._kinds.items() if kind in DESCRIBING)

    def is_image(self, name: str, named: Named | None) -> bool:
        """Whether a file is taken for a picture of the source as long as its content does not say no.

        Args:
            named: the name as `split` took it apart.
        """
        if named is not None or self._only_listed:
            return named is not None and named.kind == "image" and not is_hidden(name)
        return may_be_image(name)

    def may_be_misnamed(self, name: str, named: Named | None) -> bool:
        """Whether a file that is no image by name may turn out to be one by content."""
        return not self._only_listed and (named is None or named.kind != "mask") and not is_hidden(name)

    def why_not(self, name: str, named: Named | None) -> str:
        """The reason under which a file that is no image is counted."""
        if named is not None and named.kind == "mask":
            return f"mask (.{named.suffix})"
        if self._only_listed and (named is None or named.kind == "image"):
            return f"suffix that image_suffixes does not list ({suffix_of(name) or 'none'})"
        return why_not_image(name)


def webdataset_key(name: str) -> str:
    """A member's name up to the first dot of its last step, which in a WebDataset names the sample."""
    folder, base = posixpath.split(name)
    return posixpath.join(folder, base.split(".", 1)[0])
