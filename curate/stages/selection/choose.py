"""The images of a part that each route may choose, and those it chose, once the limits of the draws are known."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from curate.ops.random_keys import nearest_keys, random_keys
from curate.ops.selection.draws import Draws, Keyed
from curate.stages.selection.routes import Assigned, Origins, RouteTables, selection_batch
from curate.tables import CURATED, POOL


@dataclass(frozen=True)
class Chooser:
    """What `Select` asks of one part; its draws follow from ids and seed, so `combine` and `run` agree on them."""

    given: RouteTables
    seed: int
    include_curated: bool | tuple[str, ...]
    mixed: bool
    """Routes have shares: an image counts for one of them."""
    even: bool
    """There is a balance route."""
    closest: bool
    """It draws the images nearest to their centroid first."""
    dropped: np.ndarray
    """(M,) int64, curated images to leave out"""
    limits: Mapping[str, Draws]
    """What was drawn, by purpose: curated, retrieval, balance, cap; a draw may need those before it."""

    # -- who may be drawn ------------------------------------------------------------------------------------

    def curated(self) -> Iterator[Keyed]:
        """Curated images that are included, part by part, as one group."""
        for part in self.given.parts.numbers(CURATED):
            yield self._one_group(self.curated_ids(part), "curated")

    def retrieved(self) -> Iterator[Keyed]:
        """Retrieved images, part by part, as one group."""
        for part in self.given.parts.numbers(POOL):
            yield self._one_group(np.unique(self.given.retrieved_rows(part).image_ids), "retrieval")

    def balanced(self) -> Iterator[Keyed]:
        """Images that the balance may draw, part by part, by leaf."""
        for part in self.given.parts.numbers(POOL):
            yield self._balanced(self.given.assigned(part), self._retrieved(part)[1])

    def capped(self) -> Iterator[Keyed]:
        """Images that any route chose, part by part, by leaf."""
        for part in self.given.parts.numbers(POOL):
            assigned = self.given.assigned(part)
            yield self._capped(part, self._union(part, assigned)[0], assigned)

    def curated_ids(self, part: int) -> np.ndarray:
        """(N,) int64, ascending: accepted images of a part that is included."""
        wanted = self.include_curated
        if wanted is False or (isinstance(wanted, tuple) and self.given.parts.source[part] not in wanted):
            return np.empty(0, np.int64)
        ids = self.given.accepted(part)
        return ids[~np.isin(ids, self.dropped)]

    def _balanced(self, assigned: Assigned, taken: np.ndarray) -> Keyed:
        """Clustered images without junk and, in a mix, without those that count for retrieval."""
        free = ~assigned.junk
        if self.mixed:
            free &= ~np.isin(assigned.image_ids, taken)
        ids = assigned.image_ids[free]
        if self.closest:
            keys = nearest_keys(assigned.similarity[free], ids, seed=self.seed, purpose="balance")
        else:
            keys = self._keys(ids, "balance")
        return Keyed(assigned.leaf[free], keys, ids)

    def _capped(self, part: int, image_ids: np.ndarray, assigned: Assigned) -> Keyed:
        """Clustered images that no person keeps: those stay beyond the cap."""
        image_ids = np.setdiff1d(image_ids, self.given.wanted(part), assume_unique=True)
        leaf, known = assigned.leaf_of(image_ids)
        ids = image_ids[known]
        return Keyed(leaf[known], self._keys(ids, "cap"), ids)

    def _one_group(self, image_ids: np.ndarray, purpose: str) -> Keyed:
        return Keyed(np.zeros(len(image_ids), np.int64), self._keys(image_ids, purpose), image_ids)

    def _keys(self, image_ids: np.ndarray, purpose: str) -> np.ndarray:
        return random_keys(image_ids, seed=self.seed, purpose=purpose)

    # -- who was drawn ---------------------------------------------------------------------------------------

    def rows(self, part: int, assigned: Assigned) -> pa.RecordBatch:
        """Rows of `selection` of a part of pool or curated images.

        Args:
            assigned: the clustered images of the part.
        """
        choose = self._chosen_curated if self.given.parts.role[part] == CURATED else self._chosen_pool
        return selection_batch(*choose(part, assigned), self.given, assigned)

    def _chosen_curated(self, part: int, _: Assigned) -> tuple[np.ndarray, np.ndarray, Origins]:
        ids = self.curated_ids(part)
        repeats = self._repeats(ids, "curated")
        ids, repeats = ids[repeats > 0], repeats[repeats > 0]
        return ids, repeats, Origins.of(ids, "curated", rank=int(self.given.parts.rank[part]))

    def _chosen_pool(self, part: int, assigned: Assigned) -> tuple[np.ndarray, np.ndarray, Origins]:
        ids, repeats, origins = self._union(part, assigned)
        if "cap" not in self.limits:
            return ids, repeats, origins
        candidates = self._capped(part, ids, assigned)
        gone = candidates.image_ids[self.limits["cap"].repeats(candidates) == 0]
        stays = ~np.isin(ids, gone)
        return ids[stays], repeats[stays], origins.take(~np.isin(origins.image_ids, gone))

    def _union(self, part: int, assigned: Assigned) -> tuple[np.ndarray, np.ndarray, Origins]:
        """Ids (ascending), repeats and origins of the pool images that the routes chose, before any cap."""
        found, shown = self._retrieved(part)
        origins, counts = [found], [(shown, self._repeats(shown, "retrieval"))]
        if "balance" in self.limits:
            candidates = self._balanced(assigned, shown)
            repeats = self.limits["balance"].repeats(candidates)
            origins.append(Origins.of(candidates.image_ids[repeats > 0], "balance"))
            counts.append((candidates.image_ids[repeats > 0], repeats[repeats > 0]))
        if self.given.retrieved is None and not (self.even or self.mixed):
            origins.append(Origins.of(self.given.kept(part), "kept"))
        origins.append(Origins.of(self.given.wanted(part), "decision"))
        reasons = Origins.concat(origins)
        ids = np.unique(reasons.image_ids)
        repeats = np.ones(len(ids), np.int32)
        for mine, times in counts:
            place = np.searchsorted(ids, mine)
            repeats[place] = np.maximum(repeats[place], times)
        return ids, repeats, reasons

    def _retrieved(self, part: int) -> tuple[Origins, np.ndarray]:
        """Why the retrieved images of a part were, and (M,) int64 which: in a mix those drawn for their share."""
        found = self.given.retrieved_rows(part)
        ids = np.unique(found.image_ids)
        ids = ids[self._repeats(ids, "retrieval") > 0]
        return found.take(np.isin(found.image_ids, ids)), ids

    def _repeats(self, image_ids: np.ndarray, purpose: str) -> np.ndarray:
        """(N,) int32: of a route that is taken whole, once each; in a mix, as drawn for its share, if it has one."""
        if not self.mixed:
            return np.ones(len(image_ids), np.int32)
        if purpose not in self.limits:
            return np.zeros(len(image_ids), np.int32)
        return self.limits[purpose].repeats(self._one_group(image_ids, purpose))
