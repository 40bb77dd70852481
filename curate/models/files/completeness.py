"""Whether a library has put every tensor of a weight file into the model that it loaded.

timm and open_clip rename and rearrange foreign weights on the way, each architecture in its own way, and leave out what
the model has no place for: a DINOv3 with biases becomes one without, and says nothing. What they do cannot be asked. So
the model is compared with the file afterwards: where both hold as many values and the model was filled strictly,
nothing is lost; else each tensor of the file must be found in the model, by its name or by its values.
"""

import logging
import re
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from curate.errors import WeightsError
from curate.models.files.state_dict import abridged

logger = logging.getLogger(__name__)

IN_TRAINING = re.compile(
    r"(.*\.)?(mask_token|bias_mask|periods|num_batches_tracked|relative_position_index|attn_mask|position_ids|"
    r"logit_scale|logit_bias|local_cls_norm\.(weight|bias))"
)
"""Names of tensors that only a training reads, or that are computed from the architecture."""


def check_complete(state: Mapping[str, Tensor], loaded: Mapping[str, Tensor], *, where: str, hint: str = "") -> None:
    """Refuse a model that was loaded from `state` and holds less than it; what only a training reads is told of.

    Args:
        loaded: the state of the model.
        hint: what may help, for the message.

    Raises:
        WeightsError: values are lost; the message lists their tensors.
    """
    needed = {name: value for name, value in state.items() if not IN_TRAINING.fullmatch(name)}
    unread = sorted(state.keys() - needed.keys() - loaded.keys())
    if unread:
        logger.info("%s: left out, since only a training reads them: %s", where, abridged(unread))
    lost = find_lost(needed, loaded)
    if lost:
        raise WeightsError(
            f"{where}: the model has no place for {len(lost)} tensors of the file: {abridged(lost)}; "
            f"{hint or 'choose the architecture that the file was made for'}"
        )


def find_lost(state: Mapping[str, Tensor], loaded: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors of `state` whose values `loaded` does not hold.

    A tensor counts as held if one of the same name is there (the library may have resampled it), if it is all zeros, or
    if its values are those of a tensor, in any order, or of parts of tensors along the first axis.
    """
    if _count(state) == _count({name: value for name, value in loaded.items() if not IN_TRAINING.fullmatch(name)}):
        return []
    held = _Held(loaded)
    return sorted(name for name, value in state.items() if name not in loaded and value.any() and not held.holds(value))


def _count(state: Mapping[str, Tensor]) -> int:
    return sum(value.numel() for value in state.values())


class _Held:
    """The values of a model: of tensors, and of equal parts of them such as queries, keys and values."""

    def __init__(self, loaded: Mapping[str, Tensor]) -> None:
        self.marks = {mark for value in loaded.values() for part in _parts(value) for mark in [_mark(part)]}

    def holds(self, value: Tensor) -> bool:
        """Whether the values are those of a tensor or a part, or the parts of `value` are, each or all but zeros."""
        if _mark(value) in self.marks:
            return True
        splits = (value.chunk(count) for count in (2, 3) if value.ndim and value.shape[0] % count == 0)
        return any(all(not part.any() or _mark(part) in self.marks for part in parts) for parts in splits)


def _parts(value: Tensor) -> Iterator[Tensor]:
    yield value
    for count in (2, 3):
        if value.ndim and value.shape[0] % count == 0:
            yield from value.chunk(count)


def _mark(value: Tensor) -> tuple[int, float, float]:
    """What stays the same when values are transposed or reshaped: how many there are, their sum and largest size."""
    ordered = value.detach().flatten().to(torch.float64).sort().values
    return len(ordered), float(ordered.sum()), float(ordered.abs().max()) if len(ordered) else 0.0
