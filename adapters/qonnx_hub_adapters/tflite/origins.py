"""The net that a model was read from, kept beside it, and what became of it since."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir
from onnx_ir import Model

from qonnx_hub_adapters.qcdq.importer import read_quantizers
from qonnx_hub_adapters.tflite.edited_nets import edited_net
from qonnx_hub_adapters.tflite.float_form import Source
from qonnx_hub_adapters.tflite.float_rules import float_form_of
from qonnx_hub_adapters.tflite.net import TfliteNet
from qonnx_hub_ir.errors import HubError

_KEY, _EDITED = "qonnx_hub.tflite", "qonnx_hub.tflite.edited"


@dataclass(frozen=True, slots=True, eq=False)
class _Origin:
    net: TfliteNet | None
    digest: str


def remember(model: Model, net: TfliteNet) -> None:
    """Keep the net of a model that was just read, with a digest of the whole model."""
    model.meta[_KEY] = _Origin(net, _digest(model))


def origin_of(model: Model) -> TfliteNet | None:
    """Return the net that a model stands for; ``None`` for models that were read elsewhere.

    A model that was changed since stands for the net with the same changes, where these are
    names, numbers of weights and biases, or grids: what is read of that net must be the model
    in every node and number. For any other change there is no net any more.
    """
    origin = model.meta.get(_KEY)
    if not isinstance(origin, _Origin) or origin.net is None:
        return None
    digest = _digest(model)
    if origin.digest == digest:
        return origin.net
    known = model.meta.get(_EDITED)
    if not isinstance(known, _Origin) or known.digest != digest:
        try:
            net = edited_net(model, origin.net, model_of)
        except (HubError, ArithmeticError, LookupError, TypeError, ValueError):
            # numbers that no tensor of the net can hold
            net = None
        known = model.meta[_EDITED] = _Origin(net, digest)
    return known.net


def model_of(
    net: TfliteNet, meta: Mapping[str, str] | None = None
) -> tuple[Model, Mapping[str, Source]]:
    """Return a net as a verified IR model, and which of its values stand for which tensors.

    Args:
        net: The net.
        meta: Metadata of the model.

    Raises:
        SourceError: An operation has no float form.
        InvalidModelError: It breaks rules of the IR; all of them are listed.
    """
    proto, sources = float_form_of(net, meta)
    return read_quantizers(proto), sources


def _digest(model: Model) -> str:
    proto = onnx_ir.to_proto(model)
    return hashlib.sha256(proto.SerializeToString(deterministic=True)).hexdigest()
