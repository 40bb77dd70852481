import subprocess
import sys

import pytest

from curate.config import apply_overrides
from curate.errors import ConfigError
from curate.evaluation.settings import EvaluationSettings, split_config

VALUES = {"shards": "none", "evaluate_every": 2}


def test_the_block_of_the_yaml_goes_to_the_evaluation_alone() -> None:
    values = apply_overrides(VALUES, ["evaluation.labelled=bundled", "evaluation.k=5"])
    rest, settings = split_config(values, where="run.yaml")
    assert settings == EvaluationSettings(labelled="bundled", k=5)
    assert rest == VALUES
    assert split_config(VALUES, where="run.yaml") == (VALUES, None)
    assert "evaluation" in values  # the caller's own mapping stays


def test_bad_blocks_are_errors_of_their_place() -> None:
    with pytest.raises(ConfigError, match="run.yaml: evaluation is 'bundled'; a mapping is needed"):
        split_config({"evaluation": "bundled"}, where="run.yaml")
    with pytest.raises(ConfigError, match=r"run.yaml: evaluation:\n  labeled: unknown key; did you mean 'labelled'"):
        split_config({"evaluation": {"labelled": "x", "labeled": "y"}}, where="run.yaml")
    with pytest.raises(ConfigError, match="measures: "):
        split_config({"evaluation": {"labelled": "x", "measures": []}}, where="run.yaml")


@pytest.mark.parametrize("module", ["settings", "labeled", "drawing.heatmaps", "drawing.patch_colors"])
def test_what_commands_import_before_they_load_a_model_costs_no_torch(module: str) -> None:
    code = f"import sys, curate.evaluation.{module}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
