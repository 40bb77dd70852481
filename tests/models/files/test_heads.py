import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from curate.errors import WeightsError
from curate.models.files.heads import (
    HeadShape,
    HeadsInfo,
    describe_heads,
    pick_heads,
    read_heads,
    read_heads_info,
    score,
    to_hub_heads,
    write_heads,
)
from curate.trainer.heads import PrototypeHead

SIZES = {"dim": 12, "hidden": 20, "bottleneck": 8, "prototypes": 30}


def heads(*names: str) -> nn.ModuleDict:
    """A student of the trainer, as far as files of heads are concerned."""
    generator = torch.Generator().manual_seed(0)
    made = nn.ModuleDict({"backbone": nn.Linear(3, 12)})
    for name in names:
        made[name] = PrototypeHead(12, 30, hidden=20, bottleneck=8, generator=generator)
        nn.init.uniform_(made[name].last_layer.scale, 0.5, 2, generator=generator)
    return made


def weight_normed(*, parametrized: bool) -> nn.Module:
    """The head as the authors of DINOv2 build it."""
    layer = nn.Linear(8, 30, bias=False)
    normed = nn.utils.parametrizations.weight_norm if parametrized else nn.utils.weight_norm
    mlp = nn.Sequential(nn.Linear(12, 20), nn.GELU(), nn.Linear(20, 20), nn.GELU(), nn.Linear(20, 8))
    return nn.ModuleDict({"mlp": mlp, "last_layer": normed(layer)})


@pytest.mark.parametrize("names", [("dino_head",), ("dino_head", "ibot_head")])
def test_reading_returns_what_was_written(names: tuple[str, ...], tmp_path: Path) -> None:
    state = pick_heads(heads(*names).state_dict())
    info = HeadsInfo(names=names, provenance={"iterations": 3}, **SIZES)
    read, tensors = read_heads(write_heads(tmp_path / "run/heads.safetensors", state, info))
    assert read == info
    assert tensors.keys() == state.keys() == info.shapes.keys()
    assert all(torch.equal(tensors[key], value) for key, value in state.items())


def test_heads_are_described_by_their_tensors() -> None:
    state = pick_heads(heads("ibot_head", "dino_head").state_dict())
    found = describe_heads(state, provenance={"a": 1}, where="test")
    assert found == HeadsInfo(names=("dino_head", "ibot_head"), provenance={"a": 1}, **SIZES)


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("parametrized", [False, True])
def test_weight_norm_of_torch_gives_equal_scores(parametrized: bool, tmp_path: Path) -> None:
    theirs = weight_normed(parametrized=parametrized)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    teacher = {f"dino_head.{key}": value for key, value in theirs.state_dict().items()}
    torch.save({"teacher": teacher | {"backbone.norm.bias": torch.zeros(12)}}, tmp_path / "teacher_checkpoint.pth")
    info, state = read_heads(tmp_path / "teacher_checkpoint.pth")
    assert info == HeadsInfo(names=("dino_head",), **SIZES)
    ours = PrototypeHead(12, 30, hidden=20, bottleneck=8)
    ours.load_state_dict({key.removeprefix("dino_head."): value for key, value in state.items()})
    x = torch.randn(5, 12, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = theirs["last_layer"](F.normalize(theirs["mlp"](x), dim=-1))
        torch.testing.assert_close(ours(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_our_heads_load_into_weight_norm_of_torch() -> None:
    ours = heads("dino_head")["dino_head"]
    theirs = weight_normed(parametrized=False)
    theirs.load_state_dict(
        {k.removeprefix("."): v for k, v in to_hub_heads({f".{k}": v for k, v in ours.state_dict().items()}).items()}
    )
    x = torch.randn(5, 12, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        found = theirs["last_layer"](F.normalize(theirs["mlp"](x), dim=-1))
        torch.testing.assert_close(found, ours(x), rtol=1e-5, atol=1e-5)


UNEQUAL = {
    "dino_head": HeadShape(hidden=24, bottleneck=10, prototypes=40, last_layer="linear"),
    "ibot_head": HeadShape(hidden=20, bottleneck=8, prototypes=30, last_layer="linear"),
}


@pytest.mark.parametrize("last_layer", ["weight_norm", "linear"])
def test_heads_of_unequal_shapes_come_back_and_score_as_before(last_layer: str, tmp_path: Path) -> None:
    shapes = {name: shape.model_copy(update={"last_layer": last_layer}) for name, shape in UNEQUAL.items()}
    made = {
        name: PrototypeHead(12, s.prototypes, hidden=s.hidden, bottleneck=s.bottleneck, linear=s.last_layer == "linear")
        for name, s in shapes.items()
    }
    state = pick_heads(nn.ModuleDict({"backbone": nn.Linear(3, 12), **made}).state_dict())
    info = describe_heads(state, where="test")
    assert info == HeadsInfo(dim=12, heads=shapes)
    file = write_heads(tmp_path / "heads.safetensors", state, info)
    assert read_heads(file)[0] == read_heads_info(file) == info
    x = torch.randn(5, 12, generator=torch.Generator().manual_seed(2))
    for name, head in made.items():
        torch.testing.assert_close(score(read_heads(file)[1], name, x), head(x), rtol=1e-5, atol=1e-6)


def test_a_file_of_an_earlier_version_has_one_shape_for_all_heads(tmp_path: Path) -> None:
    state = pick_heads(heads("dino_head", "ibot_head").state_dict())
    told = {**SIZES, "names": ["dino_head", "ibot_head"], "provenance": {"iterations": 3}}
    save_file(state, tmp_path / "heads.safetensors", metadata={"curate": json.dumps({"heads": told})})
    info, tensors = read_heads(tmp_path / "heads.safetensors")
    shape = HeadShape(hidden=20, bottleneck=8, prototypes=30)
    assert info.heads == {"dino_head": shape, "ibot_head": shape}
    assert tensors.keys() == state.keys()


def test_prototypes_of_a_training_checkpoint_may_be_plain(tmp_path: Path) -> None:
    head = PrototypeHead(12, 30, hidden=20, bottleneck=8, linear=True)
    teacher = {f"dino_head.{key}": value for key, value in head.state_dict().items()}
    torch.save({"teacher": teacher}, tmp_path / "teacher_checkpoint.pth")
    assert read_heads_info(tmp_path / "teacher_checkpoint.pth").heads["dino_head"].last_layer == "linear"


def test_heads_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    state = pick_heads(heads("dino_head").state_dict())
    info = describe_heads(state, where="test")
    with pytest.raises(WeightsError, match="does not fit what HeadsInfo describes: missing ibot_head.last_layer.dir"):
        write_heads(tmp_path / "h.safetensors", state, HeadsInfo(names=("dino_head", "ibot_head"), **SIZES))
    with pytest.raises(WeightsError, match="exports are .safetensors files; name it .*h.safetensors"):
        write_heads(tmp_path / "h.pt", state, info)
    with pytest.raises(ValueError, match="a file of heads holds at least one"):
        HeadsInfo(names=(), **SIZES)
    with pytest.raises(WeightsError, match="test: no projection heads; needed are dino_head.mlp.0.weight"):
        describe_heads({"norm.bias": torch.zeros(1)}, where="test")
    state["dino_head.mlp.6.weight"] = torch.zeros(1)
    with pytest.raises(WeightsError, match="three-layer heads: unknown dino_head.mlp.6.weight"):
        describe_heads(state, where="test")


def test_files_without_heads_are_refused(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "plain.safetensors")
    with pytest.raises(WeightsError, match="no metadata 'curate': not a heads file of `curate train`"):
        read_heads(tmp_path / "plain.safetensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "backbone.safetensors", metadata={"curate": '{"vit": {}}'})
    with pytest.raises(WeightsError, match="holds no heads; give the heads.safetensors beside the backbone"):
        read_heads(tmp_path / "backbone.safetensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "old.safetensors", metadata={"curate": '{"heads": {"dim": 0}}'})
    with pytest.raises(WeightsError, match="metadata do not fit this version"):
        read_heads(tmp_path / "old.safetensors")
    torch.save({"teacher": {"backbone.norm.bias": torch.zeros(1)}}, tmp_path / "backbone.pth")
    with pytest.raises(WeightsError, match="backbone.pth: no projection heads"):
        read_heads(tmp_path / "backbone.pth")
