"""Pictures with Content Credentials, signed by a certificate that nobody trusts."""

import datetime
import io
import json
from functools import cache
from typing import Any

import numpy as np
from PIL import Image


@cache
def signer_chain() -> tuple[bytes, bytes]:
    """A chain of certificates and the key of its leaf, PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives import serialization as s
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def name(common: str) -> x509.Name:
        return x509.Name(
            [x509.NameAttribute(NameOID.COMMON_NAME, common), x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Nobody")]
        )

    begin, end = datetime.datetime(2024, 1, 1), datetime.datetime(2044, 1, 1)
    root, leaf = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    certificates = []
    for common, key, number in (("leaf", leaf, 2), ("root", root, 1)):
        is_root = key is root
        usage = [not is_root, False, False, False, False, is_root, is_root, False, False]
        made = (
            x509.CertificateBuilder()
            .subject_name(name(common))
            .issuer_name(name("root"))
            .public_key(key.public_key())
            .serial_number(number)
            .not_valid_before(begin)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=is_root, path_length=None), critical=True)
            .add_extension(x509.KeyUsage(*usage), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root.public_key()), critical=False)
        )
        if not is_root:
            made = made.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
        certificates.append(made.sign(root, hashes.SHA256()).public_bytes(s.Encoding.PEM))
    return b"".join(certificates), leaf.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption())


def with_credentials(*, source_type: str = "digitalCapture", training: dict[str, str] | None = None) -> bytes:
    """A JPEG whose manifest says how it was made, and what may be done with it."""
    import c2pa

    kind = f"http://cv.iptc.org/newscodes/digitalsourcetype/{source_type}"
    action = {"action": "c2pa.created", "digitalSourceType": kind}
    assertions: list[dict[str, Any]] = [{"label": "c2pa.actions", "data": {"actions": [action]}}]
    if training:
        entries = {name: {"use": use} for name, use in training.items()}
        assertions.append({"label": "cawg.training-mining", "data": {"entries": entries}})
    manifest = {"claim_generator_info": [{"name": "Test camera", "version": "3"}], "assertions": assertions}
    chain, key = signer_chain()
    signer = c2pa.Signer.from_info(c2pa.C2paSignerInfo(alg=b"es256", sign_cert=chain, private_key=key, ta_url=None))
    made = io.BytesIO()
    c2pa.Builder(json.dumps(manifest)).sign(signer, "image/jpeg", io.BytesIO(plain_jpeg()), made)
    return made.getvalue()


def plain_jpeg() -> bytes:
    """A picture of noise, with no word on its origin."""
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((200, 200)).save(file, "JPEG")
    return file.getvalue()
