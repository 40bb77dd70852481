"""A frozen model that turns preprocessed pictures into unit vectors."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curate.errors import ConfigError, WeightsError
from curate.models.device import Precision, autocast
from curate.models.info import ModelInfo
from curate.models.nets.intermediate import BlockOutputs, block_outputs
from curate.models.placement import is_convnet, send
from curate.ops.images.preprocess import Preprocess

CPU_CHUNK = 8
"""Pictures that a CPU embeds at once, however large the batch: the activations then stay near the caches."""
CPU_CHUNK_CONVNET = 4
"""The same for convolutions, whose first layers have the largest activations by far: as fast, at half of the memory."""


@dataclass
class Backbone:
    """A frozen embedder; `load_backbone` makes one."""

    info: ModelInfo
    module: nn.Module
    """The network, from (B, 3, S, S) normalized float to (B, D)."""
    device: torch.device
    """Where the network is and runs."""
    precision: Precision
    """Of the forward pass."""
    encode_text: Callable[[list[str]], Tensor] | None = None
    """From texts to (B, D), for models with a text side."""
    channels_last: bool = field(init=False)
    """Whether batches are laid out channels last, which convolutions run fastest with."""

    def __post_init__(self) -> None:
        self.channels_last = is_convnet(self.module)
        self._blocks: BlockOutputs | None = block_outputs(self.module)
        how = self.info.preprocess
        # (x / 255 - mean) / std as one product and one sum
        std = torch.tensor(how.std).view(1, 3, 1, 1)
        self._scale = (1 / (255 * std)).to(self.device)
        self._shift = (-torch.tensor(how.mean).view(1, 3, 1, 1) / std).to(self.device)

    @property
    def model(self) -> str:
        """Id of the model."""
        return self.info.model

    @property
    def dim(self) -> int:
        """Length of its vectors."""
        return self.info.dim

    @property
    def license(self) -> str:
        """License of its weights."""
        return self.info.license

    @property
    def preprocess(self) -> Preprocess:
        """How pictures are resized and normalized for it."""
        return self.info.preprocess

    @property
    def weights_hash(self) -> str:
        """See `ModelInfo.weights_hash`."""
        return self.info.weights_hash

    @torch.inference_mode()
    def embed(self, pixels: Tensor) -> Tensor:
        """Unit vectors of preprocessed pictures.

        Args:
            pixels: (B, 3, S, S) uint8 on the CPU, as `preprocess` makes them.

        Returns:
            (B, D) float32 on the CPU, unit L2.

        Raises:
            WeightsError: the weights give vectors of another length than described.
        """
        return self._in_chunks(pixels, lambda images: self._finish(self.module(images)))

    @torch.inference_mode()
    def embed_blocks(self, pixels: Tensor, *, last: int) -> Tensor:
        """Features for a linear classifier: tokens of several blocks, not normalized.

        Args:
            pixels: as in `embed`.
            last: number of blocks of a ViT, counted from its end; fewer where it has fewer.

        Returns:
            (B, V, D) float32 on the CPU. For a ViT whose output is its cls token: the cls tokens of its last V - 1
            blocks, the final one's last, then the mean of the final block's patches. For any other model: its output,
            with V = 1.

        Raises:
            WeightsError: as in `embed`.
        """
        return self._in_chunks(pixels, lambda images: self._read_blocks(images, last))

    def _in_chunks(self, pixels: Tensor, forward: Callable[[Tensor], Tensor]) -> Tensor:
        if self.device.type == "cpu":
            chunk_size = CPU_CHUNK_CONVNET if self.channels_last else CPU_CHUNK
            return torch.cat([self._forward(chunk, forward) for chunk in pixels.split(chunk_size)])
        return self._forward(pixels, forward)

    def _forward(self, pixels: Tensor, forward: Callable[[Tensor], Tensor]) -> Tensor:
        batch = send(pixels, self.device, channels_last=self.channels_last)
        normalized = batch.float().mul_(self._scale).add_(self._shift)
        with autocast(self.device, self.precision):
            return forward(normalized)

    def _read_blocks(self, images: Tensor, last: int) -> Tensor:
        if self._blocks is None:
            return self._checked(self.module(images)).float().unsqueeze(1).cpu()
        found = self._blocks(images, last)
        tokens = [*(features.cls for features in found), found[-1].patches.float().mean(dim=1)]
        return torch.stack([self._checked(token).float() for token in tokens], dim=1).cpu()

    @torch.inference_mode()
    def embed_text(self, texts: list[str]) -> Tensor:
        """Unit vectors (B, D) of texts, float32 on the CPU, comparable with those of pictures.

        Raises:
            ConfigError: the model has no text side.
        """
        if self.encode_text is None:
            raise ConfigError(f"{self.model}: has no text side; use an open_clip model")
        with autocast(self.device, self.precision):
            features = self.encode_text(texts)
        return self._finish(features)

    def _finish(self, features: Tensor) -> Tensor:
        return F.normalize(self._checked(features).float(), dim=1).cpu()

    def _checked(self, features: Tensor) -> Tensor:
        if features.ndim != 2 or features.shape[1] != self.dim:
            raise WeightsError(
                f"{self.model}: these weights give features of shape {tuple(features.shape)}, "
                f"(images, {self.dim}) is needed; are they another model's?"
            )
        return features
