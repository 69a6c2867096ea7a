"""Reads QONNX, in every spelling that is in use."""

from __future__ import annotations

from onnx_ir import Model

from qonnx_hub_adapters.onnx_reader import SUFFIXES, is_onnx, read_model
from qonnx_hub_adapters.protocol import (
    QONNX_FEATURES,
    AdapterInfo,
    Feeds,
    ImportOptions,
    Outputs,
    Support,
)
from qonnx_hub_adapters.qonnx.options import QonnxOptions

INFO = AdapterInfo(
    name="qonnx",
    summary="ONNX with Quant, BipolarQuant, FloatQuant, Trunc nodes (Brevitas, FINN, hls4ml)",
    suffixes=SUFFIXES,
    support=dict.fromkeys(QONNX_FEATURES, Support.EXACT),
    options=QonnxOptions,
)


class QonnxImporter:
    """QONNX -> IR."""

    info = INFO

    def accepts(self, source: object) -> bool:
        """Return whether the source is an ONNX file or model."""
        return is_onnx(source)

    def load(self, source: object, options: ImportOptions) -> Model:
        """Return the source as a verified IR model.

        Raises:
            SourceError: It cannot be read.
            InvalidModelError: It breaks rules of the IR; all of them are listed.
        """
        return read_model(source, keep_versions=True)

    def run_source(self, source: object, feeds: Feeds) -> Outputs | None:
        """Return ``None``: a QONNX file has no framework of its own beside the IR."""
        return None
