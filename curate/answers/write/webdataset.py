"""WebDataset: tars of a stated size, with the picture, its caption and its provenance under one key.

    00003-0000017.jpg, 00003-0000017.txt, 00003-0000017.json      row 17 of part 3 of the catalog

Equal images give equal bytes: members have neither times nor owners. `.cls` is written of labels that are numbers,
since readers take it for one; every label stands in the JSON.
"""

import io
import itertools
import json
import tarfile
from collections.abc import Iterator
from typing import Any

from curate.answers.write.images import CAPTION, LABEL, Images, described
from curate.answers.write.names import suffix_of
from curate.answers.write.output import Output
from curate.answers.write.sharding import cut_shards
from curate.answers.write.written import Count
from curate.engine.image_ids import part_of, row_of


def write_webdataset(images: Images, out: Output, count: Count, *, shard_bytes: int) -> None:
    """`shard-000000.tar` and so on."""
    for shard, pieces in itertools.groupby(cut_shards(images, shard_bytes), key=lambda piece: piece[0]):
        name = f"shard-{shard:06d}.tar"
        if out.has(name):
            count.have(sum(len(rows) for _, rows in pieces))
            continue
        with out.publish(name) as file, tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for _, rows in pieces:
                forms = rows["format"].to_pylist()
                for form, row, read in zip(forms, described(images, rows), images.read(rows), strict=True):
                    if read.data is None:
                        count.lose()
                        continue
                    for suffix, data in _members(form, read.data, row, images.own_names()):
                        _add(tar, _key(row["image_id"]) + suffix, data)
                    count.have()


def _key(image_id: int) -> str:
    return f"{part_of(image_id):05d}-{row_of(image_id):07d}"


def _members(
    form: str | None, picture: bytes, row: dict[str, Any], names: dict[str, str]
) -> Iterator[tuple[str, bytes]]:
    """(suffix, bytes) of the members of one image."""
    caption, label = row.get(names.get(CAPTION, "")), row.get(names.get(LABEL, ""))
    yield suffix_of(form) or ".img", picture
    if isinstance(caption, str):
        yield ".txt", caption.encode()
    if isinstance(label, int) and not isinstance(label, bool):
        yield ".cls", str(label).encode()
    known = {name: value for name, value in row.items() if value is not None}
    yield ".json", json.dumps(known, ensure_ascii=False).encode()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), 0o644
    tar.addfile(member, io.BytesIO(data))
