"""Which images there are: sources by role, each of them a path or a path with a name."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from curate.config import Execution, Settings, absolute_path
from curate.errors import ConfigError
from curate.ops.images.depth import SignificantBits
from curate.sources.addresses import permit_of
from curate.sources.formats import BUILTIN, DETECTED, find_format
from curate.sources.kinds import SETTINGS
from curate.sources.network import Network
from curate.sources.secrets import strip_secrets
from curate.sources.uri import is_remote, local_path
from curate.sources.web import DISALLOWED
from curate.tables import ROLES


class Source(Settings):
    """Images of one origin, listed and read together."""

    name: str = Field(pattern=r"^[\w.-]+$", max_length=100)
    """Name of the source in tables and reports; unique among all sources."""

    path: str = Field(min_length=1)
    """Folder, tar, Parquet file, table of URLs (Parquet, CSV, TSV, JSONL), folder or glob of those, or a `.txt` with
    one path or URL a line; local or an fsspec URL. Braces stand for several paths as in bash: `{00000..00012}.tar`,
    `{train,val}`. A relative path is taken from the current directory."""

    format: str = "auto"
    """What the path holds: `folder`, `tar`, `parquet`, `urls` (tables of URLs), `list` (a text file that names images
    or archives), or a format of one's own as `./FILE.py:NAME` or `MODULE:NAME`; `auto` goes by suffixes and, for
    Parquet, by columns, and refuses a mixture, but takes what img2dataset writes: Parquet files without images describe
    the tars or folders of their names."""

    roots: tuple[str, ...] = ()
    """Local folders beside the source's own (of a list: the folder it lies in) that paths in a list, and links in a
    folder, may lead to; what leads elsewhere is left out and told. A relative path is taken from the current
    directory."""

    image_column: str | None = None
    """Parquet column of the images; default: `image`, else the only binary one."""

    url_column: str | None = None
    """Column of a table that holds the URLs; default: `url`, else `URL`."""

    user_agent_token: str | None = Field(default=None, pattern=r"^[ !#-'*-\[\]-~]{1,200}$")
    """Name, page or mail address that web servers are told beside the software's own name, for URLs of tables."""

    disallowed_header_directives: tuple[str, ...] = DISALLOWED
    """Directives of the header `X-Robots-Tag` by which a web server keeps out a picture of a table; empty: none."""

    private_addresses: bool | tuple[str, ...] = False
    """Servers with private addresses that URLs of lists and tables may lead to: names, addresses and networks, as
    `[intranet.local, 10.1.0.0/16]`; true: any. Default: none, since lists come from strangers. The server that `path`
    itself names may be asked."""

    columns: tuple[str, ...] | None = None
    """The source's own columns to carry to the shards; default: all that are not binary."""

    labels: Literal["folder"] | None = None
    """`folder`: the folder directly above each image becomes the column `label`, as in an ImageFolder; null for images
    at the top of the source or of their archive. It replaces a label that the image has. Default: no such column."""

    significant_bits: SignificantBits = "auto"
    """Bits that the 16-bit samples of PNG and TIFF files use, 8..16: with 12, samples of 0..4095 span black to white. A
    picture with a larger sample has 16 bits whatever is set. `auto`: what a file declares (sBIT, MaxSampleValue), else
    16; how dark a picture is says nothing, and a pool is read once, so it is not asked either: the report tells when
    pictures use few of their bits. A training on the shards takes `feed.significant_bits`."""

    image_suffixes: tuple[str, ...] | None = None
    """Suffixes of the files or tar members that are pictures, as `[jpg, left.png]`; default: all whose suffix does not
    say something else. A name is what the longest of all listed suffixes that it ends with says."""

    mask_suffixes: tuple[str, ...] = ("seg.png", "seg.webp", "mask.png", "mask.jpg", "mask.webp")
    """Suffixes of masks, which are no pictures of the source."""

    caption_suffixes: tuple[str, ...] = ("caption", "txt", "text")
    """Suffixes of captions. The first one that is there is the column `caption`; others are columns of their name."""

    label_suffixes: tuple[str, ...] = ("cls", "cls2")
    """Suffixes of labels. The first one that is there is the column `label`; others are columns of their name."""

    json_suffixes: tuple[str, ...] = ("json",)
    """Suffixes of JSON files, whose keys are columns; they win over captions and labels, the first over the others."""

    @field_validator("path")
    @classmethod
    def _absolute(cls, path: str) -> str:
        found = absolute_path(local_path(path))
        if is_remote(found) and strip_secrets(found) != found:
            raise ValueError(
                "a URL with a signature or token, which would end up in tables; write it into a list (.txt), and give "
                "the path of that"
            )
        return found

    @field_validator("private_addresses")
    @classmethod
    def _known_networks(cls, allowed: bool | tuple[str, ...]) -> bool | tuple[str, ...]:
        permit_of(allowed)
        return allowed

    @field_validator("roots")
    @classmethod
    def _absolute_roots(cls, roots: tuple[str, ...]) -> tuple[str, ...]:
        found = tuple(absolute_path(local_path(root)) for root in roots)
        for root in found:
            if is_remote(root):
                raise ValueError(f"{root}: only local folders need to be allowed; leave it out")
        return found

    @field_validator(*SETTINGS.values())
    @classmethod
    def _bare(cls, suffixes: tuple[str, ...] | None) -> tuple[str, ...] | None:
        bare = None if suffixes is None else tuple(suffix.lower().removeprefix(".") for suffix in suffixes)
        for suffix in bare or ():
            if not suffix or "/" in suffix or "" in suffix.split("."):
                raise ValueError(f"{suffix!r} is no suffix; write for example jpg or seg.png")
        return bare

    @model_validator(mode="after")
    def _one_kind_each(self) -> "Source":
        seen: dict[str, str] = {}
        for setting in SETTINGS.values():
            for suffix in getattr(self, setting) or ():
                other = seen.setdefault(suffix, setting)
                if other != setting:
                    raise ValueError(f"{suffix!r} is listed by {other} and by {setting}; leave it in one of them")
        return self

    @field_validator("format")
    @classmethod
    def _absolute_file(cls, name: str) -> str:
        file, colon, attribute = name.rpartition(":")
        return f"{absolute_path(file)}:{attribute}" if colon and file.endswith(".py") else name


class Sources(Settings):
    """The images of a run by role; a role is a path, a list of paths, or a list of `{name, path}`.

    Any of these without a role is the pool: `sources: DIR` means `sources: {pool: DIR}`.
    """

    pool: tuple[Source, ...]
    """The uncurated images to choose from."""

    curated: tuple[Source, ...] = ()
    """Trusted images: added as they are, and the queries of retrieval."""

    heldout: tuple[Source, ...] = ()
    """Images of benchmarks: copies of them are kept out of the selection."""

    network: Annotated[Network, Execution()] = Network()
    """How long to wait for web servers and object stores, and how often to try again."""

    max_unavailable: Annotated[float, Field(ge=0, le=1), Execution()] = 0.01
    """Share of the listed images, 0..1, above which a run ends with exit status 3 because a server or disk kept them
    away. They are no rejects: the same command reads exactly these again."""

    @model_validator(mode="before")
    @classmethod
    def _spread(cls, values: Any) -> Any:
        if isinstance(values, Sources):
            return values
        if not isinstance(values, dict):
            values = {"pool": values}
        return {k: _as_sources(k, v) if k in ROLES else v for k, v in values.items()}

    @model_validator(mode="after")
    def _check(self) -> "Sources":
        if not self.pool:
            raise ValueError("pool has no source; give a path, for example sources.pool=DIR")
        counts = Counter(source.name for _, source in self.by_role())
        twice = sorted(name for name, count in counts.items() if count > 1)
        if twice:
            raise ValueError(
                f"the name {twice[0]!r} is given to {counts[twice[0]]} sources; name each one: "
                "[{name: a, path: DIR1}, {name: b, path: DIR2}]"
            )
        for _, source in self.by_role():
            _check_format(source)
        return self

    def by_role(self) -> list[tuple[str, Source]]:
        """(role, source) of all sources: pool, curated, heldout, each in the order given."""
        return [(role, source) for role in ROLES for source in getattr(self, role)]


def _check_format(source: Source) -> None:
    # Here and not in `Source`: workers and reports parse a source again, and read no image of it at times.
    if source.format not in (*BUILTIN, *DETECTED):
        try:
            find_format(source.format)
        except ConfigError as error:
            raise ValueError(f"source {source.name}: {error}") from error


def _as_sources(role: str, value: Any) -> Any:
    """A list of `{name, path, ...}` of whatever a role may be given as."""
    if value is None:
        return ()
    entries = list(value) if isinstance(value, list | tuple) else [value]
    return [_as_source(_default_name(role, entry, len(entries)), entry) for entry in entries]


def _as_source(name: str, entry: Any) -> Any:
    if isinstance(entry, str | Path):
        return {"name": name, "path": str(entry)}
    if isinstance(entry, dict):
        return {"name": name, **entry}
    return entry


def _default_name(role: str, entry: Any, num_entries: int) -> str:
    """The role where it has one path only, else the last step of the path that is no pattern."""
    path = entry.get("path", "") if isinstance(entry, dict) else entry
    if num_entries == 1 or not isinstance(path, str | Path):
        return role
    return last_plain_step(str(path)) or role


def last_plain_step(path: str) -> str:
    """The last step of a path or URL that is no pattern, as a word that may stand in a name; empty: there is none."""
    return next(_plain_words(reversed(path.split("/"))), "")


def _plain_words(steps: Iterable[str]) -> Iterator[str]:
    for step in steps:
        word = re.sub(r"[^\w.-]+", "-", step).strip(".-")
        if word and not set(step) & set("*?[{"):
            yield word
