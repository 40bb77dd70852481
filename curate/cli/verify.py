"""`curate verify` and `curate sign`: whether files are what was written, and whose word for it there is."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from curate.cli.arguments import Json
from curate.cli.consoles import say, say_json

if TYPE_CHECKING:
    from curate.verifying import Verified


def verify(
    place: Annotated[str, typer.Argument(help="a workdir, a folder of shards or of a training, or one file")],
    key: Annotated[
        str | None,
        typer.Option(
            "--key", metavar="FILE", help="public key (.pub, or allowed_signers) that must have signed the manifest"
        ),
    ] = None,
    json_: Json = False,
) -> None:
    """Read every file that carries a digest, and name those that are not what was written.

    Shards with a manifest.json are held against it: shards that are gone, added or changed are named, and the images in
    them that are missing, added or changed. A folder of shards that was copied elsewhere is enough.

    Exit status: 0 all are; 1 some are not.

    Examples:
        curate verify runs/dedup-photos
        curate verify runs/dedup-photos/shards --key id_ed25519.pub
        curate verify runs/tiny
    """
    import json

    from curate.signing import read_public_keys
    from curate.verifying import verify as check

    keys = None if key is None else read_public_keys(key, where="--key")
    found = check(place, keys=keys)
    if json_:
        say_json(json.dumps(_as_json(found), indent=2))
    else:
        for text in found.damaged.values():
            say(text)
        for folder, shards in found.shards.items():
            say(
                f"{folder}: {shards.rows:,} images in {shards.shards:,} shards, digest {shards.digest}; {shards.signed}"
            )
        say(
            f"{place}: {len(found.checked):,} files of {found.num_bytes / 1e6:,.1f} MB checked, {len(found.damaged):,} "
            f"damaged or gone; {len(found.unchecked):,} others carry no digest"
        )
    if found.damaged:
        raise typer.Exit(1)


def _as_json(found: "Verified") -> dict[str, Any]:
    values: dict[str, Any] = {"checked": len(found.checked), "unchecked": found.unchecked, "damaged": found.damaged}
    shards = {
        folder: {"digest": one.digest, "shards": one.shards, "rows": one.rows, "signed": one.signed}
        for folder, one in found.shards.items()
    }
    images = [{"folder": folder, **image._asdict()} for folder, image in found.images]
    return values | ({"shards": shards, "images": images} if shards else {})


def sign(
    shards: Annotated[str, typer.Argument(help="folder of shards, or a workdir")],
    key: Annotated[str, typer.Option("--key", metavar="FILE", help="Ed25519 key of OpenSSH, without a passphrase")],
) -> None:
    """Sign the manifest of shards, so that others can tell whose they are.

    The signature is what `ssh-keygen -Y sign -n curate-manifest` makes; keys with a passphrase or on a token sign by
    that. Whoever has the public key checks all shards with `curate verify SHARDS --key FILE`.

    Examples:
        curate sign runs/dedup-photos --key ~/.ssh/id_ed25519
    """
    from curate.signing_shards import sign_shards

    place, signer = sign_shards(shards, key, where="--key")
    say(f"{place}: signed by {signer}")
