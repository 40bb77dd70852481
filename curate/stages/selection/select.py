"""Select: the union of the routes by which an image enters the curated set, rebalanced over the clusters.

The selection must fit neither into memory nor into one task. `combine` passes over the parts as often as there are
draws, and keeps one limit a leaf (see `ops/selection/draws.py`); a part's own task then compares its images with the
limits. Keys follow from image id and seed alone, so both passes agree on them without a table of keys.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from curate.config import Execution
from curate.engine.cost import ID_BYTES, PASS_ROWS, Assumptions, Demand, Shape, Shapes, catalog_parts, id_bytes
from curate.engine.demands import by_process, folded, one_process
from curate.engine.figures import Figures
from curate.engine.finished import Finished, ImagePlace, pick
from curate.engine.image_ids import Parts, part_of
from curate.engine.numbers import count, plural, share
from curate.engine.show import LIST_KEPT, LIST_SELECTED, FlowStep, Heading, Numbers, Section, Share, Text, gallery
from curate.engine.stage import Batches, Fold, Input, whole
from curate.engine.table import Table
from curate.engine.tallies import Tally, tally_batch
from curate.ops.selection.draws import Draws, count_groups, draw_smallest
from curate.ops.selection.sampling import cap
from curate.stages.clusters.find_junk import JunkTally
from curate.stages.clusters.leaves import LIMITS, limit_rows, read_limits
from curate.stages.copies.contamination import curated_warning
from curate.stages.copies.deduplicate import Deduplicate
from curate.stages.images.usable import Usable
from curate.stages.selection.balance import AUTO_TARGET, Balance
from curate.stages.selection.choose import Chooser
from curate.stages.selection.cluster_sizes import cluster_sizes, sizes_section
from curate.stages.selection.mix import Mix
from curate.stages.selection.retrieve import Retrieve, RetrieveFigures
from curate.stages.selection.retrieved import curated_sets
from curate.stages.selection.routes import RouteTables
from curate.stages.selection.selection_figures import SelectFigures, SelectTally, selection_figures
from curate.tables import (
    ASSIGNMENTS,
    CATALOG,
    CENTROIDS,
    CONTAMINATED,
    CURATED,
    DECIDED,
    DUPLICATES,
    IMAGES,
    JUNK,
    POOL,
    RETRIEVED,
    SCREENED,
    SELECTION,
)

BY_LEAF = ("balance", "cap")
"""Draws with a group for each leaf; the others have one group."""
DROPPED = "dropped"
"""Purpose of the state's rows that name, in `limit_id`, a curated image to leave out."""
COLUMNS = 6
"""Columns of `selection` as Parquet stores them."""
PASSES = 2
"""Times that one process reads what it draws from: to count, and to collect what is near the limits."""
LIMIT_BYTES = 8
"""Bytes of what was drawn of a leaf."""
KEPT_BYTES = ID_BYTES + 0.1
"""Bytes of a verdict that are read: the image, and the verdict."""
TREE_READS, TREE_BYTES = 2, 6
"""Times that a process reads the tree, and bytes of a node without its centroid."""
ROW_BYTES, PATH_BYTES = 2, 3
"""Bytes of a row of `selection` beside its cluster path and the image that asked for it, and of its cluster path."""
NUM_SELECTED, NUM_PASSED_OVER = 240, 120
"""Random images that the report shows."""
SHARE_NAMES = {
    "retrieval": "resemble the curated sets",
    "balance": "even sample over the clusters",
    "curated": "curated sets",
    "kept": "kept by deduplication",
    "decision": "kept by your decision",
}
"""Shares of the selection in words."""


class Select(Fold):
    """The curated set: retrieved images, a balanced sample, or everything kept, and the curated sources as is.

    Images that a person keeps are added to these, beyond targets, shares and caps; curated ones that he drops are not.

    Memory of `combine`: `max_bytes`, about 60 bytes a leaf, and nothing an image; of `run`: its part and 60 bytes a
    leaf.
    """

    inputs: ClassVar[dict[str, Input]] = {
        "catalog": whole(CATALOG),
        "images": whole(IMAGES),
        "duplicates": whole(DUPLICATES),
        "contaminated": whole(CONTAMINATED),
        "retrieved": whole(RETRIEVED, optional=True),
        "assignments": whole(ASSIGNMENTS, optional=True),
        "centroids": whole(CENTROIDS, optional=True),
        "junk": whole(JUNK, optional=True),
        "decided": whole(DECIDED, optional=True),
        "scores": whole(SCREENED, added=True),
    }
    version: ClassVar[int] = 2
    parts_like: ClassVar[str | None] = "catalog"
    tally: ClassVar[type[Tally] | None] = SelectTally
    explained_as: ClassVar[str] = "selected"
    tells_from: ClassVar[tuple[str, ...]] = ("retrieved",)

    include_curated: bool | tuple[str, ...] = True
    """Whether to add the accepted images of the curated sources: of all, of none, or of those named here."""
    drop_contaminated: bool = False
    """Whether to leave out curated images that resemble a held-out one; their number is reported either way."""
    balance: Balance | None = None
    """Adds a balanced sample of all pool images that are left, junk apart; null: no such route."""
    cap: Annotated[int, Field(ge=1)] | None = None
    """Pool images of a leaf cluster at most, over all routes; null: no cap."""
    mix: Mix | None = None
    """Shares of the routes; null: all that is retrieved, the target of `balance`, and the curated sources whole."""
    seed: int | None = None
    """Seed of every draw; null: the seed of the run."""
    max_bytes: Annotated[int, Field(ge=1), Execution()] = 1 << 30
    """Working memory of the draws in bytes; less means more passes over the assignments."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        wanted = set() if self.mix is None else set(self.mix.sizes())
        by_leaf = {"balance": self.balance, "cap": self.cap, "mix.routes.balance": "balance" in wanted}
        needing = next((field for field, given in by_leaf.items() if given), None)
        if needing and inputs["assignments"] is None:
            raise self.field_error(needing, ": needs clusters; this recipe makes none")
        if "retrieval" in wanted and inputs["retrieved"] is None:
            raise self.field_error("mix.routes.retrieval", ": this recipe retrieves nothing; leave the route out")
        if self.mix is not None:
            self._check_mix(self.mix)
        return SELECTION

    def _check_mix(self, mix: Mix) -> None:
        if self.cap is not None:
            text = f"={self.cap}: cap and mix exclude each other, since a cap would change the shares; drop one"
            raise self.field_error("cap", text)
        if self.balance is not None and (self.balance.target != "auto" or self.balance.max_repeats != 1):
            text = ": with mix, its shares and its max_repeats say how much is drawn; leave out target and max_repeats"
            raise self.field_error("balance", text)
        if "curated" in mix.routes and self.include_curated is False:
            raise self.field_error("mix.routes.curated", ": include_curated is false; leave the route out, or set it")

    def state_schema(self, **inputs: Any) -> pa.Schema:
        return LIMITS

    def resolve(self, previous: Mapping[str, Any] | None = None, **inputs: Any) -> Self:
        parts = Parts.of(inputs["catalog"])
        self._check_names(parts)
        if self.balance is None and self.cap is None:
            return self
        left = sum(part.rows for part in inputs["assignments"].parts() if parts.role[part.number] == POOL)
        if self.cap is not None and self.cap > left:
            text = f"={self.cap}: {left} pool images are left; set it to {left} or less, or leave it out"
            raise self.field_error("cap", text)
        if self.balance is None or self.mix is not None:
            return self
        junk = 0 if inputs["junk"] is None else JunkTally.of(inputs["junk"]).junk
        left -= junk
        most = left * self.balance.max_repeats
        if self.balance.target == "auto":
            return self.model_copy(update=self.estimate(left))
        if self.balance.target > most:
            raise self.balance.field_error(
                "target",
                f"={self.balance.target}: {left} pool images are left{_without(junk)}, with max_repeats="
                f"{self.balance.max_repeats} at most {most} can be drawn; set it to {most} or less, or to auto",
            )
        return self

    def _check_names(self, parts: Parts) -> None:
        known = set(curated_sets(parts))
        unknown = set() if isinstance(self.include_curated, bool) else set(self.include_curated) - known
        if unknown:
            text = f": {min(unknown)!r} is no curated source; they are {sorted(known)}"
            raise self.field_error("include_curated", text)

    def estimate(self, num_images: int) -> dict[str, Any]:
        if self.balance is None or self.balance.target != "auto" or self.mix is not None:
            return {}
        return {"balance": self.balance.model_copy(update={"target": max(1, int(num_images * AUTO_TARGET))})}

    # -- what is drawn ---------------------------------------------------------------------------------------

    def combine(self, partials: Table | None, **tables: Any) -> Batches:
        dropped = self._dropped(tables)
        yield _dropped_rows(dropped)
        limits: dict[str, Draws] = {}
        chooser = self._chooser(tables, dropped, limits)  # sees every draw as soon as it is made
        for purpose in self._purposes():
            limits[purpose] = self._draw(purpose, chooser)
            yield limit_rows(purpose, limits[purpose])

    def _dropped(self, tables: dict[str, Any]) -> np.ndarray:
        """(M,) int64, ascending: curated images to leave out."""
        given = self._tables(tables)
        by, found = given.decided, [np.empty(0, np.int64)]
        for part in given.parts.numbers(CURATED) if self.drop_contaminated else ():
            touching = np.intersect1d(given.accepted(part), given.touching(part))
            found.append(np.setdiff1d(touching, by.keep))
        found += [given.listed(part) for part in given.parts.numbers(CURATED)]
        return np.union1d(np.concatenate(found), by.drop[given.parts.role_of(by.drop) == CURATED])

    def _purposes(self) -> list[str]:
        """The draws, each after those that it depends on."""
        if self.mix is not None:
            return [route for route in ("curated", "retrieval", "balance") if route in self.mix.routes]
        return [*(["balance"] if self.balance else []), *(["cap"] if self.cap else [])]

    def _draw(self, purpose: str, chooser: Chooser) -> Draws:
        streams = {"curated": chooser.curated, "retrieval": chooser.retrieved}
        streams |= {"balance": chooser.balanced, "cap": chooser.capped}
        leaves, parents = chooser.given.tree()
        sizes = count_groups(streams[purpose], leaves if purpose in BY_LEAF else 1)
        if self.mix is not None:
            self.mix.check(purpose, int(sizes.sum()))
        if purpose == "cap":
            draws = cap(sizes, self.cap or 0)
        elif purpose == "balance":
            draws = self._balance.draws(sizes, parents, self.mix)
        else:
            assert self.mix is not None
            draws = np.array([self.mix.sizes()[purpose]])
        return draw_smallest(streams[purpose], sizes, draws, max_bytes=self.max_bytes)

    # -- the rows of a part ----------------------------------------------------------------------------------

    def run(self, part: int, state: pa.Table, **tables: Any) -> Batches:
        dropped = state.filter(pc.equal(state["purpose"], DROPPED))["limit_id"].to_numpy()
        limits: dict[str, Draws] = {}
        chooser = self._chooser(tables, dropped, limits)
        leaves = chooser.given.tree()[0]
        for purpose in self._purposes():
            limits[purpose] = read_limits(state, purpose, leaves if purpose in BY_LEAF else 1)
        if chooser.given.parts.role[part] in (POOL, CURATED):
            assigned = chooser.given.assigned(part)
            rows = chooser.rows(part, assigned)
            junk = assigned.image_ids[assigned.junk]
            counted = SelectTally.of_part(
                rows, touching=chooser.given.touching(part), junk=junk, wanted=chooser.given.wanted(part)
            )
            yield tally_batch(counted, SELECTION)
            yield rows

    def _chooser(self, tables: dict[str, Any], dropped: np.ndarray, limits: Mapping[str, Draws]) -> Chooser:
        return Chooser(
            self._tables(tables),
            seed=self.seed or 0,
            include_curated=self.include_curated,
            mixed=self.mix is not None,
            even=self.balance is not None,
            closest=self._balance.order == "closest",
            dropped=dropped,
            limits=limits,
        )

    def _tables(self, tables: dict[str, Any]) -> RouteTables:
        return RouteTables.of(tables, similarity=self._balance.order == "closest")

    @property
    def _balance(self) -> Balance:
        return Balance() if self.balance is None else self.balance

    # -- telling about it ------------------------------------------------------------------------------------

    def summarize(self, table: Table, **inputs: Any) -> SelectFigures:
        return selection_figures(table, Parts.of(inputs["catalog"]), inputs["duplicates"], inputs["junk"])

    def rows_in(self, figures: Figures, **inputs: Any) -> int | None:
        worked_through = inputs["assignments"] or inputs["images"]
        rows: int = worked_through.num_rows()
        return rows

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        """The rows are made in parallel; where images are drawn, one process passes over them twice before."""
        kept, found = given.kept_images + given.curated, inputs.get("retrieved")
        chosen: float = kept
        if self.mix is not None and self.mix.total is not None:
            chosen = self.mix.total
        elif self.balance is not None:
            chosen = AUTO_TARGET * kept if self.balance.target == "auto" else self.balance.target
        elif found is not None:
            chosen = min(kept, found.rows + given.curated)
        leaves, centroids = inputs.get("assignments"), inputs.get("centroids")
        each = ROW_BYTES + PATH_BYTES * (leaves is not None) + id_bytes(given) * (found is not None)
        made = Shape(pool=given.selected or chosen, row_bytes=each, parts=catalog_parts(inputs), columns=COLUMNS)
        passes = PASSES if self.mix is not None or self.balance is not None or self.cap is not None else 0
        memory = self.max_bytes if passes else 0
        limits = Shape(pool=0 if leaves is None or not passes else leaves.lists, row_bytes=LIMIT_BYTES, columns=5)
        drawn = [shape.scanned(passes) for shape in (leaves, inputs.get("junk"), found) if shape is not None]
        read = [shape.scanned() for shape in (leaves, inputs.get("junk"), found) if shape is not None]
        read += [inputs["contaminated"].scanned(1)]
        if found is None and self.balance is None:
            duplicates = inputs["duplicates"]
            read += [duplicates.scanned(share=KEPT_BYTES / duplicates.row_bytes)]
        if given.curated and self.include_curated is not False:
            images, parts = inputs["images"], inputs["catalog"].parts_of("curated", given)
            read += [images.scanned(parts / images.parts, share=images.share(("image_id", "reject")))]
        if centroids is not None:
            read += [by_process([centroids.scanned(TREE_READS, share=TREE_BYTES / centroids.row_bytes)])]
        demand = Demand(rows=kept, serial_rows=passes * PASS_ROWS * kept, written=made.num_bytes, memory=memory)
        return Demand.phases([demand, one_process(drawn), *read, folded(None, limits, made)]), made

    def flow(self, table: Table, run: Finished, before: FlowStep | None) -> Iterator[FlowStep]:
        """With a balance route, retrieval drops nobody."""
        figures = SelectFigures.of(table)
        left = figures.kept
        for retrieved in run.inputs_of(table, "retrieved"):
            if isinstance(run.stage_of(retrieved), Retrieve) and "balance" not in figures.routes:
                unique = RetrieveFigures.of(retrieved).unique
                drops = (("resemble no curated image", left - unique),)
                yield FlowStep("like curated images", unique, drops=drops, kept_out="as unlike the curated images")
                left = unique
        pool, curated = figures.roles["pool"], figures.roles["curated"] or None
        routes = ", ".join(f"{route} {count(number)}" for route, number in figures.routes.items())
        drops = (("chosen by no route, or above a cap", left - pool),)
        note = f"routes: {routes}" if routes else ""
        yield FlowStep("selected", pool, curated, drops, note, kept_out="by the selection", station=True)

    def headline(self, table: Table, run: Finished) -> str | None:
        return f"{count(table.num_rows())} selected"

    def facts(self, table: Table, run: Finished, *, digits: int = 12) -> Iterator[tuple[str, str]]:
        contaminated = SelectFigures.of(table).contaminated.curated
        if contaminated:
            verb = "resembles" if contaminated == 1 else "resemble"
            yield "Held-out images", f"{plural(contaminated, 'selected curated image')} {verb} a held-out one"
        by_decision = SelectFigures.of(table).contaminated.by_decision
        if by_decision:
            number = plural(by_decision, "selected image")
            yield "Held-out images", f"kept by decision of a person though like a held-out one: {number}"

    def warn(self, table: Table, run: Finished) -> Iterator[str]:
        """A pool image that touches a held-out one must never get here: its component went as a whole."""
        found = SelectFigures.of(table).contaminated
        if found.pool:
            judged = run.only(Deduplicate)
            routes = ", ".join(f"{route} {count(number)}" for route, number in sorted(found.routes.items()))
            yield (
                f"{table.name}: {plural(found.pool, 'selected pool image')} resemble held-out ones (by route, curated "
                f"images included: {routes}); run again with --rebuild {judged[1].name if judged else 'all'}"
            )
        if found.curated:
            yield curated_warning(found.curated)
        yield from self._left_by_default(table)

    def _left_by_default(self, table: Table) -> Iterator[str]:
        """What a balanced draw leaves out whose size nobody has chosen."""
        declared = table.complete_manifest().config.get("balance")
        figures = SelectFigures.of(table)
        left = figures.kept - figures.roles["pool"]
        if declared is not None and declared["target"] == "auto" and left > 0:
            yield (
                f"{table.name}: the balanced draw leaves out {count(left)} of the {plural(figures.kept, 'image')} that "
                f"deduplication kept ({share(left, figures.kept)}): by default it draws {AUTO_TARGET:.0%} of what it "
                f"may. Set {self.field_error('balance.target', '')} to the number that you want, or "
                f"{self.field_error('balance', '')}=null to keep all"
            )

    def show(self, table: Table, run: Finished) -> Iterator[Section]:
        figures = SelectFigures.of(table)
        if figures.shares:
            yield _shares(figures, run)
        for assignments in run.inputs_of(table, "assignments"):
            sizes = cluster_sizes(run, assignments, table)
            if len(sizes.before):
                yield sizes_section(sizes)
        ids = run.sample(table, ["image_id"], role="pool").rows["image_id"].to_numpy()
        chosen = pick(ids, NUM_SELECTED, run.rng("selected"))
        if len(chosen):
            shown = gallery(chosen, total=figures.roles["pool"], rest=LIST_SELECTED)
            random = "Random images" if shown.more else "All images"
            yield Section("Selected", (Text(f"{random} of the pool that were selected."), shown))
        passed_over = _passed_over(run, table)
        if len(passed_over):
            number = figures.kept - figures.roles["pool"]
            text = Text("Good pictures that no route chose, or that a cap or the balance left out.")
            chosen = pick(passed_over, NUM_PASSED_OVER, run.rng("not selected"))
            shown = gallery(chosen, total=number, rest=LIST_KEPT)
            yield Section("Kept out", (Heading(f"not selected: {plural(number, 'image')}"), text, shown))

    def explain(self, image: ImagePlace, table: Table, run: Finished) -> Iterator[str]:
        rows = run.rows_of(image, table)
        if not rows:
            yield "no" if image.role != "heldout" else "no: held-out images never are"
            return
        routes = [o["route"] if o["set"] is None else f"{o['route']} ({o['set']})" for o in rows[0]["origins"]]
        path = " > ".join(map(str, rows[0]["clusters"]))
        again = f", shown {rows[0]['repeats']} times an epoch" if rows[0]["repeats"] > 1 else ""
        yield f"yes, by {', '.join(dict.fromkeys(routes))}{f'; cluster path {path}' if path else ''}{again}"


def _dropped_rows(image_ids: np.ndarray) -> pa.RecordBatch:
    nothing = np.zeros(len(image_ids), np.int32)
    columns = [
        pa.array([DROPPED] * len(image_ids), pa.string()),
        nothing,
        nothing,
        nothing.astype(np.uint64),
        image_ids,
    ]
    return pa.RecordBatch.from_arrays([pa.array(column) for column in columns], schema=LIMITS)


def _shares(figures: SelectFigures, run: Finished) -> Section:
    """What the selection is made of, and what the pairs of copies say of it."""
    shown = max(1, figures.shown)
    rows = tuple(
        (
            f"{name}: {SHARE_NAMES[name]}",
            found.images,
            found.shown,
            share(found.shown, shown),
            Share(found.shown / shown),
        )
        for name, found in figures.shares.items()
    )
    head = ("route", "images", "shown an epoch", "share of what is shown", "")
    said = ["An image that several routes chose counts here for retrieval first."] if len(rows) > 1 else []
    text = Text(" ".join([*said, *_checks(figures, run)]))
    return Section("What the selection is made of", (Numbers(head, rows), text), first=True)


def _checks(figures: SelectFigures, run: Finished) -> Iterator[str]:
    found, junk = figures.contaminated, figures.junk
    if run.parts.num_images(["heldout"]):
        heldout = Usable.of(run, "heldout")
        compared = "" if heldout is None else f"{heldout.used} could be compared. "
        yield (
            f"{compared}By the pairs of copies that were found, "
            f"{plural(found.pool, 'selected pool image')} and {plural(found.curated, 'selected curated image')} "
            "resemble a held-out image."
        )
    if found.by_decision:
        yield f"Kept by your decision though like a held-out one: {plural(found.by_decision, 'more image')}."
    if junk is not None:
        yield (
            f"{plural(junk.found, 'image')} left out as junk before balancing, {count(junk.selected)} of them "
            "selected by another route."
        )


def _passed_over(run: Finished, selection: Table) -> np.ndarray:
    """(M,) int64: images that deduplication kept and no route chose, of all or of a sample."""
    judged = run.inputs_of(selection, "duplicates")
    if not judged:
        return np.empty(0, np.int64)
    rows = run.sample(judged[0], ["image_id", "verdict"], role="pool").rows
    kept: np.ndarray = rows.filter(pc.equal(rows["verdict"], "kept"))["image_id"].to_numpy()
    chosen = [selection.read(part, ["image_id"])["image_id"].to_numpy() for part in np.unique(part_of(kept)).tolist()]
    return np.setdiff1d(kept, np.concatenate([np.empty(0, np.int64), *chosen]))


def _without(junk: int) -> str:
    """What an error says of images that are not drawn since they are junk."""
    return f" beside {junk} that count as junk (junk.find.z larger: fewer)" if junk else ""
