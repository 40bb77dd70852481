"""The folder that `curate visualize` writes: it replaces pictures of its own, and touches no other file.

A list of the pictures lies in the folder. It tells the folder from one that holds something else, and says what a later
call may remove.
"""

from pathlib import Path

from curate.config import refuse_url
from curate.errors import WorkdirError
from curate.sealed_json import dump_sealed, load_sealed

MANIFEST = "visualize.json"


def check_output(folder: str | Path) -> None:
    """Raise WorkdirError where the folder holds files of something else; called before models run for long."""
    refuse_url(folder, setting="output")
    folder = Path(folder)
    if folder.is_dir() and not (folder / MANIFEST).is_file() and any(folder.iterdir()):
        raise WorkdirError(f"output={folder}: not empty, and not made by `curate visualize`; give an empty or new one")


def claim_output(folder: Path, names: list[str]) -> None:
    """Make the folder, list the files `names` that it is about to hold, and remove those that an earlier call listed.

    The list is written first, so that a call that was killed leaves a folder that the next call knows.

    Raises:
        WorkdirError: the folder holds files of something else, or one of those names.
    """
    check_output(folder)
    folder.mkdir(parents=True, exist_ok=True)
    manifest = folder / MANIFEST
    earlier = set(_read_manifest(manifest)) if manifest.is_file() else set()
    foreign = [name for name in names if name not in earlier and (folder / name).exists()]
    if foreign:
        raise WorkdirError(f"output={folder}: {foreign[0]} is there and not made by `curate visualize`; move it away")
    for name in sorted(earlier - set(names)):
        (folder / name).unlink(missing_ok=True)
    manifest.write_bytes(dump_sealed({"pictures": names}))


def _read_manifest(path: Path) -> list[str]:
    """The names that an earlier call listed; only names without a folder, so that nothing outside is removed."""
    try:
        names = load_sealed(path.read_bytes())["pictures"]
        return [name for name in names if Path(name).name == name]
    except (ValueError, KeyError, TypeError) as error:
        raise WorkdirError(
            f"{path}: not the list that `curate visualize` writes; give an empty or new folder"
        ) from error
