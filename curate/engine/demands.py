"""What the engine does around the work of a step: parts opened, committed and looked at, manifests read.

A law of a stage (`Stage.cost`) states the bytes of rows that the stage reads and writes. Files are more than their
rows, and each costs requests; how often the engine opens them follows from the kind of the stage and from the numbers
of parts, so it is stated here once.
"""

from collections.abc import Mapping, Sequence

from curate.engine.cost import STEP_REQUESTS, Demand, Shape
from curate.engine.stage import Fold, Shuffle, Stage

COMMIT_REQUESTS = 2
"""For a part: it is published, and a line is added to the progress."""


def around(stages: Sequence[Stage], inputs: Mapping[str, Sequence[Shape] | None], made: Sequence[Shape]) -> Demand:
    """What making the tables of a step takes beside what their stages state.

    Args:
        inputs: of all stages, by name; None where left out.
        made: the shape of each table.
    """
    lead, specs = stages[0], {key: spec for stage in stages for key, spec in stage.inputs.items()}
    each = [shape for key, spec in specs.items() for shape in inputs.get(key) or () if spec.how == "each"]
    whole = [shape for key, spec in specs.items() for shape in inputs.get(key) or () if spec.how == "whole"]
    tasks, first = made[0].parts, each[0].parts if each else 0
    found = [Demand(requests=STEP_REQUESTS * len(made)), *(_committed(shape) for shape in made)]
    found += [shape.beside() for shape in each]
    if isinstance(lead, Shuffle):
        found.append(_hidden(first))
        tasks += first
    if isinstance(lead, Fold):
        found += [_hidden(first), _hidden(1)]
        found += [shape.beside(min(1, made[0].parts / shape.parts)) for shape in each]  # read again with the state
        tasks += first + 1
    found += [shape.looked_up(tasks) for shape in whole]
    return Demand.sum(found)


def _committed(made: Shape) -> Demand:
    """The parts of a table published, and their footers looked at in the end."""
    return Demand.sum([Demand(requests=COMMIT_REQUESTS * made.parts), made.opened()])


def _hidden(parts: float) -> Demand:
    """Parts of a hidden folder published, each read once at least, and removed as one."""
    return Demand(requests=(COMMIT_REQUESTS + 1) * parts)
