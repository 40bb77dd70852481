"""Search through inverted lists: how every recipe finds pairs of similar images.

All pairs of a billion vectors cannot be compared. So vectors are regrouped by their nearest coarse centroid into
inverted lists, and a query meets the vectors of those lists only that it probes. Exact neighbors of a sample of
queries, found by brute force, then say two things: how few probes find enough of the pairs (`BuildLists`), and which
share of them the search did find (`MeasureRecall`).
"""

from typing import NamedTuple

from curate.engine.pipeline import Pipeline, Ref
from curate.stages.search.build_lists import BuildLists
from curate.stages.search.find_truth import FindTruth
from curate.stages.search.fit_lists import FitLists
from curate.stages.search.measure_recall import MeasureRecall
from curate.stages.search.neighbors import FindNeighbors
from curate.stages.search.sample_queries import SampleQueries


class GroundTruth(NamedTuple):
    """How the exact neighbors of some queries are found."""

    sample: SampleQueries
    """Which queries."""
    find: FindTruth
    """What counts as their neighbors."""


def find_pairs(
    p: Pipeline,
    name: str,
    *,
    fit: FitLists,
    build: BuildLists,
    find: FindNeighbors,
    catalog: Ref,
    measured_by: GroundTruth | None = None,
    thresholds: Ref | None = None,
    into: str | None = None,
    within: Ref | None = None,
    **vectors: Ref,
) -> Ref:
    """Declare a search.

    Args:
        name: last step of the names of its tables.
        measured_by: None: the number of probes is a default, and no recall is measured.
        thresholds: measured thresholds, for stages that give none.
        into: name of the table of pairs; None: `internal/neighbors/NAME`.
        within: embeddings of what borders surround, which are found and search beside those of the whole pictures.
        vectors: `embeddings` or `hashes`: what is searched.

    Returns:
        The pairs.
    """
    given = {"catalog": catalog, **vectors}
    coarse = p.add(f"internal/centroids/{name}", fit, **given)
    known: dict[str, Ref] = {}
    if measured_by is not None:
        queries = p.add(f"internal/queries/{name}", measured_by.sample, **given)
        truth = p.add(f"internal/truth/{name}", measured_by.find, queries=queries, thresholds=thresholds, **given)
        known = {"queries": queries, "truth": truth}
    search = find.model_copy(update={"lists": build})
    sent = {"centroids": coarse, "within": within, "thresholds": thresholds}
    pairs = p.add(into or f"internal/neighbors/{name}", search, **sent, **known, **given)
    if measured_by is not None:
        measure = MeasureRecall(both_ways=set(find.queries) >= set(find.answers))
        p.add(f"internal/recall/{name}", measure, neighbors=pairs, **known)
    return pairs
