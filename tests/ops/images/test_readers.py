"""What readers of the shards cannot decode, against the decoder of `datasets` itself; and its repair."""

import io
import struct
import zlib
from collections import Counter
from collections.abc import Iterator

import datasets
import numpy as np
import pytest
from PIL import Image, ImageFile

from curate.ops.images.decode import decode_rgb
from curate.ops.images.inspect import ImageLimits, inspect_image
from curate.ops.images.readers import ForReaders, make_readable, reader_warning
from tests.ops.images.pictures import encode, gradient, png_claiming

LIMITS = ImageLimits(min_side=1)
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="%d"/></x:xmpmeta>'
PICTURE = gradient((36, 24))


def encoded(form: str, **options: object) -> bytes:
    return encode(PICTURE, form, **options)


def exif(orientation: int) -> bytes:
    block = Image.Exif()
    block[0x0112], block[0x010F], block[0x8769] = orientation, "maker", {0x9003: "2020:01:01 00:00:00"}
    return block.tobytes()


def png(*, before: tuple[bytes, ...] = (), behind: tuple[bytes, ...] = ()) -> bytes:
    data = encoded("PNG")
    first, last = data.index(b"IDAT") - 4, data.index(b"IEND") - 4
    return data[:first] + b"".join(before) + data[first:last] + b"".join(behind) + data[last:]


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def jpeg(*segments: tuple[int, bytes], jfif: bool = True) -> bytes:
    """With more segments; without JFIF, whose resolution comes first, Pillow looks for that in EXIF on opening."""
    data = encoded("JPEG", dpi=(72, 72))
    after = 4 + int.from_bytes(data[4:6], "big")
    made = (b"\xff" + bytes([mark]) + struct.pack(">H", 2 + len(body)) + body for mark, body in segments)
    return data[: after if jfif else 2] + b"".join(made) + data[after:]


RAW_PROFILE = b"Raw profile type exif\0"

FAULTS = {
    "PNG, garbage": png(before=(chunk(b"eXIf", b"garbage!"),)),
    "PNG, garbage behind the pixels": png(behind=(chunk(b"eXIf", b"garbage!"),)),
    "PNG, cut short": png(before=(chunk(b"eXIf", exif(6)[6:11]),)),
    "PNG, profile that is no hexadecimal": png(before=(chunk(b"tEXt", RAW_PROFILE + b"\nexif\n  10\nzzzz"),)),
    "PNG, compressed profile": png(before=(chunk(b"zTXt", RAW_PROFILE + b"\0" + zlib.compress(b"\n\n\nxyz")),)),
    "PNG, text that calls itself XMP": png(before=(chunk(b"tEXt", b"xmp\0a plain text"),)),
    "PNG, wrong checksum of a text": png(before=(chunk(b"tEXt", b"a\0text")[:-1] + b"?",)),
    "WebP, garbage": encoded("WEBP", exif=b"garbage!"),
    "WebP, garbage and lossless": encoded("WEBP", exif=b"garbage", lossless=True),
    "JPEG, garbage": jpeg((0xE1, b"Exif\0\0garbage!")),
    "JPEG, garbage and XMP": jpeg((0xE1, b"Exif\0\0garbage!"), (0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP % 6)),
    "JPEG, two garbage blocks": jpeg((0xE1, b"Exif\0\0garbage!"), (0xFE, b"comment"), (0xE1, b"Exif\0\0more")),
}


def as_datasets_decodes(data: bytes) -> Image.Image | None:
    """What `datasets` makes of it; None: it fails."""
    try:
        return datasets.Image().decode_example({"bytes": data, "path": None})
    except Exception:
        return None


def pixel_bytes(data: bytes) -> list[bytes]:
    """The encoded pixels of a JPEG, PNG or WebP."""
    if data.startswith(b"\xff\xd8"):
        return [data[data.index(b"\xff\xda") :]]
    found, at, big = [], 12 if data[:4] == b"RIFF" else 8, data[:4] != b"RIFF"
    while at + 8 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big") if big else int.from_bytes(data[at + 4 : at + 8], "little")
        kind = data[at + 4 : at + 8] if big else data[at : at + 4]
        found += [data[at + 8 : at + 8 + length]] if kind in (b"IDAT", b"VP8 ", b"VP8L", b"ALPH", b"tRNS") else []
        at += 12 + length if big else 8 + length + length % 2
    return found


@pytest.mark.parametrize("orientation", [None, 1, 3, 6])
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "MPO"])
def test_good_metadata_of_any_format_give_no_warning_and_no_repair(form: str, orientation: int | None) -> None:
    has_exif = orientation is not None and form not in ("GIF", "BMP", "PPM")
    data = encoded(form, **({"exif": exif(orientation)} if has_exif and orientation else {}))
    assert as_datasets_decodes(data) is not None
    assert make_readable(data, repair=True) == make_readable(data, repair=False) == ForReaders(data)


def test_text_and_xmp_beside_the_pixels_give_no_warning() -> None:
    xmp = (0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP % 6)
    texts = (chunk(b"tEXt", b"Title\0a title"), chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP % 6))
    for data in (png(before=texts), png(behind=texts), jpeg(xmp), encoded("WEBP", xmp=XMP % 6)):
        decoded = as_datasets_decodes(data)
        assert decoded is not None
        assert reader_warning(data) is None


@pytest.mark.parametrize("name", FAULTS)
def test_what_datasets_cannot_decode_is_told_and_repaired_to_the_accepted_picture(name: str) -> None:
    data = FAULTS[name]
    assert as_datasets_decodes(data) is None
    warning = reader_warning(data)
    assert warning is not None
    assert make_readable(data, repair=False) == ForReaders(data, warning)
    if inspect_image(data, LIMITS).reject is None:
        check_repair(data)


def test_nearly_all_of_these_faults_are_accepted() -> None:
    accepted = [name for name, data in FAULTS.items() if inspect_image(data, LIMITS).reject is None]
    assert len(accepted) >= len(FAULTS) - 1


def check_repair(data: bytes) -> ForReaders:
    """The repair keeps the encoded pixels, is readable, and lies as the accepted picture does."""
    repaired = make_readable(data, repair=True)
    assert (repaired.warning, repaired.repaired) == (None, reader_warning(data))
    assert pixel_bytes(repaired.data) == pixel_bytes(data)
    found, accepted = as_datasets_decodes(repaired.data), decode_rgb(data)
    assert found is not None
    assert (found.size, found.convert("RGB").tobytes()) == (accepted.size, accepted.tobytes())
    assert make_readable(repaired.data, repair=True) == ForReaders(repaired.data)
    return repaired


def mutants(count: int) -> Iterator[bytes]:
    """Pictures whose EXIF blocks have a few other bytes."""
    rng, block = np.random.default_rng(0), exif(6)[6:]
    for number in range(count):
        broken = bytearray(block)
        for _ in range(rng.integers(1, 12)):
            broken[rng.integers(0, len(block))] = rng.integers(0, 256)
        made = b"Exif\0\0" + bytes(broken)
        match number % 5:
            case 0:
                yield png(before=(chunk(b"eXIf", made[6:]),))
            case 1:
                yield png(behind=(chunk(b"eXIf", made[6:]),))
            case 2:
                yield encoded("WEBP", exif=made)
            case other:
                yield jpeg((0xE1, made), jfif=other == 3)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_any_damage_of_an_exif_block_is_judged_as_datasets_does_and_repaired() -> None:
    steps: Counter[str] = Counter()
    for data in mutants(500):
        warning = reader_warning(data)
        assert (warning is None) == (as_datasets_decodes(data) is not None)
        if warning is not None:
            steps[warning.split(": ")[0]] += 1
            check_repair(data)
    assert set(steps) >= {"EXIF", "orientation"}  # the block could be read, but not be written again


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_orientation_that_goes_with_the_block_is_kept() -> None:
    """Such a block can be read, so that the picture is turned, but not be written again, as readers want."""
    turned = next(data for data in mutants(500) if (reader_warning(data) or "").startswith("orientation"))
    assert decode_rgb(turned).size == (PICTURE.height, PICTURE.width)
    assert b"II*\0" in check_repair(turned).data
    assert b"II*\0" not in check_repair(FAULTS["JPEG, garbage"]).data


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_flag_of_a_webp_says_whether_it_has_an_exif_block() -> None:
    garbage = check_repair(FAULTS["WebP, garbage"]).data
    files = (data for data in mutants(1000) if data[:4] == b"RIFF")
    turned = check_repair(next(data for data in files if (reader_warning(data) or "").startswith("orientation"))).data
    for data, has_block in ((FAULTS["WebP, garbage"], True), (garbage, False), (turned, True)):
        assert data[12:16] == b"VP8X"
        assert bool(data[20] & 0x08) == (b"EXIF" in data) == has_block
        assert int.from_bytes(data[4:8], "little") == len(data) - 8


def test_pictures_of_more_pixels_than_pillow_opens_are_told_whatever_this_process_allows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    huge = png_claiming(20_000, 10_000)
    assert reader_warning(huge).startswith("opening: DecompressionBombError: ")  # type: ignore[union-attr]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    told = reader_warning(huge)
    assert told == "opening: 20000 x 10000 pixels are more than the 178956970 that Pillow opens"


def test_warnings_hold_no_addresses_and_fit_into_a_table() -> None:
    told = reader_warning(b"no picture")
    assert (
        told == reader_warning(b"no picture") == "opening: UnidentifiedImageError: cannot identify image file the data"
    )
    half = reader_warning(png(before=(chunk(b"tEXt", RAW_PROFILE + "\n\n\n\udc80".encode("utf-8", "surrogatepass")),)))
    assert half is not None
    half.encode()


def test_format_of_a_plug_in_is_not_taken_for_one_that_readers_have(monkeypatch: pytest.MonkeyPatch) -> None:
    class Toy(ImageFile.ImageFile):
        format = "TOY"

        def _open(self) -> None:
            self._size, self._mode, self.tile = (1, 1), "L", []

    Image.init()
    monkeypatch.setattr(Image, "ID", [*Image.ID, "TOY"])
    monkeypatch.setitem(Image.OPEN, "TOY", (Toy, lambda head: head.startswith(b"TOY")))
    assert Image.open(io.BytesIO(b"TOY and more")).format == "TOY"
    told = reader_warning(b"TOY and more")
    assert told is not None
    assert told.startswith("opening: UnidentifiedImageError")
