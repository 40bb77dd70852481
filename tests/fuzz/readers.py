"""Fuzz what reads the data of strangers, guided by coverage: pictures, files beside them, lists, tars, Parquet files.

    python -m venv /tmp/fuzz && /tmp/fuzz/bin/pip install -e '.[cpu,dev,fuzz]'
    /tmp/fuzz/bin/python -m tests.fuzz.readers /tmp/corpus -max_total_time=3600 -timeout=20 -rss_limit_mb=4096

The first byte of an input says what the others are taken for. The corpus begins with small honest files of every kind.
An input that breaks a property of `tests.fuzz.properties` ends the run and is kept as `crash-...`; give the file as an
argument to see it again.
"""

import io
import logging
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["curate.sources", "curate.text", "curate.ops.images", "tarfile", "json"]):
    from tests.fuzz import properties

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from curate.ops.images.decode import FORMATS

FOLDER = Path(tempfile.mkdtemp(prefix="fuzz-"))
TARGETS: tuple[Callable[[bytes], object], ...] = (
    properties.check_sidecars,
    lambda data: properties.check_list(FOLDER / "list.txt", data),
    lambda data: properties.check_tar(FOLDER / "a.tar", data),
    properties.check_picture,
    lambda data: properties.check_parquet(FOLDER / "a.parquet", data),
)
"""What the first byte chooses, by `WEIGHTS`: Parquet files least often, since Arrow refuses most of them."""
WEIGHTS = (0, 0, 0, 1, 1, 2, 2, 2, 3, 3, 3, 4)


def check(data: bytes) -> None:
    """One input of the fuzzer."""
    if data:
        TARGETS[WEIGHTS[data[0] % len(WEIGHTS)]](data[1:])


def seeds() -> Iterator[bytes]:
    """Honest inputs, each with the byte that chooses its target."""
    for text in (
        '{"caption": "größe", "n": [1, 2.5e3, null, true, "\\ud83d\\ude00"], "a": {"b": -7}}',
        "a caption",
        "7",
    ):
        for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32-be"):
            yield b"\x00" + text.encode(encoding)
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32"):
        yield b"\x03" + "a.jpg\r\nb b.png \r\nlist.txt\r\n".encode(encoding)
    yield b"\x03a.jpg\rb.jpg\r"
    for kind in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        yield b"\x05" + _tar(kind)
    for form in FORMATS:
        for mode in ("L", "RGB", "RGBA", "P", "I;16"):
            yield from _picture(form, mode)
    file = io.BytesIO()
    pq.write_table(pa.table({"image": [b"x", None], "caption": ["größe", None], "n": [1.5, 2.0]}), file)
    yield b"\x0b" + file.getvalue()


def _tar(kind: int) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=kind) as tar:
        for name, data in (("a.jpg", b"x"), ("a.json", b'{"n": 1}'), ("ü" * 120 + ".png", b"y"), ("a.txt", b"z")):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return file.getvalue()


def _picture(form: str, mode: str) -> Iterator[bytes]:
    file = io.BytesIO()
    try:
        Image.effect_noise((40, 36), 60).convert(mode).save(file, form)
    except (OSError, ValueError, KeyError):  # a mode that the format does not have
        return
    yield b"\x08" + file.getvalue()


def main() -> None:
    """Run libFuzzer with the arguments of the command line; a folder is the corpus."""
    logging.disable(logging.CRITICAL)
    for name in sys.argv[1:]:
        if not name.startswith("-") and not Path(name).is_file():
            Path(name).mkdir(parents=True, exist_ok=True)
            for number, seed in enumerate(seeds()):
                (Path(name) / f"seed-{number:03}").write_bytes(seed)
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
