"""Reads QLinear: integer operators become float operators between quantizers of the IR."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir
from onnx_ir import Model

from qonnx_hub_adapters.onnx_source import describe, is_onnx, operators_in
from qonnx_hub_adapters.protocol import Feeds, ImportOptions, Outputs
from qonnx_hub_adapters.qcdq.importer import QcdqImporter
from qonnx_hub_adapters.qlinear.expansion import expand, is_integer_operator
from qonnx_hub_adapters.qlinear.exporter import INFO
from qonnx_hub_ir.errors import HubError, SourceError
from qonnx_hub_ir.passes import NameNodes, NormalizeDialect, RaiseOpset, run_passes

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

        Raises:
            SourceError: It cannot be read, or an operator has parts that are not known.
            InvalidModelError: It breaks rules of the IR; all of them are listed.
        """
        model = _parsed(source)
        if model is None:
            # Reading it as it is says what is wrong with it.
            return QcdqImporter().load(source, options)
        try:
            run_passes(model, [NameNodes(), NormalizeDialect()])
            if model.opset_imports.get("", 1) < _OPSET_OF_AXES:
                RaiseOpset()(model)
            expand(model)
        except SourceError as error:
            raise SourceError(f"{describe(source)}: {error}") from error
        try:
            return QcdqImporter().load(model, options)
        except HubError as error:
            # The expanded copy is ours; the message is about what the user gave.
            text = str(error).replace(describe(model), describe(source), 1)
            error.args = (text,)
            raise

    def run_source(self, source: object, feeds: Feeds) -> Outputs | None:
        """Return ``None``: a QLinear file has no framework of its own beside the IR."""
        return None


def _parsed(source: object) -> Model | None:
    if isinstance(source, Model):
        return source.clone()
    try:
        if isinstance(source, onnx.ModelProto):
            return onnx_ir.from_proto(source)
        return onnx_ir.load(source) if isinstance(source, (str, Path)) else None
    except Exception:  # whatever is wrong with the file, reading it will say so
        return None
