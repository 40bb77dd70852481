"""The notebooks run from top to bottom, each in an empty folder."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

HERE = Path(__file__).parents[2] / "examples" / "notebooks"


@pytest.mark.parametrize("name", sorted(path.stem for path in HERE.glob("*.ipynb")))
def test_every_cell_runs(name: str, tmp_path: Path) -> None:
    notebook = nbformat.read(HERE / f"{name}.ipynb", as_version=4)
    assert not [cell for cell in notebook.cells if cell.get("outputs")]  # stored without what one machine printed
    nbformat.validate(notebook)

    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()

    shown = [cell for cell in notebook.cells if cell.get("outputs")]
    assert len(shown) >= 4
