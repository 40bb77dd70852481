"""Heads score the embeddings that they were made for, as plain torch does, and no others."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from curate.errors import ConfigError
from curate.ops.vectors import normalize, pack
from curate.stages.screening.score_head import ScoreHead
from curate.tables import embeddings_schema

MODEL = "open_clip/ViT-L-14:openai"


def embeddings(dim: int = 768, model: str = MODEL, dtype: str = "float16") -> tuple[np.ndarray, pa.Table]:
    """Vectors, of which every fifth image has none."""
    vectors = normalize(np.random.default_rng(0).standard_normal((30, dim)))
    valid = np.arange(30) % 5 != 4
    schema = embeddings_schema(dim, dtype=dtype, model=model, weights="w")
    return vectors, pa.table([pa.array(np.arange(30)), pack(vectors.astype(dtype), valid=valid)], schema=schema)


def head(tmp_path: Path, module: nn.Module, declaration: str = "", **more: Any) -> ScoreHead:
    save_file(module.state_dict(), tmp_path / "head.safetensors")
    if declaration:
        (tmp_path / "head.safetensors.yaml").write_text(declaration)
    return ScoreHead(name="quality", head=str(tmp_path / "head.safetensors"), embed="copy", **more)


def scores(stage: ScoreHead, table: pa.Table) -> pa.Table:
    found = pa.Table.from_batches(list(stage.run(0, embeddings=table)))
    assert found.schema.equals(stage.output_schema(embeddings=table.schema), check_metadata=True)
    return found


def test_scores_are_those_of_torch_and_null_where_there_is_no_vector(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Linear(768, 1)
    stage, (vectors, table) = head(tmp_path, module), embeddings()
    found = scores(stage, table)
    expected = module(torch.from_numpy(vectors)).detach().numpy()[:, 0]
    known = np.arange(30) % 5 != 4
    assert found["quality"].is_valid().to_pylist() == known.tolist()
    np.testing.assert_allclose(found["quality"].drop_null().to_numpy(), expected[known], atol=2e-3)  # float16
    metadata = found.schema.field("quality").metadata
    assert metadata[b"curate.model"] == MODEL.encode()
    assert metadata[b"curate.weights"].decode() == stage.pins()["head"]
    assert b"aesthetic" in metadata[b"doc"]


@pytest.mark.parametrize(
    ("table", "why"),
    [
        (embeddings(model="open_clip/ViT-L-14:laion2b_s32b_b82k")[1], "these are of open_clip/ViT-L-14:laion2b"),
        (embeddings(dim=512, model="open_clip/ViT-B-32:openai")[1], "takes embeddings of open_clip/ViT-L-14:openai or"),
    ],
)
def test_embeddings_of_another_model_are_an_error(tmp_path: Path, table: pa.Table, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        head(tmp_path, nn.Linear(768, 1)).output_schema(embeddings=table.schema)


def test_the_model_of_a_head_may_be_given(tmp_path: Path) -> None:
    stage = head(tmp_path, nn.Linear(768, 1), model="mine")
    assert stage.output_schema(embeddings=embeddings(model="mine")[1].schema).names == ["image_id", "quality"]
    with pytest.raises(ConfigError, match="takes embeddings of mine, these are of open_clip"):
        stage.output_schema(embeddings=embeddings()[1].schema)
    with pytest.raises(ConfigError, match="takes 768 values, an embedding of mine has 512"):
        stage.output_schema(embeddings=embeddings(dim=512, model="mine")[1].schema)


def test_another_declaration_is_another_head(tmp_path: Path) -> None:
    stage = head(tmp_path, nn.Linear(8, 1), "models: [a]\n")
    pins = stage.pins()
    (tmp_path / "head.safetensors.yaml").write_text("models: [a]\noutput: sigmoid\n")
    assert stage.pins() != pins
    found = scores(stage, embeddings(dim=8, model="a", dtype="float32")[1])["quality"].drop_null().to_numpy()
    assert ((found > 0) & (found < 1)).all()


def test_a_head_that_is_not_there_is_named(tmp_path: Path) -> None:
    stage = ScoreHead(name="quality", head=str(tmp_path / "none.pth"), embed="copy")
    with pytest.raises(ConfigError, match=r"head: .*none.pth: no such weight file"):
        stage.pins()
