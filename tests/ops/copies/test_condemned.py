"""What rules reject: images that never stay, and components that go with one."""

from typing import NamedTuple

import numpy as np
import pytest

import curate.ops.copies as ops
from curate.ops.copies.condemned import Screened
from tests.ops.copies.test_duplicates import (
    CURATED,
    HELDOUT,
    POOL,
    RELATIVE,
    SELF,
    Decisions,
    decisions_on,
    images_of,
    judge,
    tangled,
)


class Rejects(NamedTuple):
    """What rules reject, by names."""

    images: frozenset = frozenset()
    condemning: frozenset = frozenset()
    listed: frozenset = frozenset()

    def ids(self, place):
        return Screened(*(np.sort(np.array([place[name] for name in names], np.int64)) for names in self))


def rejects_on(images, rng, decided):
    """Some images of pool and curated sets; those that a person keeps only where a list names them."""
    names = images.names[images.role != HELDOUT].tolist()
    kind = rng.choice(4, len(names), p=[0.7, 0.15, 0.08, 0.07])
    listed = {n for n, k in zip(names, kind, strict=True) if k == 3}
    stay = decided.keep | decided.represent
    some, copies = ({n for n, k in zip(names, kind, strict=True) if k == one and n not in stay} for one in (1, 2))
    return Rejects(*map(frozenset, (some | copies | listed, copies | listed, listed)))


def components(images, rows, decided):
    """Sets of pool images that hang together, and of each the outside images that touch it; those of images."""
    role = dict(zip(images.names.tolist(), images.role.tolist(), strict=True))
    digest = dict(zip(images.names.tolist(), images.sha256[:, 5].tolist(), strict=True))
    pairs = [(a, b) for a in role for b in role if a < b and digest[a] == digest[b]]
    for a, b, similarity, kind in rows:
        limit = (RELATIVE if HELDOUT in (role[a], role[b]) else SELF)[kind]
        counts = frozenset((a, b)) not in decided.apart and not {a, b} & decided.alone
        if a != b and counts and np.float32(similarity) >= np.float32(limit):
            pairs.append((a, b))
    group = {i: {i} for i in role if role[i] == POOL}
    for a, b in pairs:
        if role[a] == role[b] == POOL and group[a] is not group[b]:
            group[a] |= group[b]
            for member in group[b]:
                group[member] = group[a]
    touching = {i: {x for p in pairs for x in p if p[0] in group[i] or p[1] in group[i]} - group[i] for i in group}
    return group, touching


@pytest.mark.parametrize("chains", ["join", "split"])
@pytest.mark.parametrize("keep_every", [None, 2])
def test_whole_components_go_with_an_image_that_condemns_them_and_the_rest_is_judged_as_if_dropped(
    chains, keep_every, monkeypatch
):
    options = {"chains": chains, "keep_every": keep_every}
    for module in (ops.graph, ops.duplicates, ops.chains, ops.decided):
        monkeypatch.setattr(module, "BLOCK_NODES", 8)
    for seed in range(80):
        images, rows = tangled(seed)
        rng = np.random.default_rng(2000 + seed)
        decided = decisions_on(images, rng) if seed % 2 else Decisions()
        rejects = rejects_on(images, rng, decided)
        found = judge(images, *rows, decided=decided, screened=rejects, **options)
        assert judge(images, *rows, batch=999, rows_per_part=2, decided=decided, screened=rejects, **options) == found
        group, touching = components(images, rows, decided)
        stay = [name - rejects.images for name in (decided.keep, decided.represent)]
        as_dropped = decided._replace(keep=stay[0], represent=stay[1], drop=decided.drop | rejects.images)
        plain = judge(images, *rows, decided=as_dropped, **options)
        for image, row in found.items():
            by = (group[image] | touching[image]) & rejects.condemning
            if image in rejects.images:
                assert row[1:3] == ("screened", None), seed
            elif by and (by & rejects.listed or image not in decided.keep):
                assert row[1] == "screened", (seed, image)
                assert row[2] == min(by & rejects.listed or by), (seed, image)
            elif not by:
                assert row == plain[image], (seed, image)
            else:
                assert row[1] == "kept"


def test_no_reject_changes_nothing():
    images, rows = tangled(7)
    assert judge(images, *rows, screened=Rejects()) == judge(images, *rows)


def test_a_listed_curated_image_takes_its_copies_and_one_that_is_not_condemning_has_none():
    images = images_of([POOL, POOL, CURATED])
    near = [(0, 20, 0.9, "embedding")]
    assert judge(images, *near)[0][1:3] == ("duplicate", 20)
    assert judge(images, *near, screened=Rejects(frozenset({20})))[0][1] == "kept"
    listed = Rejects(*[frozenset({20})] * 3)
    assert judge(images, *near, screened=listed)[0] == (0, "screened", 20, 0.9, "embedding")
    assert judge(images, *near, screened=listed)[10][1] == "kept"
