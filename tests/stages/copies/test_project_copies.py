"""ProjectCopies: projected vectors, null where there was none, and where they come from."""

from pathlib import Path

import numpy as np

from curate.engine.cost import Assumptions, Shape
from curate.engine.pipeline import Ref
from curate.ops.vectors import VectorSpec, unpack
from curate.stages.copies.copy_space import read_space
from curate.stages.copies.project_copies import ProjectCopies
from curate.stages.images.embed import EmbedFigures
from curate.tables import space_schema
from tests.engine.test_finished import opened
from tests.stages.planted import DIM, all_vectors, given_table, make, planted


def test_vectors_are_projected_and_nulls_stay_null(tmp_path: Path) -> None:
    p, _, vectors = planted(tmp_path)
    axes = np.random.default_rng(0).standard_normal((5, DIM)).astype(np.float32)
    schema = space_schema(DIM, model="planted", weights="")
    rows = [{"axis": number - 1, "vector": axis.tobytes()} for number, axis in enumerate(axes)]
    given_table(tmp_path, "space", schema, [rows])
    projected = p.add("projected", ProjectCopies(dim=4), embeddings=vectors, space=Ref("space", schema))
    make(p)
    table = p.store.table(projected.name)
    ids, x = all_vectors(p)
    found = table.read_all()
    spec = VectorSpec.of(table.schema())
    assert (spec.model, spec.dtype, spec.dim) == ("planted+space", "float16", 4)
    stored, at = unpack(found["vector"], spec)
    assert np.array_equal(found["image_id"].to_numpy()[at], ids)
    assert np.allclose(stored, read_space(p.store.table("space")).project(x), atol=1e-3)
    assert EmbedFigures.of(table).embedded == len(ids) == table.complete_manifest().rows_in
    run = opened(p)
    stage, table = run.only(ProjectCopies)
    assert list(stage.facts(table, run)) == [("Models", "projected: ProjectCopies of vectors, space")]


def test_cost_is_one_product_a_vector() -> None:
    vectors = Shape(pool=1000, curated=10, row_bytes=72, dim=32)
    demand, made = ProjectCopies(dim=8).cost({"embeddings": vectors}, Assumptions(images=1000))
    assert demand.products == 2 * 1010 * 32 * 8
    assert (made.pool, made.curated, made.dim, made.row_bytes) == (1000, 10, 8, 24)
