import io
import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from curate.sources.class_names import common_classes
from curate.sources.config import Source
from curate.sources.found import Found
from curate.sources.listing import list_source
from curate.stages.images.catalog import CLASSES, SOURCE
from curate.tables import CATALOG


def source(path: object, **fields: Any) -> Source:
    """A source whose lists may name servers of this machine."""
    return Source(name="s", path=str(path), **({"private_addresses": True} | fields))


def keys(path: object, **fields: Any) -> list[str]:
    return [found.key for found in list_source(source(path, **fields))]


def catalog(found: Iterable[Found]) -> pa.Table:
    """The rows of the catalog for what was found."""
    return catalog_rows(0, "pool", Source(name="s", path="."), list(found))


def catalog_rows(part: int, role: str, source: Source, found: list[Found]) -> pa.Table:
    """The rows of one part of the catalog, made the plain way."""
    columns = [
        pa.array([part << 32 | row for row in range(len(found))]),
        pa.array([source.name] * len(found)),
        pa.array([role] * len(found)),
        *(pa.array([getattr(f, name) for f in found], CATALOG.field(name).type) for name in CATALOG.names[3:]),
    ]
    classes = json.dumps(common_classes(item.classes for item in found), sort_keys=True).encode()
    schema = CATALOG.with_metadata({SOURCE: source.model_dump_json().encode(), CLASSES: classes})
    return pa.Table.from_arrays(columns, schema=schema)


def cut_found(found: Iterable[Found], rows_per_part: int) -> Iterator[list[Found]]:
    """A listing cut into parts one image after the other: an archive goes into the next part where it does not fit."""
    part: list[Found] = []
    start = 0  # where the archive of the last image begins in `part`
    for item in found:
        if not part or item.container is None or item.container != part[-1].container:
            start = len(part)
        part.append(item)
        if len(part) > rows_per_part:
            cut = start or rows_per_part
            yield part[:cut]
            part, start = part[cut:], 0
    if part:
        yield part


def write_tar(path: Path, members: Mapping[str, bytes] | Iterable[tuple[str, bytes]], **options: Any) -> Path:
    pairs = members.items() if isinstance(members, Mapping) else members
    with tarfile.open(path, "w", **options) as tar:
        for name, data in pairs:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def write_files(root: Path, files: Mapping[str, bytes] | Iterable[str]) -> Path:
    pairs = files.items() if isinstance(files, Mapping) else ((name, name.encode()) for name in files)
    for name, data in pairs:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root
