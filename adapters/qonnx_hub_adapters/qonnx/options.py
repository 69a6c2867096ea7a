"""What can be asked of the QONNX exporter."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class QonnxOptions:
    """What the file shall be beside QONNX.

    Attributes:
        profile: Whose rules beyond the form's own the file shall keep, such as "finn".
        max_bits: Activation bits up to which the profile's reader makes thresholds; what it
            must be told as well (FINN: ``max_multithreshold_bit_width``).
        self_contained: Define every operator of the form within the file.
    """

    profile: str = ""
    max_bits: int = 8
    self_contained: bool = False
