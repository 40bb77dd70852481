from collections.abc import Iterator
from pathlib import Path

import pytest

from curate.review.session import Session
from tests.review.large_run import LargeRun
from tests.review.running import Running


@pytest.fixture(scope="session")
def large_run(tmp_path_factory: pytest.TempPathFactory) -> LargeRun:
    """100,000 groups of copies."""
    return LargeRun(tmp_path_factory.mktemp("review"))


@pytest.fixture(scope="session")
def large_session(large_run: LargeRun) -> Session:
    """Shared by all tests: decisions are those of `session`."""
    return Session(large_run.finished, apply="curate run dedup workdir=run --update")


@pytest.fixture
def session(large_session: Session) -> Iterator[Session]:
    """Without decisions."""
    file = Path(large_session.marks.path)
    file.unlink(missing_ok=True)
    large_session.marks = type(large_session.marks)(large_session.marks.path)
    yield large_session
    file.unlink(missing_ok=True)


@pytest.fixture(scope="session")
def running(large_session: Session) -> Iterator[Running]:
    """A server for all tests."""
    found = Running(large_session)
    yield found
    found.stop()
