import pytest

from curate.config import parse, read_yaml
from curate.errors import ConfigError
from curate.trainer.config import TrainConfig
from curate.trainer.effective import auto_learning_rate, auto_momentum, auto_prototypes, resolve_auto


def config(**changes):
    return parse(TrainConfig, {"shards": "a", "output": "b", **changes}, where="test")


def test_auto_prototypes_reproduce_the_short_and_long_recipes():
    assert auto_prototypes(1_281_167) == 65_536
    assert auto_prototypes(142_109_386) == 131_072


def test_auto_prototypes_are_powers_of_two_that_grow_with_the_images():
    found = [auto_prototypes(n) for n in (1, 100, 600, 5_000, 100_000, 10**9)]
    assert found == sorted(found)
    assert all(k & (k - 1) == 0 and 256 <= k <= 131_072 for k in found)


def test_auto_momentum_is_the_papers_in_long_runs_and_lower_in_short_ones():
    assert auto_momentum(125_000, 2048) == 0.992
    assert auto_momentum(400, 2048) == pytest.approx(0.95)
    assert auto_momentum(5, 2048) == 0.9


def test_auto_momentum_averages_over_as_many_images_at_any_batch():
    per_image = [auto_momentum(10**7, batch) ** (1 / batch) for batch in (64, 512, 2048, 4096)]
    assert per_image == pytest.approx([0.992 ** (1 / 2048)] * 4)


def test_auto_learning_rate_goes_through_both_recipes():
    assert auto_learning_rate(5_000) == auto_learning_rate(1_280_000) == 4e-3
    assert auto_learning_rate(142_000_000) == pytest.approx(2e-4)
    assert auto_learning_rate(14_000_000) == pytest.approx((4e-3 * 2e-4) ** 0.5, rel=0.1)  # halfway between, in logs


def test_linear_scaling_is_dinos():
    dino = config(batch_size=1024, optimizer={"base_lr": 5e-4, "lr_batch": 256, "lr_scaling": "linear"})
    assert resolve_auto(dino, num_images=10, num_samples=10).learning_rate == pytest.approx(2e-3)


def test_prototypes_come_from_given_heads_and_may_not_contradict_them():
    assert resolve_auto(config(), num_images=10, num_samples=10, prototypes=48).prototypes == 48
    with pytest.raises(ConfigError, match="objective.prototypes is 64, the given heads have 48; set it to that or to"):
        resolve_auto(config(objective={"prototypes": 64}), num_images=10, num_samples=10, prototypes=48)


def test_effective_numbers_of_the_short_recipe():
    short = config(batch_size=2048, iterations=125_000, optimizer={"base_lr": 4e-3})
    effective = resolve_auto(short, num_images=1_281_167, num_samples=1_281_167)
    assert effective.learning_rate == pytest.approx(4e-3 * 2**0.5)
    assert effective.warmup_iterations == 12_500
    assert effective.teacher_temperature_iterations == 37_500
    assert effective.freeze_last_layer_iterations == 1_250
    assert effective.images_seen == 256_000_000
    assert effective.epochs == pytest.approx(199.8, abs=0.1)


def test_given_numbers_win_over_auto():
    given = config(objective={"prototypes": 77, "teacher_momentum": 0.5}, optimizer={"warmup_iterations": 3})
    effective = resolve_auto(given, num_images=10, num_samples=30)
    assert (effective.prototypes, effective.teacher_momentum, effective.warmup_iterations) == (77, 0.5, 3)


def test_warmup_as_long_as_the_run_is_an_error():
    with pytest.raises(ConfigError, match="warmup_iterations is 20 of 20 iterations"):
        resolve_auto(config(iterations=20, optimizer={"warmup_iterations": 20}), num_images=1, num_samples=1)


def test_short_and_long_configs_have_the_papers_learning_rates():
    peaks = {}
    for name in ("vitl16_short", "vitl14_long", "vitg14_long"):
        found = parse(TrainConfig, read_yaml(f"train/{name}") | {"shards": "a", "output": "b"}, where=name)
        peaks[name] = resolve_auto(found, num_images=10, num_samples=10).learning_rate
    long = 2e-4 * 3**0.5
    assert peaks == pytest.approx({"vitl16_short": 4e-3 * 2**0.5, "vitl14_long": long, "vitg14_long": long})


def test_distillation_has_the_papers_learning_rate():
    found = parse(TrainConfig, read_yaml("train/vits14_distilled") | {"shards": "a", "output": "b"}, where="distilled")
    assert resolve_auto(found, num_images=10, num_samples=10).learning_rate == pytest.approx(1e-3, rel=1e-4)
