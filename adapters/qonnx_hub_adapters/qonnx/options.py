"""What can be asked of the QONNX exporter."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class QonnxOptions:
    """What the file shall be beside QONNX.

    Attributes:
        profile: Whose rules beyond the form's own the file shall keep, such as "finn".
        self_contained: Define every operator of the form within the file.
    """

    profile: str = ""
    self_contained: bool = False
