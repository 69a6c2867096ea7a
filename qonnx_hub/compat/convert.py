"""``qonnx-convert``: from Quant to QuantizeLinear, Clip, DequantizeLinear, and back."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Literal

from qonnx_hub import api
from qonnx_hub.compat.arguments import run_tool
from qonnx_hub.compat.files import output_path

Style = Literal["qcdq", "quant"]


def convert(
    input_model_file: str, *, output_style: Style, output_file: str | None = None
) -> None:
    """Write a model in the other style of quantization, checked against the source.

    Args:
        input_model_file: The model; it is never overwritten.
        output_style: "qcdq" or "quant".
        output_file: The file to write; the input's name with the style by default.

    Raises:
        UsageError: The output is the input.
        NotExactError: The style cannot say the model exactly; every reason is listed.
        HubError: The model cannot be read.
    """
    target = output_path(input_model_file, output_file, f"_{output_style}")
    api.convert(input_model_file, target, to="qcdq" if output_style == "qcdq" else "qonnx")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool."""
    return run_tool(convert, argv)


if __name__ == "__main__":
    sys.exit(main())
