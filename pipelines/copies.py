"""Listing, inspection and deduplication: how every recipe begins."""

from dataclasses import asdict
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import Field, field_validator, model_validator

from curate.config import Settings, absolute_path
from curate.decisions import FILE, Decision, parse_decisions, read_bytes
from curate.engine.pipeline import Pipeline, Ref
from curate.engine.store import Store
from curate.models.backbones.load import describe, weights_for_plan
from curate.models.thresholds import (
    COPY_THRESHOLDS,
    STRONG_HASH,
    VERIFICATION,
    CopyRule,
    VerifiedRule,
    unverified,
    verification,
    verified,
)
from curate.pipelines.picture_scores import choose_faces, look_closer
from curate.pipelines.screening import Screening, score_pool
from curate.pipelines.search import GroundTruth, find_pairs
from curate.pipelines.table_scores import KnownEmbeddings
from curate.recipe import RecipeConfig
from curate.sources.vector_files import OwnEmbeddings
from curate.stages.copies.calibrate import CalibrateCopies
from curate.stages.copies.choose_images import ChooseImages
from curate.stages.copies.contamination import FindContaminated
from curate.stages.copies.deduplicate import Deduplicate
from curate.stages.copies.doubt_crowds import DoubtCrowds
from curate.stages.copies.exact import FindExact
from curate.stages.copies.extract_features import ExtractFeatures
from curate.stages.copies.find_candidates import FindCandidates
from curate.stages.copies.find_crowds import FindCrowds
from curate.stages.copies.fit_copy_space import FitCopySpace
from curate.stages.copies.judge_pairs import JudgePairs
from curate.stages.copies.keep_near import KeepNear
from curate.stages.copies.measure_crowds import MeasureCrowds
from curate.stages.copies.plant import PlantCopies
from curate.stages.copies.project_copies import ProjectCopies
from curate.stages.copies.register_pairs import RegisterPairs
from curate.stages.copies.resolve_decisions import ResolveDecisions
from curate.stages.copies.search_planted import SearchPlanted
from curate.stages.images.catalog import Catalog
from curate.stages.images.embed import Embed
from curate.stages.images.inspect import Inspect
from curate.stages.images.listed import RowsPerPart
from curate.stages.images.pictures import PictureStage
from curate.stages.search.build_lists import BuildLists
from curate.stages.search.find_truth import FindTruth
from curate.stages.search.fit_lists import FitLists
from curate.stages.search.neighbors import FindNeighbors
from curate.stages.search.sample_queries import SampleQueries
from curate.stages.selection.count_origins import CountOrigins
from curate.stages.selection.draw_map import DrawMap
from curate.stages.selection.find_columns import FindColumns
from curate.stages.selection.list_rows import TABLE as SHARD_LISTS
from curate.stages.selection.list_rows import ListShardRows
from curate.stages.selection.select import Select
from curate.stages.selection.write_shards import WriteShards

DECISIONS = "internal/decisions"
"""The table of what a person decided."""

Cosine = Annotated[float, Field(ge=-1, le=1)]


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
    threshold: Literal["known", "auto"] | Cosine = "known"
    """Cosine of the copy embedding from which on a pair of pool and curated images may count, -1..1. Where pairs are
    verified, those below the model's strict cosine count only if one picture can be laid over the other; a number above
    that cosine is stricter still. known: the values that belong to the model. auto: they are measured on copies planted
    in this pool, which works for any model."""
    heldout_threshold: Cosine | None = None
    """The same for a pair with a held-out image; null: the model's own value, or, where `threshold` is a number that is
    looser, as far below that as the model's values are apart. So it is never stricter than the pool's."""
    calibration: Calibration = Calibration()
    """How `threshold: auto` measures."""
    neighbors: FindNeighbors = FindNeighbors()
    """The search by the embedding; `threshold` says from which cosine on."""
    verify: bool | Literal["auto"] = "auto"
    """Whether pairs of doubtful cosine count only where one picture can be laid over the other; auto: where it is
    known, or measured, which pairs of the model are doubtful."""
    candidates: FindCandidates = FindCandidates()
    """How many pairs of an image are laid over each other at most."""
    features: ExtractFeatures = ExtractFeatures()
    """How the points are found by which one picture is laid over another."""
    registration: RegisterPairs = RegisterPairs()
    """How pairs are laid over each other."""
    judge: JudgePairs = JudgePairs()
    """How well two pictures must agree, and in crowds stand out."""
    borders: bool = True
    """Whether a picture within a border of one color is looked up without it too."""
    hashes: bool = True
    """Whether to join by PDQ hashes too: of the image and of its mirrored and turned copies."""
    hash_neighbors: FindNeighbors = FindNeighbors()
    """The search by the hashes, whose similarity is 1 - 2 * Hamming / 256."""

    crowds: Literal["judge", "trust"] = "judge"
    """How pairs count among pictures that look alike (pages, forms, frames of one camera). judge: a pair by embedding
    must stand out of what both images resemble, and hashes differ in at most 31 bits; trust: as anywhere else."""
    find_crowds: FindCrowds = FindCrowds()
    """Which images look alike."""
    deduplicate: Deduplicate = Deduplicate()
    """What follows from the pairs: how chains of pairs are split."""
    frames: Literal["copies", "keep-every"] = "copies"
    """What stays of a burst: many images of one subject that hang together, such as frames of a video. copies: one, as
    of any copies; keep-every: of more than `keep_every` images the first, every `keep_every`-th after it in the order
    of the catalog (a source by its paths), and the one that would stay alone."""
    keep_every: Annotated[int, Field(ge=2)] = 10
    """With frames=keep-every: of so many images of a burst one stays; equal bytes count once."""

    @model_validator(mode="after")
    def _one_way_to_judge(self) -> Self:
        if self.threshold == "auto" and self.verify is False:
            raise ValueError("threshold=auto measures how pairs are verified; set verify=auto, or threshold=known")
        if self.threshold == "auto" and self.heldout_threshold is not None:
            raise ValueError(
                f"threshold=auto measures the thresholds; leave heldout_threshold={self.heldout_threshold:g} out, or "
                "set threshold=known or a number"
            )
        return self

    @model_validator(mode="after")
    def _one_place_for_thresholds(self) -> Self:
        stages = (("neighbors", "threshold", "heldout_threshold"), ("judge", "least_cosine", "heldout_least_cosine"))
        for group, *names in stages:
            for name, instead in zip(names, ("threshold", "heldout_threshold"), strict=True):
                given = getattr(getattr(self, group), name)
                if given is not None:
                    raise ValueError(
                        f"{group}.{name}={given:g}: set copies.{instead}={given:g} instead: from which similarity on "
                        "pairs count (copies.verify=false counts them without verification)"
                    )
        return self

    @model_validator(mode="after")
    def _one_place_for_frames(self) -> Self:
        if self.deduplicate.keep_every is not None:
            every = self.deduplicate.keep_every
            raise ValueError(f"deduplicate.keep_every={every}: set frames=keep-every and keep_every={every} instead")
        return self

    @model_validator(mode="after")
    def _one_place_for_lists(self) -> Self:
        for name in ("neighbors", "hash_neighbors"):
            if getattr(self, name).lists != BuildLists():
                raise ValueError(f"{name}.lists: set build_lists instead, which both searches go by")
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
        declared = self.declared
        known = self.embed.model in VERIFICATION or (declared is not None and declared.verification is not None)
        return known or self.threshold == "auto"

    @property
    def declared(self) -> CopyRule | None:
        """What the file of the model declares; None: nothing, or it is a model whose values are known here."""
        if self.embed.model in COPY_THRESHOLDS:
            return None
        return describe(self.embed.model, weights_for_plan(self.embed.model, self.embed.weights)).copies

    @property
    def given(self) -> tuple[float | None, float | None]:
        """The numbers that the config gives, for pairs of the pool and for those with held-out images; null: none."""
        return (None if isinstance(self.threshold, str) else self.threshold), self.heldout_threshold

    def unverified_search(self) -> FindNeighbors:
        """The search where thresholds alone decide: from the given cosines on, else from those of the model."""
        known = COPY_THRESHOLDS.get(self.embed.model) if self.declared is None else self.declared.thresholds
        found = unverified(*self.given, known=known)
        if found is None:  # the search says that the model has none
            return self.neighbors.model_copy(update={"heldout_threshold": self.heldout_threshold})
        return self.neighbors.model_copy(update=asdict(found))

    def rule(self) -> VerifiedRule:
        """Which pairs are verified, and which count, where that is not measured."""
        return verified(*self.given, known=verification(self.embed.model, declared=self.declared))


class CurationConfig(RecipeConfig):
    """What the configs of all recipes share: how a run begins, and how it ends."""

    rows_per_part: RowsPerPart = "auto"
    """Images of a part at most: the unit of work and of resume. auto: about a 16th to a 32nd of what is listed first,
    256 to 65,536 (of Parquet files 2,048 or more); a rescan keeps it."""
    inspect: Inspect = Inspect()
    """Which images are rejected."""
    copies: Copies
    """How copies are found."""
    screen: Screening | None = None
    """What must not be in the result at all: scores of the images, and rules on them; null: no image is screened."""
    decisions: str | None = "auto"
    """What a person decided about images: path or URL of a CSV file with the columns image, decision (keep, drop,
    represent, not-copies), other and note. auto: `decisions.csv` of the workdir, where it exists; null: nothing."""
    select: Select = Select()
    """Which of the images that are left enter the result."""
    map: DrawMap | None = DrawMap()
    """How many images the map of the report has, and how they are laid out; null: there is no map."""
    write: WriteShards | None = WriteShards()
    """How the result is written as shards; null: the run ends with the selection."""

    @property
    def backbone(self) -> Embed | OwnEmbeddings | None:
        """What embeds the images that deduplication leaves, which scores mean by `ssl`; None: nothing does."""
        return None

    @field_validator("decisions")
    @classmethod
    def _absolute_decisions(cls, decisions: str | None) -> str | None:
        return decisions if decisions in (None, "auto") else absolute_path(str(decisions))

    def read_decisions(self, workdir: Store) -> list[Decision]:
        """The lines of the file, those that later ones replace among them.

        Raises:
            ConfigError: a file that is named is not there, or what is there is no such file.
        """
        if self.decisions is None:
            return []
        automatic = self.decisions == "auto"
        where = workdir.find(FILE) if automatic else self.decisions
        data = workdir.read_bytes(FILE) if automatic else read_bytes(where)
        if data is None and not automatic:
            raise self.field_error("decisions", f"={where}: no such file; give a CSV file, or leave it at auto")
        return [] if data is None else parse_decisions(data, where=where)


class Deduplicated(NamedTuple):
    """The tables that every recipe starts from."""

    catalog: Ref
    images: Ref
    embeddings: Ref
    """Copy embeddings."""
    neighbors: list[Ref]
    """Pairs of copies."""
    contaminated: Ref
    duplicates: Ref
    decided: Ref | None
    """What a person decided; None: nothing."""
    scores: Ref | None
    """What rules reject; None: no image is screened."""
    blurs: Ref | None
    """Faces that are blurred where a picture is written; None: none are."""

    @property
    def selectable(self) -> dict[str, Ref]:
        """What `Select` reads of them."""
        names = ("catalog", "images", "contaminated", "duplicates", "decided", "scores")
        return {name: getattr(self, name) for name in names}


def deduplicate_pool(p: Pipeline, cfg: CurationConfig) -> Deduplicated:
    """List, read every image once, and judge copies within the pool and of held-out images."""
    copies = cfg.copies
    catalog = p.add("catalog", Catalog(sources=cfg.sources, rows_per_part=cfg.rows_per_part))
    stages: dict[str, PictureStage] = {"images": cfg.inspect, "embeddings/copy": copies.embed}
    if copies.borders:
        within_border = copies.embed.model_copy(update={"view": "within_border"})
        stages["internal/embeddings/within_border"] = within_border
    num_vectors = len(stages) - 1
    known = KnownEmbeddings(copies.embed, cfg.backbone, cfg.inspect.decode_side)
    if cfg.screen is not None:
        stages |= cfg.screen.picture_stages(decode_side=cfg.inspect.decode_side)
        stages |= cfg.screen.needed_of_pictures(known, p.recorded)
    made = dict(zip(stages, p.add_pass(stages, catalog=catalog), strict=True))
    images, *vectors = list(made.values())[: 1 + num_vectors]
    views = dict(zip(("embeddings", "within"), vectors, strict=False))
    scores, blurs = _screened(p, cfg, known, made, catalog=catalog, images=images)  # soon, to tell of a wrong `where`
    thresholds = None
    if copies.threshold == "auto":
        views, thresholds = _calibrated(p, copies, views, catalog=catalog, images=images)

    find = copies.neighbors
    if thresholds is None and copies.verifies:
        find = find.model_copy(update=asdict(copies.rule().search))
    elif thresholds is None:
        find = copies.unverified_search()
    into = "internal/candidates/near" if copies.verifies else None
    near = _search(p, copies, "copy", find, catalog=catalog, into=into, thresholds=thresholds, **views)
    hashes = []
    if copies.hashes:
        hashes.append(_search(p, copies, "pdq", copies.hash_neighbors, catalog=catalog, hashes=images))
    exact = p.add("internal/exact", FindExact(), images=images, catalog=catalog)
    crowds = None
    if copies.crowds == "judge":
        find_crowds = copies.find_crowds
        if copies.verifies and thresholds is None and find_crowds.alike is None:
            alike = verification(copies.embed.model, declared=copies.declared).alike
            find_crowds = find_crowds.model_copy(update={"alike": alike})
        evidence = {"near": [near], "strong": [*hashes, exact], "thresholds": thresholds}
        crowds = p.add("internal/crowds", find_crowds, catalog=catalog, **evidence)
    pairs = [near]
    if copies.verifies:
        pairs = _verified(p, copies, near, crowds, thresholds=thresholds, catalog=catalog, images=images)
    elif crowds is not None:
        pairs = [p.add("internal/trusted/copy", DoubtCrowds(), neighbors=near, crowds=crowds, catalog=catalog)]
    pairs += [_trusted_hashes(p, copies, found, crowds, catalog=catalog) for found in hashes]
    pairs.append(exact)
    decided = _decided(p, cfg, catalog=catalog, images=images, exact=exact)
    given: dict[str, Ref | list[Ref] | None] = {"neighbors": pairs, "catalog": catalog, "decided": decided}
    contaminated = p.add("internal/contaminated", FindContaminated(), **given)
    duplicates = p.add("duplicates", copies.judges, **given, images=images, contaminated=contaminated, scores=scores)
    return Deduplicated(catalog, images, vectors[0], pairs, contaminated, duplicates, decided, scores, blurs)


def _screened(
    p: Pipeline,
    cfg: CurationConfig,
    known: KnownEmbeddings,
    made: dict[str, Ref],
    *,
    catalog: Ref,
    images: Ref,
) -> tuple[Ref | None, Ref | None]:
    """What rules reject, and the faces that are blurred; None where the config asks for none of it."""
    if cfg.screen is None:
        return None, None
    given = {"catalog": catalog, "images": images}
    made = made | look_closer(p, cfg.screen, decode_side=cfg.inspect.decode_side, **given)
    return score_pool(p, cfg.screen, known, made=made, **given), choose_faces(p, cfg.screen, made)


def _decided(p: Pipeline, cfg: CurationConfig, **given: Ref) -> Ref | None:
    """Which images a person decided about. A run without decisions has no such table.

    Of a run that is looked at it is asked what that run read: a line that was added since is for the next one, and
    until then the tables that are there are right.
    """
    if p.recorded is not None:
        return p.add(DECISIONS, ResolveDecisions(), **given) if DECISIONS in p.recorded else None
    lines = cfg.read_decisions(p.store)
    return p.add(DECISIONS, ResolveDecisions(given=tuple(lines)), **given) if lines else None


def draw_map(
    p: Pipeline,
    draw: DrawMap | None,
    pool: Deduplicated,
    *,
    embeddings: Ref,
    selection: Ref | None,
    assignments: Ref | None = None,
) -> None:
    """The map of the report: of the images that were embedded last."""
    if draw is not None:
        told = {"duplicates": pool.duplicates, "assignments": assignments, "selection": selection}
        p.add("internal/map", draw, embeddings=embeddings, catalog=pool.catalog, **told)


def write_shards(
    p: Pipeline, write: WriteShards, *, selection: Ref, catalog: Ref, images: Ref, blurs: Ref | None = None
) -> Ref:
    """The selected images as shards, once it is known which columns these have; then what is to be told of them."""
    given = {"selection": selection, "catalog": catalog, "images": images}
    own_columns = p.add("internal/own_columns", FindColumns(), **given)
    shards = p.add("shards/data", write, own_columns=own_columns, **given, blurs=blurs)
    if write.publish is not None:
        rows = p.add(SHARD_LISTS, ListShardRows(), shards=shards)
        p.add("internal/origins", CountOrigins(), shards=shards, rows=rows)
    return shards


def _trusted_hashes(p: Pipeline, copies: Copies, found: Ref, crowds: Ref | None, *, catalog: Ref) -> Ref:
    """The pairs by hash that count: where others are verified, only near ones need no verification."""
    if crowds is None and not copies.verifies:
        return found
    doubt = DoubtCrowds()
    if copies.verifies and copies.hash_neighbors.threshold is None:
        doubt = DoubtCrowds(threshold=STRONG_HASH)
    return p.add("internal/trusted/pdq", doubt, neighbors=found, crowds=crowds, catalog=catalog)


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
        build=copies.build_lists if copies.borders else copies.build_lists.model_copy(update={"borders": False}),
        find=find,
        measured_by=GroundTruth(copies.sample, FindTruth(threshold=find.threshold)),
        thresholds=thresholds,
        catalog=catalog,
        into=into,
        **vectors,
    )


def _verified(
    p: Pipeline,
    copies: Copies,
    near: Ref,
    crowds: Ref | None,
    *,
    thresholds: Ref | None,
    catalog: Ref,
    images: Ref,
) -> list[Ref]:
    """Pairs of a strict cosine, and those that agree when one picture is laid over the other."""
    strict: dict[str, float] = {}
    tried: dict[str, float] = {}
    judge = copies.judge
    if thresholds is None:
        rule = copies.rule()
        strict = asdict(rule.certain)
        tried = {"threshold": rule.sure, "heldout_threshold": rule.sure}
        tried["floor"] = rule.floor.threshold
        if rule.floor.heldout_threshold != rule.floor.threshold:
            tried["heldout_floor"] = rule.floor.heldout_threshold
        judge = judge.model_copy(update={"least_cosine": rule.least, "heldout_least_cosine": rule.heldout_least})
    given = {"neighbors": near, "crowds": crowds, "thresholds": thresholds, "catalog": catalog}
    certain = p.add("internal/neighbors/copy", KeepNear(**strict), **given)
    doubtful = p.add("internal/candidates/pairs", copies.candidates.model_copy(update=tried), **given)
    registered = _registered(p, copies, "copy", doubtful, catalog=catalog, images=images)
    around = None
    if crowds is not None:
        around = p.add("internal/surroundings", MeasureCrowds(), registered=registered, crowds=crowds, catalog=catalog)
    judged = p.add(
        "internal/neighbors/aligned",
        judge,
        registered=registered,
        crowds=crowds,
        surroundings=around,
        thresholds=thresholds,
        catalog=catalog,
    )
    return [certain, judged]


def _registered(p: Pipeline, copies: Copies, name: str, pairs: Ref, *, catalog: Ref, images: Ref) -> Ref:
    """Candidates, one picture laid over the other."""
    chosen = p.add(f"internal/chosen/{name}", ChooseImages(), candidates=pairs, catalog=catalog)
    opened = {"catalog": catalog, "images": images, "chosen": chosen}
    (features,) = p.add_pass({f"internal/features/{name}": copies.features}, **opened)
    given = {"candidates": pairs, "features": features, "catalog": catalog}
    return p.add(f"internal/registered/{name}", copies.registration, **given)


def _calibrated(
    p: Pipeline, copies: Copies, views: dict[str, Ref], *, catalog: Ref, images: Ref
) -> tuple[dict[str, Ref], Ref]:
    """The vectors to search, and the rule that planted copies measure in them."""
    how = copies.calibration
    planted = p.add(
        "internal/planted/copy", how.plant.model_copy(update={"embed": copies.embed}), catalog=catalog, images=images
    )
    space = None
    if how.fit_space:
        given = {"embeddings": views["embeddings"], "planted": planted, "catalog": catalog}
        space = p.add("internal/space/copy", how.space, **given)
        project = ProjectCopies(dim=how.space.dim)
        views = {
            name: p.add(f"internal/space/{name}", project, embeddings=vectors, space=space)
            for name, vectors in views.items()
        }
    asking = {"planted": planted, "space": space}
    search = SearchPlanted(device=copies.neighbors.device)
    found = p.add("internal/planted/found", search, catalog=catalog, **asking, **views)
    chosen = p.add("internal/chosen/planted", ChooseImages(), candidates=found, catalog=catalog)
    opened = {"catalog": catalog, "images": images, "chosen": chosen}
    (features,) = p.add_pass({"internal/features/planted": copies.features}, **opened)
    return views, p.add("internal/thresholds/copy", how.thresholds, features=features, found=found, **asking)
