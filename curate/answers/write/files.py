"""Pictures as files of their own, or as links to those of the source: what several formats share."""

import os
from collections.abc import Iterator
from typing import Any, Literal

import pyarrow as pa

from curate.answers.write.images import Images, described
from curate.answers.write.names import Names
from curate.answers.write.output import Output
from curate.answers.write.written import Count
from curate.sources.uri import decode_uri, is_remote
from curate.stages.selection.blurred import FACES
from curate.stages.selection.shard_bytes import faces_of

Link = Literal["symbolic", "hard"]


class Files:
    """The pictures of a data set in a folder of it, or in the data set itself where `folder` is empty."""

    def __init__(self, images: Images, out: Output, folder: str = "") -> None:
        self._images, self._out, self._folder = images, out, folder
        self._names = Names(images.batches())
        self._lost = set[int]()

    def write(self, count: Count, *, link: Link | None = None) -> None:
        """Write those that are not there; images that can no longer be had are left out.

        Args:
            link: how files of this machine that hold one image are named instead of copied; others are copied.
        """
        for rows in self._images.batches():
            names = self._names_of(rows)
            done = [
                self._is_there(row, name) or (link is not None and self._link(row, name, link, count))
                for row, name in zip(_places(rows), names, strict=True)
            ]
            count.have(sum(done))
            absent = rows.filter(pa.array([not one for one in done]))
            left = [name for name, one in zip(names, done, strict=True) if not one]
            for name, image_id, read in zip(
                left, absent["image_id"].to_pylist(), self._images.read(absent), strict=True
            ):
                if read.data is None:
                    self._lost.add(image_id)
                    count.lose()
                else:
                    self._out.put(name, read.data)
                    count.have()

    def described(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """(name in the folder, what is told of it) of each picture that was written."""
        for rows in self._images.batches():
            for name, row in zip(self._names.of(rows), described(self._images, rows), strict=True):
                if row["image_id"] not in self._lost:
                    yield name, row

    def _names_of(self, rows: pa.RecordBatch) -> list[str]:
        return [f"{self._folder}/{name}" if self._folder else name for name in self._names.of(rows)]

    def _is_there(self, row: dict[str, Any], name: str) -> bool:
        return self._out.has(name, None if row["changed"] else row["num_bytes"])

    def _link(self, row: dict[str, Any], name: str, link: Link, count: Count) -> bool:
        """Whether a link stands for the image: to a file that still has the length that it had."""
        if row["changed"] or not row["own_file"] or is_remote(row["uri"]):
            return False
        target = decode_uri(row["uri"])
        if not os.path.isfile(target) or os.path.getsize(target) != row["num_bytes"]:  # noqa: PTH113, PTH202  # bytes
            return False
        self._out.link(name, target, hard=link == "hard")
        count.found.linked += 1
        return True


def _places(rows: pa.RecordBatch) -> list[dict[str, Any]]:
    """Where each image lies, and whether it is not written as its source holds it."""
    found: list[dict[str, Any]] = rows.select(["uri", "own_file", "num_bytes"]).to_pylist()
    blurs = FACES in rows.schema.names
    return [{**row, "changed": blurs and faces != []} for row, faces in zip(found, faces_of(rows), strict=True)]
