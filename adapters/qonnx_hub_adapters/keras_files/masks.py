"""Masks that layers hand on without a word: which steps of a sequence count.

Source: ``supports_masking`` and ``compute_mask`` of layers in tf_keras 2.21 and Keras 3.15.
"""

from __future__ import annotations

from collections.abc import Sequence

from onnx_ir import Value

from qonnx_hub_adapters.keras_files.kinds import Use
from qonnx_hub_adapters.keras_files.scope import Scope

_MERGES = frozenset({"Add", "Subtract", "Multiply", "Maximum", "Minimum", "Average"})
_HAND_ON = frozenset(
    {
        *("Activation", "ActivityRegularization", "AlphaDropout", "Attention", "Dense"),
        *("BatchNormalization", "Bidirectional", "Dropout", "ELU", "GRU", "GaussianDropout"),
        *("GaussianNoise", "GroupNormalization", "GroupQueryAttention", "LSTM"),
        *("LayerNormalization", "LeakyReLU", "Masking", "MultiHeadAttention", "PReLU", "RNN"),
        *("ReLU", "SimpleRNN", "Softmax", "SpatialDropout1D", "SyncBatchNormalization"),
        *("ThresholdedReLU", "TimeDistributed", "UnitNormalization"),
        *("QDense", "QBatchNormalization", "QBidirectional", "QDenseBatchnorm"),
        *("QGRU", "QLSTM", "QSimpleRNN", "PruneLowMagnitude"),
    }
)
_HAND_ON_IN_KERAS_3 = frozenset({"Identity", "Normalization", "Rescaling"})


def hand_on(s: Scope, use: Use, given: Sequence[Value], results: Sequence[Value]) -> None:
    """Give the results of a layer the mask that it makes of those of its inputs.

    All other layers drop it, as they do in Keras.

    Args:
        s: Writes the nodes of the layer.
        use: The layer.
        given: What it reads.
        results: What it makes.
    """
    masks = [s.net.masks.get(one) for one in given]
    if all(mask is None for mask in masks):
        return
    mask = _made(s, use, masks)
    if mask is None and any(value in s.net.masks for value in results):
        # The value itself goes on: what drops its mask would have to be another one.
        raise s.fail("drops the mask of a value that it does not change")
    if mask is None or mask.shape is None:
        return
    for value in results:
        sizes = value.shape
        has_steps = sizes is not None and len(sizes) >= 3 and sizes[1] == mask.shape[1]
        if has_steps and value not in s.net.masks:
            s.net.masks[value] = mask


def _made(s: Scope, use: Use, masks: Sequence[Value | None]) -> Value | None:
    name, generation = use.layer.class_name, s.net.generation
    if use.layer.kind.startswith("ops>"):
        return None  # an operation may have a layer's name
    known: list[Value] = [mask for mask in masks if mask is not None]
    if name == "Concatenate":
        rank = s.rank(use.x[0])
        if int(use.config.get("axis", -1)) % rank != rank - 1:
            if len(known) < len(masks) or int(use.config["axis"]) % rank != 1:
                raise s.fail("concatenates steps with and without a mask")
            return s.op("Concat", *known, axis=1)
    elif name not in _MERGES:
        hands_on = name in _HAND_ON or (generation == 3 and name in _HAND_ON_IN_KERAS_3)
        return masks[0] if hands_on else None
    if generation == 3 and len(known) < len(masks):
        return None
    merged: Value = known[0]
    for mask in known[1:]:
        merged = s.op("Or" if generation == 3 else "And", merged, mask)
    return merged
