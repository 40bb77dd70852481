"""Crowds: images whose look-alikes are other pictures, and what evidence counts among them.

Every two letters of one firm, X-rays of one organ or frames of one camera are as like each other, to a network, as
copies of a photograph are. A similarity from which on two images are copies therefore belongs to a kind of pictures,
and in a pool of look-alikes it joins everything. But such a pool shows itself. Copies of one picture come with strong
evidence: of any few of them some have the same bytes or perceptual hashes a few bits apart, which pictures that differ
have not. Where an image resembles many images that no strong evidence ties together, it stands in a crowd.

In a crowd a pair must stand out: the two pictures, laid over each other (`registration.py`), must agree far better than
both do with the others that they resemble. How far is counted in robust standard deviations of Fisher's transform of
the agreement, a correlation, in which the spread does not depend on the height. Where all of a crowd agree (forms of
which little is filled in) nothing can stand out, and the strong evidence alone is left.

Source: a threshold against what chance gives in this very place is the a-contrario method, Desolneux, Moisan and Morel
2000 (International Journal of Computer Vision 40:1).
"""

from typing import NamedTuple

import numpy as np

GROUP_BITS = 64
"""Groups are counted by setting one bit of so many each: some share a bit, so the count errs on the low side."""
QUARTILE = 0.6745
"""Standard deviations from the median of a normal distribution to its upper quartile."""
NEAR_ONE = 0.999
"""Agreements above this are taken as this: Fisher's transform of 1 is infinite."""
LEAST_SPREAD = 0.1
"""Least standard deviation of transformed agreements."""


def mark_groups(seen: np.ndarray, nodes: np.ndarray, groups: np.ndarray) -> None:
    """Set in `seen`, in place, that each node resembles an image of a group.

    Args:
        seen: (N,) uint64.
        nodes: (E,) int64.
        groups: (E,) int, the group of the other image.
    """
    np.bitwise_or.at(seen, nodes, group_bit(groups))


def count_groups(seen: np.ndarray, own: np.ndarray) -> np.ndarray:
    """(N,) int64: groups that each node resembles beside its own; at most as many as there are, and at most 63."""
    found: np.ndarray = np.bitwise_count(seen & ~group_bit(own)).astype(np.int64)
    return found


def group_bit(groups: np.ndarray) -> np.ndarray:
    """(N,) uint64 with one bit set, as the number of the group says."""
    mixed = groups.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)  # golden ratio: neighbors fall on other bits
    return np.uint64(1) << (mixed >> np.uint64(58))


class Surroundings(NamedTuple):
    """How well images agree with those that they resemble."""

    image_ids: np.ndarray
    """(M,) int64, ascending"""
    middle: np.ndarray
    """(M,) float32, median of the transformed agreements"""
    spread: np.ndarray
    """(M,) float32, their standard deviation, from the upper quartile"""


class Usual(NamedTuple):
    """What is usual in all crowds of a run."""

    middle: float
    """Median of the middles; +inf: unknown, and nothing stands out."""
    spread: float
    """Median of the spreads."""


def fisher(agreement: np.ndarray) -> np.ndarray:
    """(N,) float32: Fisher's transform of agreements, of which those below 0 say no more than 0."""
    found: np.ndarray = np.arctanh(np.clip(agreement, 0, NEAR_ONE)).astype(np.float32)
    return found


def surroundings(image_ids: np.ndarray, agreement: np.ndarray, *, min_pairs: int) -> Surroundings:
    """Middle and spread of the agreements of each image; +inf and 0 where they are fewer than `min_pairs`.

    Copies are among them and are not known; a median and a quartile bear that up to a quarter of the pairs.

    Args:
        image_ids: (E,) int64, one image of each pair.
        agreement: (E,) float32.
    """
    order = np.lexsort((agreement, image_ids))
    z = fisher(agreement[order])
    ids, first, number = np.unique(image_ids[order], return_index=True, return_counts=True)
    middle = _at_share(z, first, number, 0.5)
    spread = (_at_share(z, first, number, 0.75) - middle) / np.float32(QUARTILE)
    enough = number >= min_pairs
    return Surroundings(ids, np.where(enough, middle, np.float32(np.inf)), np.where(enough, spread, np.float32(0)))


def usual(known: Surroundings) -> Usual:
    """The medians over the images with enough pairs."""
    enough = np.isfinite(known.middle)
    if not enough.any():
        return Usual(float("inf"), 0.0)
    return Usual(float(np.median(known.middle[enough])), float(np.median(known.spread[enough])))


def _at_share(z: np.ndarray, first: np.ndarray, number: np.ndarray, share: float) -> np.ndarray:
    """(M,) float32: of each run of ascending values the quantile, between two values by their distance."""
    place = (number - 1) * share
    low = np.floor(place).astype(np.int64)
    high = np.minimum(low + 1, number - 1)
    weight = (place - low).astype(np.float32)
    found: np.ndarray = z[first + low] * (1 - weight) + z[first + high] * weight
    return found


def standing_out(
    known: Surroundings, query_ids: np.ndarray, image_ids: np.ndarray, agreement: np.ndarray, *, usual: Usual
) -> np.ndarray:
    """(E,) float32: standard deviations by which each pair stands out of the surroundings of both of its images.

    Args:
        known: of the images in crowds; an image without an entry asks for nothing.
        usual: taken for images with too few pairs; its spread is the least, as that of a few pairs may be small by
            chance.

    Returns:
        The lesser of both; +inf where neither image is in a crowd.
    """
    z, least = fisher(agreement), max(usual.spread, LEAST_SPREAD)
    middle = np.where(np.isfinite(known.middle), known.middle, np.float32(usual.middle))
    found = np.full(len(z), np.inf, np.float32)
    if len(known.image_ids) == 0:
        return found
    for ids in (query_ids, image_ids):
        at = np.minimum(np.searchsorted(known.image_ids, ids), len(known.image_ids) - 1)
        height = (z - middle[at]) / np.maximum(known.spread[at], np.float32(least))
        found = np.where(known.image_ids[at] == ids, np.minimum(found, height), found)
    return found
