"""What torchrun says in the environment, said by halves."""

import pytest

from curate.errors import ConfigError
from curate.trainer.parallel import World, join_world

NAMES = ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT")


@pytest.mark.parametrize(
    ("told", "wanted"),
    [
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2 in the environment, but RANK is not set; start the training by torchrun"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, "but MASTER_ADDR is not set; .* or unset WORLD_SIZE"),
        ({"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "localhost"}, "but MASTER_PORT is not set"),
        ({"WORLD_SIZE": "2", "RANK": "2"}, "RANK=2 in the environment: no number of one of WORLD_SIZE=2 processes"),
        ({"WORLD_SIZE": "many"}, "WORLD_SIZE='many' in the environment: no whole number"),
        ({"WORLD_SIZE": "2", "RANK": "-1"}, "RANK='-1' in the environment: no whole number"),
        (
            {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "99999999"},
            "rank 0 of 2 does not meet the others at localhost:99999999: ",
        ),
    ],
)
def test_an_environment_that_says_half_of_it_is_an_error_that_says_the_rest(monkeypatch, told, wanted):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=wanted), join_world():
        pass


def test_without_it_there_is_one_process(monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    with join_world() as world:
        assert world == World(0, 1)
