"""The images of a data set: what the tables say of them, and their bytes from the sources."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa

from curate.answers.rows import Wanted, list_images, removed_entries, verdicts_of
from curate.config import digest
from curate.engine.finished import Finished
from curate.engine.image_ids import part_of, row_of
from curate.engine.table import Table
from curate.errors import CurateError, TableError
from curate.ops.images.blurring import KEPT_FORMATS
from curate.sources.read import Read, unreadable
from curate.stages.images.inspect import Inspect
from curate.stages.screening.choose_faces import ChooseFaces
from curate.stages.selection.blurred import FACES, ToBlur, blur_of, blur_one
from curate.stages.selection.own_columns import ColumnKind, ColumnKinds, named_rows, own_column
from curate.stages.selection.select import Select
from curate.stages.selection.shard_bytes import faces_of, read_unchanged
from curate.tables import BLURS, LISTED

PROVENANCE = ("image_id", "source", "role", "key", "sha256", "width", "height", "cluster")
"""What is told of every image."""
OF_VERDICTS = ("verdict", "reason", "score", "partner_key", "similarity", "evidence", "group")
"""What is told beside it where not all images stay."""
PLACES, FACTS = ("uri", "own_file"), ("num_bytes", "format", "extra")
"""What writing needs to know besides: columns of a listing, and of `images`."""
STAYING = (Wanted.kept, Wanted.selected)
CAPTION, LABEL = "caption", "label"
"""Own columns that formats have a place of their own for."""


@dataclass(frozen=True)
class Images:
    """Images of a run whose bytes were there, in the order of the catalog."""

    run: Finished
    wanted: Wanted
    roles: tuple[str, ...] | None = None
    """None: as `list_images` chooses."""

    def __post_init__(self) -> None:
        if self.wanted is Wanted.groups:
            raise CurateError("groups: rows of a listing, and no data set; choose all, kept, dropped or another one")

    @cached_property
    def listed(self) -> tuple[str, ...]:
        """Columns of a listing that go with the images."""
        return PROVENANCE if self.wanted in STAYING else PROVENANCE + OF_VERDICTS

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns that go with the images but those of the sources."""
        return self.listed if self.blurs is None else (*self.listed, FACES)

    @property
    def fields(self) -> list[pa.Field]:
        """The same with their types."""
        faces = [] if self.blurs is None else [BLURS.field(FACES)]
        return [f.remove_metadata().with_nullable(True) for f in (*map(LISTED.field, self.listed), *faces)]

    @cached_property
    def blurs(self) -> Table | None:
        """Which faces are blurred; None: none are.

        Raises:
            TableError: the config of the run says that faces are blurred, and it is not known which.
        """
        found = self.run.only(ChooseFaces)
        faces = (self.run.config.get("screen") or {}).get("faces") or {}
        if found is None and (faces == "blur" or (isinstance(faces, dict) and faces.get("blur"))):
            raise TableError(
                f"{self.run.store.root}: its config says that faces are blurred (screen.faces.blur), and they have not "
                "been looked for yet; run it first"
            )
        return None if found is None else found[1]

    def batches(self) -> Iterator[pa.RecordBatch]:
        """`columns`, and `PLACES` and `FACTS` of the images; each batch lies in one part of the catalog."""
        for listed in list_images(self.run, self.wanted, [*self.listed, *PLACES], roles=self.roles):
            rows = listed.filter(listed["sha256"].is_valid())
            if len(rows):
                facts = self._facts.read(self.part_of(rows), list(FACTS))
                facts = facts.take(row_of(rows["image_id"].to_numpy()))
                columns = {name: facts[name].combine_chunks() for name in FACTS} | self._faces(rows)
                if self.blurs is not None:
                    columns["format"] = _written_formats(columns["format"], columns[FACES])
                yield pa.RecordBatch.from_arrays([*rows.columns, *columns.values()], [*rows.schema.names, *columns])

    def _faces(self, rows: pa.RecordBatch) -> dict[str, pa.Array]:
        """The faces of some images that are blurred, as a column."""
        if self.blurs is None:
            return {}
        found = self.blurs.read(self.part_of(rows), [FACES])[FACES]
        return {FACES: found.take(pa.array(row_of(rows["image_id"].to_numpy()))).combine_chunks()}

    def read(self, rows: pa.RecordBatch) -> Iterator[Read]:
        """The bytes of some rows of a batch as they are written, in order; or why there are none any more."""
        how = None if self.blurs is None else blur_of(self.blurs.schema())
        for read, key, boxes in zip(self._read(rows), rows["key"].to_pylist(), faces_of(rows), strict=True):
            if boxes is None and how is not None:
                yield unreadable("faces were not looked for in it, and its data set has none that are not blurred")
                continue
            if how is None or not boxes or read.data is None:
                yield read
                continue
            blurred = blur_one(ToBlur(key, read.data, boxes), how)
            yield unreadable("its faces cannot be blurred") if blurred is None else read._replace(data=blurred.data)

    def _read(self, rows: pa.RecordBatch) -> Iterator[Read]:
        """The bytes of some rows of a batch as their sources hold them."""
        assert self.run.catalog is not None
        if not len(rows):
            return
        places = self.run.catalog.read(self.part_of(rows)).take(row_of(rows["image_id"].to_numpy()))
        digests = [bytes.fromhex(text) for text in rows["sha256"].to_pylist()]
        yield from read_unchanged(places, digests, rows["num_bytes"].to_pylist())

    def part_of(self, rows: pa.RecordBatch) -> int:
        """The part of the catalog that a batch lies in."""
        return part_of(int(rows["image_id"][0].as_py()))

    def own_names(self) -> dict[str, str]:
        """Names of the sources' own columns as the data set has them, by those of the shards."""
        return {name: f"source_{name}" if name in _TAKEN else name for name in self.own_columns}

    @cached_property
    def own_columns(self) -> dict[str, ColumnKind]:
        """The sources' own columns and their types, as shards have them; the rows are read once for it, or twice."""
        kinds = ColumnKinds()
        self._see(kinds)
        if kinds.dropped:
            kinds = ColumnKinds(only=kinds.frequent())
            self._see(kinds)
        return kinds.columns()

    def _see(self, kinds: ColumnKinds) -> None:
        for rows in self.batches():
            kinds.add(named_rows(rows["extra"].drop_null().to_pylist()))

    def own_values(self, rows: pa.RecordBatch) -> dict[str, pa.Array]:
        """The own columns of a batch, each of one type, by their names in the data set."""
        named = named_rows(rows["extra"].to_pylist())
        names = self.own_names()
        return {names[name]: own_column(named, name, kind) for name, kind in self.own_columns.items()}

    @cached_property
    def _facts(self) -> Table:
        found = self.run.only(Inspect)
        assert found is not None  # listing has asked for it
        return found[1]

    def digest(self) -> str:
        """Of all that decides which images these are, and in which order."""
        assert self.run.catalog is not None
        chosen = self.run.only(Select)
        tables = [self.run.catalog, self._facts, verdicts_of(self.run), *([chosen[1]] if chosen else [])]
        contents = [[part.content for part in table.parts()] for table in tables]
        what: list[Any] = [self.wanted, self.roles, contents, sorted(removed_entries(self.run).entries)]
        if self.blurs is not None:
            how = blur_of(self.blurs.schema()).model_dump()
            what.append([how, [part.content for part in self.blurs.parts()]])
        return digest(what)


_TAKEN = frozenset((*PROVENANCE, *OF_VERDICTS, "file_name", "image"))


def _written_formats(formats: pa.Array, faces: pa.Array) -> pa.Array:
    """The format that each picture is written in."""
    changed = [
        boxes and form not in KEPT_FORMATS for form, boxes in zip(formats.to_pylist(), faces.to_pylist(), strict=True)
    ]
    return pa.array(
        ["PNG" if one else form for one, form in zip(changed, formats.to_pylist(), strict=True)], pa.string()
    )


def described(images: Images, rows: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    """What is told of each row of a batch: provenance and own columns, each of one type, JSON-ready."""
    columns = {name: rows[name] for name in images.columns} | images.own_values(rows)
    yield from pa.table(columns).to_pylist()
