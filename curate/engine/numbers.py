"""Numbers as people read them."""


def count(value: int) -> str:
    """1234567 -> 1,234,567."""
    return f"{value:,}"


def share(part: float, whole: float) -> str:
    """A percentage that never rounds a part to nothing or to everything."""
    if whole <= 0:
        return "0 %"
    percent = 100 * part / whole
    if 0 < percent < 0.1:
        return "< 0.1 %"
    if 99.9 < percent < 100:
        return "> 99.9 %"
    return f"{percent:.1f} %" if percent < 99.95 and percent else f"{percent:.0f} %"


def seconds(value: float) -> str:
    """Seconds below two minutes, then minutes, then hours."""
    if value < 120:
        return f"{value:.1f} s"
    return f"{value / 60:.1f} min" if value < 7200 else f"{value / 3600:.1f} h"


def size(num_bytes: float) -> str:
    """Bytes, in powers of ten: 2.1 GB; empty for nothing."""
    for limit, name in ((1e15, "PB"), (1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if num_bytes >= limit:
            return f"{num_bytes / limit:.1f} {name}"
    return f"{num_bytes / 1e3:.0f} kB" if num_bytes else ""


def rate(value: float) -> str:
    """A number per second: a decimal only where it matters."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def plural(value: int, one: str, many: str = "") -> str:
    """`1 image`, `2 images`."""
    return f"{count(value)} {one if value == 1 else many or one + 's'}"
