"""SearchPlanted: each judging copy with its original and the most similar other images, against brute force."""

from pathlib import Path

import numpy as np
import pytest

from curate.engine.cost import Assumptions, Shape
from curate.engine.image_ids import part_of, row_of
from curate.engine.pipeline import Ref
from curate.errors import TableError
from curate.ops.copies.copyspace import CopySpace
from curate.stages.copies.copy_space import read_space
from curate.stages.copies.planted import read_planted
from curate.stages.copies.project_copies import ProjectCopies
from curate.stages.copies.search_planted import GIVEN_UP, PER_COPY, SearchPlanted, is_original, searched_from
from curate.tables import space_schema
from tests.stages.copies.toy_calibration import DIM, ROWS, add_within, declare, pool_vectors, pool_within
from tests.stages.planted import given_table, make

STAGE = SearchPlanted(device="cpu")
Pairs = dict[tuple[int, int], float]


def searched(root: Path, *, within: bool, space: bool = False) -> tuple[Pairs, Pairs]:
    """(query, image) -> similarity, as the stage finds them and by brute force."""
    p, refs = declare(root)
    views = {"embeddings": refs["embeddings"]}
    if within:
        views["within"] = add_within(p, refs["catalog"])
    given = {"planted": refs["planted"], "catalog": refs["catalog"]}
    if space:
        schema = space_schema(DIM, model="planted", weights="")
        axes = np.random.default_rng(0).standard_normal((21, DIM)).astype(np.float32)
        axes[0] *= 0.01
        rows = [{"axis": number - 1, "vector": axis.tobytes()} for number, axis in enumerate(axes)]
        given_table(root, "space", schema, [rows])
        given["space"] = Ref("space", schema)
        project = ProjectCopies(dim=20)
        views = {
            name: p.add(f"projected/{name}", project, embeddings=x, space=given["space"]) for name, x in views.items()
        }
    p.add("found", STAGE, **views, **given)
    make(p)
    rows = p.store.table("found").read_all().to_pylist()
    found = {(row["query_id"], row["image_id"]): row["similarity"] for row in rows}
    assert len(found) == len(rows)
    fitted = read_space(p.store.table("space")) if space else None
    return found, brute_force(root, within=within, space=fitted)


def brute_force(root: Path, *, within: bool, space: CopySpace | None) -> Pairs:
    """All views of each copy with all of each image of the pool."""
    p, _ = declare(root)
    asking = read_planted(p.store.table("planted"), half=1)
    views, likeness = asking.views(space), asking.likeness(asking.views(space))
    pool = {
        part << 32 | row: [pool_vectors()[part, row]]
        + [x for x in pool_within()[row : row + 1] if within and part and x is not None]
        for part in (0, 1)
        for row in range(ROWS)
    }
    expected: Pairs = {}
    for row, own in zip(asking.copies().tolist(), likeness.tolist(), strict=True):
        mine, original = views.vectors[views.rows == row], int(asking.image_ids[row])
        cosines = {}
        for image, vectors in pool.items():
            x = np.stack(vectors).astype(np.float32)
            cosines[image] = float((mine @ (x if space is None else space.project(x)).T).max())
        others = {
            one: cosine
            for one, cosine in cosines.items()
            if one != original and cosine >= np.quantile(likeness, GIVEN_UP)
        }
        nearest = sorted(others, key=lambda one: -others[one])[:PER_COPY]
        expected |= {(-1 - row, one): others[one] for one in nearest} | {(-1 - row, original): own}
    return expected


@pytest.mark.parametrize("within", [False, True])
def test_found_pairs_are_those_of_brute_force(tmp_path: Path, within: bool) -> None:
    found, expected = searched(tmp_path, within=within)
    assert found.keys() == expected.keys()
    assert [found[pair] for pair in expected] == pytest.approx(list(expected.values()), abs=1e-5)
    assert len(found) > 40


def test_an_image_within_a_border_is_found_by_what_the_border_surrounds(tmp_path: Path) -> None:
    plain, both = (searched(tmp_path / f"{within}", within=within)[0] for within in (False, True))
    new = {image for _, image in both.keys() - plain.keys()}
    assert new
    assert all(part_of(one) == 1 and row_of(one) % 4 == 0 for one in new)


def test_in_a_copy_space_its_cosines_count(tmp_path: Path) -> None:
    found, expected = searched(tmp_path, within=True, space=True)
    likely = found.keys() & expected.keys()
    assert len(likely) >= 0.95 * len(expected)  # stored in half precision, some pairs at the floor differ
    assert [found[pair] for pair in likely] == pytest.approx([expected[pair] for pair in likely], abs=3e-3)


def test_an_original_is_found_however_little_its_copy_is_like_it(tmp_path: Path) -> None:
    p, refs = declare(tmp_path)
    p.add("found", STAGE, **refs)
    make(p)
    rows, asking = p.store.table("found").read_all(), read_planted(p.store.table("planted"), half=1)
    own = is_original(asking, rows["query_id"].to_numpy(), rows["image_id"].to_numpy())
    assert sorted((-1 - rows["query_id"].to_numpy()[own]).tolist()) == asking.copies().tolist()
    floor = searched_from(asking.likeness(asking.views(None)))
    similarity = rows["similarity"].to_numpy()
    assert similarity[own].min() < floor <= similarity[~own].min()


def test_a_pool_without_the_originals_is_an_error(tmp_path: Path) -> None:
    p, refs = declare(tmp_path, first_role="curated")
    p.add("found", STAGE, **refs)
    with pytest.raises(TableError, match="no planted copy has its original in the pool; was the pool embedded"):
        make(p)


def test_cost_is_every_judging_copy_against_the_pool() -> None:
    inputs = {"embeddings": Shape(pool=65_536, row_bytes=100, dim=8), "planted": Shape(pool=400)}
    demand, made = STAGE.cost(inputs, Assumptions(images=65_536))
    assert demand.products == 2 * 200 * 65_536 * 8
    assert made.rows == 200 * (PER_COPY + 1)
