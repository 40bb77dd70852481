import io
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from curate.sources.config import Source
from curate.sources.found import Found
from curate.sources.listing import list_source
from curate.stages.images.catalog import catalog_rows


def source(path: object, **fields: Any) -> Source:
    """A source whose lists may name servers of this machine."""
    return Source(name="s", path=str(path), **({"private_addresses": True} | fields))


def keys(path: object, **fields: Any) -> list[str]:
    return [found.key for found in list_source(source(path, **fields))]


def catalog(found: Iterable[Found]) -> pa.Table:
    """The rows of the catalog for what was found."""
    return catalog_rows(0, "pool", Source(name="s", path="."), list(found))


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
