"""The copy space, as the stages read it that project into it."""

import numpy as np

from curate.engine.table import Table
from curate.ops.copies.copyspace import CopySpace
from curate.ops.vectors import VectorSpec, unpack


def read_space(space: Table) -> CopySpace:
    """The space of a table of `FitCopySpace`: the mean first, then the axes."""
    rows = space.read_all().combine_chunks()
    vectors, _ = unpack(rows["vector"], VectorSpec.of(rows.schema))
    return CopySpace(vectors[0], np.ascontiguousarray(vectors[1:].T))
