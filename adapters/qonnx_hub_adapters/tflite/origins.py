"""The net that a model was read from, kept beside it, and good only while nothing changed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import onnx_ir
from onnx_ir import Model

from qonnx_hub_adapters.tflite.net import TfliteNet

_KEY = "qonnx_hub.tflite"


@dataclass(frozen=True, slots=True, eq=False)
class _Origin:
    net: TfliteNet
    digest: str


def remember(model: Model, net: TfliteNet) -> None:
    """Keep the net of a model that was just read, with a digest of the whole model."""
    model.meta[_KEY] = _Origin(net, _digest(model))


def origin_of(model: Model) -> TfliteNet | None:
    """Return the net that a model was read from; ``None`` for others, and for changed ones.

    The whole model is compared, by its bytes: constants, attributes, order and names.
    """
    origin = model.meta.get(_KEY)
    if not isinstance(origin, _Origin) or origin.digest != _digest(model):
        return None
    return origin.net


def _digest(model: Model) -> str:
    proto = onnx_ir.to_proto(model)
    return hashlib.sha256(proto.SerializeToString(deterministic=True)).hexdigest()
