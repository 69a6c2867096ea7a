"""Which features of quantization a model uses, and which of them a form does not speak of."""

from __future__ import annotations

import numpy as np
from onnx_ir import Model, Node

from qonnx_hub_adapters.protocol import AdapterInfo, Feature, Gap, Support
from qonnx_hub_ir import dialect
from qonnx_hub_ir.errors import NotExactError
from qonnx_hub_ir.graph.subgraphs import every_node
from qonnx_hub_ir.quantizers import BipolarQuant, FloatQuant, IntQuant, Rounding, Trunc

_BITS = (
    (8, Feature.BITS_2_TO_8),
    (16, Feature.BITS_9_TO_16),
    (32, Feature.BITS_17_TO_32),
)


def features_of(model: Model) -> dict[Feature, Node]:
    """Return the features that a model uses, each with the first node that does."""
    found: dict[Feature, Node] = {}
    for node in every_node(model, functions=False):
        for feature in _features_of_node(node):
            found.setdefault(feature, node)
    return found


def undeclared_gaps(info: AdapterInfo, model: Model) -> list[Gap]:
    """Return a gap for each feature of a model of which an adapter does not say anything.

    Unknown means refused: an adapter that was not written with a feature in mind would write
    something, and nobody could know what.
    """
    return [
        Gap(
            node.name or "",
            node.op_type,
            f"the form '{info.name}' does not say whether it can write {feature.value}",
            "write another form, or declare the feature in the adapter's support",
        )
        for feature, node in features_of(model).items()
        if info.support.get(feature, Support.UNKNOWN) is Support.UNKNOWN
    ]


def require_declared(info: AdapterInfo, model: Model) -> None:
    """Refuse a model with features of which an adapter does not say anything.

    Raises:
        NotExactError: There are such features; all of them are listed.
    """
    gaps = undeclared_gaps(info, model)
    if gaps:
        raise NotExactError(f"the form '{info.name}' is not known to say this model:", gaps)


def _features_of_node(node: Node) -> list[Feature]:
    if node.domain == dialect.CHANNELS_LAST_DOMAIN:
        return [Feature.CHANNELS_LAST]
    if not dialect.is_quantizer(node):
        return []
    quant = dialect.read_quantizer(node)
    parameters = dialect.parameters(quant)
    scale, zero = parameters[0], getattr(quant, "zero_point", None)
    used = {
        Feature.BIPOLAR: isinstance(quant, BipolarQuant),
        Feature.MINIFLOAT: isinstance(quant, FloatQuant),
        Feature.TRUNC: isinstance(quant, Trunc),
        Feature.DYNAMIC: any(parameter is None for parameter in parameters),
        Feature.PER_CHANNEL: scale is not None and scale.size > 1,
        Feature.ZERO_POINT: zero is not None and bool(np.any(zero != 0)),
    }
    if isinstance(quant, IntQuant):
        used[Feature.NARROW] = quant.narrow
        used[Feature.ZERO_POINT_AFTER_ROUNDING] = quant.zero_point_after_rounding
        used[Feature.ROUNDING_MODES] = quant.rounding is not Rounding.ROUND
        if quant.bits is not None and quant.bits.size:
            most = float(np.max(quant.bits))
            used[Feature.UNSIGNED_1_BIT] = most <= 1 and not quant.signed
            used[Feature.BIPOLAR] = most <= 1 and quant.signed
            sizes = (feature for limit, feature in _BITS if 1 < most <= limit)
            used |= dict.fromkeys(list(sizes)[:1], True)
    return [feature for feature, holds in used.items() if holds]
