"""What the guides show must be accepted by the code they tell of."""

import re
import subprocess
from pathlib import Path

import yaml

from curate.executors import ExecutorConfig

ROOT = Path(__file__).parent.parent
CLUSTER = (ROOT / "docs/cluster.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", CLUSTER, re.DOTALL)


def test_executor_of_the_slurm_example_is_valid() -> None:
    (config,) = [yaml.safe_load(block)["executor"] for block in blocks("yaml") if block.startswith("executor:")]
    assert ExecutorConfig.model_validate(config).slurm.gpus == 1


def test_kubernetes_objects_parse_and_name_existing_fields() -> None:
    (manifest,) = [block for block in blocks("yaml") if "apiVersion" in block]
    cluster, job = yaml.safe_load_all(manifest)
    assert (cluster["kind"], job["kind"]) == ("DaskCluster", "Job")
    args = job["spec"]["template"]["spec"]["containers"][0]["args"]
    assert (ROOT / args[1]).exists()
    given = dict(arg.removeprefix("executor.").split("=") for arg in args if arg.startswith("executor."))
    assert ExecutorConfig.model_validate(given | {"threads": int(given["threads"])}).kind == "scheduler"


def test_scripts_are_valid_shell_and_every_kind_is_told() -> None:
    for block in blocks("sh"):
        subprocess.run(["sh", "-n"], input=block, text=True, check=True)
    kinds = ExecutorConfig.model_json_schema()["properties"]["kind"]["enum"]
    assert all(f"| `{kind}` |" in CLUSTER for kind in kinds)
