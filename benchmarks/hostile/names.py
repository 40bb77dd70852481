"""Names that strangers give to pictures, folders and archives: what is printed of them, and that the pictures stay."""

import io
import os
import socket
import tarfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from benchmarks.hostile.case import NUM_GOOD, Case, good_pictures, put_good, run

NAMES: dict[str, bytes] = {
    "that clears the screen": b"\x1b[2J\x1b[H",
    "that sets the title": b"\x1b]0;owned\x07",
    "of a link for terminals": b"\x1b]8;;http:evil\x1b\\x\x1b]8;;\x1b\\",
    "with C1 codes": "\x9b31m\x85".encode(),
    "with a line of its own": b"\nerror: WorkdirError: forged",
    "with carriage returns": b"\r\r\n\x08\x08",
    "turned from right to left": "\u202egpj.exe".encode(),
    "with isolates": "\u2066\u2069\u2067".encode(),
    "with letters of no width": "\u200b\u200d\ufeff".encode(),
    "of no UTF-8": b"\xff\xfe\x80",
    "of surrogates in UTF-8": b"\xed\xa0\x80\xed\xb0\x80",
    "overlong in UTF-8": b"\xc0\xaf\xc0\xae",
    "with markup": b"<script>hostile<",
    "with quotation marks": b"\"'`\"'`",
    "with entities": b"&lt;&#0;&amp",
    "with markup of rich": b"[bold red]x[/][link=file:]",
    "with format codes": b"%s%n%d{0}{__class__}",
    "with a shell command": b"$(touch hostile)`id`;|&",
    "of a device": b"con.nul.aux",
    "with escapes as they are written": b"\\x41\\n\\u0000",
    "with signs of URLs": b"?a=1#b::c%2e%2e",
    "with blanks": b"   \t  ",
    "of a formula": b"=cmd|' C'!A0",
    "of SQL": b"'; drop table images; --",
    "with braces and stars": b"{a,b}*?[!x]",
    "of 4-byte letters": "\U0001f600\U0010ffff".encode(),
    "of many accents": ("a" + "\u0301" * 90).encode(),
    "of 255 bytes": b"n" * 247,
}
"""What stands in a name behind `good`."""


def cases(seed: int) -> Iterator[Case]:
    """Pictures of such names, and each name as that of the folder, archive, or table that is the source."""
    yield Case("of pictures", partial(_pictures, seed), good=len(NAMES), inputs=len(NAMES))
    yield Case("of what is no picture", partial(_rejected, seed), good=NUM_GOOD, inputs=len(NAMES))
    yield Case("of tar members", partial(_members, seed), good=len(NAMES), inputs=len(NAMES))
    for what in ("that clears the screen", "with a line of its own", "turned from right to left", "with markup"):
        yield Case(f"of a source {what}", partial(_source, NAMES[what], seed), good=NUM_GOOD)
        yield Case(f"of a damaged archive {what}", partial(_archive, NAMES[what]), exits=frozenset({1}))
        yield Case(f"of a source that is not there {what}", partial(_absent, NAMES[what]), exits=frozenset({1}))
    for name in ("-rf", "--help", "-", "..."):
        yield Case(f"{name} as a picture", partial(_plain, name, seed), good=NUM_GOOD)


def folder_cases(seed: int) -> Iterator[Case]:
    """Folders that hold more than files."""
    for name, put in FOLDERS.items():
        yield Case(name, partial(_folder, put, seed), good=NUM_GOOD, absent=frozenset({"passwd.jpg"}))
    special: dict[str, Callable[[str], object]] = {
        "a pipe": os.mkfifo,
        "a link to /dev/zero": partial(os.symlink, "/dev/zero"),
    }
    for name, make in special.items():
        yield Case(f"{name} as the source", partial(_special, make), exits=frozenset({1}), said=("special",))


def _pictures(seed: int, folder: Path) -> list[list[str]]:
    _put_named(folder / "pool", seed, number=len(NAMES))
    ids = [["explain", str(folder / "run"), str(number)] for number in range(len(NAMES))]
    return [run(folder, folder / "pool"), ["status", str(folder / "run")], *ids, ["report", str(folder / "run")]]


def _put_named(pool: Path, seed: int, *, number: int, data: bytes | None = None) -> None:
    pool.mkdir()
    pictures = good_pictures(seed, number)
    for name, (_, picture) in zip(NAMES.values(), pictures, strict=True):
        word = b"good" if data is None else b"bad"
        Path(os.fsdecode(os.fsencode(pool) + b"/" + word + name.replace(b"/", b"") + b".jpg")).write_bytes(
            data or picture
        )


def _rejected(seed: int, folder: Path) -> list[list[str]]:
    _put_named(folder / "pool", seed, number=len(NAMES), data=b"\xff\xd8\xff\xe0 no JPEG")
    put_good(folder / "pool", seed)
    ids = [["explain", str(folder / "run"), str(number)] for number in range(0, len(NAMES), 4)]
    return [run(folder, folder / "pool"), *ids]


def _members(seed: int, folder: Path) -> list[list[str]]:
    with tarfile.open(folder / "a.tar", "w", format=tarfile.GNU_FORMAT) as tar:
        for name, (_, data) in zip(NAMES.values(), good_pictures(seed, len(NAMES)), strict=True):
            info = tarfile.TarInfo((b"good" + name.replace(b"/", b"") + b".jpg").decode("utf-8", "surrogateescape"))
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    ids = [["explain", str(folder / "run"), str(number)] for number in range(0, len(NAMES), 4)]
    return [run(folder, folder / "a.tar"), *ids]


def _below(folder: Path, name: bytes) -> Path:
    return Path(os.fsdecode(os.fsencode(folder) + b"/" + name))


def _source(name: bytes, seed: int, folder: Path) -> list[list[str]]:
    put_good(_below(folder, name), seed)
    return [_run_below(folder, _below(folder, name)), ["explain", str(folder / "run"), "0"]]


def _archive(name: bytes, folder: Path) -> list[list[str]]:
    path = _below(folder, name + b".tar")
    path.write_bytes(b"no archive at all" * 100)
    return [_run_below(folder, path)]


def _absent(name: bytes, folder: Path) -> list[list[str]]:
    return [_run_below(folder, _below(folder, name))]


def _run_below(folder: Path, source: Path) -> list[str]:
    return run(folder, _quoted(str(source)))


def _quoted(text: str) -> str:
    """As a double-quoted scalar of YAML."""
    escaped = (f"\\x{ord(c):02x}" if ord(c) < 0x100 and not c.isalnum() and c not in "/._-" else c for c in text)
    return '"' + "".join(escaped) + '"'


def _plain(name: str, seed: int, folder: Path) -> list[list[str]]:
    put_good(folder / "pool", seed)
    (folder / "pool" / name).write_bytes(b"\xff\xd8 no JPEG")
    return [run(folder, folder / "pool")]


def _folder(put: Callable[[Path], None], seed: int, folder: Path) -> list[list[str]]:
    put_good(folder / "pool", seed)
    put(folder / "pool")
    return [run(folder, folder / "pool")]


def _special(make: Callable[[str], object], folder: Path) -> list[list[str]]:
    make(str(folder / "special.jpg"))
    return [run(folder, folder / "special.jpg")]


def _pipe(pool: Path) -> None:
    for name in ("pipe.jpg", "good-0.txt", "metadata.csv", "run.json"):
        os.mkfifo(pool / name)


def _socket(pool: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        here = Path.cwd()
        os.chdir(pool)  # a path of a socket is short
        try:
            bound.bind("socket.jpg")
        finally:
            os.chdir(here)


def _devices(pool: Path) -> None:
    for name in ("zero", "full", "random", "stdin", "tty"):
        (pool / f"{name}.jpg").symlink_to(f"/dev/{name}")
    (pool / "good-1.json").symlink_to("/dev/zero")


def _loops(pool: Path) -> None:
    (pool / "self.jpg").symlink_to("self.jpg")
    (pool / "around").symlink_to("..")
    (pool / "a").symlink_to("b")
    (pool / "b").symlink_to("a")
    for number in range(12):
        (pool / f"d{number}").mkdir()
        for other in range(12):
            (pool / f"d{number}" / f"l{other}").symlink_to(f"../d{other}")


def _out(pool: Path) -> None:
    (pool / "good-0.txt").symlink_to("/etc/passwd")
    (pool / "root").symlink_to("/proc/self")


def _deep(pool: Path) -> None:
    at = os.open(pool, os.O_RDONLY)
    for _ in range(600):
        os.mkdir("d", dir_fd=at)
        below = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)


def _hidden(pool: Path) -> None:
    for name in (".git", ".ssh", "__MACOSX"):
        (pool / name).mkdir()
        (pool / name / "id_rsa.jpg").write_bytes(b"no picture")
    (pool / "run.json").write_bytes(b"[" * 100_000)


def _sparse(pool: Path) -> None:
    for name, size in (("sparse.jpg", 1 << 40), ("sparse.json", 1 << 40), ("good-2.txt", 1 << 40)):
        with (pool / name).open("wb") as file:
            file.truncate(size)


def _many(pool: Path) -> None:
    for number in range(300):
        (pool / f"empty-{number}").mkdir()
        (pool / f"empty-{number}.jpg").touch()


FOLDERS: dict[str, Callable[[Path], None]] = {
    "pipes as pictures, captions and tables": _pipe,
    "a socket": _socket,
    "links to devices": _devices,
    "links in circles": _loops,
    "links out of the source": _out,
    "600 folders deep": _deep,
    "hidden folders and a list for a workdir": _hidden,
    "files of 1 TB of holes": _sparse,
    "300 empty folders and files": _many,
}
