"""Weights and configs of strangers: no code of theirs runs, no library takes their arguments, nothing is fetched."""

import io
import json
import pickle
import struct
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.hostile.case import Case, put_good, rng_of, run

FAILS = frozenset({1})
EXPORT = {"image_size": 64, "short_edge": 72}
VIT = {"dim": 64, "depth": 2, "heads": 2, "patch_size": 16, "image_size": 64}
Files = Mapping[str, bytes]


def marker() -> Path:
    """A file that only code of a stranger would make."""
    return Path(tempfile.gettempdir()) / "hostile-code-ran"


def _nothing_ran() -> bool:
    ran = marker().exists()
    marker().unlink(missing_ok=True)
    return not ran


def cases(seed: int) -> Iterator[Case]:
    """Each as the file that is exported, and the pickles as weights of a run too."""
    for name, files in _exports(seed).items():
        first = next(iter(files))
        # What is asked for: the file is named, or where it is one of a folder, its folder.
        yield Case(
            f"{name}: export", partial(_export, files, first), exits=FAILS, said=("hostile",), untouched=_nothing_ran
        )
    for name, files in _exports(seed).items():
        if name.startswith(("tower", "pickle", "metadata")):
            make = partial(_embed, files, next(iter(files)), seed)
            yield Case(f"{name}: embed", make, exits=FAILS, said=("hostile",), untouched=_nothing_ran)
    if find_spec("onnx") is not None:
        for name, files in _onnx_files(seed).items():
            make = partial(_embed_onnx, files, seed)
            yield Case(
                f"{name}: embed", make, exits=FAILS, said=("hostile.onnx",), untouched=_nothing_ran, secret="root:x:0:0"
            )


def config_cases(seed: int) -> Iterator[Case]:
    """Configs in YAML, of runs and of trainings."""
    for name, data in _configs(seed).items():
        for verb in ("run", "train"):
            make = partial(_config, verb, data)
            yield Case(f"{name}: {verb}", make, exits=FAILS, untouched=_nothing_ran)


def _put(files: Files, folder: Path) -> None:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def _export(files: Files, source: str, folder: Path) -> list[list[str]]:
    _put(files, folder)
    return [["export", str(folder / source), "--to", "safetensors", "--output", str(folder / "out.safetensors")]]


def _embed(files: Files, weights: str, seed: int, folder: Path) -> list[list[str]]:
    _put(files, folder)
    put_good(folder / "pool", seed)
    model = "curate" if weights.endswith(".safetensors") else "dinov2_vits14"
    embed = f"copies.embed={{model: {model}, weights: '{folder / weights}'}}"
    return [run(folder, folder / "pool", embed, "copies.threshold=0.9")]


def _embed_onnx(files: Files, seed: int, folder: Path) -> list[list[str]]:
    _put(files, folder)
    put_good(folder / "pool", seed)
    embed = f"copies.embed={{model: onnx, weights: '{folder / 'hostile.onnx'}'}}"
    return [run(folder, folder / "pool", embed, "copies.threshold=0.9")]


def _config(verb: str, data: bytes, folder: Path) -> list[list[str]]:
    (folder / "hostile.yaml").write_bytes(data)
    return [[verb, str(folder / "hostile.yaml")]]


# -- safetensors ----------------------------------------


def safetensors(header: Any, body: bytes = b"", *, length: int | None = None) -> bytes:
    """A file of any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def _described(described: Any) -> bytes:
    """An export that says this of itself, with one tensor."""
    text = described if isinstance(described, str) else json.dumps(described)
    return safetensors(
        {"__metadata__": {"curate": text}, "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)
    )


def _tower(name: str, **kwargs: Any) -> Files:
    described = {
        "tower": {"name": name, "kwargs": kwargs},
        "export": EXPORT,
        "timm": {"architecture": name, "kwargs": kwargs},
    }
    return {"hostile.safetensors": _described(described), "hostile-code.pth": _pickle()}


def _vit(**changes: Any) -> Files:
    return {
        "hostile.safetensors": _described(
            {"vit": VIT | changes, "export": EXPORT, "timm": {"architecture": "", "kwargs": {}}}
        )
    }


def _exports(seed: int) -> dict[str, Files]:
    found = _towers() | _vits()
    found |= {f"metadata {name}": {"hostile.safetensors": _described(text)} for name, text in _metadata().items()}
    found |= {f"safetensors {name}": {"hostile.safetensors": data} for name, data in _tensors(seed).items()}
    found |= {f"pickle {name}": {"hostile.pth": data} for name, data in _pickles(seed).items()}
    other = json.dumps({"curate": [1], "num_attention_heads": "x"}).encode()
    return found | {
        "folder with a config of garbage": _folder(b"\xff" * 1000),
        "folder with a config 10,000 deep": _folder(b"[" * 10_000),
        "folder with a config of other types": _folder(other),
    }


def _towers() -> dict[str, Files]:
    code = "hostile-code.pth"
    return {
        "tower with checkpoint_path": _tower("resnet18", checkpoint_path=code),
        "tower with a file": _tower("resnet18", pretrained=True, pretrained_cfg_overlay={"file": code}),
        "tower with a URL": _tower(
            "resnet18", pretrained=True, pretrained_cfg={"url": "http://127.0.0.2:9/hostile.pth"}
        ),
        "tower with a repository": _tower(
            "resnet18", pretrained=True, pretrained_cfg_overlay={"hf_hub_id": "hostile/hostile"}
        ),
        "tower that is pretrained": _tower("resnet18", pretrained=True),
        "tower of hf-hub:": _tower("hf-hub:hostile/hostile"),
        "tower of hf_hub:": _tower("hf_hub:hostile/hostile"),
        "tower of local-dir:": _tower("local-dir:/tmp/hostile"),
        "tower with scriptable code": _tower("resnet18", scriptable=True, exportable=True, no_jit=False),
        "tower with a layer by name": _tower("resnet18", norm_layer="os.system", act_layer="hostile"),
        "tower with a cache folder": _tower("resnet18", cache_dir="/tmp/hostile"),
        "tower of 10^9 dims": _tower("vit_small_patch16_224", embed_dim=10**9),
        "tower of 10^7 blocks": _tower("vit_small_patch16_224", depth=10**7),
        "tower of pictures of 10^6 pixels": _tower("vit_small_patch16_224", img_size=10**6),
        "tower of 10^9 channels": _tower("resnet18", in_chans=10**9),
        "tower of no name": _tower(""),
        "tower of a name of 1 MB": _tower("r" * (1 << 20)),
        "tower of an unknown name": _tower("hostile\x1b[2J"),
        "tower with settings of another type": {
            "hostile.safetensors": _described({"tower": {"name": "resnet18", "kwargs": [1]}, "export": EXPORT})
        },
    }


def _vits() -> dict[str, Files]:
    changed: dict[str, dict[str, Any]] = {
        "10^9 dims": {"dim": 10**9, "heads": 1},
        "10^9 blocks": {"depth": 10**9},
        "pictures of 10^9 pixels": {"image_size": 16 * 10**8},
        "10^9 registers": {"num_registers": 10**9},
        "10^9 channels": {"in_channels": 10**9},
        "0 heads": {"heads": 0},
        "NaN": {"layer_scale_init": float("nan")},
        "2^70 dims": {"dim": 2**70, "heads": 1},
        "text for a number": {"dim": "sixty-four"},
    }
    return {f"ViT of {name}": _vit(**changes) for name, changes in changed.items()}


def _metadata() -> dict[str, str]:
    return {
        "of garbage": "\x00\x01",
        "10,000 deep": "[" * 10_000 + "]" * 10_000,
        "that is a list": "[]",
        "that is a number": "7",
        "without a network": "{}",
        "of 4 MB": json.dumps({"x": "y" * (4 << 20)}),
        "with control characters": json.dumps({"\x1b[2J": 1, "vit": {"\x1b[2J": 1}, "export": EXPORT}),
    }


def _tensors(seed: int) -> dict[str, bytes]:
    one = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    return {
        "empty": b"",
        "of 7 bytes": b"\0" * 7,
        "of garbage": rng_of(seed, "safetensors").bytes(10_000),
        "with a header of 2^63": safetensors({}, length=2**63),
        "with a header of 2^64-1": safetensors({}, length=2**64 - 1),
        "with a header beyond its end": safetensors({}, length=1000),
        "with a header 10,000 deep": safetensors(b"[" * 10_000 + b"]" * 10_000),
        "with a header of no UTF-8": safetensors(b'{"\xff": 1}'),
        "with 50,000 tensors": safetensors(
            {f"t{n}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for n in range(50_000)}
        ),
        "with tensors that overlap": safetensors({"a": one, "b": one}, bytes(4)),
        "with a tensor outside": safetensors(
            {"a": {"dtype": "F32", "shape": [1], "data_offsets": [2**40, 2**40 + 4]}}, bytes(4)
        ),
        "with a tensor of 2^62 values": safetensors(
            {"a": {"dtype": "F32", "shape": [2**31, 2**31], "data_offsets": [0, 4]}}, bytes(4)
        ),
        "with an unknown type": safetensors({"a": {"dtype": "X9", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
        "with names of DINOv2 alone": safetensors(
            {
                "cls_token": one,
                "mask_token": {**one, "data_offsets": [4, 8]},
                "patch_embed.proj.weight": {**one, "data_offsets": [8, 12]},
            },
            bytes(12),
        ),
    }


def _folder(config: bytes) -> Files:
    data = safetensors({"cls_token": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, bytes(4))
    return {"hostile/model.safetensors": data, "hostile/config.json": config}


# -- pickles ----------------------------------------


class _Touches:
    """What a pickle of it does when it is loaded."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (marker(),)


def _pickle() -> bytes:
    return pickle.dumps({"state_dict": _Touches()})


def _zipped(data: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as packed:
        packed.writestr("archive/data.pkl", data)
        packed.writestr("archive/version", "3\n")
        packed.writestr("archive/byteorder", "little")
    return file.getvalue()


def _pickles(seed: int) -> dict[str, bytes]:
    system = b"cposix\nsystem\n(S'touch " + str(marker()).encode() + b"'\ntR."
    return {
        "that runs code": _pickle(),
        "that runs code, of torch": _zipped(_pickle()),
        "that runs a command": b"\x80\x02" + system,
        "that runs a command, of torch": _zipped(b"\x80\x02" + system),
        "of text": b"(lp0\n." * 1000,
        "of garbage": rng_of(seed, "pickle").bytes(10_000),
        "empty": b"",
        "that is a number": pickle.dumps(7),
        "of lists 10,000 deep": b"\x80\x02" + b"]" * 10_000 + b"a" * 9_999 + b".",
        "of 2^62 bytes": b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"x.",
        "of a zip bomb": _bomb(),
        "of a script": _zipped(b"\x80\x02}.") + b"constants.pkl",
    }


def _bomb() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("archive/data.pkl", bytes(64 << 20))
        packed.writestr("archive/version", "3\n")
    return file.getvalue()


# -- ONNX ----------------------------------------

DECLARED = {
    "input": {"name": "images", "layout": "nchw", "dtype": "float32", "channels": "rgb", "size": 8, "resize": "square",
              "interpolation": "bilinear", "range": [0, 1], "mean": [0, 0, 0], "std": [1, 1, 1]},
    "output": {"name": "out", "take": "vector", "dim": 192, "normalized": False},
    "license": "Apache-2.0",
}  # fmt: skip


def _onnx_files(seed: int) -> dict[str, Files]:
    from onnx import TensorProto, helper

    def model(
        *, location: str = "", domain: str = "", nodes: int = 1, dims: Any = 192, shape: tuple[int, ...] = (192,)
    ) -> bytes:
        images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, 8, 8])
        out = helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", dims])
        weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=shape)
        if location:
            weight.data_location = TensorProto.EXTERNAL
            weight.external_data.add(key="location", value=location)
            weight.external_data.add(key="length", value=str(4 * 192))
        else:
            weight.raw_data = bytes(4 * 192)
        chain = [helper.make_node("Flatten", ["images"], ["x0"], domain=domain)]
        chain += [helper.make_node("Add", [f"x{n}", "w"], [f"x{n + 1}"]) for n in range(nodes)]
        chain += [helper.make_node("Identity", [f"x{nodes}"], ["out"])]
        graph = helper.make_graph(chain, "hostile", [images], [out], [weight])
        opsets = [helper.make_opsetid("", 18), *([helper.make_opsetid(domain, 1)] if domain else [])]
        made: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
        return made

    declared = json.dumps(DECLARED).encode()
    graphs = {
        "graph with data of the system": model(location="/etc/passwd"),
        "graph with data by steps up": model(location="../../../../etc/passwd"),
        "graph with data that nobody declares": model(location="other.data"),
        "graph with data at a pipe": model(location="/dev/stdin"),
        "graph with operators of a library": model(domain="hostile"),
        "graph of other dims": model(dims=7),
        "graph with a tensor of 2^60 values": model(shape=(2**30, 2**30)),
        "graph with a tensor of negative shape": model(shape=(-192,)),
        "graph of garbage": rng_of(seed, "onnx").bytes(10_000),
        "graph of nothing": b"",
        "graph cut": model()[:200],
    }
    found: dict[str, Files] = {
        name: {"hostile.onnx": data, "hostile.onnx.yaml": declared} for name, data in graphs.items()
    }
    whole = model()
    declarations = {
        "with code": b"!!python/object/apply:os.system ['touch " + str(marker()).encode() + b"']\n",
        "of a billion laughs": _laughs(),
        "of 1 MB": declared + b" " * (1 << 20),
        "10,000 deep": b"[" * 10_000,
        "with data elsewhere": json.dumps({**DECLARED, "data": ["../../etc/passwd"]}).encode(),
        "with 10^9 pixels": json.dumps({**DECLARED, "input": {**DECLARED["input"], "size": 10**9}}).encode(),  # type: ignore[dict-item]
        "with NaN": declared.replace(b'"mean": [0,', b'"mean": [.nan,').replace(b'"normalized"', b'"normalised"'),
        "of nothing": b"",
        "of garbage": rng_of(seed, "declaration").bytes(5_000),
    }
    found |= {
        f"declaration {name}": {"hostile.onnx": whole, "hostile.onnx.yaml": data} for name, data in declarations.items()
    }
    return found


# -- configs ----------------------------------------


def _laughs() -> bytes:
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    return "\n".join(lines).encode()


def _configs(seed: int) -> dict[str, bytes]:
    touch = str(marker()).encode()
    return {
        "tag that runs a command": b"!!python/object/apply:os.system ['touch " + touch + b"']\n",
        "tag that makes an object": b"recipe: !!python/object/new:pathlib.Path ['/tmp']\n",
        "billion laughs": _laughs(),
        "10,000 lists in each other": b"a: " + b"[" * 10_000,
        "10,000 mappings in each other": b"a: " + b"{a: " * 10_000,
        "alias to itself": b"a: &a [*a]\n",
        "merge with itself": b"a: &a\n  <<: *a\n",
        "key twice": b"recipe: dedup\nrecipe: lvd142m\nhostile: 1\n",
        "garbage": rng_of(seed, "yaml").bytes(10_000),
        "zeros": bytes(1000),
        "list": b"[1, 2]\n",
        "number": b"7\n",
        "nothing": b"",
        "control characters": b'"\\x1b[2J": 1\nrecipe: "\\x1b]0;owned\\x07"\n',
        "line of 4 MB": b"recipe: " + b"x" * (4 << 20) + b"\n",
        "100,000 keys": b"".join(b"k%d: 1\n" % n for n in range(20_000)),
        "integer of 5,000 digits": b"seed: " + b"9" * 5_000 + b"\n",
        "dates of the year 99999": b"seed: 99999-99-99\nrecipe: 2001-13-45\n",
        "two documents": b"recipe: dedup\n---\nrecipe: dedup\n",
    }
