"""What the engine does around the work of a step: parts opened, committed and looked at, rows on their way.

What a task reads of the inputs that are read part by part follows from the kind of the stage and from what it declares,
and so do the parts that are published: `around` states it once, and no law of a stage (`Stage.cost`) states it again.
`shuffled` is for the rows of a Shuffle between its two phases, `folded` for partial results and state of a Fold: laws
of such stages add them. What a stage reads beside, of whole tables and of images, its law says.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from curate.engine.cost import STEP_REQUESTS, Assumptions, Demand, Shape
from curate.engine.pieces import ENTRY
from curate.engine.pieces import TAIL_BYTES as INDEX_BYTES
from curate.engine.shuffle import SEGMENT_BYTES, Layout
from curate.engine.stage import Fold, Stage, num_groups

COMMIT_REQUESTS = 2
"""For a part: it is published, and a line is added to the progress."""
LINE_BYTES = 280
"""Bytes of such a line, which the driver reads again in the end."""
HIDDEN_REQUESTS = 4
"""For a folder of hidden parts: it is listed before and after they are made, and removed."""
MEMORY_RUNS = 3
"""A task that scatters holds a run as it came, in one piece, and the segments that it takes from it."""
BATCH_BYTES = 400
"""Bytes around the rows of a segment: Arrow's message, and columns that end at multiples of 64 bytes."""


def around(
    stages: Sequence[Stage],
    inputs: Mapping[str, Sequence[Shape] | None],
    made: Sequence[Shape],
    demand: Demand,
) -> Demand:
    """What making the tables of a step takes beside what their stages state: parts of inputs and of the tables.

    Args:
        inputs: of all stages, by name; None where left out.
        made: the shape of each table.
        demand: what the stages state.
    """
    found = [*map(_committed, made), Demand(tasks=made[0].parts, settles=any(shape.settles for shape in made))]
    for shape, share in _each(stages, inputs):
        times = 1.0 if demand.parts_read is None else min(1, demand.parts_read / shape.parts)
        if isinstance(stages[0], Fold) and demand.parts_read is None:  # again where parts are made beside the state
            times += min(1, made[0].parts / shape.parts)
        found.append(replace(shape.scanned(times, share=share), settles=shape.settles))
    return Demand.phases(found)


def _each(stages: Sequence[Stage], inputs: Mapping[str, Sequence[Shape] | None]) -> Iterator[tuple[Shape, float]]:
    """The inputs that are read part by part, and the share of their bytes that is."""
    specs = {key: spec for stage in stages for key, spec in stage.inputs.items()}
    for key, spec in specs.items():
        if spec.how == "each":
            names = None if spec.many or spec.beyond_rows else spec.schema.names
            yield from ((shape, 1 if names is None else shape.share(names)) for shape in inputs.get(key) or ())


def logged(tasks: float) -> Demand:
    """What the driver writes down of so many tasks that make no part of the table."""
    return Demand(tasks=tasks, requests=tasks, read=tasks * LINE_BYTES)


def _committed(made: Shape) -> Demand:
    """The parts of a table published, and their footers looked at in the end."""
    lines = Demand(requests=STEP_REQUESTS + COMMIT_REQUESTS * made.parts, read=LINE_BYTES * made.parts)
    return Demand.sum([lines, made.opened()])


class Sent(NamedTuple):
    """The rows that a Shuffle scatters."""

    rows: float
    inputs: float
    """Parts that they come from."""
    buckets: float
    """Parts that they go to."""
    row_bytes: float
    """Bytes of a row on its way, as files hold it."""
    memory_bytes: float = 0
    """Bytes of a row in memory, by `Shuffle.scattered_bytes`; 0: the same."""
    raw: bool = False
    """Whether the rows do not compress, see `pieces.holds_raw`."""


def shuffled(sent: Sent, given: Assumptions) -> Demand:
    """What it takes to bring rows from input parts to buckets: each is written and read once a level."""
    held = sent.rows * (sent.memory_bytes or sent.row_bytes)
    layout = Layout.plan(
        inputs=max(1, sent.inputs),
        buckets=max(1, sent.buckets),
        num_bytes=held,
        raw=sent.raw,
        task_memory=given.task_memory,
    )
    groups, buckets, coarse = layout.groups, layout.buckets, layout.coarse
    runs, memory = held / layout.run_bytes, Demand(memory=MEMORY_RUNS * min(held, layout.run_bytes))
    if not coarse:
        return Demand.phases([memory, _level(sent, groups, keys=buckets, runs=runs, opened=buckets)])
    files = coarse * layout.slices
    first = _level(sent, groups, keys=coarse, runs=runs, opened=coarse)
    last = _level(sent, files, keys=buckets / coarse, runs=runs, opened=buckets / coarse)
    return replace(Demand.phases([memory, first, last]), settles=True)  # of a smaller N there is one level


def _level(sent: Sent, files: float, *, keys: float, runs: float, opened: float) -> Demand:
    """Rows written to files and read from them once.

    Args:
        keys: buckets that rows of one file go to.
        runs: that rows fill, of all files together; a file has one at least.
        opened: times that each file is.
    """
    size = sent.rows * sent.row_bytes
    segments = max(min(max(files, runs) * keys, sent.rows), size / SEGMENT_BYTES)
    index = segments / files * ENTRY.itemsize
    stored = size + segments * BATCH_BYTES + files * index
    end = min(max(INDEX_BYTES, index), stored / files)
    inside = min(1, (end - index) / max(1, stored / files - index))  # of the segments, which come with the index
    ends = files * opened * (2 if index > INDEX_BYTES else 1)
    demand = Demand(
        read=files * opened * end + (1 - inside) * stored,
        scratch=stored,
        requests=HIDDEN_REQUESTS + files + ends + (1 - inside) * segments,
    )
    return Demand.sum([logged(files), demand])


def folded(partials: Shape | None, state: Shape, made: Shape, *, by_image: bool = False, rounds: float = 1) -> Demand:
    """What partial results and the state of a Fold take.

    Args:
        partials: None: `combine` reads the inputs itself.
        by_image: see `Fold.state_by_image`.
        rounds: of an IteratedFold.
    """
    found = [Demand(requests=HIDDEN_REQUESTS), _hidden(state, rounds), logged(rounds)]
    # Its own part of the state for each part, and with part 0 what all of them carry.
    found += [state.scanned(), state.opened()] if by_image else [state.scanned(made.parts + 2 * (rounds - 1))]
    if partials is not None:
        found += [_hidden(partials, rounds), logged(rounds * partials.parts)]
        found += [partials.scanned(rounds), Demand(requests=HIDDEN_REQUESTS), partials.opened(rounds - 1)]
        found += [state.scanned((rounds - 1) * partials.parts)]
    return Demand.sum(found)


def _hidden(parts: Shape, rounds: float) -> Demand:
    """Parts of a hidden folder published."""
    return Demand(requests=rounds * parts.parts, scratch=rounds * (parts.num_bytes + parts.parts * parts.around_bytes))


def grouped(table: Shape) -> float:
    """Partial results where each is made of a group of consecutive parts."""
    return num_groups(math.ceil(table.parts))


def one_process(read: Sequence[Demand]) -> Demand:
    """The same, read by one process."""
    found = Demand.sum(list(read))
    return replace(found, serial_read=found.read)


def by_process(read: Sequence[Demand]) -> Demand:
    """The same, read once by every process that works on the step and kept by it."""
    found = Demand.sum(list(read))
    return replace(found, process_read=found.read, process_requests=found.requests)
