"""The integer form of what was read from TFLite, as an exporter gives it."""

from __future__ import annotations

import onnx_ir
from onnx_ir import Model

from qonnx_hub_adapters.protocol import Artifact, ExportOptions
from qonnx_hub_adapters.tflite.integer_rules import OPSET, integer_form
from qonnx_hub_adapters.tflite.nodes import net_as_nodes
from qonnx_hub_adapters.tflite.origins import origin_of
from qonnx_hub_ir.errors import NotExactError, UsageError
from qonnx_hub_ir.passes import NameNodes, RaiseOpset

_EXACT = (
    "code for code what TFLite's reference kernels give, in standard integer operators; other "
    "kernels (optimized, XNNPACK) differ from these by steps"
)


def integer_artifact(model: Model, options: ExportOptions) -> Artifact:
    """Return a model that was read from TFLite in standard integer operators.

    Args:
        model: As it was read; a model that was changed since has no integer form.
        options: Of the export; the opset is 13 or newer.

    Raises:
        NotExactError: It was not read from TFLite, was changed, or has operations without an
            integer form; all of them are listed.
        UsageError: An opset below 13.
    """
    net = origin_of(model)
    if net is None:
        raise NotExactError(
            "the encoding 'integer' says the codes of a TFLite file, and this model was not "
            "read from one, or has other nodes since; take 'auto' or 'qdq'",
            [],
        )
    wanted = options.opset or OPSET
    if wanted < OPSET:
        raise UsageError(f"the encoding 'integer' needs opset {OPSET}, not {wanted}")
    written = onnx_ir.from_proto(integer_form(net))
    NameNodes()(written)
    if wanted > OPSET:
        RaiseOpset(wanted)(written)
    original = onnx_ir.from_proto(net_as_nodes(net))
    return Artifact(written, notes=(_EXACT,), original=original)
