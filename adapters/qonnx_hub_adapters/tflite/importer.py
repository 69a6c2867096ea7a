"""Reads TFLite: float layers between quantizers, and the codes themselves where it is run."""

from __future__ import annotations

from pathlib import Path

import onnx_ir
from onnx_ir import Model

from qonnx_hub_adapters.protocol import Feeds, ImportOptions, LayerDistances, Outputs
from qonnx_hub_adapters.tflite.distances import distances_of
from qonnx_hub_adapters.tflite.info import INFO, SUFFIX
from qonnx_hub_adapters.tflite.interpreter import run_samples
from qonnx_hub_adapters.tflite.net import TfliteNet
from qonnx_hub_adapters.tflite.net_writer import write_net
from qonnx_hub_adapters.tflite.nodes import net_as_nodes
from qonnx_hub_adapters.tflite.origins import model_of, origin_of, remember
from qonnx_hub_adapters.tflite.reader import read_file
from qonnx_hub_ir import dialect
from qonnx_hub_ir.errors import SourceError
from qonnx_hub_ir.limits import require_memory

_NEAR = (
    "the reference kernels of TFLite round sums twice, and float layers once: codes may "
    "differ, by a step in most layers"
)
"""What is said of every model with codes."""


class TfliteImporter:
    """TFLite -> IR."""

    info = INFO

    def accepts(self, source: object) -> bool:
        """Return whether the source is a file called ``.tflite``, or a model just read of one.

        Such a model stands for its file, with the names and numbers that were changed since.
        """
        if isinstance(source, Model):
            return origin_of(source) is not None
        return isinstance(source, (str, Path)) and Path(source).suffix.lower() == SUFFIX

    def load(self, source: object, options: ImportOptions) -> Model:
        """Return the net as a verified IR model of float layers and quantizers.

        Inputs and outputs keep their integer types. The model remembers the net: forms that
        say codes exactly are written from it.

        Raises:
            SourceError: It cannot be read, is damaged, or holds operators that are not read.
            InvalidModelError: It breaks rules of the IR; all of them are listed.
        """
        net = _net(source)
        if isinstance(source, Model):
            copy = source.clone()
            remember(copy, net)
            return copy
        has_codes = any(t.grid is not None for t in net.tensors)
        clips = any(o.options.get("cell_clip") and o.inputs[1] >= 0 for o in net.operations)
        near = f"{_NEAR}; cells of LSTMs are not clipped" if clips else _NEAR
        meta = {dialect.BOUNDED: near} if has_codes else {}
        model, _ = model_of(net, meta)
        remember(model, net)
        return model

    def load_as_written(self, source: object) -> Model:
        """Return the net as nodes of TFLite's own operators, whose kernels work on codes.

        Raises:
            SourceError: As :meth:`load`.
        """
        return onnx_ir.from_proto(net_as_nodes(_net(source)))

    def run_source(self, source: object, feeds: Feeds) -> Outputs | None:
        """Return the codes that the reference kernels give."""
        return run_samples(_net(source), feeds)

    def layer_distances(self, source: object) -> LayerDistances:
        """Return how far float layers are from the reference kernels, layer by layer."""
        return distances_of(_net(source))

    def runtime(self, source: object) -> str:
        """Return what answers for a file."""
        return "on TFLite's reference kernels"


def _net(source: object) -> TfliteNet:
    if isinstance(source, Model) and (net := origin_of(source)) is not None:
        return net
    if not isinstance(source, (str, Path)):
        raise SourceError(f"a {type(source).__name__} is no TFLite file; give its path")
    return read_file(source)


def bytes_of(source: object) -> bytes:
    """Return the bytes of a file, or of the net that a model was read of, written anew.

    Raises:
        SourceError: It cannot be read, or is neither.
    """
    if isinstance(source, (str, Path)):
        try:
            require_memory(Path(source).stat().st_size, f"'{source}'")
            return Path(source).read_bytes()
        except OSError as error:
            raise SourceError(f"'{source}' cannot be read: {error.strerror}") from error
    return write_net(_net(source))
