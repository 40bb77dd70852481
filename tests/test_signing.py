"""Signatures are those of `ssh-keygen -Y`, in both directions, and untrusted ones are refused with a reason."""

import base64
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from curate.errors import ConfigError
from curate.signing import NAMESPACE, check, fingerprint, parse_signature, read_public_keys, sign
from tests.test_shard_check import make_key

MESSAGE = b"a manifest\n"
needs_ssh = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")


def test_signatures_are_right_equal_and_of_one_message(tmp_path: Path) -> None:
    key = make_key(tmp_path / "key")
    text = sign(MESSAGE, key, where="--key")
    assert text == sign(MESSAGE, key, where="--key")
    found = parse_signature(text)
    assert check(MESSAGE, found)
    assert not check(MESSAGE + b"x", found)
    assert [found.public_key] == read_public_keys(f"{key}.pub", where="--key")


@needs_ssh
def test_ssh_keygen_accepts_what_is_signed_here(tmp_path: Path) -> None:
    key = make_key(tmp_path / "key")
    (tmp_path / "sig").write_bytes(sign(MESSAGE, key, where="--key"))
    (tmp_path / "allowed").write_text(f'me@example namespaces="{NAMESPACE}" {Path(f"{key}.pub").read_text()}')
    command = ["ssh-keygen", "-Y", "verify", "-f", "allowed", "-I", "me@example", "-n", NAMESPACE, "-s", "sig"]
    ran = subprocess.run(command, input=MESSAGE, cwd=tmp_path, capture_output=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert fingerprint(read_public_keys(tmp_path / "allowed", where="--key")[0]).encode() in ran.stdout
    assert subprocess.run(command, input=b"x", cwd=tmp_path, capture_output=True, check=False).returncode != 0


@needs_ssh
def test_what_ssh_keygen_signs_is_accepted_here_for_this_purpose_alone(tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True)
    for namespace, right in ((NAMESPACE, True), ("file", False)):
        (tmp_path / "m").write_bytes(MESSAGE)
        (tmp_path / "m.sig").unlink(missing_ok=True)
        sign_it = ["ssh-keygen", "-q", "-Y", "sign", "-f", tmp_path / "key", "-n", namespace, tmp_path / "m"]
        subprocess.run(sign_it, check=True, capture_output=True)
        assert check(MESSAGE, parse_signature((tmp_path / "m.sig").read_bytes())) is right


@needs_ssh
@pytest.mark.parametrize(
    ("options", "told"), [(["-t", "ed25519", "-N", "secret"], "has a passphrase"), (["-t", "rsa", "-N", ""], "Ed25519")]
)
def test_a_key_that_cannot_sign_is_told_without_its_path(tmp_path: Path, options: list[str], told: str) -> None:
    subprocess.run(["ssh-keygen", "-q", *options, "-f", tmp_path / "key"], check=True)
    with pytest.raises(ConfigError, match=told) as error:
        sign(MESSAGE, tmp_path / "key", where="write.publish.sign_key")
    assert str(tmp_path) not in str(error.value)
    with pytest.raises(ConfigError, match="there is no such file"):
        sign(MESSAGE, tmp_path / "nothing", where="--key")
    with pytest.raises(ConfigError, match="no private key"):
        sign(MESSAGE, tmp_path / "key.pub", where="--key")


def test_a_changed_signature_is_wrong_or_none(tmp_path: Path) -> None:
    text = sign(MESSAGE, make_key(tmp_path / "key"), where="--key")
    head, *lines, tail = text.decode().split("\n")[:-1]
    blob = base64.b64decode("".join(lines))
    rng = random.Random(0)
    for _ in range(200):
        changed = bytearray(blob)
        changed[rng.randrange(len(blob))] ^= 1 << rng.randrange(8)
        cut = bytes(changed[: rng.choice([len(blob), rng.randrange(len(blob))])])
        try:
            found = parse_signature(f"{head}\n{base64.b64encode(cut).decode()}\n{tail}\n".encode())
        except ValueError:
            continue
        assert not check(MESSAGE, found)
    for nothing in (b"", b"x", head.encode(), b"\xff" * 99):
        with pytest.raises(ValueError, match="no signature"):
            parse_signature(nothing)


def test_a_file_without_a_key_is_told(tmp_path: Path) -> None:
    (tmp_path / "pub").write_text("# ssh-ed25519 AAAA\nssh-rsa AAAAB3NzaC1yc2E=\nssh-ed25519 AAAA\n")
    with pytest.raises(ConfigError, match="holds no line with ssh-ed25519"):
        read_public_keys(tmp_path / "pub", where="--key")
