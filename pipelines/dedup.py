"""The quick job on any folder: inspect, embed, remove near-duplicates, write what is left."""

from typing import Literal, NamedTuple, Self

from pydantic import model_validator

from curate.config import Settings
from curate.engine.pipeline import Pipeline, Ref
from curate.engine.stage import Stage
from curate.models.thresholds import VERIFICATION, copy_thresholds, verification
from curate.recipe import RecipeConfig, recipe
from curate.stages.copies.calibrate import CalibrateCopies
from curate.stages.copies.copyspace import FitCopySpace, ProjectCopies
from curate.stages.copies.deduplicate import Deduplicate
from curate.stages.copies.exact import FindExact
from curate.stages.copies.plant import PlantCopies
from curate.stages.copies.verify import FindCandidates, KeepNear, VerifyCopies
from curate.stages.images.catalog import Catalog
from curate.stages.images.embed import Embed
from curate.stages.images.inspect import Inspect
from curate.stages.images.read_images import read_images
from curate.stages.search.lists import BuildLists, FitLists
from curate.stages.search.neighbors import FindNeighbors
from curate.stages.search.truth import FindTruth, SampleQueries
from curate.stages.selection.select import Select
from curate.stages.selection.write_shards import WriteShards


class Calibration(Settings):
    """How `threshold: auto` measures: copies are planted on some of the pool's own images."""

    plant: PlantCopies = PlantCopies()
    """On how many images, and what is done to them."""
    fit_space: bool = True
    """Also fit a space to the planted copies in which copies lie together; a general embedding then works like one
    made for copy detection."""
    space: FitCopySpace = FitCopySpace()
    """That space."""
    thresholds: CalibrateCopies = CalibrateCopies()
    """The precision to keep."""


class Copies(Settings):
    """How copies are found: a copy-detection embedding, and PDQ hashes beside it."""

    embed: Embed
    """The copy-detection model; `lite0-copy` comes with PyPI alone, `sscd` is the paper's."""
    fit_lists: FitLists = FitLists()
    """Coarse centroids of the inverted lists."""
    build_lists: BuildLists = BuildLists()
    """Which lists a vector goes to."""
    sample: SampleQueries = SampleQueries()
    """Images whose neighbours are found by brute force, to choose the probes and to measure the recall."""
    threshold: Literal["known", "auto"] = "known"
    """known: the thresholds of the embedding belong to its model, or are given in `neighbors`. auto: they are measured
    on copies planted in this pool, which works for any model."""
    calibration: Calibration = Calibration()
    """How `threshold: auto` measures."""
    neighbors: FindNeighbors = FindNeighbors()
    """Thresholds of the embedding; by default those known for its model."""
    verify: bool | Literal["auto"] = "auto"
    """Lay pairs of doubtful cosine over each other before they count; auto: where the values for the model are known
    and `neighbors` gives no threshold of its own."""
    verification: VerifyCopies = VerifyCopies()
    """Which pairs of doubtful cosine count; by default as known for the model."""
    hashes: bool = True
    """Also join by PDQ hashes of the image and its mirrored and turned copies."""
    hash_neighbors: FindNeighbors = FindNeighbors()
    """Thresholds of the hashes: 1 - 2 * Hamming / 256."""

    deduplicate: Deduplicate = Deduplicate()
    """What follows from the pairs; a guard against chains."""

    @model_validator(mode="after")
    def _one_way_to_judge(self) -> Self:
        if self.threshold == "auto" and self.verify is True:
            raise ValueError("threshold=auto measures thresholds of the embedding alone; set verify=auto or false")
        return self

    @property
    def verifies(self) -> bool:
        """Whether doubtful pairs are verified."""
        if self.verify != "auto":
            return self.verify
        if self.threshold == "auto":
            return False
        given = (self.neighbors.threshold, self.neighbors.heldout_threshold)
        return self.embed.model in VERIFICATION and given == (None, None)


class Dedup(RecipeConfig):
    """Fields of `recipe: dedup`."""

    rows_per_part: int = 65_536
    """Images of a part: the unit of work and of resume."""
    inspect: Inspect = Inspect()
    """What is rejected."""
    copies: Copies
    """How copies are found."""
    select: Select = Select()
    """What is kept: by default every image without a kept copy."""
    write: WriteShards = WriteShards()
    """The shards."""


class Deduplicated(NamedTuple):
    """Tables that every recipe starts from."""

    catalog: Ref
    images: Ref
    neighbors: list[Ref]
    duplicates: Ref


@recipe("dedup", Dedup)
def dedup(p: Pipeline, cfg: Dedup) -> None:
    """Inspect, embed, deduplicate, select all that is kept, write shards."""
    pool = find_copies(p, cfg, cfg.copies, inspect=cfg.inspect, rows_per_part=cfg.rows_per_part)
    chosen = p.add(
        "selection",
        cfg.select,
        catalog=pool.catalog,
        images=pool.images,
        duplicates=pool.duplicates,
        neighbors=pool.neighbors,
    )
    p.add("shards/data", cfg.write, selection=chosen, catalog=pool.catalog, images=pool.images)


def find_copies(
    p: Pipeline, cfg: RecipeConfig, copies: Copies, *, inspect: Inspect, rows_per_part: int
) -> Deduplicated:
    """List, read every image once, and judge copies within the pool and of held-out images."""
    catalog = p.add("catalog", Catalog(sources=cfg.sources, rows_per_part=rows_per_part))
    stages: dict[str, Stage] = {"images": inspect, "embeddings/copy": copies.embed}
    measured = copies.threshold == "auto"
    if copies.verifies or measured:
        stages["embeddings/luma"] = Embed(model="luma24", device=copies.embed.device)
    images, vectors, *pictures = p.add_pass(read_images, stages, catalog=catalog)

    thresholds = None
    if measured:
        vectors, thresholds = _calibrated(p, copies, vectors, catalog=catalog, images=images, pictures=pictures[0])
    floor = verification(copies.embed.model).floor if copies.verifies else copies.neighbors.threshold
    known = {} if thresholds is None else {"thresholds": thresholds}
    found = _list(p, copies, "copy", floor, known, catalog=catalog, embeddings=vectors)
    if copies.verifies:
        pairs = _verified(p, copies, catalog, found, pictures[0])
    else:
        pairs = [p.add("neighbors/copy", copies.neighbors, catalog=catalog, **found, **known)]
    if copies.hashes:
        found = _list(p, copies, "pdq", copies.hash_neighbors.threshold, {}, catalog=catalog, hashes=images)
        pairs.append(p.add("neighbors/pdq", copies.hash_neighbors, catalog=catalog, **found))

    pairs.append(p.add("exact", FindExact(), images=images, catalog=catalog))
    duplicates = p.add("duplicates", copies.deduplicate, catalog=catalog, images=images, neighbors=pairs)
    return Deduplicated(catalog, images, pairs, duplicates)


def _calibrated(
    p: Pipeline, copies: Copies, vectors: Ref, *, catalog: Ref, images: Ref, pictures: Ref
) -> tuple[Ref, Ref]:
    """The vectors to search, and the thresholds that planted copies measure in them."""
    how = copies.calibration
    planted = p.add(
        "planted/copy", how.plant.model_copy(update={"embed": copies.embed}), catalog=catalog, images=images
    )
    space = None
    if how.fit_space:
        space = p.add("space/copy", how.space, embeddings=vectors, planted=planted, catalog=catalog)
        vectors = p.add("embeddings/space", ProjectCopies(dim=how.space.dim), embeddings=vectors, space=space)
    judge = how.thresholds.model_copy(update={"device": copies.neighbors.device})
    thresholds = p.add(
        "thresholds/copy", judge, embeddings=vectors, pictures=pictures, planted=planted, space=space, catalog=catalog
    )
    return vectors, thresholds


def _list(
    p: Pipeline, copies: Copies, name: str, threshold: float | None, known: dict[str, Ref], **vectors: Ref
) -> dict[str, Ref]:
    """Inverted lists, and a sample of queries whose true neighbours choose the probes and judge the search."""
    centres = p.add(f"centroids/{name}", copies.fit_lists, **vectors)
    queries = p.add(f"queries/{name}", copies.sample, **vectors)
    truth = p.add(f"truth/{name}", FindTruth(threshold=threshold), queries=queries, **known, **vectors)
    sample = {"queries": queries, "truth": truth}
    lists = p.add(f"lists/{name}", copies.build_lists, centroids=centres, **sample, **vectors)
    return {"lists": lists, **sample}


def _verified(p: Pipeline, copies: Copies, catalog: Ref, found: dict[str, Ref], pictures: Ref) -> list[Ref]:
    """Pairs of a strict cosine, and those of a loose one that can be laid over each other."""
    model = copies.embed.model
    floor, limits = verification(model).floor, copy_thresholds(model)
    strict = {"threshold": limits.threshold, "heldout_threshold": limits.heldout_threshold}
    loose = copies.neighbors.model_copy(update={"threshold": floor, "heldout_threshold": floor})
    near = p.add("candidates/near", loose, catalog=catalog, **found)
    sure = p.add("neighbors/copy", KeepNear(**strict), neighbors=near, catalog=catalog)
    doubtful = p.add("candidates/pairs", FindCandidates(**strict), neighbors=near, pictures=pictures, catalog=catalog)
    verify = copies.verification.model_copy(update={"model": model})
    return [sure, p.add("neighbors/aligned", verify, candidates=doubtful, pictures=pictures, catalog=catalog)]
