"""`curate verify`: read everything that carries a digest."""

from typing import Annotated

import typer

from curate.cli.arguments import Json
from curate.cli.consoles import say, say_json


def verify(
    place: Annotated[str, typer.Argument(help="a workdir, a folder of shards or of a training, or one file")],
    json_: Json = False,
) -> None:
    """Read every file that carries a digest, and name those that are not what was written.

    Exit status: 0 all are; 1 some are not.

    Examples:
        curate verify runs/dedup-photos
        curate verify runs/tiny
    """
    import json

    from curate.verifying import verify as check

    found = check(place)
    if json_:
        values = {"checked": len(found.checked), "unchecked": found.unchecked, "damaged": found.damaged}
        say_json(json.dumps(values, indent=2))
    else:
        for text in found.damaged.values():
            say(text)
        say(
            f"{place}: {len(found.checked):,} files of {found.num_bytes / 1e6:,.1f} MB checked, {len(found.damaged):,} "
            f"damaged or gone; {len(found.unchecked):,} others carry no digest"
        )
    if found.damaged:
        raise typer.Exit(1)
