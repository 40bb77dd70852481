"""Merged edges against a sort of all."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.ops.edges import Edges, merge_top_k, rank_in_group


def as_rows(edges):
    return [(int(q), int(b), float(s)) for q, b, s in zip(*edges, strict=True)]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6), st.sampled_from([0.25, 0.5, 0.75]))), st.data())
def test_merge_top_k_of_parts_equals_merge_of_all(rows, data):
    def edges_of(part):
        q, b, s = zip(*part, strict=True) if part else ((), (), ())
        return Edges(np.array(q, np.int64), np.array(b, np.int64), np.array(s, np.float32))

    k = data.draw(st.sampled_from([None, 1, 2, 3]))
    strongest = {}
    for q, b, s in rows:
        strongest[q, b] = max(s, strongest.get((q, b), -1))
    ordered = sorted(((q, b, s) for (q, b), s in strongest.items()), key=lambda r: (r[0], -r[2], r[1]))
    expected = [row for i, row in enumerate(ordered) if k is None or [r[0] for r in ordered[:i]].count(row[0]) < k]
    assert as_rows(merge_top_k(edges_of(rows), k)) == expected
    cut = len(rows) // 2
    halves = [merge_top_k(edges_of(rows[:cut]), k), merge_top_k(edges_of(rows[cut:]), k)]
    assert as_rows(merge_top_k(Edges.concat(halves), k)) == expected


def test_concat_of_nothing_is_empty():
    assert Edges.concat([]).num_edges == 0


def test_rank_in_group_counts_within_runs():
    assert rank_in_group(np.array([3, 3, 5, 7, 7, 7])).tolist() == [0, 1, 0, 0, 1, 2]
    assert rank_in_group(np.empty(0)).tolist() == []
