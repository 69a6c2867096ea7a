"""What a user can ask of a conversion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from qonnx_hub.equivalence.acceptance import Acceptance
from qonnx_hub.equivalence.options import CheckOptions
from qonnx_hub.io.preprocessing import Preprocessing, parse_preprocessing
from qonnx_hub_adapters.protocol import ImportOptions
from qonnx_hub_ir.errors import UsageError
from qonnx_hub_ir.quantizers import Array


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertOptions:
    """How a conversion is done.

    Attributes:
        to: Name of the form.
        from_: Name of the source's format; found by asking the adapters otherwise.
        reading: How the source is read.
        check: Compare the result with the source.
        samples: Samples of the check's generated inputs.
        seed: Their seed.
        opset: Standard opset of the file; by default the source's, or what its nodes need.
        allow_lossy: Write near forms where no exact one exists.
        encoding: Which encodings of quantizers to use, for forms that have several.
        stored_weights: Narrowest integers in which weights are stored, for such forms.
        dialect: "onnx" for standard operators only, "ort" for those of onnxruntime as well,
            "source" for those where the source has some.
        layout: Of image inputs and outputs: "keep", "nchw" or "nhwc".
        profile: Whose rules beyond the form's own the file shall keep, such as "finn".
        self_contained: Define every operator of the form within the file.
        target_options: Options that only the form's exporter has, by name.
        data: Data of the user's own, and the bounds that predictions on it must keep.
    """

    to: str = "qonnx"
    from_: str | None = None
    reading: ImportOptions = field(default_factory=ImportOptions)
    check: bool = True
    samples: int | None = None
    seed: int = 0
    opset: int | None = None
    allow_lossy: bool = False
    encoding: str = "auto"
    stored_weights: str = "int8"
    dialect: str = "source"
    layout: str = "keep"
    profile: str = ""
    self_contained: bool = False
    target_options: Mapping[str, Any] = field(default_factory=dict)
    data: CheckOptions | None = None


def data_options(
    inputs: Any,
    labels: Array | None,
    acceptance: Acceptance,
    preprocess: str | Preprocessing | None,
) -> CheckOptions | None:
    """Return how predictions on data are compared; ``None`` where there is no data.

    Args:
        inputs: Input name -> array, an array alone, or a path; ``None`` for no data.
        labels: The right class of every sample.
        acceptance: The bounds.
        preprocess: What is done to the inputs before they are run.

    Raises:
        UsageError: Bounds, labels or preprocessing without data.
    """
    if inputs is None:
        if labels is not None or acceptance.scores or preprocess is not None:
            raise UsageError("labels, bounds on predictions and preprocessing need data")
        return None
    if isinstance(preprocess, str):
        preprocess = parse_preprocessing(preprocess)
    return CheckOptions(
        level="output",
        inputs=inputs,
        labels=labels,
        score=True,
        acceptance=acceptance,
        preprocess=preprocess,
        proof_seconds=0,
    )
