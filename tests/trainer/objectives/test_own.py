"""An objective of one's own, as the guide writes it: one file outside the package."""

import re
from pathlib import Path

import pytest

from curate.errors import ConfigError, WorkdirError
from curate.models.files.export import read_header
from curate.trainer.config import TrainConfig, TrainSettings
from curate.trainer.train import train
from tests.trainer.objectives.tiny import config

GUIDE = Path(__file__).parents[3] / "docs" / "guides" / "training.md"
(OWN,) = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
"""The file that the guide shows."""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Name of the objective in a file of the current directory."""
    (tmp_path / "regression.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    return "./regression.py:RegressionSettings"


def test_an_objective_in_a_file_trains_and_resumes(tmp_path, own):
    settings = {"objective": {"kind": own, "sharpness": 2.0, "koleo_weight": 0.1}}
    first = train(config(tmp_path, **settings))
    assert [set(row) >= {"loss_regression", "loss_koleo"} for row in first.log] == [True] * 4
    assert read_header(first.export)[1].provenance["objective"] == "regression.py:RegressionSettings"
    assert not (tmp_path / "run" / "heads.safetensors").exists()
    assert train(config(tmp_path, **settings)).log == first.log
    with pytest.raises(WorkdirError, match=r"objective.sharpness was 2.0, now 1.0"):
        train(config(tmp_path, objective={"kind": own, "koleo_weight": 0.1}))


@pytest.mark.parametrize("place", ["file", "module"])
def test_the_name_of_an_own_objective_may_lead_to_a_file_or_a_module(tmp_path, monkeypatch, own, place):
    monkeypatch.syspath_prepend(tmp_path)
    name = own if place == "file" else "regression:RegressionSettings"
    for value in (name, {"kind": name}, {"name": name}):
        settings = config(tmp_path, objective=value).objective
        assert (settings.kind, settings.sharpness) == (name, 1.0)


def test_settings_of_an_own_objective_survive_a_dump(tmp_path, own):
    settings = config(tmp_path, objective={"kind": own, "sharpness": 3.0})
    for mode in ("python", "json"):
        assert TrainConfig(**settings.model_dump(mode=mode)) == settings


def test_an_unknown_key_and_a_bad_value_of_an_own_objective_are_errors(tmp_path, own):
    with pytest.raises(ConfigError, match=r"objective.sharpnes: unknown key; did you mean 'sharpness'\?"):
        config(tmp_path, objective={"kind": own, "sharpnes": 1})
    with pytest.raises(ConfigError, match=r"objective.sharpness: .*, found 'very'"):
        config(tmp_path, objective={"kind": own, "sharpness": "very"})


def test_what_is_no_objective_is_named(tmp_path, own):
    with pytest.raises(ConfigError, match=r"objective: kind: 'dinov1' is not known; did you mean 'dinov3'\?"):
        config(tmp_path, objective="dinov1")
    with pytest.raises(ConfigError, match=r"objective: kind: .*:Regression' is .*; a subclass of .* is needed"):
        config(tmp_path, objective=own.replace("RegressionSettings", "Regression"))
    with pytest.raises(ConfigError, match=r"objective: .*, found 3"):
        config(tmp_path, objective=3)
    assert TrainSettings().objective.kind == "dinov2"
