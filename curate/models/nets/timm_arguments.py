"""The arguments that a timm architecture may be given: by a training config, and by the metadata of an export, which
anybody may have written.

`timm.create_model` passes on whatever it is given, and some of it makes timm load files, download or run code:
`checkpoint_path`, `pretrained_cfg`, names such as `hf-hub:OWNER/NAME`. So names and arguments come from closed lists.
Widths and depths have bounds, since a network is built before its weights are compared with it.
"""

import difflib
import re
from collections.abc import Callable, Mapping
from typing import Any

NAME = re.compile(r"[a-z][a-z0-9_]{0,99}")
"""A plain name of timm's registry: without a pretrained tag, a scheme or a path."""
WORD = re.compile(r"[A-Za-z0-9_]{0,40}")
MAX_STAGES = 16
"""Entries of an argument that has one for each stage of a network."""


def _each(accept: Callable[[Any], bool]) -> Callable[[Any], bool]:
    def accepts(value: Any) -> bool:
        if isinstance(value, list | tuple):
            return len(value) <= MAX_STAGES and all(accept(item) for item in value)
        return accept(value)

    return accepts


def _count(most: int) -> Callable[[Any], bool]:
    return _each(lambda value: type(value) is int and 0 <= value <= most)


def _number(most: float) -> Callable[[Any], bool]:
    return _each(lambda value: type(value) in (int, float) and -most <= value <= most)  # NaN is neither


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _word(value: Any) -> bool:
    return isinstance(value, str) and WORD.fullmatch(value) is not None


KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "img_size": (_count(4096), "pixels of 0 to 4096"),
    "patch_size window_size window_sizes global_pos_size pretrained_window_sizes": (
        _count(1024),
        "counts of 0 to 1024",
    ),
    "embed_dim embed_dims dims dim channels stem_width base_width head_hidden_size": (
        _count(16_384),
        "widths of 0 to 16384",
    ),
    "depth depths layers depth_token_only cls_attn_layers": (_count(128), "numbers of blocks of 0 to 128"),
    "num_heads head_dim num_kv_heads attn_pool_num_heads reg_tokens num_reg_tokens cardinality sr_ratios": (
        _count(1024),
        "counts of 0 to 1024",
    ),
    "kernel_sizes patch_kernel patch_stride patch_padding q_pool q_stride local_conv_size mask_unit_size "
    "repmixer_kernel_size focal_levels focal_windows block_reduce_first swiglu_align_to": (
        _count(256),
        "counts of 0 to 256",
    ),
    "in_chans": (_count(64), "numbers of channels of 0 to 64"),
    "output_stride": (lambda value: type(value) is int and value in (8, 16, 32), "8, 16 or 32"),
    "mlp_ratio mlp_ratios mlp_ratio_token_only attn_pool_mlp_ratio cls_ratio dim_mul head_mul mbconv_expand_ratio": (
        _number(64),
        "ratios of at most 64",
    ),
    "drop_path_rate drop_rate pos_drop_rate patch_drop_rate proj_drop_rate attn_drop_rate drop_block_rate": (
        _number(1),
        "shares of at most 1",
    ),
    "init_values ls_init_value layer_scale_init_value layer_scale_init_values layerscale_value res_scale_init_values "
    "head_init_scale norm_eps eta rope_temperature rope_grid_offset": (_number(1e6), "finite numbers"),
    "strict_img_size dynamic_img_size dynamic_img_pad class_token no_embed_class qkv_bias qkv_fused proj_bias mlp_bias "
    "qk_norm pre_norm final_norm fc_norm attn_only_layer_scale pool_include_prefix always_partition conv_mlp conv_bias "
    "use_grn linear head_norm_first swiglu_mlp scale_mlp scale_mlp_norm scale_attn_norm scale_attn_inner use_fc_norm "
    "use_abs_pos_emb use_rot_pos_emb use_pos_embed use_rel_pos_bias use_shared_rel_pos_bias use_post_norm use_mlp_head "
    "use_post_norm_in_modulation normalize_modulator use_overlap_down use_expand_proj use_pre_transformer_norm "
    "use_post_transformer_norm rope_rotate_half avg_down replace_stem_pool zero_init_last tokens_norm fix_init "
    "sep_pos_embed abs_win_pos_embed channel_attn_v2 cpe_act ffn mask_unit_attn downsamples": (
        _each(_flag),
        "true or false",
    ),
    "global_pool act_layer norm_layer norm_layer_cl embed_norm_layer aa_layer stem_type weight_init pos_embed "
    "rope_type rope_grid_indexing attn_type attn_types token_mixers": (_each(_word), "a plain word"),
}
"""Arguments of timm's architectures, what each may be, and that in words. null stands for timm's own value."""
ARGUMENTS = {name: kind for names, kind in KINDS.items() for name in names.split()}
MAX_BLOCKS = 512
"""Blocks of a network in all."""


def check_name(name: str) -> str:
    """The name itself.

    Raises:
        ValueError: it is more, or less, than a plain name of timm's registry.
    """
    if NAME.fullmatch(name) is None:
        raise ValueError("the plain name of a timm architecture is needed, such as convnext_tiny: a-z, 0-9 and _")
    return name


def check_arguments(arguments: Mapping[str, Any]) -> None:
    """Refuse what is not on the list.

    Raises:
        ValueError: an argument that a backbone may not be given, or a value that it may not have; the text says which.
    """
    for name, value in arguments.items():
        if name not in ARGUMENTS:
            near = difflib.get_close_matches(name, ARGUMENTS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "leave it out"
            raise ValueError(f"{name[:60]!r} is no argument that a backbone may be given; {hint}")
        accepts, wanted = ARGUMENTS[name]
        if value is not None and not accepts(value):
            raise ValueError(f"{name}: {wanted} may be given, found {repr(value)[:60]}")
    blocks = [arguments.get(name) or 0 for name in ("depth", "depths", "layers")]
    if sum(sum(one) if isinstance(one, list | tuple) else one for one in blocks) > MAX_BLOCKS:
        raise ValueError(f"more than {MAX_BLOCKS} blocks")
