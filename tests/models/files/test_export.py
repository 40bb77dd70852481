import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from curate.errors import WeightsError
from curate.models.backbones.load import describe, load_backbone
from curate.models.files.export import read_export, write_export
from curate.models.files.header import ExportInfo
from curate.models.files.sealed_tensors import DIGEST
from curate.models.nets.config import ViTConfig
from curate.models.nets.tower import TimmTower, tower_config
from curate.models.nets.vit import VisionTransformer

INFO = ExportInfo(image_size=56, short_edge=64, mean=(0.4, 0.5, 0.6), provenance={"steps": 300})


def trained(num_registers: int = 0, ffn: str = "mlp", dim: int = 48) -> VisionTransformer:
    config = ViTConfig(
        dim=dim, depth=2, heads=3, image_size=56, num_registers=num_registers, ffn=ffn, drop_path_rate=0.2
    )
    model = VisionTransformer(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


VARIANTS = pytest.mark.parametrize(
    ("num_registers", "ffn", "dim"), [(0, "mlp", 48), (4, "mlp", 192), (2, "swiglu", 48), (0, "swiglu", 192)]
)


@VARIANTS
def test_timm_alone_reads_the_file(num_registers: int, ffn: str, dim: int, tmp_path: Path) -> None:
    vit = trained(num_registers, ffn, dim)
    path = write_export(tmp_path / "vit.safetensors", vit, INFO)
    with safe_open(path, framework="pt") as file:
        recipe = json.loads(file.metadata()["curate"])["timm"]
    model = timm.create_model(
        recipe["architecture"], pretrained=True, pretrained_cfg_overlay={"file": str(path)}, **recipe["kwargs"]
    )
    x = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(x), vit(x), rtol=1e-5, atol=1e-5)


def swin(drop_path_rate: float = 0.1) -> TimmTower:
    config = tower_config(
        "swin_tiny_patch4_window7_224",
        embed_dim=8,
        depths=(1, 1, 1, 1),
        num_heads=(1, 1, 2, 2),
        img_size=64,
        window_size=2,
        drop_path_rate=drop_path_rate,
    )
    return TimmTower(config, generator=torch.Generator().manual_seed(0)).eval()


@torch.no_grad()
def test_a_tower_is_read_back_by_curate_and_by_timm(tmp_path: Path) -> None:
    tower = swin()
    path = write_export(tmp_path / "swin.safetensors", tower, INFO.model_copy(update={"image_size": 64}))
    again, _ = read_export(path)
    assert again.config == tower.config
    assert describe("curate", str(path)).dim == tower.dim == 64
    with safe_open(path, framework="pt") as file:
        recipe = json.loads(file.metadata()["curate"])["timm"]
    alone = timm.create_model(
        recipe["architecture"], pretrained=True, pretrained_cfg_overlay={"file": str(path)}, **recipe["kwargs"]
    )
    for size in (64, 96):
        x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
        for model in (again, alone):
            torch.testing.assert_close(model.eval()(x), tower(x), rtol=0, atol=0)
    pixels = torch.randint(0, 256, (3, 3, 64, 64), generator=torch.Generator().manual_seed(0)).byte()
    embedded = load_backbone("curate", weights=str(path), device="cpu", precision="fp32").embed(pixels)
    assert embedded.shape == (3, 64)


def test_reading_returns_what_was_written(tmp_path: Path) -> None:
    vit = trained(num_registers=1)
    found, info = read_export(write_export(tmp_path / "deep/er/vit.safetensors", vit, INFO))
    assert (found.config, info) == (vit.config, INFO)
    state = found.state_dict()
    assert all(torch.equal(state[key], value) for key, value in vit.state_dict().items())


def test_equal_weights_give_equal_bytes(tmp_path: Path) -> None:
    first = write_export(tmp_path / "a.safetensors", trained(), INFO)
    second = write_export(tmp_path / "b.safetensors", trained(), INFO)
    assert first.read_bytes() == second.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors", "b.safetensors"]


def test_a_failed_write_leaves_the_old_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_export(tmp_path / "vit.safetensors", trained(), INFO)
    before = path.read_bytes()

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", fail)
    with pytest.raises(OSError, match="No space left"):
        write_export(path, trained(num_registers=1), INFO)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["vit.safetensors"]


def test_embed_accepts_the_export(tmp_path: Path) -> None:
    vit = trained()
    path = str(write_export(tmp_path / "vit.safetensors", vit, INFO))
    info = describe("curate", path)
    assert (info.dim, info.preprocess.size, info.preprocess.short_edge) == (48, 56, 64)
    backbone = load_backbone("curate", weights=path, device="cpu", precision="fp32")
    pixels = torch.randint(0, 256, (3, 3, 56, 56), generator=torch.Generator().manual_seed(0)).byte()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (INFO.mean, INFO.std))
    with torch.no_grad():
        expected = torch.nn.functional.normalize(vit((pixels / 255 - mean) / std), dim=1)
    torch.testing.assert_close(backbone.embed(pixels), expected, rtol=1e-4, atol=1e-5)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="curate: no weights given; set `weights`"):
        describe("curate")
    with pytest.raises(WeightsError, match=r"https://a.example/vit.safetensors is not downloaded yet"):
        describe("curate", "https://a.example/vit.safetensors")
    with pytest.raises(WeightsError, match=r"exports are .safetensors files; name it .*vit.safetensors"):
        write_export(tmp_path / "vit.pth", trained(), INFO)
    save_file({"x": torch.zeros(1)}, tmp_path / "plain.safetensors")
    with pytest.raises(WeightsError, match="no metadata 'curate': not an export of `curate train`"):
        read_export(tmp_path / "plain.safetensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "text.safetensors", metadata={"curate": "{"})
    with pytest.raises(WeightsError, match="metadata 'curate': not JSON"):
        read_export(tmp_path / "text.safetensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "old.safetensors", metadata={"curate": '{"vit": {"width": 3}}'})
    with pytest.raises(WeightsError, match="metadata do not fit this version"):
        read_export(tmp_path / "old.safetensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "heads.safetensors", metadata={"curate": '{"heads": {}}'})
    with pytest.raises(WeightsError, match="holds projection heads; give the backbone.safetensors beside it"):
        read_export(tmp_path / "heads.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(b"\x10")
    with pytest.raises(WeightsError, match="not a readable safetensors file"):
        read_export(tmp_path / "cut.safetensors")


def described(path: Path, **changes: Any) -> Path:
    """An export of a tower whose description is changed: `a__b=value` sets the entry b of a."""
    write_export(path, swin(), INFO.model_copy(update={"image_size": 64}))
    with safe_open(path, framework="pt") as file:
        metadata = json.loads(file.metadata()["curate"])
        del metadata[DIGEST]  # a stranger's file has none, or one that fits
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
    for place, value in changes.items():
        *parents, leaf = place.split("__")
        entry = metadata
        for parent in parents:
            entry = entry[parent]
        entry[leaf] = value
    save_file(state, path, metadata={"curate": json.dumps(metadata)})
    return path


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"tower__name": "hf-hub:owner/name"}, "the plain name of a timm architecture is needed"),
        ({"tower__name": "local-dir:/tmp/x"}, "the plain name of a timm architecture is needed"),
        ({"tower__kwargs__checkpoint_path": "/tmp/x"}, "'checkpoint_path' is no argument"),
        ({"tower__kwargs__pretrained_cfg": {"file": "/tmp/x"}}, "'pretrained_cfg' is no argument"),
        ({"tower__kwargs__pretrained": True}, "'pretrained' is no argument"),
        ({"tower__kwargs__embed_dim": 2**40}, "embed_dim: widths of 0 to 16384 may be given"),
        ({"tower__auto_map": {"AutoModel": "evil.py"}}, "auto_map: Extra inputs are not permitted"),
        ({"tower": "swin"}, "tower|all"),
        ({"export__image_size": 10**9}, "image_size: Input should be less than or equal to 4096"),
        ({"export__std": [0, 1, 1]}, "std.0: Input should be greater than 0"),
        ({"export__mean": [float("nan"), 0, 0]}, "mean.0: Input should be a finite number"),
        ({"export__license": "x" * 2000}, "license: String should have at most 1000"),
        ({"export": []}, "all: Input should be a valid dictionary"),
    ],
)
def test_a_description_never_becomes_an_argument_that_is_not_on_the_list(
    change: dict[str, Any], told: str, tmp_path: Path
) -> None:
    path = described(tmp_path / "swin.safetensors", **change)
    for read in (read_export, lambda file: describe("curate", str(file))):
        with pytest.raises(WeightsError, match=f"swin.safetensors: its metadata do not fit this version .*{told}"):
            read(path)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"tower__name": "no_such_net"}, "no_such_net: timm has no such architecture"),
        ({"tower__kwargs__sr_ratios": 2}, "timm does not build it with"),
        ({"tower__kwargs__window_size": 0}, "timm does not build it with"),
    ],
)
def test_what_timm_does_not_build_is_an_error_of_the_file(change: dict[str, Any], told: str, tmp_path: Path) -> None:
    path = described(tmp_path / "swin.safetensors", **change)
    for read in (read_export, lambda file: describe("curate", str(file))):
        with pytest.raises(WeightsError, match=rf"swin.safetensors: .*{told}"):
            read(path)


def test_no_network_is_built_that_is_larger_than_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vit = {"dim": 16_384, "depth": 512, "heads": 64, "image_size": 16_380, "patch_size": 14}  # 6 TB
    described = {"vit": vit, "export": INFO.model_dump(mode="json")}
    state = dict(trained().state_dict())
    save_file(state, tmp_path / "vit.safetensors", metadata={"curate": json.dumps(described)})
    with pytest.raises(WeightsError, match="vit.safetensors: does not fit the model: missing"):
        read_export(tmp_path / "vit.safetensors")


@pytest.mark.parametrize(
    ("text", "told"),
    [("[1]", "holds a list"), ("[" * 100_000, "not JSON"), ('"' + "x" * (1 << 20) + '"', "more than 1048576 bytes")],
)
def test_descriptions_that_are_none_are_refused(text: str, told: str, tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "a.safetensors", metadata={"curate": text})
    with pytest.raises(WeightsError, match=f"a.safetensors: metadata 'curate': {told}"):
        read_export(tmp_path / "a.safetensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(WeightsError, match=f"config.json: {told}"):
        read_export(tmp_path / "model.safetensors")
