"""The adapter's own options."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qonnx_hub_adapters.torch_common.framework import EXACT, MODES
from qonnx_hub_ir.choices import require_choice


@dataclass(frozen=True, slots=True)
class HawqOptions:
    """How to read a HAWQ model.

    Attributes:
        mode: "exact" (HAWQ's fixed-point arithmetic, every integer identical) or
            "quant" (``Quant`` nodes only).
        merge_requant: In mode "quant", leave out the first of two quantizers where its input
            is known to lie on its grid.
        freeze_bn: Fold batch norms that use the statistics of each batch as if ``fix()`` had
            been called.
        builder: For checkpoints: makes the module that the state belongs to.
        chain: For checkpoints of multi-layer perceptrons: the layers in order.
        weight_scales: For ``chain``: whether a QuantAct gets the scale of the weights.
        bits: For checkpoints: bit widths, as a HAWQ bit_config (layer -> bits), a section of
            settings (layer -> {name: value}), or the path of a hawq-jet-tagging yaml.
        act_bits: For ONNX files: bit widths of the lost activation quantizers.
        fold_scales: For ONNX files: pull Div and Mul into the scales of the quantizers.

    Raises:
        UsageError: A mode that does not exist.
    """

    mode: str = EXACT
    merge_requant: bool = True
    freeze_bn: bool = False
    builder: Callable[[], Any] | None = None
    chain: Sequence[str] | None = None
    weight_scales: bool | None = None
    bits: Mapping[str, Any] | str | None = None
    act_bits: Mapping[str, int] | int | None = None
    fold_scales: bool = False

    def __post_init__(self) -> None:
        """Refuse unknown modes."""
        require_choice("mode", self.mode, MODES)
