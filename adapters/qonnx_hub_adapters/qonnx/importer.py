"""Reads QONNX, in every spelling that is in use."""

from __future__ import annotations

from onnx_ir import Model

from qonnx_hub_adapters.onnx_reader import SUFFIXES, is_onnx, read_model
from qonnx_hub_adapters.protocol import (
    QONNX_FEATURES,
    AdapterInfo,
    Feature,
    Feeds,
    ImportOptions,
    Outputs,
    Support,
)
from qonnx_hub_adapters.qcdq.origins import KEY, OLD_KEY
from qonnx_hub_adapters.qonnx.options import QonnxOptions
from qonnx_hub_ir.graph.queries import every_quantizer
from qonnx_hub_ir.passes import JoinZeroPoint

INFO = AdapterInfo(
    name="qonnx",
    summary="ONNX with Quant, BipolarQuant, FloatQuant, Trunc nodes (Brevitas, FINN, hls4ml)",
    suffixes=SUFFIXES,
    support=dict.fromkeys((*QONNX_FEATURES, Feature.ZERO_POINT_AFTER_ROUNDING), Support.EXACT),
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

        Two quantizers that add a zero point after rounding are one, as the file's source had
        it.

        Raises:
            SourceError: It cannot be read.
            InvalidModelError: It breaks rules of the IR; all of them are listed.
        """
        model = read_model(source, keep_versions=True)
        JoinZeroPoint()(model)
        for node in every_quantizer(model):
            if KEY in node.metadata_props:
                node.metadata_props[OLD_KEY] = self.info.name
        return model

    def run_source(self, source: object, feeds: Feeds) -> Outputs | None:
        """Return ``None``: a QONNX file has no framework of its own beside the IR."""
        return None
