"""Listing, inspection and deduplication: how every recipe begins."""

from typing import Annotated, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from curate.config import Settings
from curate.engine.pipeline import Pipeline, Ref
from curate.models.thresholds import VERIFICATION, copy_thresholds, verification
from curate.pipelines.search import GroundTruth, find_pairs
from curate.recipe import RecipeConfig
from curate.stages.copies.align_crowds import AlignCrowds
from curate.stages.copies.calibrate import CalibrateCopies
from curate.stages.copies.deduplicate import Deduplicate
from curate.stages.copies.doubt_crowds import DoubtCrowds
from curate.stages.copies.exact import FindExact
from curate.stages.copies.find_candidates import FindCandidates
from curate.stages.copies.find_crowd_pairs import FindCrowdPairs
from curate.stages.copies.find_crowds import FindCrowds
from curate.stages.copies.fit_copy_space import FitCopySpace
from curate.stages.copies.judge_crowds import JudgeCrowds
from curate.stages.copies.keep_near import KeepNear
from curate.stages.copies.measure_crowds import MeasureCrowds
from curate.stages.copies.plant import PlantCopies
from curate.stages.copies.project_copies import ProjectCopies
from curate.stages.copies.verify_copies import VerifyCopies
from curate.stages.images.catalog import Catalog
from curate.stages.images.embed import Embed
from curate.stages.images.inspect import Inspect
from curate.stages.images.pictures import PictureStage
from curate.stages.search.build_lists import BuildLists
from curate.stages.search.find_truth import FindTruth
from curate.stages.search.fit_lists import FitLists
from curate.stages.search.neighbors import FindNeighbors
from curate.stages.search.sample_queries import SampleQueries
from curate.stages.selection.select import Select
from curate.stages.selection.write_shards import WriteShards


class Calibration(Settings):
    """How `threshold: auto` measures: copies are planted on some of the pool's own images."""

    plant: PlantCopies = PlantCopies()
    """On how many images copies are planted, and what is done to them."""
    fit_space: bool = True
    """Whether to fit a space to the planted copies in which copies lie together; a general embedding then works like
    one made for copy detection."""
    space: FitCopySpace = FitCopySpace()
    """How that space is fitted."""
    thresholds: CalibrateCopies = CalibrateCopies()
    """How the thresholds are chosen: the precision to keep."""


class Copies(Settings):
    """How copies are found: a copy-detection embedding, and PDQ hashes beside it."""

    embed: Embed
    """The copy-detection model; `lite0-copy` comes with PyPI alone, `sscd` is the paper's."""
    fit_lists: FitLists = FitLists()
    """How the coarse centroids of the inverted lists are fitted."""
    build_lists: BuildLists = BuildLists()
    """Which lists a vector goes to."""
    sample: SampleQueries = SampleQueries()
    """Images whose neighbors are found by brute force, to choose the number of probes and to measure the recall."""
    threshold: Literal["known", "auto"] = "known"
    """Where thresholds of the embedding come from; known: they belong to its model, or are given in `neighbors`; auto:
    they are measured on copies planted in this pool, which works for any model."""
    calibration: Calibration = Calibration()
    """How `threshold: auto` measures."""
    neighbors: FindNeighbors = FindNeighbors()
    """The search by the embedding; its thresholds are by default those known for the model."""
    verify: bool | Literal["auto"] = "auto"
    """Whether pairs of doubtful cosine are aligned, one picture laid over the other, before they count; auto: where
    the values for the model are known and `neighbors` gives no threshold of its own."""
    verification: VerifyCopies = VerifyCopies()
    """Which pairs of doubtful cosine count; by default as known for the model."""
    hashes: bool = True
    """Whether to join by PDQ hashes too: of the image and of its mirrored and turned copies."""
    hash_neighbors: FindNeighbors = FindNeighbors()
    """The search by the hashes, whose similarity is 1 - 2 * Hamming / 256."""

    crowds: Literal["judge", "trust"] = "judge"
    """How pairs count among pictures that look alike (pages, forms, frames of one camera). judge: a pair by embedding
    must stand out of what both images resemble, and hashes differ in at most 31 bits; trust: as anywhere else."""
    find_crowds: FindCrowds = FindCrowds()
    """Which images look alike."""
    crowd_pairs: FindCrowdPairs = FindCrowdPairs()
    """How many pairs of such an image are aligned at most."""
    judge_crowds: JudgeCrowds = JudgeCrowds()
    """How far a pair must stand out; the least scores are those of `verification`."""
    deduplicate: Deduplicate = Deduplicate()
    """What follows from the pairs: how chains of pairs are split."""
    frames: Literal["copies", "keep-every"] = "copies"
    """What stays of a burst: many images of one subject that hang together, such as frames of a video. copies: one, as
    of any copies; keep-every: of more than `keep_every` images the first, every so-manieth after it in the order of the
    catalog (a source by its paths), and the one that would stay alone."""
    keep_every: Annotated[int, Field(ge=2)] = 10
    """With frames=keep-every: of so many images of a burst one stays; equal bytes count once."""

    @model_validator(mode="after")
    def _one_way_to_judge(self) -> Self:
        if self.threshold == "auto" and self.verify is True:
            raise ValueError("threshold=auto measures thresholds of the embedding alone; set verify=auto or false")
        return self

    @model_validator(mode="after")
    def _one_place_for_frames(self) -> Self:
        if self.deduplicate.keep_every is not None:
            every = self.deduplicate.keep_every
            raise ValueError(f"deduplicate.keep_every={every}: set frames=keep-every and keep_every={every} instead")
        return self

    @property
    def judges(self) -> Deduplicate:
        """The stage that follows from the pairs."""
        every = self.keep_every if self.frames == "keep-every" else None
        return self.deduplicate.model_copy(update={"keep_every": every})

    @property
    def verifies(self) -> bool:
        """Whether doubtful pairs are verified."""
        if self.verify != "auto":
            return self.verify
        if self.threshold == "auto":
            return False
        given = (self.neighbors.threshold, self.neighbors.heldout_threshold)
        return self.embed.model in VERIFICATION and given == (None, None)


class CurationConfig(RecipeConfig):
    """What the configs of all recipes share: how a run begins, and how it ends."""

    rows_per_part: Annotated[int, Field(ge=1)] = 65_536
    """Images of a part at most: the unit of work and of resume."""
    inspect: Inspect = Inspect()
    """Which images are rejected."""
    copies: Copies
    """How copies are found."""
    select: Select = Select()
    """Which of the images that are left enter the result."""
    write: WriteShards | None = WriteShards()
    """How the result is written as shards; null: the run ends with the selection."""


class Deduplicated(NamedTuple):
    """The tables that every recipe starts from, by the names of the inputs of `Select`."""

    catalog: Ref
    images: Ref
    neighbors: list[Ref]
    duplicates: Ref


def deduplicate_pool(p: Pipeline, cfg: CurationConfig) -> Deduplicated:
    """List, read every image once, and judge copies within the pool and of held-out images."""
    copies = cfg.copies
    catalog = p.add("catalog", Catalog(sources=cfg.sources, rows_per_part=cfg.rows_per_part))
    stages: dict[str, PictureStage] = {"images": cfg.inspect, "embeddings/copy": copies.embed}
    if copies.verifies or copies.threshold == "auto":
        stages["internal/embeddings/luma"] = Embed(model="luma24", device=copies.embed.device)
    images, vectors, *pictures = p.add_pass(stages, catalog=catalog)

    near, hashes = _near(p, copies, vectors, catalog=catalog, images=images, pictures=pictures), []
    if copies.hashes:
        hashes.append(_search(p, copies, "pdq", copies.hash_neighbors, catalog=catalog, hashes=images))
    exact = p.add("internal/exact", FindExact(), images=images, catalog=catalog)
    pairs, crowds = [near], None
    if copies.crowds == "judge":
        crowds = p.add("internal/crowds", copies.find_crowds, catalog=catalog, near=[near], strong=[*hashes, exact])
    if copies.verifies:
        pairs = _verified(p, copies, near, crowds, catalog=catalog, pictures=pictures[0])
    elif crowds is not None:
        pairs = [p.add("internal/trusted/copy", DoubtCrowds(), neighbors=near, crowds=crowds)]
    if crowds is not None:
        hashes = [p.add("internal/trusted/pdq", DoubtCrowds(), neighbors=found, crowds=crowds) for found in hashes]
    pairs += [*hashes, exact]
    duplicates = p.add("duplicates", copies.judges, catalog=catalog, images=images, neighbors=pairs)
    return Deduplicated(catalog, images, pairs, duplicates)


def _near(p: Pipeline, copies: Copies, vectors: Ref, *, catalog: Ref, images: Ref, pictures: list[Ref]) -> Ref:
    """Pairs by embedding: of a loose cosine where they are to be verified, else by thresholds, measured or known."""
    if copies.verifies:
        floor = verification(copies.embed.model).floor
        loose = copies.neighbors.model_copy(update={"threshold": floor, "heldout_threshold": floor})
        return _search(p, copies, "copy", loose, catalog=catalog, into="internal/candidates/near", embeddings=vectors)
    thresholds = None
    if copies.threshold == "auto":
        vectors, thresholds = _calibrated(p, copies, vectors, catalog=catalog, images=images, pictures=pictures[0])
    return _search(p, copies, "copy", copies.neighbors, thresholds=thresholds, catalog=catalog, embeddings=vectors)


def _search(
    p: Pipeline,
    copies: Copies,
    name: str,
    find: FindNeighbors,
    *,
    catalog: Ref,
    thresholds: Ref | None = None,
    into: str | None = None,
    **vectors: Ref,
) -> Ref:
    """Pairs of a search for copies, its recall measured from the search's own threshold on."""
    return find_pairs(
        p,
        name,
        fit=copies.fit_lists,
        build=copies.build_lists,
        find=find,
        measured_by=GroundTruth(copies.sample, FindTruth(threshold=find.threshold)),
        thresholds=thresholds,
        catalog=catalog,
        into=into,
        **vectors,
    )


def _verified(p: Pipeline, copies: Copies, near: Ref, crowds: Ref | None, *, catalog: Ref, pictures: Ref) -> list[Ref]:
    """Pairs of a strict cosine, those that can be laid over each other, and in crowds those that stand out."""
    model = copies.embed.model
    limits = copy_thresholds(model)
    strict = {"threshold": limits.threshold, "heldout_threshold": limits.heldout_threshold}
    given = {"neighbors": near, "crowds": crowds, "catalog": catalog}
    sure = p.add("internal/neighbors/copy", KeepNear(**strict), **given)
    doubtful = p.add("internal/candidates/pairs", FindCandidates(**strict), pictures=pictures, **given)
    verify = copies.verification.model_copy(update={"model": model})
    aligned = p.add("internal/neighbors/aligned", verify, candidates=doubtful, pictures=pictures, catalog=catalog)
    if crowds is None:
        return [sure, aligned]
    return [sure, aligned, _standing_out(p, copies, near, crowds, catalog=catalog, pictures=pictures)]


def _standing_out(p: Pipeline, copies: Copies, near: Ref, crowds: Ref, *, catalog: Ref, pictures: Ref) -> Ref:
    """Pairs of images in crowds that stand out."""
    given = {"neighbors": near, "crowds": crowds, "pictures": pictures, "catalog": catalog}
    offered = p.add("internal/candidates/crowds", copies.crowd_pairs, **given)
    align = AlignCrowds(device=copies.verification.device)
    aligned = p.add("internal/aligned/crowds", align, candidates=offered, pictures=pictures, catalog=catalog)
    around = p.add("internal/surroundings", MeasureCrowds(), aligned=aligned, crowds=crowds, catalog=catalog)
    known = {name: getattr(copies.verification, name) for name in ("threshold", "heldout_threshold", "weight")}
    judge = copies.judge_crowds.model_copy(update={**known, "model": copies.embed.model})
    return p.add("internal/neighbors/crowds", judge, aligned=aligned, surroundings=around, catalog=catalog)


def _calibrated(
    p: Pipeline, copies: Copies, vectors: Ref, *, catalog: Ref, images: Ref, pictures: Ref
) -> tuple[Ref, Ref]:
    """The vectors to search, and the thresholds that planted copies measure in them."""
    how = copies.calibration
    plant = how.plant.model_copy(update={"embed": copies.embed})
    planted = p.add("internal/planted/copy", plant, catalog=catalog, images=images)
    space = None
    if how.fit_space:
        space = p.add("internal/space/copy", how.space, embeddings=vectors, planted=planted, catalog=catalog)
        project = ProjectCopies(dim=how.space.dim)
        vectors = p.add("internal/embeddings/space", project, embeddings=vectors, space=space)
    judge = how.thresholds.model_copy(update={"device": copies.neighbors.device})
    given = {"embeddings": vectors, "pictures": pictures, "planted": planted, "space": space, "catalog": catalog}
    return vectors, p.add("internal/thresholds/copy", judge, **given)
