import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from typer.testing import CliRunner

from curate.cli import app
from curate.config import parse
from curate.errors import ConfigError, SourceError, WorkdirError
from curate.evaluation.drawing.output_folder import MANIFEST
from curate.evaluation.visualize import SHEET, Looks, describe_looks, gather_pictures, name_backbones, view
from curate.models.backbones.load import load_backbone
from curate.models.files.export import write_export
from curate.models.files.formats import to_timm
from curate.models.files.header import ExportInfo
from curate.models.nets.config import PRESETS, ViTConfig, vit_config
from curate.models.nets.vit import VisionTransformer
from tests.feed.shards import png
from tests.models.nets.seeded import seeded

TINY = ViTConfig(dim=24, depth=2, heads=3, image_size=28, layer_scale_init=1.0)


@pytest.fixture
def weights(tmp_path: Path) -> str:
    path = tmp_path / "backbone.safetensors"
    return str(write_export(path, seeded(TINY), ExportInfo(image_size=28, short_edge=28)))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    (folder / "below").mkdir(parents=True)
    for number, name in enumerate(("a.png", "b.PNG", "below/c.png")):
        (folder / name).write_bytes(png(number, size=(90, 60)))
    (folder / "notes.txt").write_text("no picture")
    return folder


def visualize(*arguments: str | Path) -> str:
    ran = CliRunner().invoke(app, ["visualize", *map(str, arguments)], catch_exceptions=False)
    assert ran.exit_code == 0, ran.output
    return ran.output


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def test_a_sheet_and_every_picture_of_it_are_written(pictures: Path, weights: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = visualize("curate", pictures, "--weights", weights, "--output", out)
    heads = [f"head-{n}{mask}" for n in (1, 2, 3) for mask in ("", "-mask")]
    kinds = ["image", "attention", *heads, "mask", "patches"]
    names = {f"{stem}-{kind}.png" for stem in ("01-a", "02-b", "03-c") for kind in kinds}
    assert {path.name for path in out.iterdir()} == names | {SHEET, MANIFEST}
    assert {size(out / name) for name in names} == {(84, 56)}  # twice the model's 28 px in patches of 14, 3 to 2
    assert size(out / SHEET)[0] > 7 * 160
    assert re.sub(r"\s", "", said).endswith(f"{SHEET}:3pictures")


def test_masks_of_heads_hold_the_mass(pictures: Path, weights: str) -> None:
    backbone = load_backbone("curate", weights=weights, device="cpu", precision="fp32")
    found = view({"toy": backbone}, gather_pictures([pictures], most=1), Looks(mass=0.3))
    small, large = found, view({"toy": backbone}, gather_pictures([pictures], most=1), Looks(mass=0.9))
    for name, mask in small[0].masks.items():
        inner, outer = np.asarray(mask) > 0, np.asarray(large[0].masks[name]) > 0
        assert 0 < inner.mean() <= 0.3 + 1 / 24
        assert outer[inner].all()
        assert outer.sum() > inner.sum()


def red_seeker() -> VisionTransformer:
    """Its first head looks at red patches, its second at all alike; patch features say how red a patch is."""
    model = VisionTransformer(TINY.model_copy(update={"depth": 1, "heads": 2}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        for norm in (model.norm, model.blocks[0].norm1, model.blocks[0].norm2):
            norm.weight.fill_(1)
        model.patch_embed.proj.weight[0] = torch.tensor([1.0, -1.0, -1.0]).view(3, 1, 1) / 14**2
        attention = model.blocks[0].attn
        attention.qkv.bias[0] = 1  # of q
        attention.qkv.weight[24, 0] = 5  # of k, from the first channel
    return model


def test_planted_attention_is_seen_where_it_lies(tmp_path: Path) -> None:
    scene = np.full((84, 140, 3), (30, 90, 160), np.uint8)
    scene[28:56, 42:98] = (230, 20, 20)
    Image.fromarray(scene).save(tmp_path / "scene.png")
    write_export(tmp_path / "red.safetensors", red_seeker(), ExportInfo(image_size=28, short_edge=28))
    out = tmp_path / "out"
    given = ("--weights", tmp_path / "red.safetensors", "--output", out, "--size", 84)
    visualize("curate", tmp_path / "scene.png", *given)
    red = scene[..., 0] > 200
    looked_at = np.asarray(Image.open(out / "01-scene-head-1-mask.png")) > 0
    assert red[looked_at].all()
    assert looked_at.mean() > 0.5 * red.mean()
    first, second = (np.asarray(Image.open(out / f"01-scene-head-{n}.png")).sum(axis=2) for n in (1, 2))
    assert first[42, 70] > 1.5 * first[7, 7]
    assert np.asarray(Image.open(out / "01-scene-patches.png")).any(axis=2)[red].all()
    assert not np.asarray(Image.open(out / "01-scene-patches.png")).any(axis=2)[~red].any()
    assert np.ptp(second[~red]) == 0


def test_compared_weights_stand_below_each_other(pictures: Path, weights: str, tmp_path: Path) -> None:
    other = tmp_path / "initial.safetensors"
    write_export(other, seeded(TINY, seed=5), ExportInfo(image_size=28, short_edge=28))
    out = tmp_path / "out"
    given = ("curate", pictures, "--weights", weights, "--compare", other, "--output", out, "--most", "2")
    visualize(*given, "--no-attention")
    names = {path.name for path in out.glob("0*")}
    patches = {f"{stem}-{model}-patches.png" for stem in ("01-a", "02-c") for model in ("backbone", "initial")}
    assert names == {"01-a-image.png", "02-c-image.png"} | patches
    first, second = (np.asarray(Image.open(out / f"01-a-{model}-patches.png")) for model in ("backbone", "initial"))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("registers", [False, True])
def test_dinov2_is_seen_through_with_weights_in_timms_format(
    registers: bool, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preset, model = ("vit_small_reg4", "dinov2_vits14_reg") if registers else ("vit_small", "dinov2_vits14")
    monkeypatch.setitem(PRESETS, preset, PRESETS[preset] | {"depth": 1})
    torch.save(to_timm(VisionTransformer(vit_config(preset, image_size=56)).state_dict()), tmp_path / "dinov2.bin")
    out = tmp_path / "out"
    visualize(model, pictures / "a.png", "--weights", tmp_path / "dinov2.bin", "--output", out, "--size", 60)
    assert size(out / "01-a-head-6.png") == (84, 56)


def test_a_convnet_has_colors_of_patches_alone(pictures: Path, tmp_path: Path) -> None:
    state = timm.create_model("resnet10t", num_classes=0).state_dict()
    torch.save(state, tmp_path / "resnet.bin")
    given = ["timm/resnet10t", str(pictures), "--weights", str(tmp_path / "resnet.bin"), "--size", "64"]
    with pytest.raises(ConfigError, match="timm/resnet10t: no attention of a cls token to show"):
        visualize(*given, "--output", tmp_path / "out")
    visualize(*given, "--output", tmp_path / "out", "--no-attention")
    assert size(tmp_path / "out/01-a-patches.png") == (96, 64)


def test_bundled_photographs_are_at_hand(weights: str, tmp_path: Path) -> None:
    visualize("curate", "bundled", "--weights", weights, "--output", tmp_path / "out", "--most", "2")
    assert len(list((tmp_path / "out").glob("*-patches.png"))) == 2


def test_a_second_call_replaces_what_the_first_one_made_and_nothing_else(
    pictures: Path, weights: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    visualize("curate", pictures, "--weights", weights, "--output", out)
    (out / "mine.txt").write_text("keep")
    visualize("curate", pictures / "b.PNG", "--weights", weights, "--output", out, "--no-attention")
    assert {path.name for path in out.iterdir()} == {
        "01-b-image.png",
        "01-b-patches.png",
        "mine.txt",
        MANIFEST,
        SHEET,
    }


def test_a_folder_of_something_else_is_left_alone(pictures: Path, tmp_path: Path) -> None:
    before = sorted(pictures.iterdir())
    with pytest.raises(WorkdirError, match="not empty, and not made by `curate visualize`; give an empty or new one"):
        visualize("curate", pictures, "--weights", tmp_path / "not_even_read", "--output", pictures)
    assert sorted(pictures.iterdir()) == before


def test_a_file_that_was_put_into_our_folder_is_not_overwritten(pictures: Path, weights: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    visualize("curate", pictures / "a.png", "--weights", weights, "--output", out)
    (out / "01-b-image.png").write_text("mine")
    with pytest.raises(WorkdirError, match="01-b-image.png is there and not made by `curate visualize`; move it away"):
        visualize("curate", pictures / "b.PNG", "--weights", weights, "--output", out)
    assert (out / "01-b-image.png").read_text() == "mine"


def test_a_list_of_pictures_never_leads_out_of_its_folder(pictures: Path, weights: str, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / MANIFEST).write_text(json.dumps({"pictures": ["../precious.png"]}))
    (tmp_path / "precious.png").write_text("mine")
    visualize("curate", pictures / "a.png", "--weights", weights, "--output", tmp_path / "out")
    assert (tmp_path / "precious.png").read_text() == "mine"


def test_a_foreign_list_is_an_error(pictures: Path, weights: str, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / MANIFEST).write_text("[1, 2]")
    with pytest.raises(WorkdirError, match=r"visualize.json: not the list that `curate visualize` writes; give an"):
        visualize("curate", pictures, "--weights", weights, "--output", tmp_path / "out")


def test_a_folder_that_cannot_be_made_is_an_error(pictures: Path, weights: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkdirError, match=r"file/out: cannot be written: .*; set another --output FOLDER"):
        visualize("curate", pictures, "--weights", weights, "--output", tmp_path / "file/out")


def test_of_many_pictures_evenly_spread_ones_are_taken(tmp_path: Path) -> None:
    for number in range(10):
        (tmp_path / f"{number}.png").write_bytes(png(number))
    assert list(gather_pictures([tmp_path], most=4)) == ["01-0", "02-3", "03-6", "04-9"]
    assert list(gather_pictures([tmp_path / "7.png", tmp_path / "2.png"], most=4)) == ["01-7", "02-2"]


def test_names_that_are_no_text_are_made_text(tmp_path: Path) -> None:
    place = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png"))
    place.write_bytes(png(0))
    (tmp_path / f"{'n' * 200}.png").write_bytes(png(1))
    assert list(gather_pictures([tmp_path], most=8)) == ["01-" + "n" * 60, "02-\ufffd"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone", "gone: no such file or folder; give pictures, folders of pictures, or `bundled`"),
        ("empty", "empty: no pictures there"),
        ("bad.png", r"bad.png: the picture does not decode \(.*\); leave it out"),
    ],
)
def test_pictures_that_are_not_there_are_errors(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(SourceError, match=message):
        gather_pictures([tmp_path / name], most=8)


@pytest.mark.parametrize("wrong", [{"mass": 0}, {"mass": 1.5}, {"threshold": 1}, {"threshold": "otsu"}, {"size": 0}])
def test_settings_out_of_range_are_errors(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=rf"visualize:\s+{next(iter(wrong))}"):
        parse(Looks, wrong, where="visualize")


def test_weights_of_one_name_are_told_apart_and_the_sheet_says_what_it_shows(weights: str) -> None:
    backbone = load_backbone("curate", weights=weights, device="cpu", precision="fp32")
    named = name_backbones([backbone, backbone])
    assert list(named) == ["backbone", "backbone-2"]
    notes = " ".join(describe_looks(named, Looks(block=0, mass=0.5, threshold=0.25)))
    for fact in ("block 1 of 2", "hold 50%", "above the lowest 25% of patches"):
        assert fact in notes
    assert "attention" not in " ".join(describe_looks(named, Looks(attention=False)))
    assert "foreground" not in " ".join(describe_looks(named, Looks(threshold=0)))
