"""What :mod:`benchmarks.records` asks about: models, forms, pairs, faults and passes."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from benchmarks import nets

TARGETS = ("hls4ml", "finn", "ort", "qonnx")
CONVENTIONS = ("true", "qonnx", "paper")
FORMS: Mapping[str, Mapping[str, Any]] = {
    "qonnx": {"to": "qonnx"},
    "qonnx-self-contained": {"to": "qonnx", "self_contained": True},
    "qonnx-finn": {"to": "qonnx", "profile": "finn"},
    "qcdq": {"to": "qcdq"},
    "qlinear": {"to": "qlinear"},
    "hls4ml": {"to": "hls4ml"},
}
OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "qcdq encoding=qcdq": {"to": "qcdq", "encoding": "qcdq"},
    "qcdq encoding=qdq": {"to": "qcdq", "encoding": "qdq"},
    "qcdq encoding=float": {"to": "qcdq", "encoding": "float"},
    "qcdq encoding=unknown": {"to": "qcdq", "encoding": "none"},
    "qcdq opset=13": {"to": "qcdq", "opset": 13},
    "qcdq opset=21": {"to": "qcdq", "opset": 21},
    "qcdq layout=nhwc": {"to": "qcdq", "layout": "nhwc"},
    "qonnx layout=nchw": {"to": "qonnx", "layout": "nchw"},
    "qonnx opset=21": {"to": "qonnx", "opset": 21},
    "qlinear dialect=ort": {"to": "qlinear", "dialect": "ort"},
    "qlinear opset=21": {"to": "qlinear", "opset": 21},
    "hls4ml stream": {
        "to": "hls4ml",
        "target_options": {"io_type": "io_stream", "strategy": "Resource", "reuse_factor": 4},
    },
    "hls4ml oneAPI": {"to": "hls4ml", "target_options": {"backend": "oneAPI"}},
    "unknown form": {"to": "none"},
}
PAIRS: Mapping[str, tuple[str, ...]] = {
    "zoo/TFC_2W2A": ("qcdq", "qlinear", "qonnx-self-contained", "qonnx-finn"),
    "zoo/qkeras_jettagging": ("qonnx", "qcdq", "qlinear", "hls4ml", "qonnx-finn"),
    "hls4ml_examples/bnn_model_fc_1layer": ("qcdq", "qlinear", "hls4ml"),
    "brevitas/t_shared_act_quant_residual__qonnx_ts": ("qcdq", "qlinear"),
    "zoo/TFC_1W1A": ("qonnx", "qcdq", "hls4ml"),
    "zoo/kwsmlp_w3a3": ("qcdq", "qlinear", "qonnx-finn"),
    "hls4ml_examples/branched_model_ch_last": ("qcdq",),
    "hls4ml_examples/separable_conv_model_ch_last": ("qlinear",),
    "qonnx_data/residual_block_clean": ("qonnx", "qcdq"),
    "qonnx_data/espcn_nn_resize_quant": ("qcdq", "qlinear"),
    "qonnx_data/floatquant_fp8": ("qonnx-self-contained", "qcdq"),
    "qonnx_data/eltwise_chanlast_testcase": ("qcdq",),
    "dialects/deeploy_quant": ("qonnx", "qlinear"),
    "dialects/deepquant_transformer": ("qcdq",),
    "brevitas/linear_w4_asym_perch__qonnx_ts": ("qcdq",),
    "brevitas/trunc_avgpool_b4__qonnx_dyn": ("qcdq",),
    "brevitas/hardswish_i4__qonnx_ts": ("qlinear",),
    "brevitas/linear_w16__qonnx_dyn": ("qlinear",),
    "brevitas/relu_u16__qonnx_ts": ("qcdq",),
    "brevitas/sigmoid_u8__qonnx_ts": ("hls4ml",),
    "nets/resnet8": ("qcdq", "qlinear", "hls4ml"),
}
QUICK_PAIRS = 4
"""How many models of :data:`PAIRS` a quick run takes."""
FAULTY = (
    "zoo/TFC_2W2A",
    "zoo/qkeras_jettagging",
    "brevitas/t_shared_act_quant_residual__qonnx_ts",
    "zoo/kwsmlp_w3a3",
    "nets/resnet8",
)
TRANSFORMED = (
    "zoo/qkeras_jettagging",
    "brevitas/t_shared_act_quant_residual__qonnx_ts",
    "zoo/TFC_2W2A",
    "qonnx_data/residual_block_clean",
    "hls4ml_examples/separable_conv_model_ch_last",
    "nets/resnet8",
)
QUICK_OF_EACH = 2
QUICK_STRIDE = 7
STEPS: Mapping[str, tuple[str, ...]] = {
    "change_batch": ("change_batch:batch=4", "change_batch:batch=N"),
    "change_layout": ("change_layout:layout=nchw", "change_layout:layout=nhwc"),
    "fold_batchnorm": ("fold_batchnorm", "fold_batchnorm:weights=true"),
    "fold_quantized_constants": (
        "fold_quantized_constants",
        "fold_quantized_constants:form=floats",
    ),
    "prune_channels": (
        "prune_channels:masks={layer}=@{mask}",
        "prune_channels:masks=none=[1]",
    ),
    "quantize_fixed_point": ("quantize_fixed_point", "quantize_fixed_point:rounding=FLOOR"),
    "raise_opset": ("raise_opset:opset=21",),
    "rename_tensors": ("rename_tensors:names={input}=renamed",),
    "streamline": ("streamline", "streamline:exact=true"),
}
"""Pass -> the texts that ask for it; any other pass is asked for by its name alone."""
PIPELINES = ("cleanup", "thresholds", "no_such_pass")


@dataclass(frozen=True, slots=True)
class Source:
    """A model to ask about: its name in the records, its file, how it is loaded."""

    name: str
    path: str
    options: Mapping[str, Any] = field(default_factory=dict)


def sources(shared: Path, folder: Path, quick: bool) -> Iterator[Source]:
    """Yield every model, in a fixed order; a quick run takes a part of the corpora."""
    named = {*PAIRS, *FAULTY, *TRANSFORMED}
    for path in sorted((shared / "models").rglob("*.onnx")):
        yield Source(f"{path.parent.name}/{path.stem}", str(path))
    for number, path in enumerate(sorted((shared / "corpus").rglob("*.onnx"))):
        name = "/".join(path.relative_to(shared / "corpus").parts[:-1])
        if not quick or number % QUICK_STRIDE == 0 or name in named:
            yield Source(name, str(path))
    if all(importlib.util.find_spec(name) for name in ("qkeras", "tf2onnx")):
        yield from _keras_sources(shared / "models")
    built = {
        "tfc_w1a1": nets.tfc(1, 1),
        "resnet8": nets.resnet8(),
        "unet": nets.unet(8, 16),
        "mobilenet_v1": nets.mobilenet_v1(0.25, 64),
        "cnv_w2a2": nets.cnv(2, 2),
    }
    for name in ("resnet8", "unet") if quick else built:
        path = folder / f"{name}.onnx"
        onnx.save(built[name], path)
        yield Source(f"nets/{name}", str(path))


def _keras_sources(models: Path) -> Iterator[Source]:
    for path in sorted(models.rglob("*")):
        weights = path.with_name(f"{path.stem}_weights.h5")
        name = f"{path.parent.name}/{path.name}"
        if path.suffix == ".json" and weights.exists():
            yield Source(name, str(path), {"weights": str(weights)})
        elif path.suffix == ".keras" or (
            path.suffix == ".h5" and not path.stem.endswith("_weights")
        ):
            yield Source(name, str(path))


def random_feeds(model: Any, seed: int = 0) -> dict[str, Any]:
    """Return inputs for an IR model; symbols in shapes become 2."""
    random = np.random.default_rng(seed)
    feeds: dict[str, Any] = {}
    for value in model.graph.inputs:
        shape = [d if isinstance(d, int) else 2 for d in value.shape]
        dtype = np.dtype(value.dtype.numpy())
        low, high = (-2.0, 2.0) if dtype.kind == "f" else (0, 5)
        feeds[value.name] = np.asarray(random.uniform(low, high, shape)).astype(dtype)
    return feeds


def faults(model: onnx.ModelProto) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Yield copies of a model with one fault each, in the middle of its quantizers."""
    quants = [i for i, node in enumerate(model.graph.node) if node.op_type == "Quant"]
    stored = {tensor.name for tensor in model.graph.initializer}
    is_weight = [model.graph.node[i].input[0] in stored for i in quants]
    weights = [i for i, known in zip(quants, is_weight, strict=True) if known]
    inner = [i for i, known in zip(quants, is_weight, strict=True) if not known]
    for kind, places in (("weight", weights), ("activation", inner)):
        if not places:
            continue
        place = places[len(places) // 2]
        for name, value in (("rounding_mode", "FLOOR"), ("narrow", None), ("signed", None)):
            yield f"{kind} {name}", _with_attribute(model, place, name, value)
        yield f"{kind} scale", _with_operand(model, place, 1, lambda x: x * np.float32(2))
        yield f"{kind} zero point", _with_operand(model, place, 2, lambda x: x + 1)
        yield f"{kind} bits", _with_operand(model, place, 3, lambda x: x - 1)
        if kind == "weight":
            yield "weight value", _with_operand(model, place, 0, lambda x: x[::-1])
    for number, node in enumerate(model.graph.node):
        if node.op_type == "Relu":
            changed = onnx.ModelProto.FromString(model.SerializeToString())
            changed.graph.node[number].op_type = "Identity"
            yield "no Relu", changed
            return


def _with_attribute(
    model: onnx.ModelProto, place: int, name: str, value: str | None
) -> onnx.ModelProto:
    changed = onnx.ModelProto.FromString(model.SerializeToString())
    for attribute in changed.graph.node[place].attribute:
        if attribute.name == name and value is None:
            attribute.i = 1 - attribute.i
        elif attribute.name == name:
            attribute.s = str(value).encode()
    return changed


def _with_operand(
    model: onnx.ModelProto, place: int, operand: int, change: Callable[[Any], Any]
) -> onnx.ModelProto:
    changed = onnx.ModelProto.FromString(model.SerializeToString())
    node = changed.graph.node[place]
    for tensor in changed.graph.initializer:
        if tensor.name == node.input[operand]:
            array = numpy_helper.to_array(tensor)
            name = f"{tensor.name}_changed"
            other = np.ascontiguousarray(change(array), dtype=array.dtype)
            changed.graph.initializer.append(numpy_helper.from_array(other, name))
            node.input[operand] = name
            break
    return changed
