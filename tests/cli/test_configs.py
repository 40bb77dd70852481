"""`curate config` and `curate init`: every key is told, and a file that is written can be run."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from curate.cli import app
from curate.config import bundled_configs, read_yaml
from curate.config_reference import keys_of
from curate.errors import ConfigError
from curate.recipe import check_config, find_recipe
from curate.trainer.config import TrainConfig

BUNDLED = sorted(bundled_configs())


def told(*words: str) -> str:
    return CliRunner().invoke(app, words, catch_exceptions=False).output


def test_without_a_name_the_configs_are_listed() -> None:
    found = told("config")
    assert all(f"\n{name} " in found for name in BUNDLED)
    assert "Deduplicate, cluster as a tree, draw a balanced sample: Vo et al. 2024 (arXiv:2405.15613)\n" in found


@pytest.mark.parametrize("name", ["dedup", "train/tiny"])
def test_every_key_is_told_with_its_meaning(name: str) -> None:
    found = told("config", name)
    model = TrainConfig if name.startswith("train/") else find_recipe(name).config
    for key in keys_of(model):
        assert f"\n{key.name}\n" in f"\n{found}"
        assert key.meaning.split()[-1] in found


def test_a_section_and_a_key_are_told_with_the_value_of_the_config() -> None:
    found = told("config", "lvd142m", "copies.embed")
    assert found.startswith("copies.embed\n")
    assert "copies.embed.model\n    text; required; here sscd\n" in found
    assert "copies.neighbors" not in found
    assert told("config", "train/tiny", "seed").splitlines() == [
        "seed",
        "    integer >= 0; default 0",
        "    Seed of weights, order, crops, masks and stochastic depth.",
    ]
    assert "(speed)" in told("config", "dedup", "executor.kind")
    assert "evaluation.labelled\n    text | null; default null\n" in told("config", "train/tiny", "evaluation")


def test_a_key_alone_is_found_in_the_first_config_that_has_it() -> None:
    assert told("config", "copies.threshold").startswith(
        "copies.threshold in dedup:\n\ncopies.threshold\n    known | auto"
    )
    assert told("config", "junk.find.z").startswith("junk.find.z in hierarchical:\n")
    assert told("config", "optimizer.clip_norm").startswith("optimizer.clip_norm in train/small:\n")


def test_unknown_keys_and_names_suggest_near_ones() -> None:
    with pytest.raises(ConfigError, match=r"dedup has no key 'copies.emebd'; did you mean copies.embed"):
        told("config", "dedup", "copies.emebd")
    with pytest.raises(ConfigError, match=r"dedup has no key 'min_side'; did you mean inspect.limits.min_side\?"):
        told("config", "dedup", "min_side")
    with pytest.raises(ConfigError, match=r"dedupe: no such config file.*did you mean dedup"):
        told("config", "dedupe")
    with pytest.raises(ConfigError, match=r"tinny: no such config file.*did you mean train/tiny"):
        told("config", "tinny")


def test_yaml_is_the_config_with_all_defaults() -> None:
    whole = yaml.safe_load(told("config", "hierarchical", "--yaml"))
    again = check_config(whole, where="again")
    assert again == check_config(read_yaml("hierarchical"), where="hierarchical")
    part = yaml.safe_load(told("config", "hierarchical", "select.balance", "--yaml"))
    assert part == {"select": {"balance": whole["select"]["balance"]}}
    assert yaml.safe_load(told("config", "train/tiny", "--yaml"))["batch_size"] == 32


@pytest.mark.parametrize("name", BUNDLED)
def test_a_written_config_holds_the_bundled_one_and_keys_that_only_want_their_sign_taken_away(
    name: str, tmp_path: Path
) -> None:
    file = tmp_path / "new/mine.yaml"
    said = told("init", name, str(file))
    assert str(file) in said
    assert ("--shards" if name.startswith("train/") else "--pool") in said
    before: dict[str, Any] = read_yaml(name)
    plain = read_yaml(file)
    if before.get("sources") == {"pool": "pool"}:
        before["sources"] = {"pool": "FOLDER"}
    assert plain == before
    text = file.read_text()
    added = text if "# More keys" not in text else text[text.index("# More keys") :]
    for key in re.findall(r"(?m)^# (\w+): ", added):
        values = yaml.safe_load(re.sub(rf"(?m)^# ({key}: )", r"\1", text))
        assert values.keys() == before.keys() | {key}
    values = yaml.safe_load(re.sub(r"(?m)^  # (heldout|threshold|cap): (BENCHMARKS|known|null)$", r"  \1: \2", text))
    assert values.keys() == before.keys()
    if name in ("dedup", "hierarchical", "semdedup"):
        assert values["sources"] == {"pool": "FOLDER", "heldout": "BENCHMARKS"}
        assert values["copies"]["threshold"] == "known"
    section = re.sub(r"(?m)^# (executor:|  (?:kind|workers): .*)$", r"\1", text)
    if "recipe" in before and "executor" not in before:
        assert yaml.safe_load(section)["executor"] == {"kind": "inprocess", "workers": None}


def test_a_file_that_is_there_stays(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("mine")
    with pytest.raises(ConfigError, match="is there already, and is left as it is"):
        told("init", "dedup", str(file))
    assert file.read_text() == "mine"
    with pytest.raises(ConfigError, match="did you mean dedup"):
        told("init", "dedpu", str(tmp_path / "other.yaml"))
    assert not (tmp_path / "other.yaml").exists()
