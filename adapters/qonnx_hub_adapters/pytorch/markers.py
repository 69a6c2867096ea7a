"""An operator that stands for a quantizer while torch writes the ONNX graph.

torch's exporter knows a few integer ranges only, and loses others. It sees one operator of our
own instead, which keeps a key; what the key means is put into the graph afterwards.
"""

from __future__ import annotations

from typing import Any

DOMAIN = "qonnx_hub.torch"
OPERATOR = "Quantizer"
KEY = "key"

_LIBRARIES: list[Any] = []
"""torch forgets an operator with the object that defined it."""


def marker(torch: Any) -> Any:
    """Return torch's operator ``quantizer(x, key)``; defined at the first call."""

    def shaped_like(x: Any, _key: str) -> Any:
        return torch.empty_like(x, dtype=torch.float32)

    if not _LIBRARIES:
        library = torch.library.Library("qonnx_hub", "FRAGMENT")
        library.define("quantizer(Tensor x, str key) -> Tensor")
        library.impl("quantizer", shaped_like, "CompositeExplicitAutograd")
        torch.library.register_fake("qonnx_hub::quantizer", shaped_like, lib=library)
        _LIBRARIES.append(library)
    return torch.ops.qonnx_hub.quantizer.default


def translation(torch: Any) -> dict[Any, Any]:
    """Return how torch's exporter writes the operator, as it takes such tables."""
    from onnx.defs import OpSchema
    from onnxscript.values import Op, Opset

    types = (
        sorted(OpSchema.all_tensor_types()) if hasattr(OpSchema, "all_tensor_types") else []
    )
    schema = OpSchema(
        OPERATOR,
        DOMAIN,
        1,
        inputs=[OpSchema.FormalParameter("x", "T")],
        outputs=[OpSchema.FormalParameter("y", "tensor(float)")],
        type_constraints=[("T", types or ["tensor(float)", "tensor(int8)"], "")],
        attributes=[OpSchema.Attribute(KEY, OpSchema.AttrType.STRING, "")],
    )
    operator = Op(Opset(DOMAIN, 1), OPERATOR, schema)

    def translate(x: Any, key: str) -> Any:
        return operator(x, key=key)

    return {marker(torch): translate}
