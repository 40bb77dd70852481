"""JSON files that carry the SHA-256 of their own text: a flipped bit is found where the text still parses.

The last line of the object says `"sha256": "..."`, of all bytes before it. Files without that line, which earlier
versions wrote, are read unchecked.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

KEY = "sha256"
_END = re.compile(rb'"(?P<key>[^"\n]{6})": "(?P<digest>[^"\n]{64})"\n\}\n?\Z')


def dump_sealed(values: Mapping[str, Any]) -> bytes:
    """`values` as indented JSON with its digest in the last line; equal values give equal bytes."""
    inner = json.dumps(values, indent=1, ensure_ascii=False).removeprefix("{").removesuffix("}").rstrip("\n")
    text = ("{" + inner + ("," if values else "") + "\n ").encode()
    return text + f'"{KEY}": "{hashlib.sha256(text).hexdigest()}"\n}}\n'.encode()


def load_sealed(data: bytes) -> Any:
    """What a JSON file says, without its digest.

    Raises:
        ValueError: not JSON, or not the text that was written.
    """
    try:
        found = json.loads(data.decode())
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    end = _END.search(data)
    if end is not None and end["key"] != KEY.encode():
        raise ValueError("its last line is not the one that was written")
    if isinstance(found, dict) and KEY in found:
        del found[KEY]
        if end is None or end["digest"].decode() != hashlib.sha256(data[: end.start()]).hexdigest():
            raise ValueError(f"its text does not have the {KEY} that it tells")
    return found
