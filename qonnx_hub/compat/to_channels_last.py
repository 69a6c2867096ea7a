"""``qonnx-to-channels-last``: every image with its channels along the last axis."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from qonnx_hub.compat.arguments import run_tool
from qonnx_hub.compat.files import open_model, output_path, write
from qonnx_hub.passes import run
from qonnx_hub_ir.graph.queries import dims
from qonnx_hub_ir.passes import ChangeLayout


def to_channels_last(
    in_file: str, *, make_input_channels_last: bool = False, out_file: str | None = None
) -> None:
    """Write the channels-last form of a model.

    Args:
        in_file: The model; it is never overwritten.
        make_input_channels_last: Take every image channels last, one that no convolution
            reads among them; else a Transpose stands behind them.
        out_file: The file to write; the input's name with ``_channels_last`` by default.

    Raises:
        UsageError: The output is the input.
        HubError: The model cannot be read or changed.
    """
    model = open_model(in_file)
    target = output_path(in_file, out_file, "_channels_last")
    inputs = str(make_input_channels_last).lower()
    before = {str(value.name): dims(value) for value in model.graph.inputs}
    run(model, [f"to_channels_last:inputs={inputs},outputs=false"])
    if make_input_channels_last:
        # Those that nothing asked to turn; turned ones have another shape, or are read so.
        left = [v for v in model.graph.inputs if dims(v) == before[str(v.name)]]
        images = tuple(str(v.name) for v in left if len(dims(v) or ()) == 4)
        ChangeLayout("nhwc", inputs=images, outputs=())(model)
    write(model, target)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool."""
    return run_tool(to_channels_last, argv)


if __name__ == "__main__":
    sys.exit(main())
