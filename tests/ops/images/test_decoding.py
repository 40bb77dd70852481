"""What a stranger's picture can do to the process that decodes it, and to the one that asked."""

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.formats import cases
from curate.errors import CurateError
from curate.ops.images import apart, bands, decode, decoding
from curate.ops.images.apart import DecodersEnded, decoder_pids, end_decoders
from curate.ops.images.bounds import Bounds
from curate.ops.images.decode import RejectedImage, bytes_to_decode, decode_rgb, open_image
from curate.ops.images.decoding import (
    count_bits,
    decode_picture,
    decode_pixels,
    inspect_picture,
    make_picture_readable,
)
from curate.ops.images.inspect import ImageLimits, inspect_image
from curate.ops.images.plain import is_plain
from curate.ops.images.readers import make_readable
from curate.samples.bundled import PHOTOS
from tests.ops.images.pictures import comment_bomb, encode, gradient, photo_bytes, png_claiming, scan_bomb
from tests.ops.images.test_readers import FAULTS

ANY = ImageLimits().for_safety_alone()
MIB = 1 << 20
SIDE = 3000
"""Of large pictures, in pixels."""


@pytest.fixture
def apart_always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small JPEG and PNG files go to the process too."""
    monkeypatch.setattr(decoding, "is_plain", lambda data: False)


@pytest.fixture(scope="module")
def slow() -> bytes:
    return scan_bomb()


def busy_pid(*others: int) -> int:
    """The process that works, once it does, and is none of `others`."""
    while True:
        for pid in set(decoder_pids()[1:]) - set(others):
            with suppress(OSError):
                stat = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
                if int(stat[11]) > 3:  # ticks: the fork has none
                    return pid
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(pids: list[int]) -> bool:
    """Whether processes end, in a while."""
    for _ in range(1500):
        if not any(map(is_alive, pids)):
            return True
        time.sleep(0.02)
    return False


# -- the same as without a process --------------------------------------------------------------------------------


def outcome(way: Callable[..., object], *args: object, **how: object) -> object:
    try:
        found = way(*args, **how)
    except RejectedImage as rejected:
        return rejected.reason, rejected.detail
    if isinstance(found, Image.Image):
        return found.mode, found.size, found.tobytes()
    picture = getattr(found, "picture", None)
    return {**vars(found), "picture": None if picture is None else (picture.size, picture.tobytes())}


@pytest.mark.usefixtures("apart_always")
def test_pictures_and_facts_are_those_of_this_process() -> None:
    files = [(path.read_bytes(), "auto") for path in sorted(PHOTOS.rglob("*.jpg"))]
    files += [(case.data, case.bits) for case in cases()][::2]
    for number, (data, bits) in enumerate(files):
        side = (None, 64, 256)[number % 3]
        how = {"min_side": side, "significant_bits": bits}
        if number % 2:
            assert outcome(decode_picture, data, **how) == outcome(decode_rgb, data, **how)
        else:
            assert outcome(inspect_picture, data, ANY, **how) == outcome(inspect_image, data, ANY, **how)


@pytest.mark.usefixtures("apart_always")
def test_other_works_are_those_of_this_process() -> None:
    deep = encode(Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64)), "PNG")
    assert count_bits(deep) == 12
    assert count_bits(photo_bytes()) is None
    np.testing.assert_array_equal(decode_pixels(deep), np.asarray(decode_rgb(deep)))
    decode_pixels(deep)[:] = 0  # it may be changed
    for data in FAULTS.values():
        for repair in (False, True):
            assert make_picture_readable(data, repair=repair) == make_readable(data, repair=repair)


def test_small_pictures_of_common_kinds_need_no_process(slow: bytes) -> None:
    photos = [path.read_bytes() for path in sorted(PHOTOS.rglob("*.jpg"))]
    assert all(map(is_plain, photos))
    for form, options in (("JPEG", {"progressive": True}), ("PNG", {}), ("PNG", {"compress_level": 0})):
        assert is_plain(encode(gradient((1000, 800)), form, **options))
    others = (
        encode(gradient(), "WEBP"),
        encode(gradient((3000, 1500)), "JPEG"),
        png_claiming(60_000, 60_000),
        slow,
        scan_bomb(17, 64),
        comment_bomb(100),
        b"\xff\xd8\xff\xe0\0\x02" * 100,
        png_claiming(8, 8)[:33] + (b"\0\0\0\0teXt" + bytes(4)) * 1000 + png_claiming(8, 8)[33:],
        b"\xff\xd8\xff",
        b"",
    )
    assert not any(map(is_plain, others))


@pytest.mark.parametrize("mode", ["RGBA", "CMYK", "F", "I;16", "P", "L"])
@pytest.mark.parametrize("side", [None, 50, 7])
def test_bands_give_the_picture_of_the_whole(mode: str, side: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 256, (331, 207, 4), dtype=np.uint8)
    gray = values[:, :, 0]
    image = {
        "RGBA": lambda: Image.fromarray(values, "RGBA"),
        "CMYK": lambda: Image.fromarray(values, "CMYK"),
        "F": lambda: Image.fromarray(gray.astype(np.float32) * 9 - 700),
        "I;16": lambda: Image.fromarray(gray.astype(np.uint16) * 16),
        "P": lambda: Image.fromarray(values[:, :, :3]).quantize(60),
        "L": lambda: Image.fromarray(gray),
    }[mode]()
    options = {"transparency": 3} if mode in ("P", "L") else {}
    data = encode(image, "PNG" if mode in ("RGBA", "P", "L", "I;16") else "TIFF", **options)
    how = {"min_side": side, "significant_bits": 12 if mode == "I;16" else "auto"}
    whole = decode_rgb(data, **how)
    monkeypatch.setattr(bands, "BAND_PIXELS", 1500)
    found = decode_rgb(data, **how)
    assert found.size == whole.size
    assert found.tobytes() == whole.tobytes()


# -- memory -------------------------------------------------------------------------------------------------------


def large(mode: str) -> bytes:
    gray = Image.linear_gradient("L").resize((SIDE, SIDE))
    if mode == "I;16":
        return encode(Image.fromarray(np.asarray(gray).astype(np.uint16) * 257), "PNG", compress_level=1)
    if mode == "RGBA":
        return encode(Image.merge("RGBA", [gray, gray.rotate(90), gray, gray]), "PNG", compress_level=1)
    picture = gray.convert("RGB").convert(mode) if mode == "CMYK" else gray.convert(mode)
    return encode(picture, "TIFF", compression="tiff_lzw")


@pytest.mark.parametrize(("mode", "stored"), [("RGBA", 4), ("CMYK", 4), ("F", 4), ("I;16", 2)])
def test_large_pictures_take_little_more_than_their_pixels(mode: str, stored: int) -> None:
    """Converted as a whole, each of them takes three to nine times as much."""
    data, pixels = large(mode), SIDE * SIDE
    fitting = ANY.model_copy(update={"max_decode_bytes": stored * pixels + 36 * MIB})
    found = inspect_picture(data, fitting, min_side=64)
    assert found.reject is None
    assert found.picture is not None
    assert found.picture.size == (66, 66)
    tight = ANY.model_copy(update={"max_decode_bytes": stored * pixels})
    found = inspect_picture(data, tight, min_side=64)
    assert (found.reject, found.width, found.height) == ("too_large", SIDE, SIDE)
    takes = rf"decoding {SIDE} x {SIDE} pixels of mode \S+ takes \d+ bytes of memory"
    assert re.fullmatch(rf"{takes}, at most {stored * pixels} are allowed", found.detail or "")


def test_floats_are_refused_by_what_they_take() -> None:
    """A file of some 100 kB, whose header alone tells of 144 MB."""
    data = encode(Image.new("F", (6000, 6000)), "TIFF", compression="tiff_adobe_deflate")
    assert len(data) < 1 << 20
    with pytest.raises(RejectedImage, match="takes 288000000 bytes of memory, at most 67108864 are allowed") as caught:
        decode_picture(data, bounds=Bounds(max_decode_bytes=64 * MIB))
    assert (caught.value.reason, caught.value.limit) == ("too_large", "max_decode_bytes")


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "GIF", "WEBP", "JPEG2000", "AVIF", "HEIF", "JXL"])
def test_lack_of_memory_is_never_taken_for_damage(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not decode.has_decoder(form):
        pytest.skip(f"no decoder of {form} here")
    data = encode(gradient((1600, 1200)), form)
    for mib in (1, 2, 4, 8, 12, 16, 24, 32):
        found = outcome(decode_picture, data, min_side=100, bounds=Bounds(max_decode_bytes=mib * MIB))
        assert isinstance(found, tuple)
        assert found[0] in ("RGB", "too_large"), (mib, found)


def test_decoders_that_take_more_than_the_header_tells_are_stopped() -> None:
    data = encode(gradient((SIDE, SIDE)), "JPEG")
    needed = bytes_to_decode(open_image(data), None)
    assert needed == 4 * SIDE * SIDE
    end_decoders()
    with pytest.raises(RejectedImage, match=f"decoding takes more than {needed} bytes of memory") as caught:
        decode_picture(data, bounds=Bounds(max_decode_bytes=needed))
    assert caught.value.reason == "too_large"
    assert decode_picture(data, bounds=Bounds(max_decode_bytes=needed + 24 * MIB)).size == (SIDE, SIDE)


def test_a_webp_header_takes_no_memory() -> None:
    data = bytearray(encode(gradient(), "WEBP", lossless=True))
    at = data.index(b"VP8L") + 9
    data[at : at + 4] = (int.from_bytes(data[at : at + 4], "little") | 0xFFFFFFF).to_bytes(4, "little")
    found = inspect_picture(bytes(data), ANY)
    assert (found.reject, found.width, found.height) == ("too_large", 16384, 16384)


def test_large_pictures_wait_for_each_other() -> None:
    reserve, order = apart._Reserve(100), list[str]()

    def take(name: str, wanted: int, hold: threading.Event) -> None:
        taken = reserve.take(wanted, lambda: None)
        order.append(name)
        hold.wait()
        order.append(f"{name} ends")
        reserve.give_back(taken)

    first, others = threading.Event(), threading.Event()
    threads = []
    for name, wanted, hold in (("small", 60, first), ("all", 1000, others), ("small too", 30, others)):
        threads.append(threading.Thread(target=take, args=(name, wanted, hold)))
        threads[-1].start()
        while len(reserve._waiting) + len(order) < len(threads):
            time.sleep(0.001)
    others.set()
    first.set()
    for thread in threads:
        thread.join()
    assert order == ["small", "small ends", "all", "all ends", "small too", "small too ends"]


# -- time ---------------------------------------------------------------------------------------------------------


def test_bombs_of_scans_and_comments_are_too_slow(slow: bytes) -> None:
    limits = ANY.model_copy(update={"max_seconds": 0.3})
    for data, facts in ((slow, ("JPEG", 2000, 2000)), (comment_bomb(), (None, None, None))):
        found = inspect_picture(data, limits, min_side=64)
        assert (found.reject, found.detail) == ("too_slow", "decoding takes more than 0.3 seconds of CPU time")
        assert (found.format, found.width, found.height) == facts
        assert found.num_bytes == len(data)
    assert inspect_picture(encode(gradient(), "WEBP"), limits).reject is None


def test_readers_are_told_of_pictures_that_never_end(slow: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "ACCEPTED", Bounds(max_seconds=0.3))
    told = make_picture_readable(comment_bomb(), repair=True)
    assert told.warning == "decoding: too_slow: decoding takes more than 0.3 seconds of CPU time"


# -- accidents ----------------------------------------------------------------------------------------------------


def while_decoding(data: bytes, limits: ImageLimits, act: Callable[[], None]) -> object:
    """What comes of a picture while the process that decodes it is acted upon."""
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(inspect_picture, data, limits, min_side=64)
        act()
        return found.result()


def test_a_decoder_that_crashes_costs_its_picture(slow: bytes) -> None:
    small = ANY.model_copy(update={"max_decode_bytes": 64 * MIB})  # all that it may have, so no second try
    found = while_decoding(slow, small, lambda: os.kill(busy_pid(), signal.SIGSEGV))
    detail = f"JPEG of {len(slow)} bytes: the decoder crashes (SIGSEGV)"
    assert (found.reject, found.detail, found.width) == ("corrupt", detail, 2000)  # type: ignore[attr-defined]
    assert decode_picture(encode(gradient(), "WEBP")).size == (96, 64)


def test_a_process_killed_from_outside_says_nothing_about_its_picture(slow: bytes) -> None:
    limits = ANY.model_copy(update={"max_seconds": 1.0})
    found = while_decoding(slow, limits, lambda: os.kill(busy_pid(), signal.SIGKILL))
    assert found.reject == "too_slow"  # type: ignore[attr-defined]  # by itself, at the second try

    def kill_twice() -> None:
        os.kill(first := busy_pid(), signal.SIGKILL)
        os.kill(busy_pid(first), signal.SIGKILL)

    end_decoders()
    with pytest.raises(MemoryError, match="was killed twice"):
        while_decoding(slow, ANY, kill_twice)


def test_a_template_killed_from_outside_is_replaced(slow: bytes) -> None:
    data = encode(gradient(), "WEBP")
    decode_picture(data)
    before = decoder_pids()
    os.kill(before[0], signal.SIGKILL)
    assert gone(before)  # none stays without it
    assert decode_picture(data).size == (96, 64)
    assert not set(before) & set(decoder_pids())


def test_a_process_that_stands_still_is_given_up(slow: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "PATIENCE", 1)
    end_decoders()

    def stop_twice() -> None:
        os.kill(first := busy_pid(), signal.SIGSTOP)
        os.kill(busy_pid(first), signal.SIGSTOP)

    found = while_decoding(slow, ANY, stop_twice)
    assert (found.reject, found.detail) == ("too_slow", "the decoder stands still")  # type: ignore[attr-defined]
    end_decoders()


def test_decoders_are_ended_at_once(slow: bytes) -> None:
    pids = list[int]()

    def end() -> None:
        busy_pid()
        pids.extend(decoder_pids())
        end_decoders()

    with pytest.raises(DecodersEnded):
        while_decoding(slow, ANY, end)
    assert gone(pids)
    assert decode_picture(encode(gradient(), "WEBP")).size == (96, 64)


def test_only_those_that_wait_no_longer_are_ended(slow: bytes) -> None:
    stopped, limits = threading.Event(), ANY.model_copy(update={"max_seconds": 0.5})
    with ThreadPoolExecutor(2) as pool:
        given_up = pool.submit(inspect_picture, slow, ANY, stopped=stopped)
        busy_pid()
        other = pool.submit(inspect_picture, comment_bomb(), limits)
        end_decoders(stopped)
        with pytest.raises(DecodersEnded):
            given_up.result()
        assert other.result().reject == "too_slow"
    with pytest.raises(DecodersEnded):
        inspect_picture(slow, ANY, stopped=stopped)


def test_a_program_that_does_not_start_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    end_decoders()
    exits = "import sys; sys.exit(3)"
    for template, told in ((exits, r"cannot be started \(status 3\)"), (None, "cannot be started: ")):
        with monkeypatch.context() as patch:
            if template is not None:
                patch.setattr(apart, "_TEMPLATE", template)
            else:
                patch.setattr(sys, "executable", "/nowhere/python")
            with pytest.raises(CurateError, match=told):
                decode_picture(encode(gradient(), "WEBP"))
    assert decode_picture(encode(gradient(), "WEBP")).size == (96, 64)


# -- whose processes they are -------------------------------------------------------------------------------------


def in_a_child(pipe: object) -> None:
    size = decode_picture(encode(gradient(), "WEBP")).size
    pipe.send((size, decoder_pids()))  # type: ignore[attr-defined]
    pipe.recv()  # type: ignore[attr-defined]


def test_daemons_and_forks_have_processes_of_their_own() -> None:
    decode_picture(encode(gradient(), "WEBP"))
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=in_a_child, args=(theirs,), daemon=True)
    child.start()
    size, pids = ours.recv()
    assert size == (96, 64)
    assert not set(pids) & set(decoder_pids())
    child.kill()
    child.join()
    assert gone(pids)
    assert decode_picture(encode(gradient(), "WEBP")).size == (96, 64)


PROGRAM = """
import os, signal, sys, threading
from curate.ops.images.apart import decoder_pids
from curate.ops.images.decoding import decode_picture
data = open(sys.argv[1], "rb").read()
threading.Thread(target=decode_picture, args=(data,), daemon=True).start()
while len(decoder_pids()) < 2:
    pass
print(*decoder_pids(), flush=True)
if sys.argv[2] == "exit":
    sys.exit()
sys.stdin.read()
"""


@pytest.mark.parametrize("how", ["exit", "SIGKILL"])
def test_no_process_outlives_the_one_it_serves(slow: bytes, how: str, tmp_path: Path) -> None:
    (tmp_path / "slow.jpg").write_bytes(slow)
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "slow.jpg"), how]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as program:
        assert program.stdout is not None
        pids = list(map(int, program.stdout.readline().split()))
        if how == "SIGKILL":
            for pid in pids:  # as Ctrl-C in a terminal sends it to all
                os.kill(pid, signal.SIGINT)
            assert all(map(is_alive, pids))
            program.kill()
        program.wait(timeout=60)
    assert gone(pids)


def test_pictures_of_many_threads_do_not_mix() -> None:
    pictures = [gradient((64 + n, 64)) for n in range(8)]
    files = [encode(picture, "WEBP", lossless=True) for picture in pictures]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(decode_picture, files * 8))
    assert all(a.tobytes() == b.tobytes() for a, b in zip(found, pictures * 8, strict=True))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    assert len(decoder_pids()) <= 1 + cores


@pytest.fixture(autouse=True, scope="module")
def _none_left() -> Iterator[None]:
    yield
    pids = decoder_pids()
    end_decoders()
    assert gone(pids)


def test_a_second_attempt_has_the_seconds_that_the_first_one_left(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Decoders:
        is_given_up = False

        def work(self, request: apart.Request, granted: int, seconds: float) -> apart._Outcome:
            asked.append((granted, seconds))
            return apart._Outcome(error=RejectedImage("corrupt", ""), is_final=False, seconds=7)

    monkeypatch.setattr(apart, "_current", Decoders)
    for limit in (10, 6):
        with pytest.raises(RejectedImage):
            apart.run_apart(apart.Request(b"", b"", Bounds(max_seconds=limit), lambda *_: None))
    first, whole = apart.FREE_BYTES, Bounds().max_decode_bytes
    assert asked == [(first, 10), (whole, 3), (first, 6), (whole, apart.LEAST_SECONDS)]
