"""The phases that are interrupted are those of the program as it is."""

from importlib import import_module
from pathlib import Path

from benchmarks.interrupts import phases
from curate.cli import COMMANDS


def test_every_phase_names_a_function_that_exists_and_every_command_that_works_has_one() -> None:
    found = list(phases(Path("samples"), Path("run"), Path("shards"), Path("new")))
    for phase in found:
        module, _, path = phase.place.partition(":")
        owner = import_module(module) if module else None
        for step in path.split(".") if path else ():
            owner = getattr(owner, step)
        assert owner is None or callable(owner), phase.name
    commands = {phase.arguments[0] for phase in found}
    assert commands == {*COMMANDS, "samples"} - {"config", "init", "models", "sign"}  # which end by themselves
    assert len({phase.name for phase in found}) == len(found)
