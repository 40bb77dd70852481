"""Seeded draws from groups of images that stream by: a draw is the images of smallest key, found without a sort.

Each image carries a 64-bit key that its id and a seed alone decide (`random_keys`), so a draw of n of a group is "the
n smallest keys", whatever the order, the number or the size of the batches. The result is not a list of images but
one limit a group, the key and id of the last image drawn: any part can tell its own drawn images by comparing their
keys with the limits, in a process of its own.

To find the n-th smallest key of every group one would sort, but a billion keys do not fit in memory, and groups are as
many as a hundred thousand. The keys are instead resolved from their highest bits on, for all groups at once (a radix
selection): one pass over the images counts, by group, how many keys begin with each value of the next few bits; the
counts tell with which value the limit begins, and all images with another one are settled. As soon as those that are
left fit in memory, one last pass collects and sorts them. Random keys are even, so that after one count of b bits
about 2^-b of the images are left; keys of similarities crowd together and take a few passes more.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

KEY_BITS = 64
MIN_STEP_BITS, MAX_STEP_BITS = 4, 12
"""Bits of the keys that one pass resolves, at least and at most."""
MAX_CANDIDATES = 1 << 20
"""Most images whose keys are collected and sorted; for fewer another pass costs more than the sort."""
BYTES_PER_CANDIDATE = 64
"""Working memory of one image while its group's limit is picked: row, key, id, their sort and copies."""
BYTES_PER_COUNT = 16
"""Working memory of one cell of the histogram."""


class Keyed(NamedTuple):
    """The images of one batch that may be drawn."""

    group: np.ndarray
    """(N,) int, 0..G-1"""
    keys: np.ndarray
    """(N,) uint64; the smallest are drawn first"""
    image_ids: np.ndarray
    """(N,) int64, without repeats in a group; of equal keys the smaller id is drawn first"""


class Draws(NamedTuple):
    """What is drawn of each of G groups: every image `every` times, and those up to a limit once more.

    A group from which fewer are drawn than it holds has 0 for `every`.
    """

    every: np.ndarray
    """(G,) int32"""
    limit_key: np.ndarray
    """(G,) uint64, key of the last image within the limit"""
    limit_id: np.ndarray
    """(G,) int64, id of the last image within the limit; -1: none is within"""

    def repeats(self, images: Keyed) -> np.ndarray:
        """(N,) int32: how often each image was drawn."""
        group = images.group
        before = images.keys < self.limit_key[group]
        at = (images.keys == self.limit_key[group]) & (images.image_ids <= self.limit_id[group])
        return self.every[group] + (before | at)


KeyedBatches = Callable[[], Iterable[Keyed]]
"""Starts another pass over the same images."""


def count_groups(batches: KeyedBatches, num_groups: int) -> np.ndarray:
    """(G,) int64: how many images each group holds, found in one pass."""
    counts = np.zeros(num_groups, np.int64)
    for images in batches():
        np.add.at(counts, images.group, 1)
    return counts


def draw_smallest(batches: KeyedBatches, sizes: np.ndarray, draws: np.ndarray, *, max_bytes: int = 1 << 30) -> Draws:
    """Draw `draws` images of each group, smallest keys first; all of a group are drawn before one is drawn again.

    How the limits are found is told in the module. Random keys mostly take two passes, one that counts and one that
    collects; similarities take a few more.

    Args:
        batches: the images; every call gives the same ones, in any order.
        sizes: (G,) int64, images per group, see `count_groups`.
        draws: (G,) int64, >= 0; more than the size means repeats. An empty group is never drawn from.
        max_bytes: working memory beyond about 40 bytes a group.
    """
    sizes, draws = np.asarray(sizes, np.int64), np.asarray(draws, np.int64)
    every, extra = np.divmod(draws, np.maximum(sizes, 1))  # whole rounds through a group, and those of the last one
    limit_key, limit_id = np.zeros(len(sizes), np.uint64), np.full(len(sizes), -1, np.int64)
    searched = np.flatnonzero((extra > 0) & (sizes > 0))  # the other groups have no limit within them
    if len(searched):
        search = _LimitSearch(searched, sizes, extra)
        fit = min(MAX_CANDIDATES, max_bytes // BYTES_PER_CANDIDATE)
        while search.left.sum() > fit and search.shift > 0:
            search.narrow(batches, _step_bits(len(searched), int(search.left.sum()) // max(1, fit), max_bytes))
        limit_key[searched], limit_id[searched] = search.pick(batches)
    return Draws(np.where(sizes > 0, every, 0).astype(np.int32), limit_key, limit_id)


def _step_bits(num_groups: int, times_too_many: int, max_bytes: int) -> int:
    """Bits of the next count: as many as random keys need for the rest to fit, but no more cells than memory holds."""
    cells = max_bytes // (BYTES_PER_COUNT * num_groups)
    wanted = max(MIN_STEP_BITS, min(MAX_STEP_BITS, times_too_many.bit_length()))
    return max(1, min(wanted, cells.bit_length() - 1))


class _LimitSearch:
    """What is known of the limits of the searched groups: the highest bits, and how far on the rest lies.

    The limit of a group is the `rank`-th (from 1) of its keys that begin with `prefix`; `left` keys do.
    """

    def __init__(self, searched: np.ndarray, sizes: np.ndarray, extra: np.ndarray) -> None:
        self.row = np.full(len(sizes), -1, np.int64)  # by group: its row in what follows; -1: not searched
        self.row[searched] = np.arange(len(searched))
        self.prefix = np.zeros(len(searched), np.uint64)
        self.rank, self.left = extra[searched], sizes[searched]
        self.shift = KEY_BITS
        """Low bits of the keys that the prefixes leave open."""

    def narrow(self, batches: KeyedBatches, step: int) -> None:
        """Add `step` bits to the prefixes, by one pass that counts."""
        step = min(step, self.shift)
        shift, mask = np.uint64(self.shift - step), np.uint64((1 << step) - 1)
        counts = np.zeros((len(self.prefix), 1 << step), np.int64)  # by group, keys with each value of the next bits
        for images in batches():
            row, keys, _ = self._inside(images)
            np.add.at(counts.reshape(-1), row << step | (keys >> shift & mask).astype(np.int64), 1)
        below = np.cumsum(counts, axis=1, out=counts)
        digit = np.argmax(below >= self.rank[:, None], axis=1)  # the first value up to which `rank` keys lie
        rows = np.arange(len(digit))
        before = np.where(digit > 0, below[rows, digit - 1], 0)
        # Keys below that value are drawn for sure and those above are not; the limit is sought among those with it.
        self.rank, self.left = self.rank - before, below[rows, digit] - before
        self.prefix = self.prefix << np.uint64(step) | digit.astype(np.uint64)
        self.shift -= step

    def pick(self, batches: KeyedBatches) -> tuple[np.ndarray, np.ndarray]:
        """Key and id of the last image drawn of each searched group, by one pass that collects and a sort."""
        row, keys, ids = (np.concatenate(c) for c in zip(*map(self._inside, batches()), strict=True))
        order = np.lexsort((ids, keys, row))
        last = order[np.searchsorted(row[order], np.arange(len(self.rank))) + self.rank - 1]
        return keys[last], ids[last]

    def _inside(self, images: Keyed) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Row of the group, key and id of those images that may still be the limit of their group."""
        row = self.row[images.group]
        inside = row >= 0
        if self.shift < KEY_BITS:
            inside &= images.keys >> np.uint64(self.shift) == self.prefix[row]
        return row[inside], images.keys[inside], images.image_ids[inside]
