"""Bursts: of many images of one subject (frames of a video, product shots) every n-th stays, not one alone.

The order of frames is that of ids: the catalog lists a source by its paths, and frames are numbered there. Images of
equal bytes are one frame. Of a component with more than `every` frames the first stays, the one `every` frames later
and so on, and beside them the image that would have stayed alone, so that the best picture is among them. Each other
frame goes for the one nearest in order that stays, the earlier one of two.

The place of a frame in its component is a running count by component, while all images stream by in order; so nothing
is sorted but the frames that stay. It is counted twice: to find those that stay, and to find the nearest of them.
"""

from collections.abc import Iterator

import numpy as np

from curate.ops.copies.graph import CopyGraph

NO_NODES = np.empty(0, np.int64)


def thin_bursts(
    graph: CopyGraph,
    components: np.ndarray,
    where: np.ndarray,
    *,
    twins: np.ndarray,
    best: np.ndarray,
    every: int,
    also: np.ndarray = NO_NODES,
    never: np.ndarray = NO_NODES,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every n-th frame of components that are large enough.

    Takes 9 bytes an image of the catalog, 8 for each frame of a burst, and 24 for each frame that stays.

    Args:
        components: (N,) uint32, the smallest node of each node's component.
        where: (N,) bool, at that node whether the component may be a burst; none that touches an outside image.
        twins: (N,) uint32, see `CopyGraph.twins`.
        best: (N,) uint32, the image of each node's component that would stay alone.
        every: of so many frames one stays, >= 2.
        also: (H,) int64, nodes that stay beside these.
        never: (D,) int64, nodes that do not stay and count for nothing.

    Returns:
        nodes, stays: (M,) uint32, the frames of bursts, and the frame that stays instead: itself or another one.
        burst: (N,) bool, at its smallest node whether a component is one.
    """
    burst = (_count_frames(graph, components, twins, never) > every) & where
    keys, kept = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
    for nodes, key in _frames(graph, components, twins, burst, never):
        stays = ((key & np.uint64(0xFFFFFFFF)) % np.uint64(every) == 0) | (twins[best[nodes]] == nodes)
        if len(also):
            stays |= np.isin(nodes, also)
        keys.append(key[stays])
        kept.append(nodes[stays])
    key_of, node_of = np.concatenate(keys), np.concatenate(kept)
    order = np.argsort(key_of)
    key_of, node_of = key_of[order], node_of[order]
    found = [(np.empty(0, np.uint32), np.empty(0, np.uint32))]
    for nodes, key in _frames(graph, components, twins, burst, never):
        found.append((nodes.astype(np.uint32), node_of[_nearest(key_of, key)].astype(np.uint32)))
    nodes, stays = (np.concatenate(columns) for columns in zip(*found, strict=True))
    return nodes, stays, burst


def _count_frames(graph: CopyGraph, components: np.ndarray, twins: np.ndarray, never: np.ndarray) -> np.ndarray:
    """(N,) uint32: frames of the component that each node is the smallest of."""
    counts = np.zeros(graph.size, np.uint32)
    for accepted in graph.accepted_blocks():
        np.add.at(counts, components[_distinct(accepted, twins, never)], np.uint32(1))
    return counts


def _distinct(nodes: np.ndarray, twins: np.ndarray, never: np.ndarray) -> np.ndarray:
    """One of equal bytes, without those that never stay."""
    found: np.ndarray = nodes[twins[nodes] == nodes]
    return found[~np.isin(found, never)] if len(never) else found


def _frames(
    graph: CopyGraph, components: np.ndarray, twins: np.ndarray, burst: np.ndarray, never: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Frames of bursts in ascending order, a block at a time: (M,) int64 nodes, and (M,) uint64 component and place."""
    seen = np.zeros(graph.size, np.uint32)  # frames of each component in blocks before
    for accepted in graph.accepted_blocks():
        nodes = _distinct(accepted, twins, never)
        nodes = nodes[burst[components[nodes]]]
        root = components[nodes]
        order = np.argsort(root, kind="stable")
        ordered = root[order]
        start = np.flatnonzero(np.diff(ordered, prepend=-1)) if len(ordered) else np.empty(0, np.int64)
        size = np.diff(start, append=len(ordered))
        place = np.empty(len(nodes), np.uint32)
        place[order] = seen[ordered] + (np.arange(len(ordered)) - np.repeat(start, size)).astype(np.uint32)
        seen[ordered[start]] += size.astype(np.uint32)
        yield nodes, (root.astype(np.uint64) << np.uint64(32)) | place


def _nearest(kept: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """(M,) int64: which of `kept`, (K,) uint64 in ascending order, is nearest to each frame within its component.

    The first frame of a component is kept, so that none is without one before it.
    """
    before = np.searchsorted(kept, frames, side="right") - 1
    after = np.minimum(before + 1, len(kept) - 1)
    # Keys of one component differ by the number of frames between; those of another one are far.
    later = (kept[after] > frames) & (kept[after] >> np.uint64(32) == frames >> np.uint64(32))
    nearer: np.ndarray = later & (kept[after] - frames < frames - kept[before])
    return np.where(nearer, after, before)
