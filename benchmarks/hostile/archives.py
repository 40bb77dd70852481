"""Archives whose headers lie, that are cut, compressed or no archives; and members that are no pictures."""

import gzip
import io
import os
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from benchmarks.hostile.case import NUM_GOOD, Case, good_pictures, run

EITHER, FAILS = frozenset({0, 1}), frozenset({1})
SECRET = "root:x:0:0"
"""Begins `/etc/passwd`, to which some members lead."""
Archive = Callable[[], bytes]


def cases(seed: int) -> Iterator[Case]:
    """Each in the place of an archive, with a good one beside it."""
    whole = members(seed)
    for name, (write, exits) in _refused(whole).items():
        yield _case(name, write, seed, exits=exits, good=None)
    for name, (write, good) in _members_left_out(whole).items():
        yield _case(name, write, seed, exits=frozenset({0}), good=good)
    special: dict[str, Callable[[str], object]] = {
        "a pipe": os.mkfifo,
        "a link to /dev/zero": partial(os.symlink, "/dev/zero"),
        "a link to nothing": partial(os.symlink, "nowhere"),
        "a link to itself": partial(os.symlink, "a.tar"),
        "a folder": os.mkdir,
    }
    for name, make in special.items():
        yield Case(
            f"{name} for an archive", partial(_special, make, seed), exits=EITHER, said=("a.tar",), good=NUM_GOOD
        )


def _case(name: str, write: Archive, seed: int, *, exits: frozenset[int], good: int | None) -> Case:
    """Good pictures are those of the archive beside it, and those of its own where it is read to its end."""
    number = NUM_GOOD + (good or 0)
    make = partial(_beside, write, seed)
    return Case(name, make, exits=exits, said=("a.tar",), good=None if good is None else number, secret=SECRET)


def _beside(write: Archive, seed: int, folder: Path) -> list[list[str]]:
    (folder / "pool").mkdir()
    (folder / "pool" / "a.tar").write_bytes(write())
    (folder / "pool" / "b.tar").write_bytes(members(seed, "beside") + END)
    return [run(folder, folder / "pool")]


def _special(make: Callable[[str], object], seed: int, folder: Path) -> list[list[str]]:
    (folder / "pool").mkdir()
    make(str(folder / "pool" / "a.tar"))
    (folder / "pool" / "b.tar").write_bytes(members(seed, "beside") + END)
    return [run(folder, folder / "pool")]


# -- blocks ----------------------------------------

END = bytes(1024)


def header(
    name: str | bytes, size: int | bytes = 0, *, kind: bytes = b"0", link: bytes = b"", mode: bytes = b"0000644\0"
) -> bytes:
    """A header with its checksum; `size` as a number is written in base 256 where octal has no room."""
    named = (name.encode() if isinstance(name, str) else name)[:100]
    if isinstance(size, int):
        wide = (size % (1 << 96) | 1 << 95).to_bytes(12, "big")  # of negative ones the highest byte is 0xff
        size = b"%011o\0" % size if 0 <= size < 8**11 else wide
    parts = [named.ljust(100, b"\0"), mode, b"0000000\0" * 2, size.ljust(12, b"\0"), b"00000000000\0", b" " * 8, kind]
    block = b"".join([*parts, link.ljust(100, b"\0"), b"ustar\x0000"]).ljust(512, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def member(name: str | bytes, data: bytes, **how: bytes) -> bytes:
    """A header and its data."""
    return header(name, len(data), **how) + data + bytes(-len(data) % 512)  # type: ignore[arg-type]


def extended(*records: tuple[bytes, bytes], kind: bytes = b"x") -> bytes:
    """A PAX header of some records."""
    body = b""
    for key, value in records:
        rest = b" " + key + b"=" + value + b"\n"
        length = len(rest) + 1
        while len(str(length)) + len(rest) != length:
            length += 1
        body += str(length).encode() + rest
    return member("pax", body, kind=kind)


def members(seed: int, name: str = "own") -> bytes:
    """Good pictures as members, without an end mark; those of two names are not alike."""
    found = list(good_pictures(seed, 2 * NUM_GOOD))
    chosen = found[:NUM_GOOD] if name == "own" else found[NUM_GOOD:]
    return b"".join(member(f"good-{name}-{number}.jpg", data) for number, (_, data) in enumerate(chosen))


# -- archives that cannot be listed ----------------------------------------


def _refused(whole: bytes) -> dict[str, tuple[Archive, frozenset[int]]]:
    tail = whole + END
    sizes = {"-512": -512, "-1": -1, "-2^62": -(2**62), "2^40": 2**40, "2^60": 2**60, "2^63": 2**63, "2^70": 2**70}
    found: dict[str, tuple[Archive, frozenset[int]]] = {
        f"size {name}": (partial(_then, whole + header("x.jpg", size), tail), FAILS) for name, size in sizes.items()
    }
    for name, text in {
        "letters": b"zzzzzzzzzzz\0",
        "a sign": b"-0000001000\0",
        "blanks": b" " * 12,
        "8 and 9": b"89898989898\0",
    }.items():
        exits = EITHER if name == "blanks" else FAILS
        found[f"size of {name}"] = (partial(_then, whole + header("x.jpg", text), tail), exits)
    for name, size in {"-512": b"-512", "10^30": b"1" + b"0" * 30, "NaN": b"nan", "nothing": b""}.items():
        pax = extended((b"size", size))
        found[f"PAX size {name}"] = (partial(_then, whole + pax + member("x.jpg", b"x"), tail), EITHER)
    for name, number in {"200 kB": 200_000, "10 MB": 10 << 20}.items():
        for way, kind in {"PAX": b"x", "global PAX": b"g"}.items():
            block = partial(_long_pax, number, kind)
            exits = FAILS if number > 1 << 20 else EITHER
            found[f"{way} of {name}"] = (partial(_joined, whole, block, tail), exits)
        found[f"GNU name of {name}"] = (partial(_joined, whole, partial(_long_name, number), tail), EITHER)
    found["PAX of 50,000 records"] = (partial(_joined, whole, partial(_many_records, 50_000), tail), EITHER)
    found["PAX record of length 0"] = (lambda: whole + member("p", b"0 path=x\n", kind=b"x") + tail, EITHER)
    found["PAX record of length 10^20"] = (
        lambda: whole + member("p", b"1" + b"0" * 20 + b" path=x\n", kind=b"x") + tail,
        EITHER,
    )
    found["10,000 PAX headers in a row"] = (lambda: whole + extended((b"comment", b"x")) * 10_000 + tail, EITHER)
    found["2,000 GNU names in a row"] = (lambda: whole + member("l", b"x" * 100, kind=b"L") * 2_000 + tail, EITHER)
    found["map of holes of garbage"] = (
        lambda: (
            whole
            + extended((b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"-9"))
            + member("x.jpg", b"9999999999\n" * 9)
            + tail
        ),
        EITHER,
    )
    found["old GNU map of holes"] = (lambda: whole + _sparse() + tail, EITHER)
    found["checksum wrong in the middle"] = (lambda: whole + b"Q" + header("x.jpg")[1:] + tail, FAILS)
    found["cut in a header"] = (lambda: whole + header("x.jpg", 9)[:200], EITHER)
    found["cut in a picture"] = (lambda: whole[: len(whole) - 700], FAILS)
    found["garbage behind a member"] = (lambda: whole + b"garbage" * 1000, FAILS)
    found["gzip under the name of a tar"] = (lambda: gzip.compress(tail), FAILS)
    found["gzip bomb under the name of a tar"] = (lambda: gzip.compress(bytes(64 << 20), 9), FAILS)
    found["zip under the name of a tar"] = (_zip, FAILS)
    found["text under the name of a tar"] = (lambda: b"no archive\n" * 500, FAILS)
    found["empty"] = (lambda: b"", EITHER)
    found["one byte"] = (lambda: b"x", FAILS)
    found["4 MB of zeros"] = (lambda: bytes(4 << 20), EITHER)
    found["4 MB of 0xff"] = (lambda: b"\xff" * (4 << 20), FAILS)
    return found


def _then(first: bytes, second: bytes) -> bytes:
    return first + second


def _joined(first: bytes, block: Archive, second: bytes) -> bytes:
    return first + block() + second


def _long_pax(number: int, kind: bytes) -> bytes:
    return extended((b"path", b"p" * number + b".jpg"), kind=kind) + member("x.jpg", b"x")


def _long_name(number: int) -> bytes:
    return member("././@LongLink", b"n" * number + b".jpg\0", kind=b"L") + member("x.jpg", b"x")


def _many_records(number: int) -> bytes:
    return extended(*[(b"k%d" % n, b"v") for n in range(number)]) + member("x.jpg", b"x")


def _sparse() -> bytes:
    block = bytearray(header("x.jpg", 512, kind=b"S"))
    block[386:482] = (b"%011o\0" % (8**10)) * 8
    block[482] = 1
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + b"\xff" * 1024


def _zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("x.jpg", bytes(8 << 20))
    return file.getvalue()


# -- members that are left out ----------------------------------------


def _members_left_out(whole: bytes) -> dict[str, tuple[Archive, int]]:
    """Archives that are read to their end; how many of their own pictures stay."""
    link = b"/etc/passwd"
    refused = {
        "absolute name": member("/etc/passwd.jpg", b"x"),
        "name that leads out": member("../../passwd.jpg", b"x"),
        "symbolic link out": header("l.jpg", kind=b"2", link=link),
        "hard link out": header("h.jpg", kind=b"1", link=link),
        "caption that is a link out": header("good-own-0.txt", kind=b"2", link=link),
        "pipe": header("p.jpg", kind=b"6"),
        "character device": header("c.jpg", kind=b"3"),
        "block device": header("b.jpg", kind=b"4"),
        "unknown kind": header("u.jpg", kind=b"Z"),
        "volume label": header("v.jpg", kind=b"V"),
        "folder with a size": header("d/", 0, kind=b"5"),
        "member of size 0": header("e.jpg"),
        "negative time": header("t.jpg", mode=b"-777777\0"),
        "PAX time NaN": extended((b"mtime", b"nan"), (b"uid", b"9" * 30)) + member("n.jpg", b"x"),
        "PAX name with a zero": extended((b"path", b"a\0b.jpg")) + member("z.jpg", b"x"),
        "PAX name empty": extended((b"path", b"")) + member("y.jpg", b"x"),
        "10,000 empty members": b"".join(header(f"{n}.jpg") for n in range(3_000))
        + b"".join(header(f"{n}.txt") for n in range(7_000)),
        "5,000 folders": b"".join(header(f"{n}/", kind=b"5") for n in range(5_000)),
        "path of 60,000 letters": extended((b"path", b"d/" * 30_000 + b"x.jpg")) + member("x.jpg", b"x"),
        "2,000 captions of one name": member("good-own-0.txt", b"c") * 2_000,
        "caption of 3 MB": member("good-own-0.txt", b"c" * (3 << 20)),
        "JSON 100,000 deep": member("good-own-0.json", b"[" * 100_000 + b"]" * 100_000),
        "JSON of 60,000 keys": member("good-own-0.json", _keys(60_000)),
        "an archive in the archive": member("inner.tar", whole + END),
        "a name of no UTF-8": member(b"\xff\xfe.jpg", b"x"),
        "a name of blanks": member("    ", b"x"),
    }
    found: dict[str, tuple[Archive, int]] = {
        name: (partial(_then, whole + block, END), NUM_GOOD) for name, block in refused.items()
    }
    found["no end mark"] = (lambda: whole, NUM_GOOD)
    found["garbage behind the end mark"] = (lambda: whole + END + b"garbage" * 10_000, NUM_GOOD)
    found["links to a good member"] = (
        lambda: whole + header("again.jpg", kind=b"1", link=b"good-own-0.jpg") + END,
        NUM_GOOD,
    )
    found["made by GNU tar with a long name"] = (lambda: _long(whole), NUM_GOOD)
    return found


def _keys(number: int) -> bytes:
    return b"{" + b",".join(b'"k%d":1' % n for n in range(number)) + b"}"


def _long(whole: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
        info = tarfile.TarInfo("d/" * 300 + "x.jpg")
        info.size = 1
        tar.addfile(info, io.BytesIO(b"x"))
    return whole + file.getvalue()
