"""Verdicts of deduplication against a plain graph walk, and each rule on its own."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.ops.duplicates import KINDS, AcceptedImages, CopyEdges, deduplicate
from curate.tables import VERDICTS

SELF = {"embedding": 0.6, "hash": 0.75}
RELATIVE = {"embedding": 0.45, "hash": 0.7}
POOL, CURATED, HELDOUT = 0, 1, 2


def images_of(roles, *, ids=None, pixels=None, rank=None, digests=None):
    n = len(roles)
    sha256 = np.zeros((n, 32), np.uint8)
    sha256[:, 5] = np.arange(n) if digests is None else digests
    return AcceptedImages(
        np.arange(n) * 10 if ids is None else np.array(ids),
        np.array(roles, np.int8),
        np.full(n, 100) if pixels is None else np.array(pixels),
        np.zeros(n, int) if rank is None else np.array(rank),
        sha256,
    )


def edges_of(*rows):
    q, b, s, kind = zip(*rows, strict=True) if rows else ((), (), (), ())
    return CopyEdges(
        np.array(q, np.int64),
        np.array(b, np.int64),
        np.array(s, np.float32),
        np.array([KINDS.index(k) for k in kind], np.int8),
    )


def judge(images, *rows):
    result = deduplicate(images, edges_of(*rows), self_threshold=SELF, relative_threshold=RELATIVE)
    return {
        int(i): (
            int(c),
            VERDICTS[v],
            None if p == -1 else int(p),
            None if p == -1 else round(float(s), 3),
            None if p == -1 else KINDS[k],
        )
        for i, c, v, p, s, k in zip(*result[:6], strict=True)
    }


def reference(images, rows):
    """The rules of the module, image by image, on dictionaries."""
    role = dict(zip(images.image_ids.tolist(), images.role.tolist(), strict=True))
    digest = {i: images.sha256[n].tobytes() for n, i in enumerate(role)}
    pixels = dict(zip(role, images.num_pixels.tolist(), strict=True))
    rank = dict(zip(role, images.source_rank.tolist(), strict=True))
    strength = {}
    for a, b in product(role, role):
        if a == b:
            continue
        found = [(1, 1.0, 0)] if digest[a] == digest[b] else []
        for q, i, s, kind in rows:
            least = (RELATIVE if HELDOUT in (role[a], role[b]) else SELF)[kind]
            if {q, i} == {a, b} and np.float32(s) >= np.float32(least):
                found.append((0, s, -KINDS.index(kind)))
        if found:
            strength[a, b] = max(found)
    verdicts = {}
    pool = [i for i in role if role[i] == POOL]
    for start in pool:
        component, frontier = {start}, [start]
        while frontier:
            node = frontier.pop()
            new = {b for b in pool if (node, b) in strength} - component
            component |= new
            frontier += new
        outside = {
            r: [(strength[a, b], -b) for a in component for b in role if role[b] == r and (a, b) in strength]
            for r in (HELDOUT, CURATED)
        }
        representative = min(component, key=lambda i: (-pixels[i], rank[i], i))
        if outside[HELDOUT]:
            verdict, partner = "benchmark", -max(outside[HELDOUT])[1]
        elif outside[CURATED]:
            verdict, partner = "duplicate", -max(outside[CURATED])[1]
        else:
            verdict, partner = "duplicate", representative
        if partner == start:
            verdicts[start] = (min(component), "kept", None, None, None)
            continue
        edge = strength.get((start, partner)) or max(strength[start, b] for b in component if (start, b) in strength)
        verdicts[start] = (min(component), verdict, partner, round(edge[1], 3), KINDS[-edge[2]])
    return verdicts


@st.composite
def problems(draw):
    n = draw(st.integers(1, 9))
    ids = [3 * i + 1 for i in range(n)]
    small = st.integers(0, 2)
    images = images_of(
        draw(st.lists(st.sampled_from([POOL, POOL, POOL, CURATED, HELDOUT]), min_size=n, max_size=n)),
        ids=ids,
        pixels=draw(st.lists(small, min_size=n, max_size=n)),
        rank=draw(st.lists(small, min_size=n, max_size=n)),
        digests=draw(st.lists(st.integers(0, 12), min_size=n, max_size=n)),
    )
    edge = st.tuples(
        st.sampled_from(ids),
        st.sampled_from(ids),
        st.sampled_from([0.4, 0.45, 0.5, 0.6, 0.7, 0.72, 0.75, 0.9]),
        st.sampled_from(["embedding", "hash"]),
    )
    return images, draw(st.lists(edge, max_size=12))


@settings(deadline=None, max_examples=300)
@given(problems())
def test_verdicts_equal_a_walk_over_the_graph(problem):
    images, rows = problem
    assert judge(images, *rows) == reference(images, rows)


@settings(deadline=None, max_examples=200)
@given(problems(), st.randoms())
def test_each_component_keeps_exactly_one_unless_curated_or_heldout_represent_it(problem, random):
    images, rows = problem
    verdicts = judge(images, *rows)
    roles = dict(zip(images.image_ids.tolist(), images.role.tolist(), strict=True))
    components = {}
    for component, verdict, partner, _, _ in verdicts.values():
        components.setdefault(component, []).append((verdict, partner))
    for rows_of_component in components.values():
        kept = sum(verdict == "kept" for verdict, _ in rows_of_component)
        partners = {partner for verdict, partner in rows_of_component if verdict != "kept"}
        outside = {roles[p] for p in partners} - {POOL}
        assert kept == (0 if outside else 1)
        assert len(partners) <= 1
        if HELDOUT in outside:
            assert all(verdict == "benchmark" for verdict, _ in rows_of_component)
    assert sorted(verdicts) == [i for i in roles if roles[i] == POOL]
    shuffled = [row if random.random() < 0.5 else (row[1], row[0], *row[2:]) for row in rows]
    random.shuffle(shuffled)
    assert judge(images, *shuffled) == verdicts  # neither order nor direction of edges matters


def test_the_largest_then_best_ranked_then_first_image_is_kept():
    chain = [(0, 10, 0.9, "embedding"), (10, 20, 0.8, "embedding")]
    assert judge(images_of([0, 0, 0], pixels=[1, 2, 9]), *chain) == {
        0: (0, "duplicate", 20, 0.9, "embedding"),  # no edge to 20: its strongest one
        10: (0, "duplicate", 20, 0.8, "embedding"),
        20: (0, "kept", None, None, None),
    }
    assert judge(images_of([0, 0, 0], rank=[1, 0, 0]), *chain)[10][1] == "kept"
    assert judge(images_of([0, 0, 0]), *chain)[0][1] == "kept"


def test_a_heldout_match_condemns_the_whole_component_below_the_self_threshold():
    verdicts = judge(images_of([0, 0, 2, 0]), (0, 10, 0.7, "embedding"), (10, 20, 0.5, "embedding"))
    assert verdicts[0] == (0, "benchmark", 20, 0.7, "embedding")
    assert verdicts[10] == (0, "benchmark", 20, 0.5, "embedding")
    assert verdicts[30] == (30, "kept", None, None, None)


def test_heldout_images_never_join_components():
    verdicts = judge(images_of([0, 2, 0]), (0, 10, 0.9, "embedding"), (20, 10, 0.9, "embedding"))
    assert [v[0] for v in verdicts.values()] == [0, 20]


def test_an_exact_copy_of_a_heldout_image_is_benchmark():
    assert judge(images_of([2, 0], digests=[7, 7])) == {10: (10, "benchmark", 0, 1.0, "sha256")}


def test_a_curated_image_represents_the_component_it_touches():
    verdicts = judge(images_of([0, 0, 1]), (0, 10, 0.7, "embedding"), (10, 20, 0.8, "hash"))
    assert verdicts == {0: (0, "duplicate", 20, 0.7, "embedding"), 10: (0, "duplicate", 20, 0.8, "hash")}
    assert judge(images_of([0, 1]), (0, 10, 0.5, "embedding"))[0][1] == "kept"  # below the self threshold


def test_equal_bytes_beat_a_stronger_looking_edge():
    verdicts = judge(images_of([0, 2, 2], digests=[1, 9, 1]), (0, 10, 1.0, "embedding"))
    assert verdicts[0] == (0, "benchmark", 20, 1.0, "sha256")


def test_equal_bytes_are_the_evidence_even_where_a_weaker_edge_was_found():
    images = images_of([0, 0, 0], pixels=[1, 1, 9], digests=[7, 7, 7])
    assert judge(images, (10, 20, 0.9, "embedding"))[10] == (0, "duplicate", 20, 1.0, "sha256")


def test_thresholds_are_inclusive_in_float32():
    assert judge(images_of([0, 0]), (0, 10, 0.6, "embedding"))[10][1] == "duplicate"
    assert judge(images_of([0, 2]), (0, 10, 0.45, "embedding"))[0][1] == "benchmark"


def test_curated_heldout_matches_are_reported_once_per_pair():
    result = deduplicate(
        images_of([1, 2, 2, 1], digests=[0, 1, 2, 1]),
        edges_of((10, 0, 0.5, "embedding"), (0, 10, 0.8, "hash"), (20, 30, 0.4, "embedding")),
        self_threshold=SELF,
        relative_threshold=RELATIVE,
    )
    assert len(result.image_ids) == 0
    matches = result.curated_heldout
    assert matches.query_ids.tolist() == [0, 30]
    assert matches.image_ids.tolist() == [10, 10]
    assert matches.similarity.tolist() == pytest.approx([0.8, 1.0])
    assert [KINDS[k] for k in matches.kind] == ["hash", "sha256"]


def test_no_images_give_no_verdicts():
    assert judge(images_of([])) == {}


def test_unusable_input_is_an_error():
    with pytest.raises(ValueError, match="image_ids must ascend"):
        judge(images_of([0, 0], ids=[5, 5]))
    with pytest.raises(ValueError, match="image 77 is none of the 2 accepted images"):
        judge(images_of([0, 0]), (0, 77, 0.9, "hash"))
    with pytest.raises(ValueError, match="relative_threshold: nothing given for hash edges"):
        deduplicate(
            images_of([0, 0]),
            edges_of((0, 10, 0.9, "hash")),
            self_threshold=SELF,
            relative_threshold={"embedding": 0.45},
        )
