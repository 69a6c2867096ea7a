"""Datatypes that the user knows, written at tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from onnx_ir import Model
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir.annotations import DATATYPE, annotate, annotations_of
from qonnx_hub_ir.datatypes import parse_datatype
from qonnx_hub_ir.errors import PassError
from qonnx_hub_ir.graph.subgraphs import every_value


@dataclass(frozen=True)
class AnnotateDatatype(InPlacePass):
    """Say of tensors which values they hold: what FINN and cost models read of an input.

    Before -> after (``types=x=UINT8``): ``x`` -> ``x`` with the annotation
    ``finn_datatype: UINT8``. Nothing else changes, and nothing is checked: it is the user's
    word. Does not fire where that is said already.

    Attributes:
        types: Tensor -> datatype, as the qonnx package calls it: UINT8, INT4, FIXED<16,6>.

    Raises:
        UsageError: A datatype that is none.
        PassError: A tensor that the model does not have.
    """

    types: Mapping[str, str]

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        values = {str(value.name): value for value in every_value(model, functions=False)}
        missing = [name for name in self.types if name not in values]
        if missing:
            raise PassError(f"the model has no tensor '{missing[0]}'")
        modified = False
        for name, text in self.types.items():
            told = parse_datatype(text, f"tensor '{name}'").name
            modified |= annotations_of(values[name]).get(DATATYPE) != told
            annotate(values[name], {DATATYPE: told})
        return PassResult(model, modified=modified)
