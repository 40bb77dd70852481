"""Codes and names: arrays hold small numbers where tables hold words."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa


def names_of(codes: np.ndarray | pa.Array, names: Sequence[str]) -> pa.Array:
    """The name of each code, as a column of strings, without a Python object for each.

    Args:
        codes: (N,) integers, places in `names`; a code that is negative or null has no name and becomes null.
        names: what the codes stand for.
    """
    places = codes if isinstance(codes, pa.Array) else pa.array(codes.astype(np.int32), mask=codes < 0)
    return pa.DictionaryArray.from_arrays(places, pa.array(names, pa.string())).cast(pa.string())
