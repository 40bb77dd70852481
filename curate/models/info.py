"""What is known of a backbone before it is built; needs no torch."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from curate.errors import WeightsError
from curate.models.files.digest import hash_file
from curate.models.thresholds import CopyRule
from curate.ops.images.preprocess import Preprocess

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ModelInfo:
    """What is known of a model before it is built."""

    model: str
    """The id that the config gives."""
    dim: int
    """Length of its vectors."""
    license: str
    """License of its weights, or where to find it."""
    preprocess: Preprocess
    """How pictures are resized and normalized for it."""
    how_to_get: str
    """What the user can do where the weights are absent."""
    weights: Path | None = None
    """The weight file on this machine; None: absent."""
    bf16: bool = True
    """Whether `precision: auto` may choose bfloat16."""
    has_weights: bool = True
    """False: a fixed function of the pixels, for which there is nothing to get."""
    data: tuple[Path, ...] = ()
    """Files beside the weight file that hold weights too."""
    declared: str = ""
    """Digest of a declaration that decides the vectors as well; empty: none."""
    own_precision: bool = False
    """True: it computes as its file says, and knows no `precision: bf16`."""
    copies: CopyRule | None = None
    """How similar copies are, as its own file declares; None: see `thresholds`."""
    pooling: str = ""
    """How the network makes one vector of a picture, as `conventions.py` calls it; empty: not known."""
    package: str = ""
    """The installed package that brings the weights, with its version and license; empty: none."""

    @property
    def weights_present(self) -> bool:
        """Whether the model can be built without a download."""
        return self.weights is not None or not self.has_weights

    @cached_property
    def weights_hash(self) -> str:
        """SHA-256 (hex) of the weight file, or of its digest and those of its data and declaration where it has them;
        empty where the model has no weights.

        Raises:
            WeightsError: the weights are absent.
        """
        if not self.has_weights:
            return ""
        parts = [hash_file(self.weights_file()), *map(hash_file, self.data), *filter(None, [self.declared])]
        return parts[0] if len(parts) == 1 else hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def weights_file(self) -> Path:
        """The weight file on this machine.

        Raises:
            WeightsError: it is absent; the message says how to get it.
        """
        if self.weights is None:
            raise WeightsError(f"{self.model}: its weights are not on this machine; {self.how_to_get}")
        return self.weights
