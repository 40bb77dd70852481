"""Pools whose pictures are faked: files without content, and what an image shows as a function of its number.

A run over millions of images needs the tables that such a pool gives rise to, and no picture. So the files of a pool
are sparse (they have a length, and hold nothing but zeros, which take no space), the bytes of an image are what its
file holds behind a head of its own, and what it shows follows from its number: which images are copies of it, what
merely looks like it, which concept it belongs to. Everything is drawn by a counter, so that any worker knows any image.

Images follow a permutation of their contents, so that copies lie anywhere in the pool. Of every 40 contents
8 are copies of others (by bytes, by a near hash, or by their embedding alone) and 2 merely look alike; of every 50
such blocks one is a crowd: 40 different images that all resemble each other, as pages and forms do.
"""

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.config import Settings
from curate.filesystems import open_filesystem
from curate.ops.images.hashes import HASH_BYTES
from curate.ops.vectors import normalize
from curate.sources.config import Source
from curate.sources.found import Found
from curate.sources.read import Read, by_file, too_large

FORMAT = "benchmarks.scale.pool:FakedImages"
"""How a config names the source format."""
BLOCK = 40
"""Contents that follow one pattern."""
CROWD_EVERY = 50
"""One of so many blocks is a crowd."""
COPY_OF = {1: 0, 2: 0, 4: 3, 6: 5, 10: 9, 11: 9, 13: 12, 14: 12}
"""Places in a block that hold a copy, and of which one."""
SAME_BYTES = (4, 10)
"""Those of them that have the same bytes."""
LIKE = {**COPY_OF, 8: 7}
"""Places that look like another one, and which."""
STRAY = {1: 0.3, 2: 0.35, 6: 0.3, 7: 0.6, 8: 0.6, 11: 0.3, 13: 0.3, 14: 0.35}
"""How far the copy embedding of a place is from what it looks like, in units of that."""
CROWD_STRAY = 0.4
"""The same of an image in a crowd."""
FLIPPED = {1: 12, 2: 60, 6: 36, 11: 6, 13: 34, 14: 80}
"""Bits of 256, about, by which the hash of a copy differs; 31 and fewer are strong evidence, above 40 there is none."""
BORDERED = 0.03
"""Share of the images within a border of one color."""
REJECTED = 0.01
"""Share of the pool's images that are rejected."""
IMAGES_PER_CONCEPT = 400
"""Pool images of a concept, on average."""
CONCEPT_SHARES = np.array([0.25, 0.15, 0.12, 0.1, 0.08, 0.07, 0.06, 0.05, 0.04, 0.03, 0.02, 0.01, 0.01, 0.01])
"""Shares of concepts that follow each other: some are 25 times as frequent as others, in a pool of any size."""
WITHIN_CONCEPT, OWN_STRAY = 0.9, 0.25
"""How far a picture is from its concept, and a copy from its picture, in the space of concepts."""
CONTAINER_IMAGES = 10_000
"""Images of a file."""
NAME_BYTES, OWN_BYTES = 3, 0.5
"""Bytes in a table of what names an image, and of its caption: both compress well."""
READ_BYTES = 1 << 20
"""Bytes that are read of a file at once."""
DENSE = 0.5
"""Share of the images of a file that are wanted from which on it is read through."""
HEAD = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAIAAACQkWg2AAAAGUlEQVR42mNsaGhgIAUwMZAIRjWMahg6GgDJTAGg54KQ4AAAAABJRU5ErkJggg=="
)
"""A picture of one color, with which the bytes of every image begin."""


class Pool(Settings):
    """What the description file of a faked source says."""

    role: Literal["pool", "curated", "heldout"]
    images: Annotated[int, Field(ge=1)]
    """Images of the source."""
    pool_images: Annotated[int, Field(ge=1)]
    """Images of the pool that it is used with."""
    image_bytes: Annotated[int, Field(ge=256)] = 4000
    """Bytes of an encoded image."""
    container_images: Annotated[int, Field(ge=1)] = CONTAINER_IMAGES
    """Images of a file."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of all that is drawn."""

    def contents(self, numbers: np.ndarray) -> np.ndarray:
        """(N,) int64: what images show, a number of its own for each content.

        Held-out images with an even number are copies of the pool's; all others are of their own.
        """
        if self.role == "pool":
            return _permuted(numbers, self.images, self.seed)
        own = numbers + (1 << (40 if self.role == "curated" else 41))
        if self.role == "curated":
            return own
        copied = numbers * BLOCK % max(1, self.pool_images // BLOCK * BLOCK)
        return np.where(numbers % 2 == 0, copied, own)

    def num_concepts(self) -> int:
        """Concepts of the pool, curated images included."""
        return len(CONCEPT_SHARES) * max(1, self.pool_images // (IMAGES_PER_CONCEPT * len(CONCEPT_SHARES)))


def make_source(folder: Path, pool: Pool) -> Source:
    """Write the description of a faked source, and its files, into a new folder."""
    folder.mkdir(parents=True)
    for number in range(-(-pool.images // pool.container_images)):
        images = min(pool.container_images, pool.images - number * pool.container_images)
        with (folder / f"{number:06d}.faked").open("wb") as file:
            file.truncate(images * pool.image_bytes)  # sparse: zeros that take no space
    path = folder / "pool.json"
    path.write_text(pool.model_dump_json(), encoding="utf-8")
    return Source(name=pool.role, path=str(path), format=FORMAT)


@lru_cache(maxsize=8)
def pool_of(path: str) -> Pool:
    """The pool that a description file tells of."""
    return Pool.model_validate(json.loads(Path(path).read_text(encoding="utf-8")))


class FakedImages:
    """The source format of faked pools: its path is a description file."""

    loose = False

    def find(self, source: Source, *, skipped: Counter[str]) -> Iterator[Found]:
        """Every image, file by file."""
        for file in self.containers(source, skipped=skipped):
            yield from self.find_in(file, source, skipped=skipped)

    def containers(self, source: Source, *, skipped: Counter[str]) -> Iterator[int]:
        """The numbers of the files: tasks list them side by side, as archives."""
        pool = pool_of(source.path)
        yield from range(-(-pool.images // pool.container_images))

    def find_in(self, container: int, source: Source, *, skipped: Counter[str]) -> Iterator[Found]:
        """The images of one file."""
        pool, path = pool_of(source.path), f"{Path(source.path).parent}/{container:06d}.faked"
        first = container * pool.container_images
        for number in range(first, min(pool.images, first + pool.container_images)):
            yield Found(
                path,
                f"{container:06d}/{number:09d}.png",
                offset=(number - first) * pool.image_bytes,
                length=pool.image_bytes,
                container=container,
            )

    def read(self, rows: pa.Table, source: Source, *, max_bytes: int, extra: bool) -> Iterator[Read]:
        """The bytes of images, a file opened once and read at the places that are wanted."""
        pool = pool_of(source.path)
        for uri, mine in by_file(rows):
            fs, path = open_filesystem(uri)
            numbers = numbers_of(mine)
            shown = pool.contents(numbers)
            captions = captions_of(pool, shown) if extra else [None] * len(mine)
            bodies = _bodies(fs, path, mine["offset"].to_pylist(), pool.image_bytes)
            for content, caption, body in zip(bytes_of(shown).tolist(), captions, bodies, strict=True):
                if pool.image_bytes > max_bytes:
                    yield too_large(pool.image_bytes, max_bytes)
                    continue
                yield Read(_head(pool.seed, content) + body, extra=None if caption is None else {"caption": caption})


def _bodies(fs: object, path: str, offsets: Sequence[int], length: int) -> Iterator[bytes]:
    """What lies behind the head of each image; offsets ascend.

    Where most images are wanted they are read in pieces of `READ_BYTES` with what lies between, else one by one.
    """
    head = len(_head(0, 0))
    spanned = offsets[-1] + length - offsets[0]
    piece = max(length, READ_BYTES // length * length) if len(offsets) * length >= DENSE * spanned else length
    with fs.open(path, "rb") as file:  # type: ignore[attr-defined]
        held, start = b"", 0
        for offset in offsets:
            if not start <= offset <= start + len(held) - length:
                file.seek(offset)
                held, start = file.read(min(piece, offsets[-1] + length - offset)), offset
            yield held[offset - start + head : offset - start + length]


def _head(seed: int, content: int) -> bytes:
    """What tells the bytes of one content from those of another: a picture that opens, and a digest behind it."""
    return HEAD + hashlib.blake2b(b"%d %d" % (seed, content)).digest()


def numbers_of(rows: pa.Table) -> np.ndarray:
    """(N,) int64: the number in its source of each row of the catalog."""
    return np.array([int(key[7:16]) for key in rows["key"].to_pylist()], np.int64)


# -- what images show ----------------------------------------------------------------------------------------


def is_crowd(contents: np.ndarray) -> np.ndarray:
    """(N,) bool: whether a content is one of many that all look alike."""
    found: np.ndarray = contents // BLOCK % CROWD_EVERY == 7
    return found


def looks_like(contents: np.ndarray) -> np.ndarray:
    """(N,) int64: the content that each looks like; mostly itself."""
    return np.where(is_crowd(contents), contents // BLOCK * BLOCK, _lead(contents, LIKE))


def copies_of(contents: np.ndarray) -> np.ndarray:
    """(N,) int64: the content that each is a copy of; mostly itself."""
    return np.where(is_crowd(contents), contents, _lead(contents, COPY_OF))


def bytes_of(contents: np.ndarray) -> np.ndarray:
    """(N,) int64: the content whose bytes each has; mostly its own."""
    return np.where(is_crowd(contents), contents, _lead(contents, {place: COPY_OF[place] for place in SAME_BYTES}))


def copy_vectors(contents: np.ndarray, dim: int) -> np.ndarray:
    """(N, dim) float32, unit L2: an embedding in which copies lie together."""
    stray = _by_place(contents, STRAY).astype(np.float32)
    stray = np.where(is_crowd(contents), np.float32(CROWD_STRAY), stray)
    near = _directions(looks_like(contents), dim, "copy")
    return normalize(near + stray[:, None] * _directions(contents, dim, "copy stray"))


def concept_vectors(pool: Pool, contents: np.ndarray, dim: int) -> np.ndarray:
    """(N, dim) float32, unit L2: an embedding in which images of a concept lie together."""
    like = looks_like(contents)
    x = _directions(concepts_of(pool, contents), dim, "concept")
    x += np.float32(WITHIN_CONCEPT) * _directions(like, dim, "picture")
    return normalize(x + np.float32(OWN_STRAY) * _directions(contents, dim, "own"))


def concepts_of(pool: Pool, contents: np.ndarray) -> np.ndarray:
    """(N,) int64: the concept of each content; what looks alike is of one concept."""
    like, each = looks_like(contents), len(CONCEPT_SHARES)
    group = (uniform(like, "group of concepts") * (pool.num_concepts() // each)).astype(np.int64)
    place = np.searchsorted(np.cumsum(CONCEPT_SHARES)[:-1], uniform(like, "concept"), side="right")
    return group * each + place


def captions_of(pool: Pool, contents: np.ndarray) -> list[str]:
    """(N,) a text for each image."""
    return [f"a picture of concept {number}" for number in concepts_of(pool, contents).tolist()]


def hashes(contents: np.ndarray) -> np.ndarray:
    """(N, 32) uint8: perceptual hashes, those of copies some bits apart."""
    found = _words(copies_of(contents), HASH_BYTES // 8, "hash").view(np.uint8)
    bits = np.where(is_crowd(contents), 0, _by_place(contents, FLIPPED))
    rows = np.flatnonzero(bits)
    drawn = _words(contents[rows], 8 * HASH_BYTES // 8, "flipped").view(np.uint8)  # (N, 256), one a bit
    found[rows] ^= np.packbits(drawn < bits[rows, None], axis=1)
    return found


def uniform(numbers: np.ndarray, purpose: str) -> np.ndarray:
    """(N,) float64 in [0, 1), drawn by the number alone."""
    drawn = np.right_shift(_words(numbers, 1, purpose)[:, 0], np.uint64(11))
    return drawn.astype(np.float64) * 2.0**-53


def _lead(contents: np.ndarray, leads: dict[int, int]) -> np.ndarray:
    """(N,) int64: each content, or that at the place of its block which `leads` names."""
    places = np.arange(BLOCK)
    places[list(leads)] = list(leads.values())
    found: np.ndarray = contents // BLOCK * BLOCK + places[contents % BLOCK]
    return found


def _by_place(contents: np.ndarray, values: Mapping[int, float]) -> np.ndarray:
    """(N,) the value of each content's place in its block; 0 where there is none."""
    table = np.zeros(BLOCK)
    table[list(values)] = list(values.values())
    found: np.ndarray = table[contents % BLOCK]
    return found


def _permuted(numbers: np.ndarray, size: int, seed: int) -> np.ndarray:
    """(N,) int64: a permutation of 0..size-1: one of all numbers of as many bits, followed until it comes back below.

    A linear one would do, were it not for hashes of ids that multiply as well.
    """
    bits = np.uint64(max(2, (size - 1).bit_length()))
    mask, half = np.uint64((1 << int(bits)) - 1), np.uint64(int(bits) // 2 + 1)
    found = numbers.astype(np.uint64)
    todo = np.ones(len(found), bool)
    with np.errstate(over="ignore"):
        while todo.any():
            x = found[todo]
            for odd in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB):
                x = (x * np.uint64(odd) + np.uint64(seed)) & mask
                x ^= x >> half
            found[todo] = x
            todo = found >= np.uint64(size)
    return found.astype(np.int64)


def _directions(numbers: np.ndarray, dim: int, purpose: str) -> np.ndarray:
    """(N, dim) float32: a random direction for each number, of about unit length."""
    unique, place = np.unique(numbers, return_inverse=True)
    words = _words(unique, -(-dim // 4), purpose).view(np.uint16)[:, :dim]
    drawn = (words.astype(np.float32) - np.float32(32767.5)) * np.float32((12 / dim) ** 0.5 / 65536)
    found: np.ndarray = drawn[place]
    return found


def _words(numbers: np.ndarray, width: int, purpose: str) -> np.ndarray:
    """(N, width) uint64: random words, drawn by number, place and purpose alone (SplitMix64)."""
    start = np.uint64(int.from_bytes(hashlib.blake2b(purpose.encode(), digest_size=8).digest(), "little"))
    with np.errstate(over="ignore"):
        x: np.ndarray = numbers.astype(np.uint64)[:, None] * np.uint64(width) + np.arange(width, dtype=np.uint64)
        x = x * np.uint64(0x9E3779B97F4A7C15) + start
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.ascontiguousarray(x ^ (x >> np.uint64(31)))
