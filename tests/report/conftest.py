from pathlib import Path

import pytest

from tests.report.workdir import Workdir


@pytest.fixture
def workdir(tmp_path: Path) -> Workdir:
    """Every table there is, over a dozen pictures."""
    return Workdir(tmp_path).everything()
