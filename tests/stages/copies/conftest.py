"""The toy pipeline of `given_pairs.py`, made once."""

import pytest

from curate.engine.pipeline import Pipeline
from tests.stages.copies.given_pairs import made


@pytest.fixture(scope="session")
def verified(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """Its tables, which no test changes."""
    return made(tmp_path_factory.mktemp("verified"))
