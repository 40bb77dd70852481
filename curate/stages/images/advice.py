"""What a user whose images are rejected can do: the limit and the value that would have let them pass, by the facts."""

import re
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.engine.table import Table
from curate.ops.images.bounds import PIL_PIXELS
from curate.ops.images.inspect import FEW_BITS, ImageLimits

COLUMNS = ["reject", "detail", "width", "height", "num_bytes", "luma_std", "smoothness"]
MAX_ROWS = 1_000_000
"""Rejected images that are looked at."""
PASSING_SHARE = 0.9
"""Share of the images of one reason that a proposed value lets pass, at least."""
LEAST_SHARE = 0.1
"""Share of all rejects that a reason has at least, to be spoken of."""
OTHERWISE = {
    "unreadable": "no limit accepts what cannot be read",
    "empty": "no limit accepts files without bytes; fetch them again",
    "not_an_image": "no limit accepts what is no picture; give a folder or a pattern that holds the pictures",
    "unsupported": "no limit accepts what cannot be decoded",
    "truncated": "no limit accepts files that are cut; fetch them again",
    "corrupt": "no limit accepts damaged files; fetch them again",
}
"""What to say of the reasons that no limit decides."""


def advise(table: Table, parts: list[int], limits: ImageLimits) -> Iterator[str]:
    """For each frequent reason of the rejects in some parts of `images`: which limit would let most of them pass.

    A picture that passes one limit is measured against the next only then, so a proposed value may not be the last one.
    """
    rejects = _rejects(table, parts)
    counts = Counter(rejects["reject"].to_pylist())
    for reason, number in counts.most_common():
        if number >= LEAST_SHARE * len(rejects):
            advice = _advice(reason, rejects.filter(pc.equal(rejects["reject"], reason)), limits)
            yield f"{reason}: {advice}{f', with --rebuild {table.name}' if advice.endswith(' pass') else ''}"


def _rejects(table: Table, parts: list[int]) -> pa.Table:
    found, rows = [table.schema().empty_table().select(COLUMNS)], 0
    for part in parts:
        if rows < MAX_ROWS:
            read = table.read(part, COLUMNS)
            judged = pc.not_equal(read["reject"], "unavailable").fill_null(False)  # no verdict: it may yet come
            found.append(read.filter(judged).slice(0, MAX_ROWS - rows))
            rows += len(found[-1])
    return pa.concat_tables(found)


def _advice(reason: str, rows: pa.Table, limits: ImageLimits) -> str:
    match reason:
        case "too_small":
            sides = np.minimum(_numbers(rows, "width"), _numbers(rows, "height"))
            value = np.quantile(sides, 1 - PASSING_SHARE, method="lower")
            return _passing(limits, "min_side", f"{value:.0f}", sides >= value)
        case "extreme_aspect":
            sides = np.stack([_numbers(rows, "width"), _numbers(rows, "height")])
            aspects = sides.max(axis=0) / sides.min(axis=0)
            value = np.ceil(10 * np.quantile(aspects, PASSING_SHARE, method="higher")) / 10
            return _passing(limits, "max_aspect", f"{value:g}", aspects <= value)
        case "too_large":
            return _advice_on_size(rows, limits)
        case "too_slow":
            setting = limits.field_error("max_seconds", f"={10 * limits.max_seconds:g}")
            return f"{setting} would let honest ones pass, if these are such; most often: {_most_frequent(rows)}"
        case "uniform":
            return _advice_on_uniform(rows, limits)
        case "noise":
            values = _numbers(rows, "smoothness")
            value = max(-1.0, np.floor(100 * np.quantile(values, 1 - PASSING_SHARE, method="lower")) / 100)
            return _passing(limits, "min_smoothness", f"{value:g}", values >= value)
    return f"{OTHERWISE.get(reason, 'no limit decides it')}; most often: {_most_frequent(rows)}"


def _advice_on_size(rows: pa.Table, limits: ImageLimits) -> str:
    """Of pictures with too many pixels, files with too many bytes, or what takes too much memory: the most frequent."""
    texts = [text or "" for text in rows["detail"].to_pylist()]
    memory = [_MEMORY.match(text) for text in texts]
    if 2 * sum(map(bool, memory)) > len(rows):
        needed = np.array([_bytes_needed(match, limits) if match else np.nan for match in memory])
        value = np.nanquantile(needed, PASSING_SHARE, method="higher")
        return _passing(limits, "max_decode_bytes", f"{value:.0f}", needed <= value)
    pixels = _numbers(rows, "width") * _numbers(rows, "height")
    told = [re.match(r"(\d+) bytes", text) for text in texts]
    lengths = np.array([float(match[1]) if match else np.nan for match in told])
    if np.isfinite(lengths).sum() > np.isfinite(pixels).sum():
        value = np.nanquantile(lengths, PASSING_SHARE, method="higher")
        return _passing(limits, "max_bytes", f"{value:.0f}", lengths <= value)
    if not np.isfinite(pixels).any() or np.nanquantile(pixels, PASSING_SHARE, method="higher") > PIL_PIXELS:
        return f"no limit accepts more than {PIL_PIXELS} pixels or lengths that are not known; scale the pictures down"
    value = np.nanquantile(pixels, PASSING_SHARE, method="higher")
    return _passing(limits, "max_pixels", f"{value:.0f}", pixels <= value)


_MEMORY = re.compile(r"decoding .*takes (more than )?(\d+) bytes of memory")


def _bytes_needed(match: re.Match[str], limits: ImageLimits) -> float:
    """An eighth above what the header asks for; four times the limit where decoding took more than that."""
    return 4.0 * limits.max_decode_bytes if match[1] else np.ceil(int(match[2]) * 1.125)


def _advice_on_uniform(rows: pa.Table, limits: ImageLimits) -> str:
    few = [re.search(rf"{FEW_BITS} \((\d+) bits\)", text or "") for text in rows["detail"].to_pylist()]
    used = [int(match[1]) for match in few if match]
    if 2 * len(used) > len(rows):
        bits = max(used)
        return (
            f"the 16-bit samples of {len(used)} of {len(rows)} use {bits} bits or fewer; set significant_bits of their "
            f"source, as in sources.pool={{path: DIR, significant_bits: {bits}}}"
        )
    values = _numbers(rows, "luma_std")
    value = max(0.0, np.floor(100 * np.quantile(values, 1 - PASSING_SHARE, method="lower")) / 100)
    return _passing(limits, "min_luma_std", f"{value:g}", values >= value)


def _numbers(rows: pa.Table, column: str) -> np.ndarray:
    """(N,) float64; nulls are NaN."""
    found: np.ndarray = rows[column].cast(pa.float64()).to_numpy()
    return found


def _passing(limits: ImageLimits, field: str, value: str, passing: np.ndarray) -> str:
    setting = limits.field_error(field, f"={value}")
    return f"{setting} lets {int(passing.sum())} of {len(passing)} pass"


def _most_frequent(rows: pa.Table) -> str:
    ((text, number),) = Counter(text or "" for text in rows["detail"].to_pylist()).most_common(1)
    return f"{text} ({number} of {len(rows)})"
