"""``qonnx-exec``: a model on arrays of files, batch by batch."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from onnx_ir import Model

from qonnx_hub.compat.arguments import run_tool
from qonnx_hub.compat.files import open_model, write
from qonnx_hub.executor.session import Session
from qonnx_hub.io.arrays import npy_bytes
from qonnx_hub.io.atomic import replacing
from qonnx_hub.io.python_sources import resolve
from qonnx_hub.passes import run
from qonnx_hub_ir.errors import UsageError
from qonnx_hub_ir.graph.queries import dims, zeros_of
from qonnx_hub_ir.passes import ChangeBatch, Expose
from qonnx_hub_ir.quantizers import Array

OutputMode = Literal["tensor_name", "tensor_index"]


def exec_qonnx(
    qonnx_model_file: Any,
    *in_npy: str,
    override_batchsize: int | None = None,
    override_opset: int | None = None,
    expose_intermediates: str | None = None,
    output_prefix: str = "out_",
    output_mode: OutputMode = "tensor_name",
    argmax_verify_npy: str | None = None,
    save_modified_model: str | None = None,
    input_pix2float: bool = False,
    input_zerocenter: bool = False,
    maxiters: int | None = None,
    output_nosave: bool = False,
) -> None:
    """Run a model on the samples of .npy files, write each output of each batch.

    Args:
        qonnx_model_file: The model.
        *in_npy: A file for each input, in order; zeros without any.
        override_batchsize: Another batch than the file's.
        override_opset: Read the file as if it said this opset.
        expose_intermediates: Texts with commas between: values whose names hold one of them
            are outputs too.
        output_prefix: What the names of written files begin with: PREFIX NAME _batchN.npy.
        output_mode: Whether NAME is the output's name or its number.
        argmax_verify_npy: File of the right classes: predictions of the first output are
            counted against them.
        save_modified_model: File for the model that was run.
        input_pix2float: Divide inputs by 255.
        input_zerocenter: With that, map them to -1 to 1.
        maxiters: Run at most so many batches.
        output_nosave: Write no outputs.

    Raises:
        UsageError: Files that do not fit the inputs; a batch that does not divide the samples.
        HubError: The model cannot be read or run.
    """
    model = _opened(qonnx_model_file, override_opset)
    if override_batchsize is not None:
        run(model, [ChangeBatch(override_batchsize)])
    if expose_intermediates is not None:
        patterns = tuple(part.strip() for part in expose_intermediates.split(","))
        run(model, [Expose(patterns=patterns)])
    if save_modified_model:
        write(model.clone(), save_modified_model)
    session = Session(model)
    labels = None if argmax_verify_npy is None else np.load(argmax_verify_npy)
    right = seen = 0
    batches = list(_batches(model, [np.load(path) for path in in_npy]))[:maxiters]
    for number, arrays in enumerate(batches):
        feeds = dict(zip(session.input_names, arrays, strict=True))
        if input_pix2float:
            feeds = {n: _scaled(a, centered=input_zerocenter) for n, a in feeds.items()}
        results = session.run(feeds)
        print(f"batch {number + 1} of {len(batches)}", file=sys.stderr)
        for place, (name, array) in enumerate(results.items()):
            label = name if output_mode == "tensor_name" else str(place)
            if not output_nosave:
                with replacing(f"{output_prefix}{label}_batch{number}.npy") as temporary:
                    temporary.write_bytes(npy_bytes(array))
        if labels is not None:
            found = np.argmax(next(iter(results.values())), axis=-1)
            wanted = labels[seen : seen + len(found)].reshape(found.shape)
            right, seen = right + int(np.count_nonzero(found == wanted)), seen + len(found)
    if labels is not None:
        print(f"ok {right} nok {seen - right} accuracy {right / max(seen, 1):f}")


def _opened(source: Any, opset: int | None) -> Model:
    if opset is None:
        return open_model(source)
    found = resolve(source)
    proto = onnx.load(Path(found)) if isinstance(found, (str, Path)) else found
    for imported in proto.opset_import:
        if not imported.domain:
            imported.version = opset
    return open_model(proto)


def _batches(model: Model, given: Sequence[Array]) -> Iterator[list[Array]]:
    """Yield the arrays of each batch, in the order of the inputs."""
    inputs = list(model.graph.inputs)
    if not given:
        yield [zeros_of(value) for value in inputs]
        return
    if len(given) != len(inputs):
        names = ", ".join(str(value.name) for value in inputs)
        raise UsageError(f"{len(given)} files are given for the inputs {names}")
    sizes = dims(inputs[0]) or (None,)
    batch = sizes[0] if isinstance(sizes[0], int) else len(given[0])
    count = len(given[0])
    if not batch or count % batch or any(len(array) != count for array in given):
        held = ", ".join(str(len(array)) for array in given)
        raise UsageError(f"a batch of {batch} does not divide the samples: {held}")
    for start in range(0, count, batch):
        yield [array[start : start + batch] for array in given]


def _scaled(array: Array, *, centered: bool) -> Array:
    """Return bytes as numbers from 0 to 1, or from -1 to 1."""
    unit = np.asarray(array / 255.0, dtype=np.float32)
    return np.asarray(2 * unit - 1.0, dtype=np.float32) if centered else unit


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool."""
    return run_tool(exec_qonnx, argv)


if __name__ == "__main__":
    sys.exit(main())
