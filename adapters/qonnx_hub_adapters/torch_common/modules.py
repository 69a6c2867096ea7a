"""Live modules: what they are, copies of them, their samples, names and answers."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qonnx_hub_adapters.dependencies import first_line, quiet
from qonnx_hub_adapters.protocol import Outputs
from qonnx_hub_ir.errors import SourceError
from qonnx_hub_ir.quantizers import Array


@dataclass(frozen=True, slots=True)
class PreparedModule:
    """A module and the sample to trace it on.

    Attributes:
        module: The user's module, or a copy of it that has other weights.
        args: Sample inputs: torch tensors, or Brevitas' quantized ones.
    """

    module: Any
    args: tuple[Any, ...]


def classes_from(thing: object, *packages: str) -> set[str]:
    """Return the names of an object's classes that these packages define."""
    prefixes = tuple(f"{package}." for package in packages)
    return {
        kind.__name__
        for kind in type(thing).__mro__
        if f"{kind.__module__}.".startswith(prefixes)
    }


def is_module(source: object) -> bool:
    """Return whether the source is a torch module, without importing torch."""
    return "Module" in classes_from(source, "torch.nn.modules.module")


def unwrapped(module: Any) -> Any:
    """Return the module inside of DataParallel wrappers."""
    while type(module).__name__ in {"DataParallel", "DistributedDataParallel"}:
        module = module.module
    return module


def prepared(source: Any) -> PreparedModule:
    """Return a module with its sample, where it has one, and without DataParallel wrappers."""
    if isinstance(source, PreparedModule):
        return source
    return PreparedModule(unwrapped(source), ())


def private_copy(module: Any) -> Any:
    """Return a copy of the module, on the CPU, that shares nothing with it.

    Raises:
        SourceError: It cannot be copied.
    """
    try:
        with quiet():
            return copy.deepcopy(module).cpu()
    except Exception as error:  # anything that hangs on the module may refuse
        raise SourceError(
            f"module {type(module).__name__} cannot be copied ({first_line(error)}), and the "
            "original is not touched; detach what it keeps from its last forward pass, or "
            "remove its hooks"
        ) from error


def array_of(tensor: Any) -> Array:
    """Return a tensor's numbers as an array of its own."""
    return np.array(tensor.detach().cpu().numpy())


def floats_of(tensor: Any) -> Array:
    """Return a tensor's numbers as a float32 array of its own."""
    return array_of(tensor).astype(np.float32)


def input_names(module: Any, count: int) -> list[str]:
    """Return the names of the inputs: those of the parameters of ``forward``."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(module.forward).parameters.values()
    named = [one.name for one in parameters if one.kind in kinds]
    return named[:count] if len(named) >= count else _numbered("input", count)


def output_names(count: int) -> list[str]:
    """Return the names of a model's outputs."""
    return _numbered("output", count)


def _numbered(name: str, count: int) -> list[str]:
    return [name] if count == 1 else [f"{name}_{index}" for index in range(count)]


def answer_in_pieces(
    forward: Callable[[list[Array]], list[Array]], arrays: Sequence[Array], unit: int
) -> Outputs:
    """Return the outputs of a model, by name.

    Args:
        forward: Returns the model's outputs.
        arrays: The inputs.
        unit: Size of the batch that the model was traced with: more samples are run in
            pieces of this size, for with another number of samples the model may compute
            something else. 0 where the batch is free.
    """
    parts = [forward(piece) for piece in _pieces(list(arrays), unit)]
    columns = zip(*parts, strict=True)
    joined = [np.concatenate(column) if len(column) > 1 else column[0] for column in columns]
    return dict(zip(output_names(len(joined)), joined, strict=True))


def _pieces(arrays: list[Array], unit: int) -> list[list[Array]]:
    lengths = {len(array) for array in arrays if array.ndim}
    length = lengths.pop() if len(lengths) == 1 else 0
    if not unit or length <= unit or length % unit:
        return [arrays]
    return [
        [array[start : start + unit] if array.ndim else array for array in arrays]
        for start in range(0, length, unit)
    ]
