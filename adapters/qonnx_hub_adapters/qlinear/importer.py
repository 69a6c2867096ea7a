"""Reads QLinear: integer operators become float operators between quantizers of the IR."""

from __future__ import annotations

from onnx_ir import Model

from qonnx_hub_adapters.onnx_reader import is_onnx, operators_in
from qonnx_hub_adapters.protocol import Feeds, ImportOptions, Outputs
from qonnx_hub_adapters.qcdq.importer import read_quantizers
from qonnx_hub_adapters.qlinear.blocks import needed_opset
from qonnx_hub_adapters.qlinear.expansion import expand, is_integer_operator
from qonnx_hub_adapters.qlinear.exporter import INFO
from qonnx_hub_ir.passes import NameNodes, NormalizeDialect, RaiseOpset, run_passes
from qonnx_hub_ir.passes.opset.raise_opset import OPSET

_OPSET_OF_AXES = 13
"""The first opset whose DequantizeLinear takes a scale per channel."""


class QlinearImporter:
    """QLinear -> IR."""

    info = INFO

    def accepts(self, source: object) -> bool:
        """Return whether the source is ONNX with integer products or QLinear operators.

        A file is parsed for that; its external data is not read.
        """
        if not is_onnx(source):
            return False
        return any(is_integer_operator(*kind) for kind in operators_in(source))

    def load(self, source: object, options: ImportOptions) -> Model:
        """Return the source as a verified IR model.

        Where float layers may give other integers than the file does, the model's metadata say
        so, under :data:`qonnx_hub_ir.dialect.BOUNDED`.

        Raises:
            SourceError: It cannot be read, or an operator has parts that are not known.
            InvalidModelError: It breaks rules of the IR; all of them are listed.
        """
        return read_quantizers(source, _expand)

    def run_source(self, source: object, feeds: Feeds) -> Outputs | None:
        """Return ``None``: a QLinear file has no framework of its own beside the IR."""
        return None


def _expand(model: Model) -> None:
    """Put a model in QDQ form, in place."""
    run_passes(model, [NameNodes(), NormalizeDialect()])
    own, blocked = model.opset_imports.get("", 1), needed_opset(model)
    if own < max(_OPSET_OF_AXES, blocked):
        RaiseOpset(max(OPSET, blocked))(model)
    expand(model)
