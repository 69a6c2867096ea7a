"""Calls with the shape of the ``qonnx`` package's removed converters."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import onnx_ir

from qonnx_hub.io.model_files import write_model
from qonnx_hub.passes import run
from qonnx_hub_adapters.protocol import ExportOptions, ImportOptions
from qonnx_hub_adapters.qkeras.importer import QkerasImporter
from qonnx_hub_adapters.qonnx.exporter import QonnxExporter
from qonnx_hub_ir.errors import UsageError
from qonnx_hub_ir.graph.queries import dims
from qonnx_hub_ir.passes import ChangeBatch, ChangeLayout

_OPSET = 15
"""What the old converter wrote without being asked."""


def from_keras(
    model: Any,
    name: str = "qkeras_to_qonnx_converted",
    input_signature: Sequence[Any] | None = None,
    opset: int | None = None,
    custom_ops: Any = None,
    custom_op_handlers: Any = None,
    custom_rewriter: Any = None,
    inputs_as_nchw: Sequence[str] | None = None,
    extra_opset: Any = None,
    shape_override: Any = None,
    target: Any = None,
    large_model: bool = False,
    output_path: str | os.PathLike[str] | None = None,
    *,
    custom_objects: Mapping[str, Any] | None = None,
    batch: int | None = 1,
) -> tuple[onnx.ModelProto, None]:
    """Return a Keras model as QONNX, in the shape of ``qonnx.converters.from_keras``.

    The parameters stand in the old order, so that positional calls keep working, and names
    are the old ones: ``global_in``, ``global_out``, ``Conv_0``, ``Conv_0_out0``. Where the
    old converter dropped a quantizer in silence, this one converts it or raises.

    Args:
        model: A live Keras model, with or without QKeras layers. It is not changed.
        name: Name of the graph.
        input_signature: A TensorSpec (or array) per input: fixes axes the model leaves open.
        opset: Standard opset, from 9 on; 15 by default, as before.
        custom_ops: Must be empty, as the other arguments that steered tf2onnx.
        custom_op_handlers: Must be empty.
        custom_rewriter: Must be empty.
        inputs_as_nchw: Names of inputs to take channels first, as Keras calls them.
        extra_opset: Must be empty.
        shape_override: Must be empty.
        target: Must be empty.
        large_model: Must be false.
        output_path: File to write as well.
        custom_objects: Name -> class of the user's own layers.
        batch: Samples that the model takes at once where the signature leaves that open;
            ``None`` leaves it open.

    Returns:
        The model, and ``None`` in the place of tf2onnx' external tensor storage.

    Raises:
        UsageError: An argument without effect here, or a signature that does not fit.
        SourceError: The model cannot be traced or converted.
        UnsupportedGraphError: Quantizers without an exact form; all of them are listed.
        NotExactError: The opset cannot say the model; every node is listed.
    """
    # Arguments that changed how tf2onnx works, and why they are refused.
    for argument, value, why in (
        ("custom_ops", custom_ops, "operators are not tagged with domains of your own"),
        ("custom_op_handlers", custom_op_handlers, "handlers of tf2onnx are not called"),
        ("custom_rewriter", custom_rewriter, "rewriters of tf2onnx are not called"),
        ("extra_opset", extra_opset, "the file imports what it uses"),
        ("shape_override", shape_override, "shapes are those of the model"),
        ("target", target, "there are no workarounds for single targets"),
        ("large_model", large_model, "weights beyond 2 GiB are written beside the file"),
    ):
        if value:
            raise UsageError(f"from_keras: '{argument}' is refused: {why}")
    ir = QkerasImporter().load(model, ImportOptions(custom_objects=custom_objects or {}))
    _fix_inputs(ir, input_signature)
    if batch is not None and all(
        (sizes := dims(value)) and not isinstance(sizes[0], int) for value in ir.graph.inputs
    ):
        ChangeBatch(batch)(ir)
    if inputs_as_nchw:
        ChangeLayout("nchw", inputs=tuple(inputs_as_nchw), outputs=())(ir)
    run(ir, ["cleanup", "unique_parameters", "sort_by_depth", "give_names:scheme=qonnx"])
    ir.graph.name = name
    artifact = QonnxExporter().export(ir, ExportOptions(opset=opset or _OPSET))
    proto = onnx_ir.to_proto(artifact.model)
    _describe_constants(proto)
    if output_path is not None:
        write_model(artifact.model, Path(output_path), message=proto)
    return proto, None


def _describe_constants(proto: onnx.ModelProto) -> None:
    """Write down type and shape of every constant, as the old converter did."""
    known = {one.name for one in (*proto.graph.value_info, *proto.graph.input)}
    for held in proto.graph.initializer:
        if held.name not in known:
            info = onnx.helper.make_tensor_value_info(held.name, held.data_type, held.dims)
            proto.graph.value_info.append(info)


def _fix_inputs(model: onnx_ir.Model, signature: Sequence[Any] | None) -> None:
    if signature is None:
        return
    specs = [signature] if hasattr(signature, "shape") else list(signature)
    inputs = list(model.graph.inputs)
    if len(specs) != len(inputs):
        raise UsageError(
            f"from_keras: the signature has {len(specs)} inputs, the model {len(inputs)}"
        )
    for value, spec in zip(inputs, specs, strict=True):
        given = [None if dim is None else int(dim) for dim in tuple(spec.shape)]
        own = [] if value.shape is None else list(value.shape)
        wanted = [a if b is None else b for a, b in zip(own, given, strict=False)]
        pairs = zip(own, wanted, strict=False)
        if len(own) != len(given) or any(isinstance(a, int) and a != b for a, b in pairs):
            raise UsageError(
                f"from_keras: input '{value.name}' has shape {own}, the signature says {given}"
            )
        value.shape = onnx_ir.Shape(wanted)


__all__ = ["from_keras"]
