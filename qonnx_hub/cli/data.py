"""Data of the user's own for verbs that run models: options, and what they read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from qonnx_hub_ir.choices import Metric

Inputs = Annotated[
    Path | None, typer.Option(metavar="PATH", help="Inputs as .npz, by input name.")
]
Data = Annotated[
    Path | None,
    typer.Option(metavar="PATH", help="Inputs of the one input: .npy, or .npz of one array."),
]
Labels = Annotated[
    Path | None,
    typer.Option(metavar="PATH", help="Right classes, or numbers: counts accuracy."),
]
Preprocess = Annotated[
    str | None,
    typer.Option(
        metavar="NAME=VALUE,...",
        help="Done to the data: scale=1/255,mean=0.5,std=0.5,layout=nhwc.",
    ),
]
MaxAccuracyDrop = Annotated[
    float | None,
    typer.Option(metavar="SHARE", help="What may be lost with --labels; 0.01 is one point."),
]
MinAgreement = Annotated[
    float | None,
    typer.Option(metavar="SHARE", help="Samples on which predictions must agree."),
]
MetricName = Annotated[
    Metric, typer.Option(help="Of classes, of their scores, or of numbers.")
]
TopK = Annotated[int, typer.Option(help="A class counts among so many of the best.")]
Threshold = Annotated[
    float | None,
    typer.Option(help="Score of a single output that says yes.", show_default="0 or 0.5"),
]


def read_feeds(
    inputs: Path | None, data: Path | None, labels: Path | None, names: list[str]
) -> tuple[dict[str, Any] | None, Any]:
    """Return the inputs by name, and the labels; ``None`` for what is not given.

    Args:
        inputs: An .npz file.
        data: An .npy file, for a model with one input.
        labels: An .npy file.
        names: The model's inputs.

    Raises:
        UsageError: A file that holds something else, both kinds of inputs, or labels alone.
    """
    from qonnx_hub_ir.errors import UsageError

    if inputs is not None and data is not None:
        raise UsageError("--inputs and --data both give inputs; leave one out")
    if labels is not None and inputs is None and data is None:
        raise UsageError("--labels needs --data or --inputs")
    right = None if labels is None else _read_array(labels)
    if inputs is not None:
        from qonnx_hub.io.arrays import read_feeds as read_arrays

        return read_arrays(inputs, names), right
    if data is None:
        return None, right
    if len(names) > 1:
        raise UsageError(f"--data gives one input, the model has {len(names)}; use --inputs")
    return {names[0] if names else "data": _read_array(data)}, right


def _read_array(path: Path) -> Any:
    """Return the array of an .npy file, left on the disk, or the one array of an .npz."""
    import numpy as np

    from qonnx_hub_ir.errors import UsageError

    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UsageError(f"'{path}' is not an .npy file of numbers: {error}") from error
    if isinstance(found, np.ndarray):
        return found
    with found:
        if len(found.files) != 1:
            raise UsageError(
                f"'{path}' holds {len(found.files)} arrays ({', '.join(found.files)}); "
                "--inputs takes .npz files by the names of inputs"
            )
        return found[found.files[0]]
