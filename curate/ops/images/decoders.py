"""Decoders that Pillow takes from other packages; each is registered when the first picture of its format comes.

Registering is Pillow's own way, once in a process, and changes nothing for other formats. Threads wait for the one that
registers; a process of a worker registers for itself.
"""

import threading
from functools import cache

from PIL import features

_REGISTERING = threading.Lock()


def has_decoder(form: str) -> bool:
    """Whether pictures of a format (a key of `formats.READ`) can be decoded here; safe in threads."""
    with _REGISTERING:
        return _has_decoder(form)


@cache
def _has_decoder(form: str) -> bool:
    match form:
        case "HEIF":
            return _register_heif()
        case "JXL":
            return _register_jxl()
        case "AVIF":  # Pillow before 11.3 does not know the feature
            return "avif" in features.modules and bool(features.check("avif"))
        case "WEBP":
            return bool(features.check("webp"))
        case "JPEG2000":
            return bool(features.check("jpg_2000"))
    return True


def _register_heif() -> bool:
    try:
        import pillow_heif  # of the extra `formats`
    except ImportError:
        return False
    pillow_heif.register_heif_opener(thumbnails=False)
    return True


def _register_jxl() -> bool:
    try:
        from pillow_jxl import JpegXLImagePlugin  # of the extra `formats`; registers itself
    except ImportError:
        return False
    JpegXLImagePlugin.DECODE_THREADS = 0  # pictures are decoded in threads of their own already
    return True
