"""Running a model on onnxruntime, lowered to what computes the same numbers there fastest.

Quantizers of activations with zero point 0 that round half to even become Clip, QuantizeLinear
and DequantizeLinear, whose kernels are onnxruntime's fastest: the Clip goes into the
convolution before it and takes a Relu's place, the others work on blocks of channels (see
:mod:`qonnx_hub.executor.onnxruntime.layout`). Every other quantizer becomes float operators,
quantized weights become their values. The numbers of the quantizers are those of the operator
documents; only a NaN becomes a number where integers are in between. Fusions that would change
how sums are rounded (a normalization or bias inside a convolution, integer kernels) are off.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir
from onnx_ir import Model, Node, Value

from qonnx_hub.executor.batch_axis import Batcher
from qonnx_hub.executor.kernels.spec import Array
from qonnx_hub.executor.onnxruntime.layout import quantize_in_blocks
from qonnx_hub.executor.tiles import cut_feeds, join_runs
from qonnx_hub.io.model_files import fits_one_message, in_one_message, write_model
from qonnx_hub_adapters.dependencies import require
from qonnx_hub_adapters.protocol import export_options
from qonnx_hub_adapters.qcdq import linear
from qonnx_hub_adapters.qcdq.exporter import QcdqExporter
from qonnx_hub_ir import dialect
from qonnx_hub_ir.errors import ExecutionError, SourceError, words_of
from qonnx_hub_ir.graph.builder import Emitter
from qonnx_hub_ir.quantizers import IntQuant, Rounding, is_bipolar

_CHANGE_SUMS = (
    "ConvAddFusion",
    "ConvBNFusion",
    "ConvMulFusion",
    "MatMulAddFusion",
    "MatMulScaleFusion",
    "MatMul_BatchNormalization_Fusion",
)
"""onnxruntime's names for fusions that round sums and products in another order."""


class OrtRuns:
    """A model made ready to run many times on onnxruntime.

    May be used from several threads.
    """

    def __init__(self, model: Model, threads: int | None) -> None:
        """Lower the model and make a session.

        Args:
            model: A verified IR model.
            threads: Threads of one run; onnxruntime's own choice by default.

        Raises:
            MissingDependencyError: onnxruntime is not installed.
            NotExactError: A quantizer that cannot be lowered.
            SourceError: onnxruntime does not load the model.
        """
        self._threads = threads
        self._outputs = [str(value.name) for value in model.graph.outputs]
        self._session = _load(lower_for_ort(model), threads)
        self._wide: Any = None

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return the outputs for inputs of the shapes that the model declares, by name.

        Raises:
            ExecutionError: onnxruntime fails while running.
        """
        return self._answers(self._session, feeds)

    def run_batches(
        self, feeds: Mapping[str, Array], step: int, batcher: Batcher
    ) -> dict[str, Array]:
        """Return the outputs for another number of samples, ``step`` of them at once.

        Where the graph is not known to keep samples apart, its own batches run one by one.

        Raises:
            UsageError: An output has no axis for samples.
            ExecutionError: onnxruntime fails while running.
        """
        wide = batcher.wide_model
        if wide is not None and self._wide is None:
            self._wide = _load(lower_for_ort(wide), self._threads)
        session = self._session if wide is None else self._wide
        size = batcher.file_batch if wide is None else step
        runs = [self._answers(session, piece) for piece in cut_feeds(feeds, size)]
        return join_runs(runs, batcher.file_batch)

    def _answers(self, session: Any, feeds: Mapping[str, Array]) -> dict[str, Array]:
        if problem := refused_feed(feeds):
            raise ExecutionError(problem)
        return answers_of(session, self._outputs, feeds)


def answers_of(
    session: Any, names: Sequence[str], feeds: Mapping[str, Array]
) -> dict[str, Array]:
    """Return outputs of a session of onnxruntime, by name.

    Raises:
        ExecutionError: It fails while running, or has no array for an output.
    """
    if problem := refused_output(session):
        raise ExecutionError(problem)
    kinds = {one.name: one.type for one in session.get_outputs()}
    try:
        results = session.run(names, dict(feeds))
    except Exception as error:  # the binding raises its own exception types
        raise ExecutionError(f"onnxruntime failed: {words_of(error)}") from error
    return {
        # Its only float8 that comes as an array comes as one of bytes.
        name: x.view(ml_dtypes.float8_e4m3fn) if kinds[name] == _FLOAT8_IN_BYTES else x
        for name, x in zip(names, results, strict=True)
    }


_FLOAT8_IN_BYTES = "tensor(float8e4m3fn)"

_NO_ARRAY = re.compile(
    r"tensor\((bfloat16|float8e4m3fnuz|float8e5m2\w*|float8e8m0|float4\w*|u?int[24])\)"
)


def refused_output(session: Any) -> str:
    """Return which output onnxruntime gives as no array, and why; empty where it gives all."""
    for one in session.get_outputs():
        if _NO_ARRAY.fullmatch(one.type):
            return f"output '{one.name}' is {one.type}, which onnxruntime gives as no array"
    return ""


_REGISTERED = 2
"""What ``isbuiltin`` is for types that are not numpy's own."""


def refused_feed(feeds: Mapping[str, Array]) -> str:
    """Return which input onnxruntime takes from no array, and why; empty where it takes all.

    Numpy alone has no type for 2 and 4 bits, bfloat16 and float8.
    """
    for name, x in feeds.items():
        if x.dtype.isbuiltin == _REGISTERED:
            return (
                f"input '{name}' holds {x.dtype.name}, which onnxruntime takes from no array"
            )
    return ""


def lower_for_ort(model: Model) -> Model:
    """Return a copy of the model in standard operators, for onnxruntime's float kernels.

    Raises:
        NotExactError: A quantizer that cannot be lowered.
    """
    copy = model.clone()
    for node in [node for node in copy.graph.all_nodes() if dialect.is_quantizer(node)]:
        _lower_activation(node)
    return QcdqExporter().export(copy, export_options(encoding="float")).model


def _lower_activation(node: Node) -> None:
    """Lower a quantizer that has a fast form; leave the others as they are."""
    quant, graph = dialect.read_quantizer(node), node.graph
    x = node.inputs[0]
    if not isinstance(quant, IntQuant) or not isinstance(graph, onnx_ir.Graph):
        return
    if (
        x is None
        or x.dtype != onnx_ir.DataType.FLOAT
        or dialect.constant_tensor(x) is not None
    ):
        return
    bounds = None if is_bipolar(quant) else linear.bounds_of(quant)
    grid = linear.grid_of(node, quant)
    if bounds is None or isinstance(grid, str) or np.any(grid.zero):
        return
    width = linear.width_for(*bounds, signed=quant.signed)
    if width != 8 or quant.rounding is not Rounding.ROUND:
        return
    if bounds[0] == 0 and (source := _before_relu(x)) is not None:
        node.replace_input_with(0, source)
    form = linear.Integers(width, quant.signed, clip_integers=False, bounds=bounds)
    emit = Emitter(node)
    emit.replace_with(linear.write_plain(emit, quant, grid, form))


def _before_relu(x: Value) -> Value | None:
    """Return what a Relu takes that only feeds ``x``; codes from 0 on clip as it does."""
    node = x.producer()
    if node is None or (node.domain, node.op_type) != ("", "Relu"):
        return None
    return node.inputs[0] if len(x.uses()) == 1 and not x.is_graph_output() else None


def _load(model: Model, threads: int | None) -> Any:
    ort = require("onnxruntime", needed_by="the backend 'ort'", extra="ort")
    try:
        with tempfile.TemporaryDirectory(prefix="qonnx_hub_") as name:
            folder = Path(name)
            if not fits_one_message(model):
                write_model(model, folder / "model.onnx", external=True)
                return _session(ort, str(folder / "model.onnx"), threads)
            message = in_one_message(model).SerializeToString()
            if not any(node.op_type == "Conv" for node in model.graph):
                return _session(ort, message, threads)
            return _with_blocks(ort, message, threads, folder / "optimized.onnx")
    except Exception as error:  # the binding raises its own exception types
        raise SourceError(f"onnxruntime does not load the model: {words_of(error)}") from error


def _with_blocks(ort: Any, message: bytes, threads: int | None, optimized: Path) -> Any:
    """Return a session in which quantizers between convolutions work on blocks of channels."""
    session = _session(ort, message, threads, optimized)
    model = onnx_ir.from_proto(onnx.load(optimized))
    if not quantize_in_blocks(model):
        return session
    # It is optimized already, and for this machine.
    level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return _session(ort, onnx_ir.to_proto(model).SerializeToString(), threads, level=level)


def _session(
    ort: Any,
    source: bytes | str,
    threads: int | None,
    save_as: Path | None = None,
    level: Any = None,
) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    if threads is not None:
        options.intra_op_num_threads = threads
    if save_as is not None:
        options.optimized_model_filepath = str(save_as)
    if level is not None:
        options.graph_optimization_level = level
    return ort.InferenceSession(
        source,
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=list(_CHANGE_SUMS),
    )
