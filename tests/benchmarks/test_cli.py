"""The command line of the benchmarks: what it lists, imports and refuses."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.cli import main, measurements, spread

ROOT = Path(__file__).parents[2]


def test_every_measurement_explains_itself_and_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert {"embed", "copies", "join", "kmeans", "train", "mnist"} <= set(measurements())
    for name, line in measurements().items():
        assert line, name
        with pytest.raises(SystemExit, match="^0$"):
            main([name, "--help"])
        assert "--json" in capsys.readouterr().out


def test_no_name_lists_the_measurements_and_a_wrong_one_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="^0$"):
        main([])
    told = capsys.readouterr().out
    assert all(f"  {name} " in told for name in measurements())
    with pytest.raises(SystemExit, match="speed: no such measurement"):
        main(["speed"])


def test_only_the_file_that_was_asked_for_is_imported() -> None:
    code = (
        "import sys\nfrom benchmarks.cli import main\n"
        "try:\n    main(['components', '--help'])\nfinally:\n    print(*sys.modules, file=sys.stderr)"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {name for name in found.stderr.split() if name.startswith("benchmarks.")} == {
        "benchmarks.cli",
        "benchmarks.components",
        "benchmarks.figures",
    }


def test_errors_of_the_user_are_shown_without_a_traceback(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="^1$"):
        main(["copies", "--folder", str(tmp_path)])
    assert capsys.readouterr().err.startswith(f"error: SourceError: {tmp_path}: 0 usable pictures")


def test_values_that_follow_an_option_of_several_are_its_own() -> None:
    def command(path: str, sizes: list[int] | None = None, num: int = 1) -> None:
        """Of a path, some sizes and a number."""

    given = ["here", "--sizes", "1", "2", "3", "--num", "4", "--sizes", "5"]
    wanted = ["here", *("--sizes", "1", "--sizes", "2", "--sizes", "3"), "--num", "4", "--sizes", "5"]
    assert spread(command, given) == wanted
    assert spread(command, ["--num", "4", "there"]) == ["--num", "4", "there"]
