"""Heads of every published layout, and declared ones, score as plain torch modules do."""

import itertools
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from curate.errors import WeightsError
from curate.models.files.scoring_heads import read_scoring_head
from curate.ops.vectors import normalize


class Detector(nn.Module):
    """The module of the NSFW detector, as its state dicts name it."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.norm = nn.Module()
        self.norm.register_buffer("mean", torch.randn(widths[0]) / 30)
        self.norm.register_buffer("variance", torch.rand(widths[0]) / widths[0])
        self.depth = len(widths) - 1
        for number in range(self.depth):
            setattr(self, f"linear_{number + 1}", nn.Linear(widths[number], widths[number + 1]))

    def forward(self, x: Tensor) -> Tensor:
        x = (x - self.get_buffer("norm.mean")) / (self.get_buffer("norm.variance").sqrt() + 1e-10)
        for number in range(1, self.depth):
            x = torch.relu(getattr(self, f"linear_{number}")(x))
        return torch.sigmoid(getattr(self, f"linear_{self.depth}")(x))


class Layered(nn.Module):
    """Modules that call their layers `layers`."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def aesthetic() -> nn.Module:
    first = [nn.Linear(768, 1024), nn.Dropout(), nn.Linear(1024, 128), nn.Dropout(), nn.Linear(128, 64), nn.Dropout()]
    return Layered(*first, nn.Linear(64, 16), nn.Linear(16, 1))


def safety_h14() -> nn.Module:
    widths = [1024, 1024, 2048, 1024, 256, 128]
    blocks = [m for a, b in itertools.pairwise(widths) for m in (nn.Linear(a, b), nn.ReLU(), nn.Dropout())]
    return Layered(*blocks, nn.Linear(128, 16), nn.Linear(16, 1))


PUBLISHED = {
    "aesthetic MLP": (aesthetic, 768, "open_clip/ViT-L-14:openai"),
    "aesthetic linear": (lambda: nn.Linear(768, 1), 768, "open_clip/ViT-L-14:openai"),
    "safety ViT-L/14": (lambda: Detector(768, 64, 512, 256, 1), 768, "open_clip/ViT-L-14:openai"),
    "safety ViT-B/32": (lambda: Detector(512, 32, 32, 1), 512, "open_clip/ViT-B-32:openai"),
    "safety ViT-H/14": (safety_h14, 1024, "open_clip/ViT-H-14:laion2b_s32b_b79k"),
}


def vectors(dim: int) -> np.ndarray:
    return normalize(np.random.default_rng(0).standard_normal((50, dim)))


def by_torch(module: nn.Module, x: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return module.eval()(torch.from_numpy(x)).numpy()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("name", list(PUBLISHED))
def test_published_heads_score_as_their_modules(tmp_path: Path, name: str, suffix: str) -> None:
    torch.manual_seed(0)
    make, dim, model = PUBLISHED[name]
    module, path = make(), tmp_path / f"head{suffix}"
    if suffix == ".pth":
        torch.save(module.state_dict(), path)
    else:
        save_file(module.state_dict(), path)
    found = read_scoring_head(path)
    assert model in found.models
    assert found.head.dim == dim
    x = vectors(dim)
    np.testing.assert_allclose(found.head.score(x), by_torch(module, x)[:, 0], rtol=1e-4, atol=1e-5)


def declared(tmp_path: Path, state: dict[str, Tensor], **declaration: Any) -> Path:
    path = tmp_path / "head.safetensors"
    save_file(state, path)
    lines = [f"{key}: {value}" for key, value in ({"models": "[lite0]"} | declaration).items()]
    (tmp_path / "head.safetensors.yaml").write_text("\n".join(lines))
    return path


def test_a_declared_head_of_many_layers_is_taken_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    torch.manual_seed(1)
    module = nn.Sequential(*[part for _ in range(6) for part in (nn.Linear(8, 8), nn.GELU())], nn.Linear(8, 3))
    path = declared(tmp_path, module.state_dict(), activation="gelu", output="softmax", take=2, doc="of a thing")
    found = read_scoring_head(path)
    assert (found.models, found.doc) == (("lite0",), "of a thing")
    x = vectors(8)
    expected = torch.softmax(torch.from_numpy(by_torch(module, x)), 1).numpy()[:, 2]
    np.testing.assert_allclose(found.head.score(x), expected, rtol=1e-5, atol=1e-6)


def test_layers_are_taken_in_the_declared_order_and_may_have_no_bias(tmp_path: Path) -> None:
    torch.manual_seed(2)
    first, last = nn.Linear(8, 5, bias=False), nn.Linear(5, 1)
    state = {"z.weight": first.weight.data, "a.weight": last.weight.data, "a.bias": last.bias.data}
    path = declared(tmp_path, state, layers="[z, a]", activation="relu", output="sigmoid")
    x = vectors(8)
    expected = torch.sigmoid(last(torch.relu(first(torch.from_numpy(x))))).detach().numpy()[:, 0]
    np.testing.assert_allclose(read_scoring_head(path).head.score(x), expected, rtol=1e-5)


def test_scores_do_not_depend_on_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = declared(tmp_path, nn.Linear(8, 1).state_dict())
    head, x = read_scoring_head(path).head, vectors(8)
    whole = head.score(x)
    monkeypatch.setattr("curate.ops.screening.heads.BLOCK", 7)
    np.testing.assert_allclose(head.score(x), whole, rtol=1e-6)
    assert head.score(x[:0]).shape == (0,)


@pytest.mark.parametrize(
    ("state", "declaration", "why"),
    [
        (
            {"a.weight": torch.zeros(3, 8), "b.weight": torch.zeros(1, 4)},
            {},
            "layer b takes 4 values, 3 come",
        ),
        ({"a.weight": torch.zeros(1, 8)}, {"take": 1}, "take=1, but the last layer gives 1 values"),
        (
            {"a.weight": torch.zeros(1, 8)},
            {"layers": "[b]"},
            "b.weight: numbers in 2 dimensions are needed",
        ),
        ({"a.weight": torch.full((1, 8), torch.nan)}, {}, "a.weight: holds values that are no numbers"),
        ({"a.weight": torch.zeros(1, 8), "a.bias": torch.zeros(2)}, {}, "has 1 outputs and 2 biases"),
        (
            {"a.weight": torch.zeros(1, 8), "m": torch.zeros(4)},
            {"mean": "m"},
            "m has 4 values, the first layer",
        ),
        ({"bias": torch.zeros(1)}, {}, "no linear layers"),
        ({"a.weight": torch.zeros(1, 8)}, {"activation": "tanh"}, "activation"),
        ({"a.weight": torch.zeros(1, 8)}, {"models": "[]"}, "models"),
    ],
)
def test_what_is_no_head_is_an_error(
    tmp_path: Path, state: dict[str, Tensor], declaration: dict[str, Any], why: str
) -> None:
    with pytest.raises(WeightsError, match=why):
        read_scoring_head(declared(tmp_path, state, **declaration))


def test_a_layout_that_nobody_declares_is_an_error(tmp_path: Path) -> None:
    save_file(nn.Linear(384, 1).state_dict(), tmp_path / "head.safetensors")
    with pytest.raises(
        WeightsError, match=r"no published layout .*weight \(1, 384\).*say what it is in head.safetensors.yaml"
    ):
        read_scoring_head(tmp_path / "head.safetensors")


def test_keras_models_and_code_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "clip_autokeras_binary_nsfw.zip", "w") as archive:
        archive.writestr("saved_model.pb", b"x")
    with pytest.raises(WeightsError, match="a Keras model is not read; give the head as .safetensors"):
        read_scoring_head(tmp_path / "clip_autokeras_binary_nsfw.zip")
    torch.save(nn.Linear(768, 1), tmp_path / "whole.pth")
    with pytest.raises(WeightsError, match="files that run code are refused"):
        read_scoring_head(tmp_path / "whole.pth")
