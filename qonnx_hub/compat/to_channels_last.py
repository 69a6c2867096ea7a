"""``qonnx-to-channels-last``: every image with its channels along the last axis."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from qonnx_hub.compat.arguments import run_tool
from qonnx_hub.compat.files import open_model, output_path, write
from qonnx_hub.passes import run


def to_channels_last(
    in_file: str, *, make_input_channels_last: bool = False, out_file: str | None = None
) -> None:
    """Write the channels-last form of a model.

    Args:
        in_file: The model; it is never overwritten.
        make_input_channels_last: Take the inputs channels last too; else a Transpose stands
            behind them.
        out_file: The file to write; the input's name with ``_channels_last`` by default.

    Raises:
        UsageError: The output is the input.
        HubError: The model cannot be read or changed.
    """
    model = open_model(in_file)
    target = output_path(in_file, out_file, "_channels_last")
    inputs = str(make_input_channels_last).lower()
    run(model, [f"to_channels_last:inputs={inputs},outputs=false"])
    write(model, target)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool."""
    return run_tool(to_channels_last, argv)


if __name__ == "__main__":
    sys.exit(main())
