"""What there is to see, against sets that are counted in plain Python."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from curate.engine.image_ids import Parts
from curate.engine.store import Store
from curate.engine.table import Manifest
from curate.review.queues import Items, find_dropped, find_groups, word
from curate.review.session import Session
from curate.tables import DUPLICATES
from tests.review.large_run import LARGE, NUM_GROUPS, NUM_REJECTED, LargeRun


def images(session: Session, queue: str, number: int) -> list[int]:
    items = session.queues[queue].items
    return items.images(items.item(number)).tolist()


def test_groups_come_whole_the_largest_first(session: Session, large_run: LargeRun) -> None:
    groups = session.queues["groups"].items
    assert len(groups) == NUM_GROUPS
    assert images(session, "groups", 0) == large_run.ids[:LARGE].tolist()
    for number in (1, 2, 31_337, NUM_GROUPS - 1):
        first = large_run.first(number)
        assert images(session, "groups", number) == large_run.ids[first : first + 2].tolist()
    assert len(np.unique(groups.ids)) == len(groups.ids) == large_run.num_grouped - 3


def test_contamination_begins_with_the_heldout_image(session: Session, large_run: LargeRun) -> None:
    assert len(session.queues["contamination"].items) == 1
    gone = large_run.ids[large_run.num_grouped - 3 : large_run.num_grouped]
    assert images(session, "contamination", 0) == [large_run.heldout[1], *gone]


def test_dropped_images_by_evidence_the_least_alike_first(session: Session, large_run: LargeRun) -> None:
    dropped = (large_run.group >= 0) & (large_run.place > 0) & (large_run.group < NUM_GROUPS)
    for name, odd in (("embedding", 0), ("aligned", 1)):
        found = session.queues[f"dropped-{name}"].items.ids
        assert set(found.tolist()) == set(large_run.ids[dropped & (large_run.group % 2 == odd)].tolist())
        group = large_run.group[np.searchsorted(large_run.ids, found)]
        assert (np.diff(group % 1000) >= 0).all()


def test_rejected_images_by_reason(session: Session) -> None:
    found = {name: len(queue.items) for name, queue in session.queues.all.items() if queue.section == "Rejected"}
    assert found == {"rejected-empty": NUM_REJECTED // 2, "rejected-unsupported": NUM_REJECTED // 2}


def test_items_with_any_image_of_a_mask() -> None:
    items = Items(np.arange(6), np.array([0, 2, 3, 6]), order=np.array([2, 0, 1]))
    assert items.with_any(np.array([False, True, False, False, False, True])).tolist() == [True, True, False]
    assert Items(np.zeros(0, np.int64), np.zeros(1, np.int64)).with_any(np.zeros(0, bool)).tolist() == []


def test_reasons_of_strangers_name_no_files() -> None:
    assert {word(reason) for reason in ("../../etc", "/etc", "a\nb", "not_an_image")} == {"-etc", "a-b", "not-an-image"}


def test_what_a_person_kept_or_dropped(tmp_path: Path) -> None:
    verdicts = [
        (0, 0, "kept", None, None),
        (1, 0, "kept", 0, "embedding"),  # kept by decision, in spite of its pair
        (2, 0, "duplicate", 0, "embedding"),
        (3, 3, "dropped", None, None),
        (4, 4, "benchmark", 1 << 32, "hash"),
        (5, 5, "kept", None, None),
        (6, 6, "duplicate", 1 << 32, "sha256"),  # of a curated image
    ]
    names = ("image_id", "component_id", "verdict", "partner_id", "kind")
    columns = {name: [row[place] for row in verdicts] for place, name in enumerate(names)}
    columns |= {"component_size": [1] * 7, "similarity": [0.5] * 7, "direct": [True] * 7}
    table = Store(tmp_path).table("duplicates")
    part = table.commit(0, DUPLICATES, pa.table(columns).select(DUPLICATES.names).cast(DUPLICATES).to_batches())
    table.write_manifest(Manifest("Deduplicate", 1, {}, {}, {}, {}, complete=True, parts=[part.__dict__], rows=7))
    parts = Parts(np.array([0, 2]), np.array([0, 1]), np.array([7, 1]), ["pool", "heldout"])
    groups, contaminated = find_groups(table, parts)
    assert [groups.images(groups.item(number)).tolist() for number in range(2)] == [[0, 1, 2], [1 << 32, 6]]
    assert contaminated.images(0).tolist() == [1 << 32, 4]
    assert {name: ids.tolist() for name, ids in find_dropped(table)} == {
        "sha256": [6],
        "embedding": [2],
        "decision": [3],
    }
