import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch.nn.functional import normalize

import curate
from curate.errors import WeightsError
from curate.models.backbones import lite0
from curate.models.backbones.load import describe, load_backbone
from curate.models.conventions import preprocess_of
from curate.models.files.state_dict import read_state_dict
from curate.ops.images.preprocess import preprocess

PHOTOS = Path(curate.__file__).parent / "samples/photos"

IMAGENET_CLASSES = {
    "birds/chicken.jpg": {8},  # hen
    "birds/heron.jpg": {131, 132},
    "birds/penguin.jpg": {145},
    "birds/scarlet_macaw.jpg": {88},
    "birds/spoonbills.jpg": {129},
    "castles_palaces/carcassonne.jpg": {483},  # castle
    "castles_palaces/chambord.jpg": {483, 698},
    "castles_palaces/mysore_palace.jpg": {698},  # palace
    "castles_palaces/neuschwanstein.jpg": {483},
    "castles_palaces/winter_palace.jpg": {698},
    "reptiles_insects/butterfly.jpg": {*range(321, 327)},
    "reptiles_insects/crocodile.jpg": {49, 50},
    "reptiles_insects/komodo_dragon.jpg": {48},
    "wild_mammals/bison.jpg": {347},
    "wild_mammals/cheetah.jpg": {293},
    "wild_mammals/dolphin.jpg": {147, 148, 149},  # has no class of its own: whales and dugong
    "wild_mammals/gorilla.jpg": {366},
    "wild_mammals/koala.jpg": {105},
    "wild_mammals/meerkats.jpg": {299},
    "wild_mammals/moose.jpg": {350, 351, 352, 353},  # nor has the moose: other horned grazers
    "wild_mammals/panda.jpg": {388},
    "wild_mammals/polar_bear.jpg": {296},
    "wild_mammals/red_panda.jpg": {387},
}
"""Right ImageNet-1k classes of bundled photographs, two of them deliberately hard."""


def pixels(names: list[str]) -> torch.Tensor:
    pictures = [preprocess(Image.open(PHOTOS / name).convert("RGB"), preprocess_of("lite0")) for name in names]
    return torch.from_numpy(np.stack(pictures))


def reference() -> Any:
    """timm's network with the weights of the package, its batch norms apart."""
    net = timm.create_model("tf_efficientnet_lite0")
    state = read_state_dict(describe("lite0").weights_file())
    net.load_state_dict(dict(zip(net.state_dict(), state.values(), strict=True)))
    return net.eval()


def test_top_1_is_right_on_bundled_photographs() -> None:
    net, trunk = reference(), lite0.build(describe("lite0"))
    with torch.inference_mode():
        top = net.classifier(trunk(pixels(list(IMAGENET_CLASSES)).float() / 127.5 - 1)).argmax(1).tolist()
    right = sum(found in wanted for found, wanted in zip(top, IMAGENET_CLASSES.values(), strict=True))
    assert right >= len(IMAGENET_CLASSES) - 3  # chance is below one


@pytest.mark.parametrize("side", [224, 97])  # an odd side is padded in another way
def test_it_is_the_network_that_timm_has_of_these_weights(side: int) -> None:
    plain = reference()
    plain.reset_classifier(0)
    folded = lite0.build(describe("lite0"))
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in folded.modules())
    x = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(normalize(folded(x), dim=1), normalize(plain(x), dim=1), rtol=1e-4, atol=1e-5)


def test_embedding_is_the_normalized_pooled_feature() -> None:
    batch = pixels(["birds/heron.jpg", "wild_mammals/panda.jpg"])
    plain = reference()
    plain.reset_classifier(0)
    with torch.inference_mode():
        expected = normalize(plain(batch.float() / 127.5 - 1), dim=1)
    found = load_backbone("lite0", device="cpu", precision="fp32").embed(batch)
    assert found.dtype == torch.float32
    assert found.shape == (2, 1280)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model", ["lite0", "lite0-copy"])
def test_bf16_stays_close_to_fp32_on_photographs(model: str) -> None:
    batch = pixels(list(IMAGENET_CLASSES))
    low, high = (load_backbone(model, device="cpu", precision=p).embed(batch) for p in ("bf16", "fp32"))
    torch.testing.assert_close(low.norm(dim=1), torch.ones(len(batch)))
    cosine = (low * high).sum(1)
    assert not torch.equal(low, high)
    assert cosine.mean() > 0.9985
    assert cosine.min() > 0.995


def test_a_picture_embeds_alike_in_any_batch() -> None:
    batch = pixels(list(IMAGENET_CLASSES))
    backbone = load_backbone("lite0", device="cpu", precision="fp32")
    together = backbone.embed(batch)
    assert together.shape == (len(batch), 1280)
    torch.testing.assert_close(together[9:11], backbone.embed(batch[9:11]), rtol=1e-4, atol=1e-5)


def test_another_file_is_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(
        WeightsError, match=r"other.pth: 1 tensors that do not line up with the 296 of EfficientNet-Lite0"
    ):
        load_backbone("lite0", weights=str(tmp_path / "other.pth"), device="cpu")


def test_it_needs_neither_timm_nor_torchvision() -> None:
    code = (
        "from curate.models.backbones.load import load_backbone as load; load('lite0-copy', device='cpu'); import sys; "
    )
    code += "sys.exit(bool({'timm', 'torchvision', 'torch._dynamo'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True)
