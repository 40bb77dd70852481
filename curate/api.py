"""The Python front door: what the command line calls, as functions. Their names are those of the package `curate`.

A config is the name of a bundled one, a path, or a dict; keyword arguments change it, nested dicts key by key, as
`key=value` does on the command line.
"""

import logging
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from curate import workdir as workdirs
from curate.config import merge, parse, read_yaml
from curate.engine.figures import Figures
from curate.engine.finished import Finished
from curate.engine.freshness import Flags
from curate.engine.store import Store
from curate.engine.table import Table
from curate.errors import CurateError, TableError
from curate.recipe import check_config
from curate.running import run_config
from curate.stages.copies.deduplicate import Deduplicate, DeduplicateFigures
from curate.stages.images.inspect import Inspect, InspectFigures
from curate.stages.screening.screen import Screen, ScreenFigures
from curate.stages.selection.select import Select
from curate.stages.selection.write_shards import WriteShards

if TYPE_CHECKING:
    import pyarrow as pa
    from PIL import Image

    from curate.answers.rows import Wanted
    from curate.answers.write.files import Link
    from curate.answers.write.written import Written
    from curate.models.backbones.embedder import Embedder
    from curate.models.device import PrecisionChoice
    from curate.trainer.train import TrainResult

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Summary:
    """A run in numbers of images of the pool."""

    listed: int
    """Images in the sources of the pool."""
    rejected: dict[str, int]
    """By reason, the most frequent first: images that could not be used, and those that rules reject."""
    unavailable: int
    """Images that a busy server or a broken connection kept away; the next run reads them again."""
    duplicates: int
    """Images kept out as copies of another image."""
    contaminated: int
    """Images kept out since their group of copies touches a held-out image."""
    selected: int | None
    """Images of pool and curated sets that the selection holds; None: the recipe selects nothing."""
    uncompared: int
    """Held-out images that could not be read or decoded, so that copies of them may be in the result."""


class Run:
    """A workdir with its finished tables."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __repr__(self) -> str:
        return f"Run({self.workdir!r})"

    @property
    def workdir(self) -> str:
        """Folder or URL of the run."""
        return self._store.root

    @property
    def finished(self) -> Finished:
        """The finished tables with the stages that made them, as the report reads them."""
        return workdirs.open_tables(self._store)

    @property
    def tables(self) -> Mapping[str, Table]:
        """Finished tables of the current settings by name, in the order in which they were made.

        `tables["duplicates"].to_pandas()` reads one whole; `scan()` reads it part by part, for large ones.
        """
        return {table.name: table for _, table in workdirs.find_tables(self._store).tables}

    @property
    def report(self) -> str:
        """Path of the report, a page to open in a browser."""
        return self._store.join("report/index.html")

    @property
    def shards(self) -> str:
        """Folder of the Parquet shards, which `curate.train` and `datasets.load_dataset` take.

        Raises:
            TableError: the recipe makes none, or they are not finished.
        """
        found = self.finished.only(WriteShards)
        if found is None:
            raise TableError(f"{self.workdir}: its recipe makes no shards, or those of its settings are not finished")
        return self._store.join(found[1].name)

    @property
    def summary(self) -> Summary:
        """The run in numbers."""
        run = self.finished
        inspected, deduplicated = _figures(run, Inspect, InspectFigures), _figures(run, Deduplicate, DeduplicateFigures)
        selected, screened = run.only(Select), _figures(run, Screen, ScreenFigures)
        rejected = inspected.rejected_of("pool") if inspected else Counter[str]()
        return Summary(
            listed=run.parts.num_images(["pool"]),
            rejected=dict((rejected + Counter(screened.rejected.get("pool", {}) if screened else {})).most_common()),
            unavailable=inspected.unavailable.get("pool", 0) if inspected else 0,
            duplicates=deduplicated.duplicate if deduplicated else 0,
            contaminated=deduplicated.benchmark if deduplicated else 0,
            selected=selected[1].num_rows() if selected else None,
            uncompared=sum(inspected.lost["heldout"].reasons.values())
            if inspected and "heldout" in inspected.lost
            else 0,
        )

    def list(
        self, wanted: str = "dropped", *, columns: Sequence[str] | None = None, roles: Sequence[str] | None = None
    ) -> "pa.RecordBatchReader":
        """Images with their verdict, its reason and the image that stays instead: one row an image, as a stream.

        `run.list("dropped").read_pandas()` has all of them in memory; iterating takes a part of the catalog at a time.

        Args:
            wanted: all, kept, dropped, rejected, groups, contaminated or selected.
            columns: names of `curate.tables.LISTED`; None: all.
            roles: images of these; None: of the pool, and of what is selected the curated ones too.

        Raises:
            TableError: the run has no verdicts yet, or no selection where that is asked for.
            CurateError: there is no such column, or `wanted` means nothing.
        """
        import pyarrow as pa

        from curate.answers.rows import list_images, listed_schema

        rows = list_images(self.finished, _wanted(wanted), columns, roles=roles)
        return pa.RecordBatchReader.from_batches(listed_schema(columns), rows)

    def write(
        self,
        output: str | Path,
        *,
        to: str = "folder",
        wanted: str | None = None,
        roles: Sequence[str] | None = None,
        link: "Link | None" = None,
        shard_bytes: int | None = None,
    ) -> "Written":
        """Write images as a data set for other tools; the sources stay as they are.

        Args:
            output: new or empty folder or URL, or one that the same call left unfinished; of `csv` a file.
            to: folder, webdataset, huggingface, csv, coco or fiftyone.
            wanted: all, kept, dropped, rejected, contaminated or selected; None: the selection, or what is kept where
                there is none.
            roles: as of `list`.
            link: symbolic or hard: links to files of this machine instead of copies; for folder, coco and fiftyone.
            shard_bytes: encoded bytes of a shard, for webdataset and huggingface; None: 256 MiB.

        Raises:
            CurateError: the output holds something else, or an option does not fit the format.
        """
        from curate.answers.write.write import SHARD_BYTES, write_images

        chosen = None if wanted is None else _wanted(wanted)
        size = SHARD_BYTES if shard_bytes is None else shard_bytes
        return write_images(self.finished, to, str(output), wanted=chosen, roles=roles, link=link, shard_bytes=size)


def _wanted(word: str) -> "Wanted":
    from curate.answers.rows import Wanted

    try:
        return Wanted(word)
    except ValueError as error:
        raise CurateError(f"wanted={word!r}: say one of {', '.join(Wanted)}") from error


FiguresT = TypeVar("FiguresT", bound=Figures)


def _figures(run: Finished, kind: type[Any], figures: type[FiguresT]) -> FiguresT | None:
    found = run.only(kind)
    return None if found is None else figures.of(found[1])


def run(
    config: str | Path | Mapping[str, Any],
    *,
    rebuild: Sequence[str] = (),
    refit: bool = False,
    rescan: bool = False,
    update: bool = False,
    **changes: Any,
) -> Run:
    """Run a recipe: make every table that is missing, then the report; a killed run goes on where it stopped.

    Args:
        config: name of a bundled config (`dedup`, `hierarchical`, ...), path of a YAML file, or a dict.
        rebuild: tables to make again under the current config; `all` for every one.
        refit: fit centroids and thresholds again.
        rescan: list the sources again, and append new images.
        update: make again what other settings than those of the workdir's run need; the old results stay until the new
            ones are complete.
        changes: keys of the config, such as `workdir="runs/mine", sources={"pool": "photos"}, seed=1`.

    Raises:
        TooManyUnavailable: all tables and the report are made and can be opened (`open_run`), but more images than
            `sources.max_unavailable` could not be had; the same call reads exactly these again.
        CurateError: something else that the caller can act on; the message says what.
    """
    values, where = _given(config)
    parsed = check_config(merge(values, changes), where=where)
    run_config(parsed, Flags(frozenset(rebuild), refit=refit, rescan=rescan, update=update))
    return Run(Store(parsed.workdir))


def open_run(workdir: str | Path) -> Run:
    """A run that was made before.

    Raises:
        WorkdirError: the folder holds none.
    """
    store = Store(workdir)
    workdirs.open_record(store)
    return Run(store)


@dataclass(frozen=True)
class CopyImage:
    """One image of a group of copies."""

    uri: str
    """File that holds it."""
    key: str
    """Its name within the source."""
    kept: bool
    """Whether it stays."""
    similarity: float | None
    """To the image that decided, 0..1; None: it stays."""
    evidence: str | None
    """What showed that it is a copy: sha256, embedding, aligned or hash; None: it stays."""
    _place: Any = field(repr=False, compare=False)

    def picture(self) -> "Image.Image":
        """The picture, decoded, in RGB.

        Raises:
            SourceError: it can no longer be read.
        """
        from curate.stages.images.catalog import read_picture

        return read_picture(self._place)


@dataclass(frozen=True)
class CopyGroup:
    """Images that are copies of one picture, those that stay first: one, or of a burst several."""

    images: tuple[CopyImage, ...]

    @property
    def kept(self) -> CopyImage:
        """The first image that stays."""
        return self.images[0]

    @property
    def copies(self) -> tuple[CopyImage, ...]:
        """The images that go."""
        return tuple(image for image in self.images if not image.kept)


def find_copies(pool: Any, **changes: Any) -> list[CopyGroup]:
    """Groups of copies among images, the largest first; nothing is written but a temporary workdir.

    Args:
        pool: a folder, or whatever `sources.pool` takes.
        changes: keys of the config `dedup`, such as `copies={"threshold": "auto"}`.
    """
    with tempfile.TemporaryDirectory(prefix="curate-") as folder:
        made = run("dedup", **{"sources": {"pool": pool}, "workdir": f"{folder}/run", "write": None} | changes)
        return list(_groups(made.finished))


def _groups(run: Finished) -> Iterator[CopyGroup]:
    found = run.only(Deduplicate)
    assert found is not None
    rows = found[1].read_all().to_pylist()
    members: dict[int, list[dict[str, Any]]] = {}
    for row in (row for row in rows if row["component_size"] > 1):
        members.setdefault(row["component_id"], []).append(row)
    for group in sorted(members.values(), key=lambda rows: (-len(rows), rows[0]["component_id"])):
        ordered = sorted(group, key=lambda row: (row["verdict"] != "kept", -(row["similarity"] or 0), row["image_id"]))
        yield CopyGroup(tuple(_copy(run, row) for row in ordered))


def _copy(run: Finished, row: dict[str, Any]) -> CopyImage:
    place = run.catalog_row(row["image_id"])
    listed = place.to_pylist()[0]
    return CopyImage(listed["uri"], listed["key"], row["verdict"] == "kept", row["similarity"], row["kind"], place)


def load_backbone(
    model: str, *, weights: str | None = None, device: str = "auto", precision: "PrecisionChoice" = "auto"
) -> "Embedder":
    """A frozen backbone that embeds pictures.

    Args:
        model: an id as `curate models` lists them, such as `lite0`, the `.safetensors` file of an export, or an
            ONNX file with its declaration beside it.
        weights: path or https URL of its weights; None: packaged, or from the model hub.
        device: auto, cpu, cuda or cuda:N.
        precision: auto, fp32 or bf16.
    """
    from curate.models.backbones.embedder import load_embedder

    return load_embedder(model, weights=weights, device=device, precision=precision)


def train(config: str | Path | Mapping[str, Any], **changes: Any) -> "TrainResult":
    """Pretrain a backbone on shards; a killed training goes on where it stopped.

    Args:
        config: name of a bundled config (`train/tiny`, ...), path of a YAML file, or a dict; `auto` picks what is not
            given by images and machine.
        changes: keys of the config, such as `shards=run.shards, output="runs/tiny", iterations=100`.
    """
    if config == AUTO:
        return train_auto(merge({}, changes))
    values, where = _given(config)
    return train_values(merge(values, changes), where=where)


def train_values(values: Mapping[str, Any], *, where: str) -> "TrainResult":
    """As `train`, from the values of a config; `where` is what errors call it."""
    from curate.evaluation.in_training import evaluation_for
    from curate.evaluation.settings import split_config
    from curate.trainer.config import TrainConfig
    from curate.trainer.train import train as run_training

    values, evaluation = split_config(values, where=where)
    parsed = parse(TrainConfig, values, where=where)
    return run_training(parsed, evaluate=evaluation_for(evaluation, parsed))


AUTO = "auto"
"""What stands in a config's place where all that is not given is picked."""


def train_auto(values: Mapping[str, Any]) -> "TrainResult":
    """As `train`, with what the values do not say picked by images and machine; the log tells each pick."""
    from curate.evaluation.settings import KEY
    from curate.trainer.parallel import join_world
    from curate.trainer.settling import Settled, record, settle

    plain = {name: value for name, value in values.items() if name != KEY}
    with join_world() as world:

        def decide() -> Settled:
            settled = settle(plain, processes=world.size)
            for line in settled.lines:
                logger.info("auto: %s", line)
            record(settled)
            return settled

        settled = world.broadcast(decide)
        return train_values({**values, **settled.values}, where=AUTO)


def plan_auto(values: Mapping[str, Any], *, processes: int = 1, images: int | None = None) -> list[str]:
    """What `train_auto` would pick and do, in lines for people; nothing is written."""
    from curate.evaluation.settings import KEY
    from curate.trainer.settling import settle

    plain = {name: value for name, value in values.items() if name != KEY}
    settled = settle(plain, processes=processes, images=images)
    return [*settled.lines, *plan_values(settled.values, where=AUTO, processes=processes, images=images)]


def plan_values(values: Mapping[str, Any], *, where: str, processes: int = 1, images: int | None = None) -> list[str]:
    """What a training by the values of a config amounts to, in lines for people; nothing is written."""
    from curate.evaluation.settings import split_config
    from curate.trainer.config import TrainConfig
    from curate.trainer.plan import plan_training

    values, _ = split_config(values, where=where)
    if images is not None:
        values = {"shards": "", "output": "", **values}
    return plan_training(parse(TrainConfig, values, where=where), processes=processes, images=images)


def _given(config: str | Path | Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    """The values of a config, and what errors call it."""
    return (config, "config") if isinstance(config, Mapping) else (read_yaml(config), str(config))
