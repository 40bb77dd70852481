"""Verdicts of deduplication against a plain graph walk, and each rule on its own."""

import itertools
from itertools import product
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import curate.ops.copies as ops
from curate.ops.copies.decided import Decided
from curate.ops.copies.duplicates import Judged, deduplicate
from curate.ops.copies.exact import equal_bytes
from curate.ops.copies.graph import KINDS, AcceptedImages, CatalogParts, CopyEdges, Oversized
from curate.tables import VERDICTS

SELF = {"embedding": 0.6, "hash": 0.75}
RELATIVE = {"embedding": 0.45, "hash": 0.7}
POOL, CURATED, HELDOUT = 0, 1, 2


class Images(NamedTuple):
    """Images of a catalog; tests know them by `names`, which ascend."""

    names: np.ndarray
    role: np.ndarray
    num_pixels: np.ndarray
    source_rank: np.ndarray
    sha256: np.ndarray


def images_of(roles, *, ids=None, pixels=None, rank=None, digests=None):
    n = len(roles)
    sha256 = np.zeros((n, 32), np.uint8)
    sha256[:, 5] = np.arange(n) if digests is None else digests
    return Images(
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


def catalog_of(images, rows_per_part=None):
    """Part and id of each image: runs of one role and rank are parts, in which every other row was rejected."""
    same = (images.role[1:] == images.role[:-1]) & (images.source_rank[1:] == images.source_rank[:-1])
    start = np.concatenate([np.ones(min(1, len(images.names)), bool), ~same])
    if rows_per_part:
        start |= np.arange(len(start)) % rows_per_part == 0
    part, number = np.cumsum(start) - 1, np.arange(len(start))
    row = 2 * (number - np.maximum.accumulate(np.where(start, number, 0))) + 1
    parts = CatalogParts(images.role[start], images.source_rank[start], 2 * np.bincount(part) + 1)
    return part, (part << 32) | row, parts


def judged(images, *rows, batch=3, rows_per_part=None, **options):
    """The verdicts, of edges above their thresholds and of equal bytes, which arrive `batch` at a time."""
    role = dict(zip(images.names.tolist(), images.role.tolist(), strict=True))
    found = [
        (q, i, s, kind)
        for q, i, s, kind in rows
        if np.float32(s) >= np.float32((RELATIVE if HELDOUT in (role.get(q), role.get(i)) else SELF)[kind])
    ]
    part, ids, parts = catalog_of(images, rows_per_part)
    edges = edges_of(*found)
    place = dict(zip(images.names.tolist(), ids.tolist(), strict=True))
    near = CopyEdges(*(np.array([place.get(i, i << 32) for i in x.tolist()], np.int64) for x in edges[:2]), *edges[2:])
    same = equal_bytes(ids, images.sha256, role=images.role, rank=images.source_rank)
    exact = CopyEdges(*same, np.ones(len(same[0]), np.float32), np.zeros(len(same[0]), np.int8))
    whole = CopyEdges(*(np.concatenate(columns) for columns in zip(exact, near, strict=True)))
    accepted = [AcceptedImages(ids[part == p], images.num_pixels[part == p]) for p in range(len(parts.role))]
    stream = [whole.take(np.arange(i, min(i + batch, len(whole.kind)))) for i in range(0, len(whole.kind), batch)]
    options |= {name: options[name].ids(place) for name in ("decided", "screened") if options.get(name) is not None}
    found = list(deduplicate(parts, lambda: accepted, lambda: stream, **{"chains": "join"} | options))
    return Judged(*(np.concatenate(columns) for columns in zip(*found, strict=True))) if found else None


def judge(images, *rows, rows_per_part=None, **options):
    result = judged(images, *rows, rows_per_part=rows_per_part, **options)
    if result is None:
        return {}
    names = dict(zip(catalog_of(images, rows_per_part)[1].tolist(), images.names.tolist(), strict=True))
    return {
        names[i]: (
            names[c],
            VERDICTS[v],
            None if p == -1 else names[p],
            None if p == -1 else round(float(s), 3),
            None if p == -1 else KINDS[k],
        )
        for i, c, v, p, s, k in zip(
            *(column.tolist() for column in (*result[:2], result.verdict, *result[4:7])), strict=True
        )
    }


class Decisions(NamedTuple):
    """What was decided, by names; `apart` holds sets of two."""

    keep: frozenset = frozenset()
    drop: frozenset = frozenset()
    represent: frozenset = frozenset()
    alone: frozenset = frozenset()
    apart: frozenset = frozenset()

    def ids(self, place):
        named = [np.sort(np.array([place[name] for name in names], np.int64)) for names in self[:4]]
        pairs = np.array([[place[name] for name in pair] for pair in self.apart], np.int64)
        return Decided(*named, pairs.reshape(-1, 2))


def reference(images, rows, *, chains="join", keep_every=None, decided=Decisions()):  # noqa: B008
    """The rules of the module, image by image, on dictionaries."""
    role = dict(zip(images.names.tolist(), images.role.tolist(), strict=True))
    digest = {i: images.sha256[n].tobytes() for n, i in enumerate(role)}
    pixels = dict(zip(role, images.num_pixels.tolist(), strict=True))
    rank = dict(zip(role, images.source_rank.tolist(), strict=True))
    strength = _strengths(role, digest, rows, decided)

    def preference(image):
        chosen = image in decided.represent
        return not chosen, 0 if chosen else -pixels[image], rank[image], image

    def first_of_equal(image):
        return image not in decided.represent, image in decided.drop, rank[image], image

    group, stays = {}, {}  # the component of each image, and what stays instead
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
        group[start] = min(component)
        first = {digest[i]: i for i in sorted(component, key=first_of_equal, reverse=True)}
        distinct = sorted(first.values())
        frames = [i for i in distinct if i not in decided.drop]
        curated = [i for i in role if role[i] == CURATED]
        may = component - decided.drop
        heads = {first[digest[i]] for pair in decided.apart if pair <= may for i in pair}
        # Where all are dropped, an image goes for nothing.
        stays[start] = min(may, key=preference) if may else start
        if outside[CURATED] and may:
            stays[start] = -max(outside[CURATED])[1]
        if outside[HELDOUT]:
            stays[start] = -max(outside[HELDOUT])[1] if may else start
        elif keep_every is not None and len(frames) > keep_every and not outside[CURATED]:
            found = _thinned(frames, min(frames, key=preference), keep_every, component, digest, heads)
            stays |= {i: found.get(i, stays[start]) for i in component}
        elif (chains == "split" and len(component) >= 5) or heads:
            ordered = sorted(distinct, key=preference)
            found = _split(ordered, curated, component, digest, strength, heads, decided.drop)
            stays |= found
            group |= {i: min(j for j in component if found[j] == found[i]) for i in component}
    for start in pool:
        component = {i for i in pool if group[i] == group[start]}
        wrong = {i for i in component if frozenset((i, stays[i])) in decided.apart and role[stays[i]] == CURATED}
        for i in wrong:
            stays[i] = min((j for j in component if digest[j] == digest[i]), key=first_of_equal)
    return _verdicts(pool, role, group, stays, strength, decided)


def _verdicts(pool, role, group, stays, strength, decided):
    """What is said of each image."""
    verdicts = {}
    for i in pool:
        partner = stays[i]
        verdict = "kept" if partner == i else "benchmark" if role[partner] == HELDOUT else "duplicate"
        if i in decided.keep or (i in decided.represent and verdict != "benchmark"):
            verdict = "kept"
        if i in decided.drop:
            verdict = "dropped"
        if partner == i:
            verdicts[i] = (group[i], verdict, None, None, None)
            continue
        others = [strength[i, b] for b in pool if group[b] == group[i] and (i, b) in strength]
        edge = strength.get((i, partner)) or max(others)
        verdicts[i] = (group[i], verdict, partner, round(edge[1], 3), KINDS[-edge[2]])
    return verdicts


def _strengths(role, digest, rows, decided):
    """The strongest edge of each two images, in both orders, by what counts."""
    strength = {}
    for a, b in product(role, role):
        if a == b or any(role[i] == CURATED and i in decided.drop for i in (a, b)):
            continue
        found = [(1, 1.0, 0)] if digest[a] == digest[b] else []
        off = {a, b} & decided.alone or frozenset((a, b)) in decided.apart
        for q, i, s, kind in () if off else rows:
            least = (RELATIVE if HELDOUT in (role[a], role[b]) else SELF)[kind]
            if {q, i} == {a, b} and np.float32(s) >= np.float32(least):
                found.append((0, s, -KINDS.index(kind)))
        if found:
            strength[a, b] = max(found)
    return strength


def _thinned(frames, best, every, component, digest, heads):
    """Every n-th frame, the best one and heads; of each image the nearest of them."""
    kept = [n for n, frame in enumerate(frames) if n % every == 0 or frame == best or frame in heads]
    nearest = {digest[f]: frames[min(kept, key=lambda k: (abs(k - n), k))] for n, f in enumerate(frames)}
    return {i: nearest[digest[i]] for i in component if digest[i] in nearest}


def _split(ordered, curated, component, digest, strength, heads, dropped):
    """What stays instead of each image, by the definition: distances in the graph of distinct bytes."""
    members = {f: [i for i in component if digest[i] == digest[f]] for f in ordered} | {c: [c] for c in curated}
    edge = {}
    for a, b in product(members, members):
        found = [strength[i, j] for i in members[a] for j in members[b] if (i, j) in strength]
        if found and a != b and not (a in curated and b in curated):
            edge[a, b] = max(x[1:] for x in found)  # of equal bytes: those of a curated image, similarity 1
    centers = [*curated, *heads]
    for image in ordered:
        if image in dropped or image in heads:
            continue
        around = {b for b in ordered if (image, b) in edge}
        if not any((image, c) in edge or any((b, c) in edge for b in around) for c in centers):
            centers.append(image)
    direct = {}
    for image in ordered:
        if image not in centers:
            found = [(edge[image, c], -c) for c in centers if (image, c) in edge]
            if found:
                direct[image] = -max(found)[1]
    stays = {c: c for c in centers} | direct
    for image in ordered:
        if image not in stays:
            through = [(edge[image, b], -b) for b in direct if (image, b) in edge]
            stays[image] = direct[-max(through)[1]] if through else image  # dropped, and far from all
    return {i: stays[f] for f in ordered for i in members[f]}


@st.composite
def problems(draw, max_images=9, max_edges=12):
    n = draw(st.integers(1, max_images))
    ids = [3 * i + 1 for i in range(n)]
    small = st.integers(0, 2)
    digests = draw(st.lists(st.integers(0, 12), min_size=n, max_size=n))
    pixels = draw(st.lists(small, min_size=13, max_size=13))  # by digest: equal bytes are pictures of one size
    images = images_of(
        draw(st.lists(st.sampled_from([POOL, POOL, POOL, CURATED, HELDOUT]), min_size=n, max_size=n)),
        ids=ids,
        pixels=[pixels[digest] for digest in digests],
        rank=draw(st.lists(small, min_size=n, max_size=n)),
        digests=digests,
    )
    edge = st.tuples(
        st.sampled_from(ids),
        st.sampled_from(ids),
        st.sampled_from([0.4, 0.45, 0.5, 0.6, 0.7, 0.72, 0.75, 0.9]),
        st.sampled_from(["embedding", "hash"]),
    )
    return images, draw(st.lists(edge, max_size=max_edges))


@settings(deadline=None, max_examples=300)
@given(problems())
def test_verdicts_equal_a_walk_over_the_graph(problem):
    images, rows = problem
    assert judge(images, *rows) == reference(images, rows)


def tangled(seed):
    """Long components: chains with branches, a few outside images, some equal bytes, few sizes and ranks."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(6, 24))
    roles = np.where(rng.random(n) < rng.choice([0, 0.1]), rng.integers(1, 3, n), POOL)
    digests = np.where(rng.random(n) < 0.8, np.arange(n), rng.integers(0, n, n))
    pixels = rng.integers(0, rng.integers(1, 5), n)[digests]
    images = images_of(roles, ids=2 * np.arange(n), pixels=pixels, rank=rng.integers(0, 2, n), digests=digests)
    order, rows = rng.permutation(n) if seed % 2 else np.arange(n), []
    for at in range(1, n):
        for _ in range(int(rng.integers(0, 3))):
            back = order[max(0, at - int(rng.integers(1, 4)))]
            similarity = rng.choice([0.5, 0.62, 0.76, 0.9])
            rows.append((2 * int(order[at]), 2 * int(back), float(similarity), str(rng.choice(["embedding", "hash"]))))
    return images, rows


@pytest.mark.parametrize("chains", ["join", "split"])
@pytest.mark.parametrize("keep_every", [None, 2, 3])
def test_chains_and_bursts_equal_their_definition_on_a_graph(chains, keep_every, monkeypatch):
    options = {"chains": chains, "keep_every": keep_every}
    monkeypatch.setattr(ops.chains, "ASKED_AT_ONCE", 4)
    for module in (ops.graph, ops.duplicates, ops.chains):
        monkeypatch.setattr(module, "BLOCK_NODES", 8)
    for seed in range(80):
        images, rows = tangled(seed)
        expected = reference(images, rows, **options)
        assert judge(images, *rows, window_edges=1 + seed % 4, **options) == expected, seed
        assert judge(images, *rows, batch=1000, rows_per_part=1 + seed % 5, **options) == expected, seed


def decisions_on(images, rng):
    """Some decisions on each image, and some pairs; what says that two are no copies is said of all of equal bytes."""
    names, digests = images.names.tolist(), images.sha256[:, 5].tolist()
    chosen = rng.choice(6, len(names), p=[0.1, 0.15, 0.1, 0.08, 0.0, 0.57])
    named = [frozenset(n for n, kind in zip(names, chosen, strict=True) if kind == place) for place in range(4)]
    equal = {
        n: {m for m, other in zip(names, digests, strict=True) if other == d}
        for n, d in zip(names, digests, strict=True)
    }
    pairs = rng.choice(names, (int(rng.integers(0, 4)), 2)).tolist()
    apart = frozenset(frozenset(p) for a, b in pairs if equal[a] != equal[b] for p in product(equal[a], equal[b]))
    return Decisions(*named[:3], frozenset().union(*(equal[n] for n in named[3])), apart)


@pytest.mark.parametrize("chains", ["join", "split"])
@pytest.mark.parametrize("keep_every", [None, 2])
def test_what_was_decided_equals_its_definition_on_a_graph(chains, keep_every, monkeypatch):
    options = {"chains": chains, "keep_every": keep_every}
    monkeypatch.setattr(ops.chains, "ASKED_AT_ONCE", 4)
    for module in (ops.graph, ops.duplicates, ops.chains, ops.decided):
        monkeypatch.setattr(module, "BLOCK_NODES", 8)
    for seed in range(60):
        images, rows = tangled(seed)
        decided = decisions_on(images, np.random.default_rng(1000 + seed))
        expected = reference(images, rows, decided=decided, **options)
        found = judge(images, *rows, window_edges=1 + seed % 4, decided=decided, **options)
        assert found == expected, (seed, decided)
        assert judge(images, *rows, batch=1000, rows_per_part=1 + seed % 5, decided=decided, **options) == expected
        check_decided(images, found, decided)


def check_decided(images, verdicts, decided):
    """What decisions promise, whatever the rules are."""
    role = dict(zip(images.names.tolist(), images.role.tolist(), strict=True))
    kept = {i for i, row in verdicts.items() if row[1] == "kept"}
    assert kept >= decided.keep & verdicts.keys()
    assert kept >= {
        i for i in decided.represent & verdicts.keys() if verdicts[i][2] is None or role[verdicts[i][2]] != 2
    }
    assert {i for i, row in verdicts.items() if row[1] == "dropped"} == decided.drop & verdicts.keys()
    partners = {row[2] for row in verdicts.values() if row[1] == "duplicate"}
    assert not partners & decided.drop
    for pair in decided.apart:
        a, b = sorted(pair, key=lambda i: i not in verdicts)
        if a in verdicts and verdicts[a][1] == "duplicate":
            assert verdicts[a][2] != b, "no image goes for one that it is no copy of"
        if {a, b} <= verdicts.keys() - decided.drop and "benchmark" not in (verdicts[a][1], verdicts[b][1]):
            went_for = [row[2] if row[1] == "duplicate" else i for i, row in ((i, verdicts[i]) for i in pair)]
            assert went_for[0] != went_for[1], "nor for the same one"


def test_no_decision_changes_nothing():
    for seed in range(10):
        images, rows = tangled(seed)
        assert judge(images, *rows, chains="split", decided=Decisions()) == judge(images, *rows, chains="split")


CHAIN = [(0, 10, 0.9, "embedding"), (10, 20, 0.8, "embedding")]


def test_a_pair_that_is_no_copy_is_split_and_both_stay():
    found = judge(
        images_of([0] * 3, pixels=[1, 2, 3]), *CHAIN, decided=Decisions(apart=frozenset([frozenset([0, 20])]))
    )
    assert found == {
        0: (0, "kept", None, None, None),
        10: (0, "duplicate", 0, 0.9, "embedding"),  # the stronger pair
        20: (20, "kept", None, None, None),
    }


def test_an_image_that_is_a_copy_of_none_ties_no_others():
    found = judge(images_of([0] * 3), *CHAIN, decided=Decisions(alone=frozenset([10])))
    assert {row[:2] for row in found.values()} == {(0, "kept"), (10, "kept"), (20, "kept")}


def test_an_image_represents_its_group_and_a_dropped_one_still_ties_it():
    images = images_of([0] * 3, pixels=[1, 2, 3])
    assert judge(images, *CHAIN, decided=Decisions(represent=frozenset([0])))[20][1:3] == ("duplicate", 0)
    found = judge(images, *CHAIN, decided=Decisions(drop=frozenset([20])))
    assert [row[:3] for row in found.values()] == [(0, "duplicate", 10), (0, "kept", None), (0, "dropped", 10)]
    found = judge(images, *CHAIN, decided=Decisions(drop=frozenset([0, 10, 20])))
    assert {row[1:3] for row in found.values()} == {("dropped", None)}


def test_only_an_image_that_is_named_comes_back_from_a_group_that_touches_a_heldout_one():
    images, rows = images_of([0, 0, 0, 2]), [*CHAIN, (20, 30, 0.9, "embedding")]
    found = judge(images, *rows, decided=Decisions(keep=frozenset([0]), represent=frozenset([10])))
    assert [row[1:3] for row in found.values()] == [("kept", 30), ("benchmark", 30), ("benchmark", 30)]
    apart = frozenset([frozenset([20, 30])])
    assert judge(images, *rows, decided=Decisions(apart=apart))[10][1] == "duplicate", "the pair was an error"


def test_no_decision_makes_two_of_equal_bytes():
    images = images_of([0, 0, 0], digests=[7, 7, 9])
    decided = Decisions(alone=frozenset([0, 10]))
    found = judge(images, (0, 20, 0.9, "embedding"), decided=decided)
    assert [row[:2] for row in found.values()] == [(0, "kept"), (0, "duplicate"), (20, "kept")]
    found = judge(images, (0, 20, 0.9, "embedding"), decided=Decisions(drop=frozenset([0])))
    assert [row[1] for row in found.values()] == ["dropped", "kept", "duplicate"], "the other one of the same bytes"


@settings(deadline=None, max_examples=200)
@given(problems(), st.randoms())
def test_each_component_keeps_exactly_one_unless_curated_or_heldout_represent_it(problem, random):
    images, rows = problem
    verdicts = judge(images, *rows)
    roles = dict(zip(images.names.tolist(), images.role.tolist(), strict=True))
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
    images = images_of([0, 0, 0], rank=[1, 1, 0], digests=[7, 7, 7])
    assert judge(images, (10, 20, 0.9, "embedding"))[10] == (0, "duplicate", 20, 1.0, "sha256")


def test_thresholds_are_inclusive_in_float32():
    assert judge(images_of([0, 0]), (0, 10, 0.6, "embedding"))[10][1] == "duplicate"
    assert judge(images_of([0, 2]), (0, 10, 0.45, "embedding"))[0][1] == "benchmark"


def test_no_images_give_no_verdicts():
    assert judge(images_of([])) == {}


def test_unusable_input_is_an_error():
    with pytest.raises(ValueError, match="image 330712481792 is none of the accepted images"):
        judge(images_of([0, 0]), (0, 77, 0.9, "hash"))
    huge = CatalogParts(np.zeros(1, np.int8), np.zeros(1, int), np.array([1 << 33]))
    with pytest.raises(ValueError, match="can be deduplicated together"):
        next(deduplicate(huge, list, list))


def test_size_of_the_component_and_whether_the_edge_leads_to_the_partner_are_told():
    chain = [(0, 10, 0.9, "embedding"), (10, 20, 0.8, "embedding")]
    found = judged(images_of([0, 0, 0, 0], pixels=[1, 2, 9, 1]), *chain)
    assert found.component_size.tolist() == [3, 3, 3, 1]
    assert found.direct.tolist()[:2] == [False, True]


def letters(num, **options):
    """A chain a-b-c-...: each image is a pair with the next alone; the verdicts by letter."""
    pairs = [(i, i + 1, 0.9, "embedding") for i in range(num - 1)]
    found = judge(images_of([0] * num, ids=range(num), **options.pop("facts", {})), *pairs, **options)
    return {
        chr(97 + i): (chr(97 + row[0]), row[1], row[2] if row[2] is None else chr(97 + row[2]))
        for i, row in found.items()
    }


def test_a_chain_is_split_so_that_each_image_goes_for_one_within_two_pairs():
    whole = letters(26, chains="join")
    assert [letter for letter, row in whole.items() if row[1] == "kept"] == ["a"]
    split = letters(26, chains="split")
    assert "".join(letter for letter, row in split.items() if row[1] == "kept") == "adgjmpsvy"  # three pairs apart
    assert split["b"] == ("a", "duplicate", "a")
    assert split["c"] == ("c", "duplicate", "d")  # a pair with d, and none with a
    assert split["z"] == ("x", "duplicate", "y")
    largest_last = letters(7, chains="split", facts={"pixels": [1, 1, 1, 1, 1, 1, 9]})
    assert "".join(letter for letter, row in largest_last.items() if row[1] == "kept") == "adg"
    assert largest_last["f"] == ("f", "duplicate", "g")


def test_four_in_a_row_are_copies():
    assert [letter for letter, row in letters(4, chains="split").items() if row[1] == "kept"] == ["a"]
    assert [letter for letter, row in letters(5, chains="split").items() if row[1] == "kept"] == ["a", "d"]


def test_images_within_two_pairs_of_the_preferred_one_are_a_component_as_it_is():
    star = [(0, i, 0.9, "embedding") for i in (10, 20, 30)] + [(30, 40, 0.8, "embedding")]
    images = images_of([0] * 5)
    assert judge(images, *star, chains="split") == judge(images, *star)
    hub = images_of([0] * 5, pixels=[1, 9, 1, 1, 1])  # the preferred one is no center: 40 is three pairs away
    assert {row[1] for row in judge(hub, *star[:3], chains="split").values()} == {"kept", "duplicate"}
    assert [i for i, row in judge(hub, *star, chains="split").items() if row[1] == "kept"] == [10, 40]


def test_a_heldout_image_condemns_the_far_end_of_a_chain_too():
    chain = [(10 * i, 10 * i + 10, 0.9, "embedding") for i in range(7)]
    images = images_of([0] * 8 + [2])
    for options in ({"chains": "split"}, {"chains": "join"}, {"chains": "split", "keep_every": 2}):
        verdicts = judge(images, *chain, (70, 80, 0.5, "embedding"), **options)
        assert {row[:3] for row in verdicts.values()} == {(0, "benchmark", 80)}


def test_a_curated_image_stays_before_any_other_and_instead_of_what_it_is_nearest_to():
    chain = [(10 * i, 10 * i + 10, 0.9, "embedding") for i in range(5)]
    verdicts = judge(images_of([0] * 6 + [1]), *chain, (0, 60, 0.8, "embedding"), chains="split")
    assert [row[:3] for row in verdicts.values()] == [
        (0, "duplicate", 60),
        (10, "duplicate", 20),  # two pairs from the curated one, one from 20
        (10, "kept", None),  # three pairs away
        (10, "duplicate", 20),
        (40, "duplicate", 50),
        (40, "kept", None),
    ]
    short = judge(images_of([0] * 4 + [1]), *chain[:3], (0, 40, 0.8, "embedding"), chains="split")
    assert {row[:3] for row in short.values()} == {(0, "duplicate", 40)}


def test_a_curated_image_joins_no_components():
    stars = [(first, first + 10 * i, 0.9, "embedding") for first in (0, 60) for i in range(1, 5)]
    verdicts = judge(
        images_of([0] * 5 + [1] + [0] * 5), *stars, (0, 50, 0.9, "hash"), (50, 60, 0.9, "hash"), chains="split"
    )
    assert [row[:3] for row in verdicts.values()] == [(c, "duplicate", 50) for c in [0] * 5 + [60] * 5]


def test_of_a_burst_every_so_manieth_frame_stays_and_the_best_one():
    frames = list(itertools.pairwise(range(0, 120, 10)))
    images = images_of([0] * 12, pixels=[1] * 7 + [5] + [1] * 4)
    verdicts = judge(images, *((a, b, 0.9, "embedding") for a, b in frames), keep_every=5)
    assert [i for i, row in verdicts.items() if row[1] == "kept"] == [0, 50, 70, 100]
    assert {row[0] for row in verdicts.values()} == {0}
    assert [row[2] for row in verdicts.values()] == [None, 0, 0, 50, 50, None, 50, None, 70, 100, None, 100]
    small = judge(images_of([0] * 5), *((a, b, 0.9, "embedding") for a, b in frames[:4]), keep_every=5)
    assert [i for i, row in small.items() if row[1] == "kept"] == [0]  # five images are copies


def test_equal_bytes_of_a_burst_are_one_frame():
    pairs = [(10 * i, 10 * i + 10, 0.9, "embedding") for i in range(9)]
    digests = [0, 1, 2, 2, 2, 3, 4, 5, 0, 6]  # seven pictures
    verdicts = judge(images_of([0] * 10, digests=digests, rank=[1] * 3 + [0] * 7), *pairs, keep_every=2)
    assert [i for i, row in verdicts.items() if row[1] == "kept"] == [10, 30, 50, 70, 90]
    # The frames are 10, 30, 50, 60, 70, 80, 90, and 30 is the best one.
    assert verdicts[20] == (0, "duplicate", 30, 1.0, "sha256")
    assert verdicts[0] == (0, "duplicate", 70, 1.0, "sha256")  # as 80, whose bytes it has
    assert verdicts[60] == (0, "duplicate", 50, 0.9, "embedding")


def test_chains_are_cut_where_a_component_is_oversized():
    pairs = [(10 * i, 10 * i + 10, 0.95 if i % 2 else 0.7, "embedding") for i in range(7)]  # eight in a row
    whole = judge(images_of([0] * 8), *pairs)
    assert {component for component, *_ in whole.values()} == {0}
    cut = judge(images_of([0] * 8), *pairs, oversized=Oversized(size=7, threshold=0.9))
    assert [cut[10 * i][0] for i in range(8)] == [0, 10, 10, 30, 30, 50, 50, 70]
    assert cut[20][3] == 0.95  # of the edge within its own component
    assert judge(images_of([0] * 8), *pairs, oversized=Oversized(size=8, threshold=0.9)) == whole
    same = images_of([0] * 8, digests=[7] * 8)
    assert {component for component, *_ in judge(same, oversized=Oversized(size=1, threshold=1.0)).values()} == {0}


def test_weak_pairs_inside_an_oversized_component_count_for_nothing():
    pairs = [(10 * i, 10 * i + 10, 0.95, "embedding") for i in range(5)] + [(0, 50, 0.7, "embedding")]
    images, cut = images_of([0] * 6), Oversized(size=5, threshold=0.9)
    whole = judge(images, *pairs, chains="split")
    assert [i for i, row in whole.items() if row[1] == "kept"] == [0, 30]
    assert whole[50] == (0, "duplicate", 0, 0.7, "embedding")
    assert judge(images, *pairs, oversized=cut)[50] == (0, "duplicate", 0, 0.95, "embedding")  # of its pair with 40
    assert judge(images, *pairs, chains="split", oversized=cut)[50][:3] == (20, "duplicate", 30)


@settings(deadline=None, max_examples=50)
@given(problems(), st.integers(1, 5))
def test_edges_may_come_in_batches_of_any_size(problem, batch):
    images, rows = problem
    assert judge(images, *rows, batch=batch) == judge(images, *rows, batch=100)
