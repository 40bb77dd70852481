"""Going on from a backbone: fresh heads that settle first, its last blocks alone, low-rank changes."""

import shutil

import pytest
import torch
from safetensors.torch import load_file

from curate.config import parse
from curate.errors import ConfigError
from curate.trainer.adapting import adapt, merged
from curate.trainer.checkpoint import list_checkpoints
from curate.trainer.config import TrainConfig
from curate.trainer.train import train
from curate.trainer.warming import HeadsWarmUp
from tests.feed.shards import write_shards
from tests.trainer.ranks import train_on_ranks

TINY = {
    "model": {"preset": "tiny", "patch_size": 8, "depth": 3, "drop_path": 0.0, "layer_scale": 1.0},
    "crops": {"global_size": 32, "local_size": 16, "num_local": 1},
    "objective": {"prototypes": 32, "head_hidden": 32, "head_bottleneck": 16},
    "optimizer": {"base_lr": 4e-2, "warmup_iterations": 1},
    "batch_size": 4,
    "iterations": 4,
    "log_every": 1,
    "checkpoint_every": 1,
    "keep": 99,
    "precision": "fp32",
    "device": "cpu",
    "workers": 0,
}


def values(folder, shards, **changes):
    return {**TINY, "shards": str(shards), "output": str(folder), **changes}


def config(**changes):
    return parse(TrainConfig, values("b", "a", **changes), where="test")


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("adapted") / "shards")


def run(folder, shards, **changes):
    return train(parse(TrainConfig, values(folder, shards, **changes), where="test"))


def moved(result):
    """Names of the exported tensors that the training has changed."""
    before, after = load_file(result.initial), load_file(result.export)
    assert before.keys() == after.keys()
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


def test_only_the_last_blocks_and_the_norm_after_them_learn(shards, tmp_path):
    found = moved(run(tmp_path / "run", shards, last_blocks=1))
    assert {name.rsplit(".", 1)[0].partition(".attn")[0].partition(".mlp")[0] for name in found} >= {"norm"}
    assert all(name.startswith(("blocks.2.", "norm.")) for name in found)


def test_low_rank_changes_are_merged_into_a_plain_export(shards, tmp_path):
    found = moved(run(tmp_path / "run", shards, lora={"rank": 2}, last_blocks=2))
    layers = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    assert found == {f"blocks.{block}.{layer}.weight" for block in (1, 2) for layer in layers}
    before, after = (
        load_file(tmp_path / "run" / name) for name in ("backbone-init.safetensors", "backbone.safetensors")
    )
    for name in found:
        assert torch.linalg.matrix_rank((after[name] - before[name]).double(), rtol=1e-4) <= 2, name


def test_training_with_low_rank_changes_begins_at_the_given_backbone_and_merging_keeps_its_outputs():
    given = config(lora={"rank": 2})
    backbone = given.model.build(32, generator=torch.Generator().manual_seed(0)).eval()
    pictures = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        plain = backbone(pictures)
        adapt(backbone, given, generator=torch.Generator().manual_seed(2))
        assert torch.equal(backbone(pictures), plain)
        for name, parameter in backbone.named_parameters():
            if name.endswith(".up"):
                parameter.normal_(generator=torch.Generator().manual_seed(3))
        changed = backbone(pictures)
        assert not torch.allclose(changed, plain)
        torch.testing.assert_close(merged(backbone)(pictures), changed, atol=1e-5, rtol=1e-5)
    learning = {name.rpartition(".")[2] for name, p in backbone.named_parameters() if p.requires_grad}
    assert learning == {"up", "down"}


def test_blocks_of_a_timm_vit_are_adapted_too():
    given = config(
        model={"timm": "vit_tiny_patch16_224", "timm_kwargs": {"depth": 2, "embed_dim": 24, "num_heads": 2}},
        objective={"kind": "dino", "prototypes": 32},
        crops={"global_size": 32, "local_size": 16, "num_local": 1},
        last_blocks=1,
    )
    backbone = adapt(
        given.model.build(32, generator=torch.Generator().manual_seed(0)), given, generator=torch.Generator()
    )
    learning = {name.split(".")[1] for name, p in backbone.named_parameters() if p.requires_grad}
    assert learning == {"blocks", "norm"}
    assert not any(p.requires_grad for p in backbone.net.blocks[0].parameters())


def test_more_blocks_than_there_are_is_an_error(shards, tmp_path):
    with pytest.raises(ConfigError, match="last_blocks=4: the backbone has a row of 3 blocks"):
        run(tmp_path / "run", shards, last_blocks=4)


def settle(losses, *, iterations=500):
    warm_up = HeadsWarmUp(config(iterations=iterations), torch.device("cpu"))
    for step, loss in enumerate(losses):
        warm_up.look(torch.tensor(loss), step)
    return warm_up


def test_the_backbone_waits_for_the_heads_and_then_rises_over_as_long():
    falling = [10 * 0.9**step for step in range(30)]
    warm_up = settle(falling + [falling[-1]] * 30)
    assert [warm_up.factor(step) for step in (45, 67, 90, 400)] == pytest.approx([0, 22 / 45, 1, 1])


def test_heads_that_never_settle_hold_the_backbone_for_a_fifth_of_the_run():
    warm_up = settle([100 * 0.97**step for step in range(120)])
    assert [warm_up.factor(step) for step in (100, 150, 200)] == pytest.approx([0, 0.5, 1])


def start(shards, tmp_path):
    """An export to go on from."""
    return str(run(tmp_path / "start", shards, iterations=2).export)


def test_a_run_that_is_made_longer_keeps_the_windows_of_its_warm_up():
    losses = [10 * 0.9**step for step in range(10)] + [3.0] * 60
    begun = HeadsWarmUp(config(iterations=1000), torch.device("cpu"))
    longer = HeadsWarmUp(config(iterations=4000), torch.device("cpu"))
    for step, loss in enumerate(losses):
        if step == 15:  # in the middle of a window
            longer.state()["warm_up.seen"].copy_(begun.state()["warm_up.seen"])
            longer.resume()
        for one in (begun, *((longer,) if step >= 15 else ())):
            one.look(torch.tensor(loss), step)
    assert 0 < begun.factor(60) == longer.factor(60)


def test_heads_warm_up_over_a_backbone_that_is_given():
    with pytest.raises(ConfigError, match="heads=warm-up .* set init_from"):
        config(heads="warm-up")


def test_a_backbone_under_fresh_heads_stands_still_until_they_have_settled(shards, tmp_path):
    whole = run(tmp_path / "whole", shards, heads="warm-up", iterations=14, init_from=start(shards, tmp_path))
    norms = [row["gradient_norm_backbone"] for row in whole.log]
    released = next(step for step, norm in enumerate(norms) if norm > 0)
    assert released == 6, "iteration 5 has a rate of 0: the ramp begins with it"
    shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    for step, path in list_checkpoints(tmp_path / "killed" / "checkpoints"):
        if step > 3:
            shutil.rmtree(path)
    (tmp_path / "killed" / "backbone.safetensors").unlink()
    run(tmp_path / "killed", shards, heads="warm-up", iterations=14, init_from=start(shards, tmp_path))
    assert (tmp_path / "killed/backbone.safetensors").read_bytes() == whole.export.read_bytes()


def test_adapters_train_on_two_ranks(shards, tmp_path):
    given = {"lora": {"rank": 2}, "iterations": 2, "last_blocks": 2}
    train_on_ranks([values(tmp_path / way, shards, parallel=way, **given) for way in ("ddp", "fsdp")])
    one = load_file(run(tmp_path / "one", shards, **given).export)
    for way in ("ddp", "fsdp"):
        for name, value in load_file(tmp_path / way / "backbone.safetensors").items():
            torch.testing.assert_close(value, one[name], atol=3e-3, rtol=1e-2, msg=f"{way} {name}")
