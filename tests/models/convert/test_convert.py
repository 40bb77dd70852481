"""What every format has in common."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from typer.testing import CliRunner

from curate.cli import app
from curate.errors import ConfigError, WeightsError
from curate.models.backbones.load import load_backbone
from curate.models.convert import convert as module
from curate.models.convert.convert import OutputDifference, convert
from curate.models.convert.source import LoadedBackbone, load_source
from curate.models.convert.target import Forward, Options, Tokens
from tests.models.convert.backbones import INFO, SIZE, VARIANTS, add_heads, export, pictures, vit

LIGHT = ("hub", "timm", "huggingface", "safetensors")


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("num_registers", "ffn"), VARIANTS)
@torch.no_grad()
def test_a_tour_through_all_formats_changes_no_output(num_registers: int, ffn: str, tmp_path: Path) -> None:
    network = vit(num_registers, ffn)
    path = export(tmp_path, network)
    for to in LIGHT:
        made = convert(path, to, output=tmp_path / to if to == "huggingface" else None)
        assert [(check.images, check.image_size) for check in made.checks] == [(1, SIZE), (3, SIZE)]
        found = load_source(str(made.path)).network
        torch.testing.assert_close(found(pictures()), network(pictures()), rtol=1e-5, atol=1e-5)
        path = str(made.path)


@torch.no_grad()
def test_all_but_torch_hub_keep_license_and_provenance(tmp_path: Path) -> None:
    path = export(tmp_path, vit(4))
    for to in ("timm", "huggingface", "safetensors"):
        assert load_source(str(convert(path, to).path)).info == INFO
    assert load_source(str(convert(path, "hub").path)).info.license == "unknown: that of the weights it was made from"


def test_the_pipeline_embeds_with_converted_files(tmp_path: Path) -> None:
    path = export(tmp_path, vit())
    pixels = torch.randint(0, 256, (2, 3, SIZE, SIZE), generator=torch.Generator().manual_seed(0)).byte()
    wanted = load_backbone("curate", weights=path, device="cpu", precision="fp32").embed(pixels)
    for to in ("timm", "huggingface", "safetensors"):
        found = load_backbone("curate", weights=str(convert(path, to).path), device="cpu", precision="fp32")
        torch.testing.assert_close(found.embed(pixels), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("to", LIGHT)
def test_made_again_it_is_equal_and_stays(to: str, tmp_path: Path) -> None:
    path = export(tmp_path, vit(4))
    convert(path, to)
    before = content(tmp_path)
    convert(path, to)
    assert content(tmp_path) == before


@pytest.mark.parametrize("to", ["hub", "huggingface"])
def test_another_output_is_replaced_only_when_told(to: str, tmp_path: Path) -> None:
    first = convert(export(tmp_path, vit()), to, output=tmp_path / f"out{module.TARGETS[to].suffix}")
    before = content(tmp_path)
    other = export(tmp_path / "other", vit(4))
    with pytest.raises(WeightsError, match="exists and differs; choose another output, or give --overwrite"):
        convert(other, to, output=first.path)
    assert {key: value for key, value in content(tmp_path).items() if "other" not in key} == before
    convert(other, to, output=first.path, overwrite=True)
    assert load_source(str(first.path)).network.config.num_registers == 4  # type: ignore[union-attr]
    assert not list(tmp_path.rglob(".export-*"))


def test_a_folder_with_other_files_is_never_replaced(tmp_path: Path) -> None:
    path = export(tmp_path / "run", vit())
    with pytest.raises(WeightsError, match=r"run: holds other files too \(backbone.safetensors\)"):
        convert(path, "huggingface", output=tmp_path / "run", overwrite=True)
    assert Path(path).is_file()


def test_a_file_gives_way_to_a_folder_when_told(tmp_path: Path) -> None:
    path = export(tmp_path, vit())
    (tmp_path / "out").write_text("a note")
    convert(path, "huggingface", output=tmp_path / "out", overwrite=True)
    assert (tmp_path / "out/config.json").is_file()


@torch.no_grad()
def test_a_resized_file_agrees_at_its_size_with_the_source(tmp_path: Path) -> None:
    network = vit()
    made = convert(export(tmp_path, network), "timm", size=84)
    assert {check.image_size for check in made.checks} == {84}
    found = load_source(str(made.path))
    torch.testing.assert_close(found.network(pictures(84)), network(pictures(84)), rtol=1e-5, atol=1e-5)
    assert (found.info.image_size, found.info.short_edge) == (84, 96)


def test_a_difference_at_other_sizes_is_told_but_no_error(tmp_path: Path) -> None:
    path = export(tmp_path, vit())
    resampled = convert(path, "huggingface").resampled
    assert resampled is not None
    assert resampled.image_size == 84
    assert not resampled.accepted  # the released models add 0.1 to the grid, transformers does not
    with_registers = convert(export(tmp_path / "registers", vit(4)), "huggingface").resampled
    assert with_registers is not None
    assert with_registers.accepted


def test_outputs_that_differ_are_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = export(tmp_path, vit())
    hub = module.TARGETS["hub"]

    def write_wrong(source: LoadedBackbone, path: Path, options: Options) -> None:
        hub.write(source, path, options)
        state = torch.load(path, weights_only=True)
        state["blocks.1.attn.proj.bias"] += 0.01
        torch.save(state, path)

    monkeypatch.setitem(module.TARGETS, "hub", replace(hub, write=write_wrong))
    with pytest.raises(WeightsError, match="as hub: outputs of 1 pictures of 56 px differ by .* nothing was written"):
        convert(path, "hub")
    assert [entry.name for entry in tmp_path.iterdir()] == ["backbone.safetensors"]


def test_outputs_of_another_shape_are_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = module.TARGETS["hub"]

    def read_short(source: LoadedBackbone, path: Path) -> Forward:
        embed = hub.read(source, path)
        return lambda images: Tokens(embed(images).cls, embed(images).patches[:, 1:])

    monkeypatch.setitem(module.TARGETS, "hub", replace(hub, read=read_short))
    with pytest.raises(WeightsError, match=r"gives outputs of shape \(1, 15, 64\), needed are \(1, 16, 64\)"):
        convert(export(tmp_path, vit()), "hub")


def test_weights_that_are_no_numbers_are_not_published(tmp_path: Path) -> None:
    network = vit()
    with torch.no_grad():
        network.norm.bias[0] = float("nan")
    with pytest.raises(WeightsError, match="differ by nan"):
        convert(export(tmp_path, network), "timm")


def test_the_tolerance_grows_with_the_outputs() -> None:
    assert OutputDifference(image_size=56, images=1, largest=9e-5, scale=1.0).accepted
    assert not OutputDifference(image_size=56, images=1, largest=2e-4, scale=1.0).accepted
    assert OutputDifference(image_size=56, images=1, largest=2e-4, scale=3.0).accepted


def test_options_that_a_format_does_not_have_are_refused(tmp_path: Path) -> None:
    path = export(tmp_path, vit())
    with pytest.raises(ConfigError, match="--to tf: no such format; known are hub, timm, huggingface"):
        convert(path, "tf")
    with pytest.raises(ConfigError, match="--to timm --heads: the format has no place for heads"):
        convert(path, "timm", heads=True)
    with pytest.raises(ConfigError, match="--to hub --opset 18: only onnx has opsets"):
        convert(path, "hub", opset=18)
    with pytest.raises(ConfigError, match=r"vit.pt: --to hub writes a .pth file; name it .*vit.pth"):
        convert(path, "hub", output=tmp_path / "vit.pt")


def test_our_own_format_takes_the_heads_along(tmp_path: Path) -> None:
    add_heads(tmp_path / "run", "dino_head")
    path = export(tmp_path / "run", vit())
    made = convert(path, "safetensors", heads=True, output=tmp_path / "copy/backbone.safetensors")
    assert content(made.path.parent) == content(tmp_path / "run")
    with safe_open(tmp_path / "copy/heads.safetensors", framework="pt") as file:
        assert "dino_head.last_layer.direction" in file.keys()  # noqa: SIM118


def test_the_command_tells_differences_and_how_to_load(tmp_path: Path) -> None:
    ran = CliRunner().invoke(app, ["export", export(tmp_path, vit(4)), "--to", "timm"], catch_exceptions=False)
    assert ran.exit_code == 0
    assert "3 of 56 px" in ran.stdout
    assert 'timm.create_model("vit_small_patch14_reg4_dinov2", pretrained=True' in ran.stdout
    assert (tmp_path / "backbone-timm.safetensors").is_file()
