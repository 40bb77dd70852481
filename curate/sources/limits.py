"""How much of what strangers send is kept: names, texts, values and columns.

Pictures have limits of their own (`ImageLimits`). What describes them had none, and a table of 2 GB cells, a sidecar of
240,000 keys or a path of megabytes costs as much as a bomb. The bounds are far above what describes a picture: file
systems end names at 4 KiB, the longest captions are pages of text, COCO's annotations of one picture take some 100 kB.
What is beyond is left out alone, counted by its kind, and never cut: half a text is another text.
"""

MAX_NAME_BYTES = 4096
"""Bytes of a path, of a tar member's name, of a URL: what Linux takes for a path, and more than servers take."""
MAX_COLUMN_NAME_BYTES = 255
"""Bytes of a column's name, in UTF-8."""
MAX_TEXT_BYTES = 1 << 16
"""Bytes of one text, in UTF-8: a caption, a cell, a value within JSON."""
MAX_VALUE_BYTES = 1 << 20
"""Bytes of one value with all that is nested in it: its texts, and 8 for each other value."""
MAX_IMAGE_COLUMNS = 1000
"""Own columns of one image, and of the shards."""
MAX_TABLE_COLUMNS = 10_000
"""Columns of a table that describes images, or holds them."""
MAX_SIDECAR_BYTES = 1 << 20
"""Bytes of a file beside an image, or of a line of JSONL; a longer one is not one image's description."""
MAX_SHOWN = 256
"""Characters of a name in messages and figures."""


def shortened(name: str) -> str:
    """A name as messages show it: cut in the middle where it is long."""
    half = MAX_SHOWN // 2
    return name if len(name) <= MAX_SHOWN else f"{name[:half]}...{name[-half:]}"
