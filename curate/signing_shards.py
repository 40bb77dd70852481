"""Signing the manifest of shards that were written before."""

from curate.errors import ConfigError, first_line
from curate.filesystems import open_filesystem
from curate.sealed_json import load_sealed
from curate.shard_manifest import NAME, SIGNATURE, ShardManifest
from curate.signing import parse_signature, sign


def sign_shards(place: str, key_file: str, *, where: str) -> tuple[str, str]:
    """Write the signature beside the manifest of a folder of shards or of a workdir's; the shards are not read.

    Args:
        key_file: a private key; its path is told by no message.
        where: the option that names it.

    Returns:
        Where the signature is, and the fingerprint of the key.

    Raises:
        ConfigError: there is no whole manifest, or the key cannot sign.
        MissingExtra: `cryptography` is not installed.
    """
    filesystem, root = open_filesystem(place)
    folders = [root.rstrip("/"), f"{root.rstrip('/')}/shards"]
    folder = next((one for one in folders if filesystem.exists(f"{one}/{NAME}")), None)
    if folder is None:
        raise ConfigError(f"{place}: no {NAME} of shards is there; give the folder of shards that a run has written")
    data = filesystem.cat_file(f"{folder}/{NAME}")
    try:
        ShardManifest.from_json(load_sealed(data))
    except ValueError as error:
        raise ConfigError(f"{folder}/{NAME}: damaged ({first_line(error)}); run its config again") from error
    text = sign(data, key_file, where=where)
    filesystem.pipe_file(f"{folder}/{SIGNATURE}", text)
    return f"{folder}/{SIGNATURE}", parse_signature(text).fingerprint
