"""How inputs lie in memory: what is a sample, and which sizes open axes are given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import Enum

import numpy as np
from onnx_ir import Model, Value

from qonnx_hub.executor.batch_axis import batcher_of
from qonnx_hub.executor.session import Session
from qonnx_hub_adapters.protocol import Feeds
from qonnx_hub_ir.errors import HubError, UsageError
from qonnx_hub_ir.facts import fixed_batch
from qonnx_hub_ir.graph.queries import dims

Sizes = Mapping[str, int]
"""Open axis -> its size; an axis without a name is called after its input and place."""

_ODD = (3, 5, 7, 9, 17, 33, 65, 129, 225)
_EVEN = (4, 8, 16, 32, 64, 128, 224)
_SMALL = (1, 2)
_MOST_AXES = 6
"""Open axes that get sizes of their own; the others follow."""


class InputLayout(Enum):
    """What the first axes of a model's inputs are.

    SAMPLES: of samples, any number of them. UNITS: of samples, in the file's own number, which
    it may mix. RUNS: not all of samples; the model is run on one set of inputs at a time.
    """

    SAMPLES = "samples"
    UNITS = "units"
    RUNS = "runs"


def layout_of(model: Model) -> InputLayout:
    """Return what the first axes of the inputs are."""
    shapes = [dims(value) for value in model.graph.inputs]
    firsts = {shape[0] if isinstance(shape[0], int) else None for shape in shapes if shape}
    if any(shape == () for shape in shapes) or len(firsts) > 1:
        return InputLayout.RUNS
    unit = fixed_batch(model)
    if unit is None or (unit == 1 and batcher_of(model).is_apart()):
        return InputLayout.SAMPLES
    return InputLayout.UNITS


def axis_name(value: Value, place: int) -> str | None:
    """Return the name of an open axis; ``None`` where the file gives its size."""
    shape = dims(value)
    size = None if shape is None else shape[place]
    if isinstance(size, int) and size > 0:
        return None
    return size if isinstance(size, str) and size else f"{value.name}[{place}]"


def open_axes(model: Model) -> tuple[str, ...]:
    """Return the open axes of the inputs, each once; that of the samples is not among them.

    Raises:
        UsageError: An input of which not even the rank is known.
    """
    start = 0 if layout_of(model) is InputLayout.RUNS else 1
    found: dict[str, None] = {}
    for value in model.graph.inputs:
        shape = dims(value)
        if shape is None:
            raise UsageError(
                f"input '{value.name}': the file leaves its shape open; give the inputs to use"
            )
        names = (axis_name(value, place) for place in range(start, len(shape)))
        found.update((name, None) for name in names if name is not None)
    return tuple(found)


def named_axes(model: Model) -> tuple[str, ...]:
    """Return all open axes of the inputs, that of the samples too; none of an unknown rank."""
    names = (
        axis_name(value, place)
        for value in model.graph.inputs
        for place in range(len(dims(value) or ()))
    )
    return tuple(dict.fromkeys(name for name in names if name is not None))


def sizes_of(model: Model, runs: Iterable[Feeds]) -> dict[str, tuple[int, ...]]:
    """Return open axis -> the sizes that it has in some inputs."""
    found: dict[str, set[int]] = {}
    values = {str(value.name): value for value in model.graph.inputs}
    for name, array in (pair for feeds in runs for pair in feeds.items() if pair[0] in values):
        for place in range(min(array.ndim, len(dims(values[name]) or ()))):
            axis = axis_name(values[name], place)
            if axis is not None:
                found.setdefault(axis, set()).add(int(array.shape[place]))
    return {name: tuple(sorted(sizes)) for name, sizes in found.items()}


def batch_axes(model: Model) -> tuple[str, ...]:
    """Return the names of the open axes over samples."""
    if layout_of(model) is not InputLayout.SAMPLES:
        return ()
    names = (axis_name(value, 0) for value in model.graph.inputs if dims(value))
    return tuple(dict.fromkeys(name for name in names if name is not None))


def sizes_to_run(model: Model) -> list[Sizes]:
    """Return sizes for the open axes, the first of them an odd one for all that runs.

    Each axis is also run at 1 and 2, the others odd, and all of them at 1 and 2, where the
    model runs so.

    Raises:
        UsageError: No size is found with which the model runs.
    """
    axes = open_axes(model)
    if not axes:
        return [{}]
    session = Session(model)
    tried = (dict.fromkeys(axes, size) for size in (*_ODD, *_EVEN))
    base = next((sizes for sizes in tried if _runs(model, session, sizes)), None)
    if base is None:
        raise UsageError(
            f"the file leaves sizes open ({', '.join(axes)}), and the model runs with none of "
            f"{', '.join(map(str, sorted((*_ODD, *_EVEN))))} for all of them; give the inputs"
        )
    found: list[Sizes] = [base]
    for sizes in _varied(base):
        if sizes not in found and _runs(model, session, sizes):
            found.append(sizes)
    return found


def _varied(base: Sizes) -> Iterator[Sizes]:
    for name in list(base)[:_MOST_AXES]:
        for size in _SMALL:
            yield {**base, name: size}
    for size in _SMALL:
        yield dict.fromkeys(base, size)


def shape_with(value: Value, sizes: Sizes) -> tuple[int, ...]:
    """Return the shape of an input; an open axis that no size is given for has 1."""
    found = []
    for place, size in enumerate(dims(value) or ()):
        name = axis_name(value, place)
        found.append(sizes.get(name, 1) if name is not None else int(size or 1))
    return tuple(found)


def _runs(model: Model, session: Session, sizes: Sizes) -> bool:
    feeds = {}
    for value in model.graph.inputs:
        dtype = np.dtype(np.float32) if value.dtype is None else value.dtype.numpy()
        feeds[str(value.name)] = np.zeros(shape_with(value, sizes), dtype=dtype)
    try:
        found = session.run(feeds)
    except HubError:
        return False
    return all(np.asarray(y).size for y in found.values())
