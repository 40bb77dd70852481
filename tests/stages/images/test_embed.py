"""Embed: what its table depends on."""

from curate.config import identity
from curate.stages.images.embed import Embed


def test_place_of_the_weights_is_no_part_of_the_identity() -> None:
    assert identity(Embed(model="sscd", weights="a.pt")) == identity(Embed(model="sscd", weights="b/a.pt"))
