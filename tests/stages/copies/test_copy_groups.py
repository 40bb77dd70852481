"""Groups of copies in the report: which they are, how many pictures of each, and how many more there are."""

import numpy as np
import pyarrow as pa

from curate.engine.finished import Finished
from curate.engine.store import Store
from curate.stages.copies.copy_groups import SHOWN_SMALL, CopyGroups, _contaminated, _copies, evidence
from curate.tables import DUPLICATES


def rows(*found: tuple[int, int, str, int | None, float | None]) -> pa.Table:
    """Rows of `duplicates`: image, component, verdict, partner, similarity."""
    names = ("image_id", "component_id", "verdict", "partner_id", "similarity")
    kinds = {"component_size": 1, "kind": "embedding", "direct": True}
    return pa.Table.from_pylist([dict(zip(names, row, strict=True)) | kinds for row in found], schema=DUPLICATES)


def test_groups_are_components_that_lost_an_image_to_another_one() -> None:
    found = CopyGroups.of(
        rows(
            (0, 0, "kept", None, None),
            (1, 1, "kept", None, None),
            (2, 1, "duplicate", 1, 0.9),
            (3, 3, "benchmark", 99, 0.9),
            (4, 1, "duplicate", 1, 0.95),
            (5, 5, "duplicate", 88, 0.8),
        )
    )
    assert [found.rows_of(group)["image_id"].to_pylist() for group in range(len(found.sizes))] == [[4, 2, 1], [5]]
    assert found.sizes.tolist() == [3, 1]


def test_large_groups_say_how_many_more_there_are() -> None:
    gone = [(image, 0, "benchmark", 99, float(np.float32(1 - image / 100))) for image in range(20)]
    gallery = _contaminated(rows(*gone))
    assert [picture.image_id for picture in gallery.pictures] == [99, *range(SHOWN_SMALL - 1)]
    assert gallery.more == 20 - (SHOWN_SMALL - 1)


def test_equal_bytes_need_no_number() -> None:
    assert evidence({"kind": "sha256", "similarity": 1.0, "direct": True}) == "same bytes"
    assert evidence({"kind": "hash", "similarity": 0.95312, "direct": True}) == "0.953 hash"


def test_evidence_that_leads_to_another_image_says_so() -> None:
    assert evidence({"kind": "sha256", "similarity": 1.0, "direct": False}) == "same bytes as another one"
    assert evidence({"kind": "hash", "similarity": 0.95312, "direct": False}) == "0.953 hash to another one"


def test_images_that_stay_by_a_decision_are_marked() -> None:
    decided = {1: "represent", 2: "keep", 3: "not-copies"}
    found = rows(
        *((image, 1, "kept", None, None) for image in (1, 2, 3, 4)),
        (5, 1, "duplicate", 1, 0.9),
    )
    judged = found.append_column("decision", pa.array([decided.get(image) for image in (1, 2, 3, 4, 5)], pa.string()))
    empty = Finished(Store("none"), "toy", {}, ())
    for table, by_decision in ((judged, [1, 2]), (found, [])):
        pictures = _copies(table, empty, SHOWN_SMALL).pictures
        assert [one.image_id for one in pictures] == [1, 2, 3, 4, 5]
        assert [one.image_id for one in pictures if "kept by your decision" in one.captions] == by_decision
