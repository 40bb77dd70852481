"""`verify` reads everything that carries a digest; `curate verify` tells of it."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from curate.cli import app
from curate.engine.executors import InProcess
from curate.models.files.description import save_tensors
from curate.verifying import verify
from tests.engine.test_damage import flip
from tests.engine.test_pipeline import NONE, build


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    build(tmp_path / "run[1]").run(InProcess(1), NONE)
    return tmp_path / "run[1]"


def test_damage_of_each_kind_is_named_with_what_to_do(workdir: Path) -> None:
    export = save_tensors(workdir / "x.safetensors", {"a": torch.ones(99)}, {"export": {}})
    (workdir / "page.html").write_text("x")
    found = verify(str(workdir))
    assert not found.damaged
    assert found.unchecked == (str(workdir / "page.html"),)
    wanted = {
        workdir / "added/part-00001.parquet": "remove it and run its config again",
        workdir / "numbers/_table.json": "remove it and run its config again: parts that are whole are kept",
        export: "export or fetch it again",
    }
    for path in wanted:
        flip(path)
    (workdir / "parity/part-00000.parquet").unlink()
    damaged = verify(str(workdir)).damaged
    assert damaged.keys() == {*map(str, wanted), str(workdir / "parity/part-00000.parquet")}
    for path, advice in wanted.items():
        assert damaged[str(path)].startswith(f"{path}: damaged (")
        assert advice in damaged[str(path)]
    assert "damaged (gone)" in damaged[str(workdir / "parity/part-00000.parquet")]


def test_the_exit_status_and_json_tell_programs(workdir: Path) -> None:
    whole = CliRunner().invoke(app, ["verify", str(workdir)])
    assert whole.exit_code == 0
    assert "0 damaged or gone" in " ".join(whole.output.split())
    shard = workdir / "added/part-00000.parquet"
    flip(shard)
    one = CliRunner().invoke(app, ["verify", str(shard), "--json"])
    assert one.exit_code == 1
    assert list(json.loads(one.stdout)["damaged"]) == [str(shard)]
