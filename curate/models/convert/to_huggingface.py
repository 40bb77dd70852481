"""A folder that `transformers.AutoModel.from_pretrained` loads: a `Dinov2Model`, a `Dinov2WithRegistersModel`, a
`DINOv3ViTModel`, or, of a ConvNeXt, a `DINOv3ConvNextModel`.

Tensors have the names of the released checkpoints, which every version of transformers reads. Outputs of DINOv3 are
equal at every size, those of DINOv2 at the image size of the config. At other sizes transformers resamples DINOv2's
positions to the wanted grid: outputs are equal with registers, and differ a little without, since the released models
without registers add 0.1 to the side of the grid and transformers does not.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from curate.errors import MissingExtra, WeightsError
from curate.models.convert.source import LoadedBackbone, named_convnext, need_vit
from curate.models.convert.target import Forward, Options, Target, Tokens
from curate.models.files import convnext_names, dinov3_names, formats
from curate.models.files.description import KEY
from curate.models.files.export import weights_of
from curate.models.files.header import ExportInfo, describe_export, without_local_norm
from curate.models.nets.config import Architecture, ViTConfig
from curate.models.nets.rotary import BASE
from curate.models.nets.trained import Trained, inner

NAME = "transformers"
RESAMPLE = {"bilinear": 2, "bicubic": 3, "lanczos": 1}
"""Pillow's numbers of interpolations, which transformers takes."""


def write_huggingface(source: LoadedBackbone, path: Path, options: Options) -> None:
    """Write config.json, model.safetensors, preprocessor_config.json and a model card."""
    del options
    if named_convnext(source) is not None:
        config: Architecture = source.network.config
        model, state = _convnext_config(source.network), convnext_names.to_huggingface(weights_of(source.network))
    else:
        vit = need_vit(source, NAME)
        config, model = without_local_norm(vit.config), model_config(vit.config)
        if vit.config.positions == "rotary":
            dinov3_names.check_key_biases(vit.state_dict(), where=source.name)
        state = (dinov3_names if vit.config.positions == "rotary" else formats).to_huggingface(vit.state_dict())
    path.mkdir()
    _write_json(path / "config.json", model | {KEY: describe_export(config, source.info)})
    _write_json(path / "preprocessor_config.json", preprocessor(source.info))
    (path / "README.md").write_text(model_card(config, source.info), encoding="utf-8")
    state = {key: value.contiguous() for key, value in state.items()}
    save_file(state, path / "model.safetensors", metadata={"format": "pt"})


def _convnext_config(network: Trained) -> dict[str, Any]:
    """Fields of `DINOv3ConvNextConfig`."""
    net = inner(network)
    return {
        "architectures": ["DINOv3ConvNextModel"],
        "model_type": "dinov3_convnext",
        "hidden_sizes": [stage["num_chs"] for stage in net.feature_info],
        "depths": [len(stage.blocks) for stage in net.stages],
        "hidden_act": "gelu",
        "layer_norm_eps": net.head.norm.eps,
        "drop_path_rate": 0.0,
        "num_channels": 3,
        "torch_dtype": "float32",
    }


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def model_config(config: ViTConfig) -> dict[str, Any]:
    """Fields of `Dinov2Config` or `DINOv3ViTConfig`."""
    return _dinov3_config(config) if config.positions == "rotary" else _dinov2_config(config)


def _dinov3_config(config: ViTConfig) -> dict[str, Any]:
    gated, biased = config.ffn == "swiglu", config.qkv_bias != "none"
    return {
        "architectures": ["DINOv3ViTModel"],
        "model_type": "dinov3_vit",
        "hidden_size": config.dim,
        "intermediate_size": config.hidden,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.heads,
        "num_register_tokens": config.num_registers,
        "use_gated_mlp": gated,
        "hidden_act": "silu" if gated else "gelu",
        "query_bias": biased,
        "key_bias": False,
        "value_bias": biased,
        "layer_norm_eps": config.norm_eps,
        "rope_theta": BASE,
        "image_size": config.image_size,
        "patch_size": config.patch_size,
        "num_channels": config.in_channels,
        "layerscale_value": config.layer_scale_init,
        "pos_embed_rescale": config.rope_rescale,
        "pos_embed_jitter": config.rope_jitter,
        "pos_embed_shift": config.rope_shift,
        "drop_path_rate": 0.0,
        "torch_dtype": "float32",
    }


def _dinov2_config(config: ViTConfig) -> dict[str, Any]:
    """From `mlp_ratio` it derives the width of the feed-forward layer as we do."""
    values: dict[str, Any] = {
        "architectures": ["Dinov2Model"],
        "model_type": "dinov2",
        "hidden_size": config.dim,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.heads,
        "mlp_ratio": 4,
        "hidden_act": "gelu",
        "layer_norm_eps": config.norm_eps,
        "image_size": config.image_size,
        "patch_size": config.patch_size,
        "num_channels": config.in_channels,
        "qkv_bias": config.qkv_bias != "none",
        "layerscale_value": config.layer_scale_init,
        "drop_path_rate": 0.0,
        "use_swiglu_ffn": config.ffn == "swiglu",
        "torch_dtype": "float32",
    }
    if config.num_registers:
        values |= {"architectures": ["Dinov2WithRegistersModel"], "model_type": "dinov2_with_registers"}
        values["num_register_tokens"] = config.num_registers
    return values


def preprocessor(info: ExportInfo) -> dict[str, Any]:
    """Fields of `BitImageProcessor`, which the released models name."""
    side, squeezed = info.image_size, info.resize == "square"
    return {
        "image_processor_type": "BitImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"height": side, "width": side} if squeezed else {"shortest_edge": info.short_edge},
        "resample": RESAMPLE[info.interpolation],
        "do_center_crop": not squeezed,
        "crop_size": {"height": side, "width": side},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(info.mean),
        "image_std": list(info.std),
    }


def model_card(config: Architecture, info: ExportInfo) -> str:
    """The page that the hub shows: license, provenance, and how to load the folder."""
    tags = "---\nlibrary_name: transformers\npipeline_tag: image-feature-extraction\n---\n"
    if isinstance(config, ViTConfig):
        family = "DINOv3" if config.positions == "rotary" else "DINOv2"
        kind = f"{family} ViT, {config.dim} dims, {config.depth} blocks, patches of {config.patch_size} px"
    else:
        kind = f"ConvNeXt ({config.name}), {config.dim} dims"
    size = config.image_size if isinstance(config, ViTConfig) else info.image_size
    provenance = json.dumps(info.provenance, indent=2, sort_keys=True)
    return f"""{tags}
# {kind}

License: {info.license}

```python
from transformers import AutoImageProcessor, AutoModel

processor, model = AutoImageProcessor.from_pretrained(FOLDER), AutoModel.from_pretrained(FOLDER)
features = model(**processor(images, return_tensors="pt")).pooler_output  # (B, {config.dim}), one vector an image
```

Outputs equal those of the trained model at {size} px. Provenance:

```json
{provenance}
```
"""


def read_huggingface(source: LoadedBackbone, path: Path) -> Forward:
    """Load with `AutoModel.from_pretrained`, and see that every tensor found its place.

    Raises:
        MissingExtra: transformers is not installed.
        WeightsError: transformers finds names missing or unknown.
    """
    try:
        from transformers import AutoModel
    except ImportError as error:
        raise MissingExtra("transformers", "huggingface") from error
    model, report = AutoModel.from_pretrained(path, local_files_only=True, output_loading_info=True)
    wrong = {what: sorted(map(str, names)) for what, names in report.items() if names}
    if wrong:
        raise WeightsError(f"{source.name}: names that transformers does not agree with: {wrong}; nothing was written")
    model.eval()
    own = source.network.config
    first = 1 + (own.num_registers if isinstance(own, ViTConfig) else 0)

    def embed(images: torch.Tensor) -> Tokens:
        found = model(pixel_values=images)
        return Tokens(found.pooler_output, found.last_hidden_state[:, first:])

    return embed


def huggingface_howto(source: LoadedBackbone, path: Path) -> str:
    """The call that loads the folder."""
    del source
    return f'transformers.AutoModel.from_pretrained("{path}").eval()'


HUGGINGFACE = Target(
    suffix="", write=write_huggingface, read=read_huggingface, howto=huggingface_howto, takes_token_size=False
)
