"""Components against scipy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import coo_matrix, csgraph

from curate.ops.copies import components
from curate.ops.copies.components import DisjointSet, connected_components

graphs = st.integers(1, 60).flatmap(
    lambda n: st.tuples(st.just(n), st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=2 * n))
)


def smallest_members(num_nodes, rows, cols):
    graph = coo_matrix((np.ones(len(rows)), (rows, cols)), (num_nodes, num_nodes))
    _, labels = csgraph.connected_components(graph, directed=False)
    first = {}
    return [first.setdefault(label, node) for node, label in enumerate(labels)]


def columns(edges):
    return np.array([e[0] for e in edges], np.int64), np.array([e[1] for e in edges], np.int64)


@settings(deadline=None)
@given(graphs)
def test_labels_are_the_smallest_members_as_scipy_finds_them(graph):
    num_nodes, edges = graph
    labels = connected_components(num_nodes, *columns(edges))
    assert labels.dtype == np.int64
    assert labels.tolist() == smallest_members(num_nodes, *columns(edges))


@settings(deadline=None)
@given(graphs, st.integers(1, 7))
def test_unions_in_batches_equal_one_union(graph, batch):
    num_nodes, edges = graph
    forest = DisjointSet(num_nodes)
    for start in range(0, len(edges), batch):
        forest.union(*columns(edges[start : start + batch]))
    assert forest.labels().tolist() == smallest_members(num_nodes, *columns(edges))


@pytest.mark.parametrize("flip", [False, True])
def test_deep_trees_from_single_unions_are_found(monkeypatch, flip):
    monkeypatch.setattr(components, "FLATTEN_AFTER", 3)
    monkeypatch.setattr(components, "BLOCK_ROWS", 7)
    forest = DisjointSet(50)
    for node in range(49, 1, -1):  # a chain 49 -> 48 -> ... -> 1; node 0 stays alone
        forest.union(*columns([(node, node - 1) if flip else (node - 1, node)]))
    forest.union(*columns([(49, 30)]))
    assert forest.labels().tolist() == [0] + [1] * 49


def test_large_random_graph_equals_scipy():
    rng = np.random.default_rng(0)
    rows, cols = rng.integers(0, 100_000, 60_000), rng.integers(0, 100_000, 60_000)
    assert connected_components(100_000, rows, cols).tolist() == smallest_members(100_000, rows, cols)


def test_long_path_in_shuffled_order_is_one_component():
    nodes = np.random.default_rng(0).permutation(200_000)
    assert not connected_components(200_000, nodes[:-1], nodes[1:]).any()


def test_star_around_its_largest_node_takes_few_steps(monkeypatch):
    """Else all nodes would be pointed at their roots on the way."""
    monkeypatch.setattr(components, "FLATTEN_AFTER", 3)
    monkeypatch.setattr(DisjointSet, "_flatten_all", lambda self: pytest.fail("more steps than two"))
    forest = DisjointSet(1000)
    forest.union(np.full(999, 999), np.arange(999))


@pytest.mark.parametrize("flatten_after", [1, 2, 5, 1000])
def test_components_do_not_depend_on_when_links_are_shortened(monkeypatch, flatten_after):
    monkeypatch.setattr(components, "FLATTEN_AFTER", flatten_after)
    rng = np.random.default_rng(1)
    forest = DisjointSet(3000)
    edges = rng.integers(0, 3000, (2, 2400))
    for start in range(0, 2400, 300):
        forest.union(*edges[:, start : start + 300])
    assert forest.labels().tolist() == smallest_members(3000, *edges)


def test_edges_outside_the_nodes_are_errors():
    with pytest.raises(ValueError, match=r"nodes 0\.\.5: the set has 5 nodes"):
        connected_components(5, np.array([0, 5]), np.array([1, 1]))
    with pytest.raises(ValueError, match=r"nodes -1\.\.1"):
        connected_components(5, np.array([0, 1]), np.array([1, -1]))
    with pytest.raises(ValueError, match="2 rows and 1 cols"):
        connected_components(5, np.array([0, 1]), np.array([1]))
    with pytest.raises(ValueError, match="num_nodes=-1"):
        DisjointSet(-1)
