"""``qonnx-cleanup``: constants folded, nothing left over, readable names."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import onnx_ir
from onnx_ir import Model

from qonnx_hub.compat.arguments import run_tool
from qonnx_hub.compat.files import literal, open_model, output_path, write
from qonnx_hub.passes import run
from qonnx_hub_adapters.onnx_writer import finish
from qonnx_hub_ir.errors import UsageError
from qonnx_hub_ir.passes import ChangeBatch, SetInputShape


def cleanup(
    in_file: str,
    *,
    out_file: str | None = None,
    preserve_qnt_ops: bool = True,
    override_inpsize: str | None = None,
    extract_conv_bias: bool = False,
) -> None:
    """Fold constants, drop what is not needed, and name nodes and tensors after operators.

    Args:
        in_file: The model; it is never overwritten.
        out_file: The file to write; the input's name with ``_clean`` by default.
        preserve_qnt_ops: Keep the quantizers of constants; without it, constants become the
            floats that they stand for.
        override_inpsize: The batch, such as "4", or the shape of the first input, such as
            "(1,3,224,224)".
        extract_conv_bias: Make an Add of the bias of each Conv.

    Raises:
        UsageError: The output is the input; a size that is none.
        HubError: The model cannot be read, or the size does not fit it.
    """
    model = open_model(in_file)
    target = output_path(in_file, out_file, "_clean")
    clean(model, preserve_qnt_ops, override_inpsize, extract_conv_bias)
    write(model, target)


def cleanup_model(
    model: Any,
    preserve_qnt_ops: bool = True,
    override_inpsize: str | int | tuple[int, ...] | None = None,
    extract_conv_bias: bool = False,
) -> Any:
    """Return a wrapper of the cleaned model; see :func:`cleanup`.

    Args:
        model: A ModelWrapper, or anything else that one is made of. It is not changed.
        preserve_qnt_ops: As in :func:`cleanup`.
        override_inpsize: Likewise; a number or tuple as well.
        extract_conv_bias: Likewise.
    """
    from qonnx_hub.compat.model_wrapper import wrapper_class

    found = open_model(model)
    clean(found, preserve_qnt_ops, override_inpsize, extract_conv_bias)
    return wrapper_class()(onnx_ir.to_proto(finish(found)))


def clean(
    model: Model,
    preserve_qnt_ops: bool,
    override_inpsize: str | int | tuple[int, ...] | None,
    extract_conv_bias: bool,
) -> None:
    """Clean an IR model in place; see :func:`cleanup`."""
    if override_inpsize is not None:
        _resize(model, override_inpsize)
    steps = ["sort_by_depth", "fold_shapes:static=true", "cleanup"]
    if not preserve_qnt_ops:
        steps += ["fold_quantized_constants:form=floats", "drop_unused"]
    if extract_conv_bias:
        steps.append("extract_bias:convolutions=true")
    steps += ["unique_parameters", "sort_by_depth", "give_names:scheme=qonnx"]
    run(model, steps)


def _resize(model: Model, given: str | int | tuple[int, ...]) -> None:
    size = literal(given, "--override-inpsize") if isinstance(given, str) else given
    if isinstance(size, int):
        run(model, [ChangeBatch(size)])
        return
    if not isinstance(size, tuple) or not all(isinstance(one, int) for one in size):
        raise UsageError(f"--override-inpsize: '{given}' is neither a number nor a tuple")
    run(model, [SetInputShape(size)])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool."""
    return run_tool(cleanup, argv)


if __name__ == "__main__":
    sys.exit(main())
