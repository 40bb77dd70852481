import numpy as np

from curate.feed.row_groups import path_weights


def test_path_weights_equal_a_loop_over_prefixes():
    rng = np.random.default_rng(0)
    paths = [rng.integers(0, 3, rng.integers(0, 4)).tolist() for _ in range(200)]
    weights = {"0": 0.5, "0/1": 2.0, "0/1/2": 7.0, "2": 0.0, "9": 3.0}
    offsets = np.concatenate([[0], np.cumsum([len(path) for path in paths])])
    found, met = path_weights(offsets, np.array([number for path in paths for number in path]), weights)
    for path, value in zip(paths, found, strict=True):
        prefixes = ["/".join(map(str, path[:n])) for n in range(len(path), 0, -1)]
        assert value == next((weights[p] for p in prefixes if p in weights), 1.0)
    assert met == {"0", "0/1", "0/1/2", "2"}
