import pytest
import timm

from curate.errors import ConfigError
from curate.models.convert.own_vit import as_own_vit
from curate.models.nets.tower import TimmTower, tower_config
from curate.trainer.layers import distances

TINY = {"embed_dim": 64, "depth": 3, "num_heads": 1, "img_size": 32, "reg_tokens": 2, "no_embed_class": True}


def test_a_vit_has_the_same_layers_in_timm_as_here() -> None:
    tower = TimmTower(tower_config("vit_small_patch16_224", **TINY))
    ours = as_own_vit(timm.create_model("vit_small_patch16_224", num_classes=0, **TINY).eval(), size=32, where="x")
    assert ours is not None
    theirs = {name.removeprefix("net."): far for name, far in distances(tower).items()}
    assert theirs.pop("reg_token") == 4
    own = distances(ours)
    assert theirs == {name: own[name] for name in theirs}
    assert (own["norm.weight"], own["blocks.2.attn.qkv.weight"], own["cls_token"]) == (0, 1, 4)


@pytest.mark.parametrize(
    ("name", "kwargs", "order"),
    [
        ("test_efficientnet", {}, ("conv_stem.weight", "blocks.0.0.conv.weight", "blocks.4.0.conv_pw.weight")),
        ("convnext_atto", {}, ("stem.0.weight", "stages.0.blocks.0.gamma", "stages.3.blocks.1.gamma")),
        ("test_vit3", {}, ("patch_embed.proj.weight", "blocks.0.norm1.weight", "blocks.8.norm1.weight")),
        ("vit_base_patch16_clip_224", TINY, ("norm_pre.weight", "blocks.0.norm1.weight", "blocks.2.norm1.weight")),
    ],
)
def test_layers_of_any_timm_model_come_nearer_to_its_output(
    name: str, kwargs: dict[str, object], order: tuple[str, ...]
) -> None:
    tower = TimmTower(tower_config(name, outputs=5, **kwargs))  # type: ignore[arg-type]
    found = distances(tower)
    assert found.keys() == {parameter for parameter, _ in tower.named_parameters()}
    far = [found[f"net.{parameter}"] for parameter in order]
    assert far == sorted(set(far), reverse=True)
    assert far[-1] == 1
    last = [found[f"net.{parameter}"] for parameter, _ in tower.net.named_parameters()][-1]
    assert last == 0


def test_a_model_that_does_not_tell_its_layers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    tower = TimmTower(tower_config("test_vit3"))
    monkeypatch.delattr(type(tower.net), "group_matcher")
    with pytest.raises(ConfigError, match="test_vit3: timm does not tell the order of its layers; set optimizer.layer"):
        distances(tower)
