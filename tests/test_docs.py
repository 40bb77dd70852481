"""What the guides show must be accepted by the code they tell of."""

import json
import re
import shlex
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from typer.testing import CliRunner

from curate.cli import app
from curate.config import apply_overrides, parse, read_yaml
from curate.engine.executors import ExecutorConfig
from curate.scale.estimate import amount, duration, size
from curate.trainer.config import TrainConfig

ROOT = Path(__file__).parent.parent
CLUSTER = (ROOT / "docs/guides/cluster.md").read_text()
SLURM = (ROOT / "docs/guides/slurm.md").read_text()
KUBERNETES = (ROOT / "docs/guides/kubernetes.md").read_text()
SCALE = (ROOT / "docs/scale.md").read_text()


def blocks(language: str, page: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


def test_executor_of_the_slurm_example_is_valid() -> None:
    (config,) = [yaml.safe_load(block)["executor"] for block in blocks("yaml", SLURM) if block.startswith("executor:")]
    assert ExecutorConfig.model_validate(config).slurm.gpus == 1


def test_kubernetes_objects_parse_and_name_existing_fields() -> None:
    (manifest,) = [block for block in blocks("yaml", KUBERNETES) if "apiVersion" in block]
    cluster, job = yaml.safe_load_all(manifest)
    assert (cluster["kind"], job["kind"]) == ("DaskCluster", "Job")
    args = job["spec"]["template"]["spec"]["containers"][0]["args"]
    assert (ROOT / args[1]).exists()
    given = dict(arg.removeprefix("executor.").split("=") for arg in args if arg.startswith("executor."))
    assert ExecutorConfig.model_validate(given | {"threads": int(given["threads"])}).kind == "scheduler"


def test_every_kind_of_executor_is_told() -> None:
    kinds = ExecutorConfig.model_json_schema()["properties"]["kind"]["enum"]
    assert all(f"| `{kind}` |" in CLUSTER for kind in kinds)


def test_job_scripts_are_valid_shell_and_the_guide_names_them_all() -> None:
    scripts = sorted((ROOT / "docs/slurm").iterdir())
    assert {path.name for path in scripts} == set(re.findall(r"\(\.\./slurm/(\w+\.sh)\)", SLURM))
    for path in scripts:
        subprocess.run(["bash", "-n", path], check=True)
        named = re.findall(r"sbatch \w+\.sh (configs/\S+)", path.read_text())
        assert named
        assert all((ROOT / name).exists() for name in named)


SHOWN_FROM = 0.02
"""Share of a case's time below which the guide leaves a step out."""


@cache
def plans() -> list[dict[str, Any]]:
    """What the commands of the guide to scale print, as JSON."""
    commands = re.findall(r"```sh\ncurate (plan .*?)```", SCALE, re.DOTALL)
    given = [[*shlex.split(command.replace("\\\n", " ")), "--json"] for command in commands]
    return [json.loads(CliRunner().invoke(app, one, catch_exceptions=False).stdout) for one in given]


def tables(head: str) -> list[list[tuple[str, ...]]]:
    """The rows of the tables of the guide that begin with a line."""
    found = [part.split("\n\n")[0].splitlines()[2:] for part in SCALE.split(head)[1:]]
    return [[tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines] for lines in found]


def case_rows(plan: dict[str, Any]) -> list[tuple[str, ...]]:
    whole = plan["total"]
    long = [t for t in plan["tables"] if t["seconds"] >= SHOWN_FROM * whole["seconds"]]
    rows = [(t["table"], duration(t["seconds"]), t["bound"], size(t["read"]), size(t["stored"])) for t in long]
    hours = f"{whole['gpu_hours']:,.0f} GPU hours" if plan["gpus"] else f"{whole['core_hours']:,.0f} core hours"
    return [*rows, ("all", duration(whole["seconds"]), hours, size(whole["read"]), size(whole["stored"]))]


def summary_row(plan: dict[str, Any]) -> tuple[str, ...]:
    whole, images = plan["total"], plan["assumptions"]["images"]
    price = "" if whole["price"] is None else f"{whole['price']:,.0f}"
    took = f"{duration(whole['seconds'])}, alone {duration(whole['alone'])}"
    return (
        f"{images:,} images, {plan['hardware']['name']}: {took}",
        size(whole["memory"]),
        size(whole["peak_stored"]),
        amount(whole["requests"]),
        price,
    )


def test_scale_study_shows_what_its_commands_print() -> None:
    assert tables("| table | time |") == [case_rows(plan) for plan in plans()]


def test_scale_study_sums_up_what_its_commands_print() -> None:
    assert tables("| case | largest task |") == [[summary_row(plan) for plan in plans()]]


def test_command_of_the_scale_study_for_this_machine_is_accepted() -> None:
    (command,) = re.findall(r"`curate (plan [a-z].*? sources.pool=POOL)`", SCALE)
    found = CliRunner().invoke(app, shlex.split(f"{command} --hardware cpu"), catch_exceptions=False)
    assert found.exit_code == 0


TRAINING = (ROOT / "docs/guides/training.md").read_text()


def test_trainings_of_the_guide_are_valid_configs() -> None:
    commands = re.findall(r"curate train (configs(?:.|\\\n)*?)\n(?=\S)", TRAINING)
    assert len(commands) == 6
    for command in commands:
        name, *given = shlex.split(command.replace("\\\n", " ").replace("=...", "=PATH"))
        values = apply_overrides(read_yaml(name), given)
        assert parse(TrainConfig, values, where=name).output


def test_every_training_config_is_told_of_in_the_guide() -> None:
    for path in (ROOT / "configs/train").glob("*.yaml"):
        assert path.stem in TRAINING or path.stem.startswith("mnist5k"), path


def test_every_module_that_the_guides_name_is_there() -> None:
    folders = ("curate", "pipelines", "benchmarks", "tests")
    modules = {path.name for folder in folders for path in (ROOT / folder).rglob("*.py")}
    for guide in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")):
        named = re.findall(r"`(?:[a-z_]+/)*([a-z_]+\.py)`", guide.read_text())
        assert set(named) - modules == set(), guide
