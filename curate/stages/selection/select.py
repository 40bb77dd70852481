"""Select: the union of the routes by which an image enters the curated set, rebalanced over the clusters."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from curate.config import Execution, Settings
from curate.engine.stage import Batches, Fold, Input, whole
from curate.engine.store import Table
from curate.errors import ConfigError
from curate.ops.selection.draws import Draws, count_groups, draw_smallest
from curate.ops.selection.sampling import balanced_targets, cap, temperature_targets
from curate.stages.clusters.leaves import LIMITS, limit_rows, read_limits
from curate.stages.copies.contamination import touching_heldout
from curate.stages.images.catalog import Parts, parts_of
from curate.stages.selection.choose import Chooser
from curate.stages.selection.mix import Mix
from curate.stages.selection.routes import CURATED, POOL, RouteTables
from curate.stages.selection.selection_figures import (
    add_counts,
    count_junk,
    count_routes,
    count_shares,
    warn_of_contamination,
)
from curate.tables import (
    ASSIGNMENTS,
    CATALOG,
    CENTROIDS,
    DUPLICATES,
    IMAGES,
    NEIGHBORS,
    RETRIEVED,
    ROLES,
    SCREENED,
    SELECTION,
)

BY_LEAF = ("balance", "cap")
"""Draws with a group for each leaf; the others have one group."""
DROPPED = "dropped"
"""Purpose of the state's rows that name, in `limit_id`, a curated image to leave out."""


class Balance(Settings):
    """Draws from the pool so that clusters of every level are as even as their sizes allow."""

    target: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Images to draw, repeats included; auto: three quarters of the images left. With `mix`, the mix decides."""
    alpha: Annotated[float, Field(ge=0, le=1)] | None = None
    """Temperature: a leaf's share follows its size to this power; 1: as the pool is, 0: equal. None: even over the
    whole tree by water-filling, as Vo et al. and DINOv3 have it."""
    max_repeats: Annotated[int, Field(ge=1)] = 1
    """Times one image may be drawn. With `mix`, its own `max_repeats` counts."""
    order: Literal["random", "closest"] = "random"
    """Which images of a leaf come first."""


class Select(Fold):
    """The curated set: retrieved images, a balanced sample, or everything kept, and the curated sources as is.

    `combine` passes over the parts and keeps one limit a leaf (ops/selection/draws.py), `run` writes the rows of its
    part. Memory of `combine`: `max_bytes`, about 60 bytes a leaf, and nothing an image; of `run`: its part and 60 bytes
    a leaf; of `summarize`: a bit an image of the catalog.
    """

    inputs: ClassVar[dict[str, Input]] = {
        "catalog": whole(CATALOG),
        "images": whole(IMAGES),
        "duplicates": whole(DUPLICATES),
        "neighbors": whole(NEIGHBORS, many=True),
        "retrieved": whole(RETRIEVED, optional=True),
        "assignments": whole(ASSIGNMENTS, optional=True),
        "centroids": whole(CENTROIDS, optional=True),
        "screened": whole(SCREENED, optional=True),
    }
    version: ClassVar[int] = 2

    include_curated: bool | tuple[str, ...] = True
    """Add the accepted images of the curated sources: of all, of none, or of those named here."""
    drop_contaminated: bool = False
    """Leave out curated images that resemble a held-out one; their number is reported either way."""
    balance: Balance | None = None
    """Add a balanced sample of all pool images that are left, junk apart; None: no such route."""
    cap: Annotated[int, Field(ge=1)] | None = None
    """Pool images of a leaf cluster at most, over all routes; None: no cap."""
    mix: Mix | None = None
    """Shares of the routes; None: all that is retrieved, the target of `balance`, and the curated sources whole."""
    seed: int | None = None
    """Of every draw; None: the run's seed."""
    max_bytes: Annotated[int, Field(ge=1), Execution()] = 1 << 30
    """Working memory of the draws; less means more passes over the assignments."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        wanted = set() if self.mix is None else set(self.mix.sizes())
        if (self.balance or self.cap or "balance" in wanted) and inputs["assignments"] is None:
            raise ConfigError("select: balance and cap need clusters; this recipe makes none")
        if "retrieval" in wanted and inputs["retrieved"] is None:
            raise ConfigError("select.mix.routes.retrieval: this recipe retrieves nothing; leave the route out")
        if self.mix is not None:
            self._check_mix(self.mix)
        return SELECTION

    def _check_mix(self, mix: Mix) -> None:
        if self.cap is not None:
            raise ConfigError("select: cap and mix exclude each other, since a cap would change the shares; drop one")
        if self.balance is not None and (self.balance.target != "auto" or self.balance.max_repeats != 1):
            raise ConfigError(
                "select.balance: with mix, its shares and its max_repeats say how much is drawn; leave out "
                "balance.target and balance.max_repeats"
            )
        if "curated" in mix.routes and self.include_curated is False:
            raise ConfigError("select.mix.routes.curated: include_curated is false; leave the route out, or set it")

    def state_schema(self, **inputs: Any) -> pa.Schema:
        return LIMITS

    def num_parts(self, **inputs: Any) -> int:
        return len(inputs["catalog"].parts())

    def resolve(self, previous: Mapping[str, Any] | None = None, **inputs: Any) -> Self:
        parts = parts_of(inputs["catalog"])
        self._check_names(parts)
        if self.balance is None and self.cap is None:
            return self
        left = sum(part.rows for part in inputs["assignments"].parts() if parts.role[part.number] == POOL)
        if self.cap is not None and self.cap > left:
            raise ConfigError(
                f"select.cap={self.cap}: {left} pool images are left; set it to {left} or less, or leave it out"
            )
        if self.balance is None or self.mix is not None:
            return self
        left -= count_junk(inputs["screened"])
        most = left * self.balance.max_repeats
        if self.balance.target == "auto":
            return self.model_copy(update=self.estimate(left))
        if self.balance.target > most:
            raise ConfigError(
                f"balance.target={self.balance.target}: {left} pool images are left, with max_repeats="
                f"{self.balance.max_repeats} at most {most} can be drawn; set it to {most} or less, or to auto"
            )
        return self

    def _check_names(self, parts: Parts) -> None:
        known = {name for name, role in zip(parts.source, parts.role, strict=True) if role == CURATED}
        unknown = set() if isinstance(self.include_curated, bool) else set(self.include_curated) - known
        if unknown:
            raise ConfigError(
                f"select.include_curated: {min(unknown)!r} is no curated source; they are {sorted(known)}"
            )

    def estimate(self, num_images: int) -> dict[str, Any]:
        if self.balance is None or self.balance.target != "auto" or self.mix is not None:
            return {}
        return {"balance": self.balance.model_copy(update={"target": max(1, num_images * 3 // 4)})}

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
        found = [np.empty(0, np.int64)]
        if self.drop_contaminated:
            given = self._tables(tables)
            touching = touching_heldout(tables["neighbors"], given.parts)
            found += [ids[touching.has(ids)] for ids in map(given.accepted, given.numbers(CURATED))]
        return np.concatenate(found)

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
            draws = self._even_draws(sizes, parents)
        else:
            assert self.mix is not None
            draws = np.array([self.mix.sizes()[purpose]])
        return draw_smallest(streams[purpose], sizes, draws, max_bytes=self.max_bytes)

    def _even_draws(self, sizes: np.ndarray, parents: list[np.ndarray]) -> np.ndarray:
        """(K,) int64: draws of each leaf, repeats included."""
        balance = self._balance
        target = balance.target if self.mix is None else self.mix.sizes()["balance"]
        repeats = balance.max_repeats if self.mix is None else self.mix.max_repeats
        assert isinstance(target, int)
        if balance.alpha is not None:
            return temperature_targets(sizes, balance.alpha, target, max_repeats=repeats)
        return balanced_targets(sizes * repeats, parents, target)

    # -- the rows of a part ----------------------------------------------------------------------------------

    def run(self, part: int, state: pa.Table, **tables: Any) -> Batches:
        dropped = state.filter(pc.equal(state["purpose"], DROPPED))["limit_id"].to_numpy()
        limits: dict[str, Draws] = {}
        chooser = self._chooser(tables, dropped, limits)
        leaves = chooser.given.tree()[0]
        for purpose in self._purposes():
            limits[purpose] = read_limits(state, purpose, leaves if purpose in BY_LEAF else 1)
        if chooser.given.parts.role[part] in (POOL, CURATED):
            yield chooser.rows(part)

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

    # -- figures ---------------------------------------------------------------------------------------------

    def summarize(self, table: Table, **inputs: Any) -> dict[str, Any]:
        given = self._tables(inputs)
        roles, routes = dict.fromkeys(ROLES, 0), dict[str, int]()
        shares: dict[str, dict[str, int]] = {}
        touching = touching_heldout(inputs["neighbors"], given.parts)
        contaminated = {"pool": 0, "curated": 0, "routes": dict[str, int]()}
        for part in table.parts():
            rows = table.read(part.number, ["image_id", "origins", "repeats"])
            role = ROLES[given.parts.role[part.number]]
            roles[role] += part.rows
            add_counts(routes, count_routes(rows))
            for name, found in count_shares(rows).items():
                add_counts(shares.setdefault(name, {"images": 0, "shown": 0}), found)
            hit = rows.filter(pa.array(touching.has(rows["image_id"].to_numpy())))
            if len(hit):
                contaminated[role] += len(hit)  # type: ignore[operator]
                add_counts(contaminated["routes"], count_routes(hit))  # type: ignore[arg-type]
        figures = {"selected": table.num_rows(), "routes": dict(sorted(routes.items())), "roles": roles}
        figures |= {"shown": sum(s["shown"] for s in shares.values()), "shares": dict(sorted(shares.items()))}
        if given.screened is not None:
            figures["junk"] = self._junk_figures(table, given)
        return figures | {"contaminated": contaminated} | warn_of_contamination(contaminated)

    def _junk_figures(self, table: Table, given: RouteTables) -> dict[str, int]:
        """Pool images that screening found, and those of them that other routes chose."""
        junk, chosen = 0, 0
        for part in given.numbers(POOL):
            assigned = given.assigned(part)
            junk += int(np.count_nonzero(assigned.junk))
            ids = table.read(part, ["image_id"])["image_id"].to_numpy()
            chosen += int(np.isin(ids, assigned.image_ids[assigned.junk]).sum())
        return {"screened": junk, "selected": chosen}


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
