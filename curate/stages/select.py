"""Select: the union of the routes by which an image enters the curated set, rebalanced over the clusters."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from curate.config import Execution, Settings
from curate.errors import ConfigError
from curate.ops.draws import Draws, Keyed, count_groups, draw_smallest, nearest_keys, random_keys
from curate.ops.sampling import balanced_targets, cap, temperature_targets
from curate.stage import Batches, Fold, Input, whole
from curate.stages.catalog import Parts, parts_of
from curate.stages.contamination import touching_heldout
from curate.stages.leaves import LIMITS, limit_rows, read_limits
from curate.stages.mix import Mix
from curate.stages.routes import CURATED, POOL, Assigned, Origins, RouteTables, selection_batch
from curate.stages.selection_figures import add_counts, count_junk, count_routes, count_shares, warn_of_contamination
from curate.store import Table
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

    `combine` passes over the parts and keeps one limit a leaf (ops/draws.py), `run` writes the rows of its part.
    Memory of `combine`: `max_bytes`, about 60 bytes a leaf, and nothing an image; of `run`: its part and 60 bytes a
    leaf; of `summarize`: a bit an image of the catalog and the hashes of the held-out images.
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
        given = self._tables(tables)
        dropped = self._dropped(tables, given)
        limits: dict[str, Draws] = {}
        yield _dropped_rows(dropped)
        for purpose, draw in self._draws(given, dropped, limits):
            limits[purpose] = draw()
            yield limit_rows(purpose, limits[purpose])

    def _dropped(self, tables: dict[str, Any], given: RouteTables) -> np.ndarray:
        """(M,) int64, ascending: curated images to leave out."""
        found = [np.empty(0, np.int64)]
        if self.drop_contaminated:
            curated = given.numbers(CURATED)
            touching = touching_heldout(tables["neighbors"], tables["images"], given.parts, numbers=curated)
            accepted = [given.accepted(part) for part in curated]
            found += [ids[touching.has(ids)] for ids in accepted]
        return np.concatenate(found)

    def _draws(
        self, given: RouteTables, dropped: np.ndarray, limits: dict[str, Draws]
    ) -> Iterator[tuple[str, Callable[[], Draws]]]:
        """Purpose and draw, in the order in which they depend on each other; `limits` holds those drawn before."""
        sizes = {} if self.mix is None else self.mix.sizes()
        if "curated" in sizes:
            yield "curated", partial(self._draw_route, "curated", sizes, lambda: self._curated(given, dropped))
        if "retrieval" in sizes:
            yield "retrieval", partial(self._draw_route, "retrieval", sizes, lambda: self._retrieved(given))
        if "balance" in sizes if self.mix else self.balance is not None:
            yield "balance", lambda: self._draw_balance(sizes.get("balance"), given, limits)
        if self.cap is not None:
            yield "cap", lambda: self._draw_cap(given, limits)

    def _draw_route(self, name: str, sizes: Mapping[Any, int], batches: Callable[[], Iterable[Keyed]]) -> Draws:
        assert self.mix is not None
        available = count_groups(batches, 1)
        self._check_share(name, sizes[name], int(available[0]))
        return draw_smallest(batches, available, np.array([sizes[name]]), max_bytes=self.max_bytes)

    def _check_share(self, name: str, wanted: int, available: int) -> None:
        assert self.mix is not None
        most = available * self.mix.max_repeats
        if wanted > most:
            raise ConfigError(
                f"select.mix.routes.{name}: {wanted} images are wanted, the route holds {available}, with "
                f"max_repeats={self.mix.max_repeats} at most {most}; ask for less, or raise select.mix.max_repeats"
            )

    def _draw_balance(self, size: int | None, given: RouteTables, limits: dict[str, Draws]) -> Draws:
        balance = self._balance
        leaves, parents = given.tree()
        batches = partial(self._balanced, given, limits)
        available = count_groups(batches, leaves)
        repeats = balance.max_repeats if self.mix is None else self.mix.max_repeats
        if size is not None:
            self._check_share("balance", size, int(available.sum()))
        target = balance.target if size is None else size
        assert isinstance(target, int)
        if balance.alpha is not None:
            draws = temperature_targets(available, balance.alpha, target, max_repeats=repeats)
        else:
            draws = balanced_targets(available * repeats, parents, target)
        return draw_smallest(batches, available, draws, max_bytes=self.max_bytes)

    def _draw_cap(self, given: RouteTables, limits: dict[str, Draws]) -> Draws:
        assert self.cap is not None
        leaves, _ = given.tree()

        def batches() -> Iterator[Keyed]:
            for part in given.numbers(POOL):
                assigned = given.assigned(part)
                yield self._capped(self._union(part, given, assigned, limits)[0], assigned)

        available = count_groups(batches, leaves)
        return draw_smallest(batches, available, cap(available, self.cap), max_bytes=self.max_bytes)

    # -- the images that may be drawn, part by part ----------------------------------------------------------

    @property
    def _balance(self) -> Balance:
        return Balance() if self.balance is None else self.balance

    def _tables(self, tables: dict[str, Any]) -> RouteTables:
        return RouteTables.of(tables, similarity=self._balance.order == "closest")

    def _keys(self, image_ids: np.ndarray, purpose: str) -> np.ndarray:
        return random_keys(image_ids, seed=self.seed or 0, purpose=purpose)

    def _one_group(self, image_ids: np.ndarray, purpose: str) -> Keyed:
        return Keyed(np.zeros(len(image_ids), np.int64), self._keys(image_ids, purpose), image_ids)

    def _curated(self, given: RouteTables, dropped: np.ndarray) -> Iterator[Keyed]:
        for part in given.numbers(CURATED):
            yield self._one_group(self._curated_ids(part, given, dropped), "curated")

    def _curated_ids(self, part: int, given: RouteTables, dropped: np.ndarray) -> np.ndarray:
        wanted = self.include_curated
        if wanted is False or (isinstance(wanted, tuple) and given.parts.source[part] not in wanted):
            return np.empty(0, np.int64)
        ids = given.accepted(part)
        return ids[~np.isin(ids, dropped)]

    def _retrieved(self, given: RouteTables) -> Iterator[Keyed]:
        for part in given.numbers(POOL):
            yield self._one_group(np.unique(given.retrieved_rows(part).image_ids), "retrieval")

    def _balanced(self, given: RouteTables, limits: dict[str, Draws]) -> Iterator[Keyed]:
        for part in given.numbers(POOL):
            assigned = given.assigned(part)
            _, taken = self._retrieved_images(part, given, limits)
            yield self._balanced_images(assigned, taken)

    def _balanced_images(self, assigned: Assigned, taken: np.ndarray) -> Keyed:
        """Clustered images without junk and, in a mix, without those that count for retrieval."""
        free = ~assigned.junk
        if self.mix is not None:
            free &= ~np.isin(assigned.image_ids, taken)
        ids = assigned.image_ids[free]
        if self._balance.order == "random":
            return Keyed(assigned.leaf[free], self._keys(ids, "balance"), ids)
        keys = nearest_keys(assigned.similarity[free], ids, seed=self.seed or 0, purpose="balance")
        return Keyed(assigned.leaf[free], keys, ids)

    def _capped(self, image_ids: np.ndarray, assigned: Assigned) -> Keyed:
        leaf, known = assigned.leaf_of(image_ids)
        ids = image_ids[known]
        return Keyed(leaf[known], self._keys(ids, "cap"), ids)

    # -- the rows of a part ----------------------------------------------------------------------------------

    def run(self, part: int, state: pa.Table, **tables: Any) -> Batches:
        given = self._tables(tables)
        if given.parts.role[part] == CURATED:
            dropped = state.filter(pc.equal(state["purpose"], DROPPED))["limit_id"].to_numpy()
            yield self._curated_rows(part, given, dropped, read_limits(state, "curated", 1))
        elif given.parts.role[part] == POOL:
            leaves, _ = given.tree()
            groups = {"retrieval": 1, "balance": leaves, "cap": leaves}
            limits = {name: read_limits(state, name, count) for name, count in groups.items()}
            yield self._pool_rows(part, given, limits)

    def _curated_rows(self, part: int, given: RouteTables, dropped: np.ndarray, draws: Draws) -> pa.RecordBatch:
        ids = self._curated_ids(part, given, dropped)
        repeats = np.ones(len(ids), np.int32) if self.mix is None else draws.repeats(self._one_group(ids, "curated"))
        ids, repeats = ids[repeats > 0], repeats[repeats > 0]
        origins = Origins.of(ids, "curated", rank=int(given.parts.rank[part]))
        return selection_batch(ids, repeats, origins, given, given.assigned(part))

    def _pool_rows(self, part: int, given: RouteTables, limits: dict[str, Draws]) -> pa.RecordBatch:
        assigned = given.assigned(part)
        ids, repeats, origins = self._union(part, given, assigned, limits)
        if self.cap is not None:
            candidates = self._capped(ids, assigned)
            stays = ~np.isin(ids, candidates.image_ids[limits["cap"].repeats(candidates) == 0])
            ids, repeats = ids[stays], repeats[stays]
            origins = origins.take(np.isin(origins.image_ids, ids))
        return selection_batch(ids, repeats, origins, given, assigned)

    def _union(
        self, part: int, given: RouteTables, assigned: Assigned, limits: dict[str, Draws]
    ) -> tuple[np.ndarray, np.ndarray, Origins]:
        """Ids (ascending), repeats and origins of the pool images that the routes chose, before any cap."""
        found, shown = self._retrieved_images(part, given, limits)
        origins, counts = [found], [(shown, self._retrieved_repeats(shown, limits))]
        if "balance" in limits and (self.balance is not None or self.mix is not None):
            candidates = self._balanced_images(assigned, shown)
            repeats = limits["balance"].repeats(candidates)
            origins.append(Origins.of(candidates.image_ids[repeats > 0], "balance"))
            counts.append((candidates.image_ids[repeats > 0], repeats[repeats > 0]))
        if given.retrieved is None and self.balance is None and self.mix is None:
            origins.append(Origins.of(given.kept(part), "kept"))
            counts.append((given.kept(part), np.ones(len(given.kept(part)), np.int32)))
        reasons = Origins.concat(origins)
        ids = np.unique(reasons.image_ids)
        repeats = np.ones(len(ids), np.int32)
        for mine, times in counts:
            place = np.searchsorted(ids, mine)
            repeats[place] = np.maximum(repeats[place], times)
        return ids, repeats, reasons

    def _retrieved_images(self, part: int, given: RouteTables, limits: dict[str, Draws]) -> tuple[Origins, np.ndarray]:
        """Why the retrieved images of a part were, and (M,) int64 which: in a mix those drawn for their share."""
        found = given.retrieved_rows(part)
        ids = np.unique(found.image_ids)
        if self.mix is None:
            return found, ids
        ids = ids[self._retrieved_repeats(ids, limits) > 0]
        return found.take(np.isin(found.image_ids, ids)), ids

    def _retrieved_repeats(self, image_ids: np.ndarray, limits: dict[str, Draws]) -> np.ndarray:
        if self.mix is None:
            return np.ones(len(image_ids), np.int32)
        if "retrieval" not in limits:
            return np.zeros(len(image_ids), np.int32)
        return limits["retrieval"].repeats(self._one_group(image_ids, "retrieval"))

    # -- figures ---------------------------------------------------------------------------------------------

    def summarize(self, table: Table, **inputs: Any) -> dict[str, Any]:
        given = self._tables(inputs)
        roles, routes = dict.fromkeys(ROLES, 0), dict[str, int]()
        shares: dict[str, dict[str, int]] = {}
        used = [part.number for part in table.parts() if part.rows]
        touching = touching_heldout(inputs["neighbors"], inputs["images"], given.parts, numbers=used)
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
