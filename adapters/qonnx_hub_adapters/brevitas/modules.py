"""Live modules: what they are, their samples, their weights, and their own answer."""

from __future__ import annotations

import copy
import inspect
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qonnx_hub_adapters.dependencies import require
from qonnx_hub_adapters.protocol import Feeds, ImportOptions, Outputs
from qonnx_hub_ir.errors import SourceError

_LOCK = threading.RLock()
"""Filters of warnings, and what torch's exporters are doing, are kept in global variables."""

_WRAPPERS = frozenset({"DataParallel", "DistributedDataParallel"})
_STATE_KEYS = ("state_dict", "model_state_dict", "model")
"""Where checkpoints keep the state of the model among other things."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A module and the sample to trace it on.

    Attributes:
        module: The user's module, or a copy of it that has other weights.
        args: Sample inputs: torch tensors, or Brevitas' quantized ones.
    """

    module: Any
    args: tuple[Any, ...]


def torch_module() -> Any:
    """Return torch.

    Raises:
        MissingDependencyError: It is not installed.
    """
    return require("torch", needed_by="adapter 'brevitas'", extra="brevitas")


def is_module(source: object) -> bool:
    """Return whether the source is a torch module, without importing torch."""
    return any(
        kind.__name__ == "Module" and kind.__module__ == "torch.nn.modules.module"
        for kind in type(source).__mro__
    )


def is_of_brevitas(thing: object) -> bool:
    """Return whether a class of the object is one of Brevitas'."""
    return any(kind.__module__.partition(".")[0] == "brevitas" for kind in type(thing).__mro__)


def has_brevitas_layers(source: object) -> bool:
    """Return whether the source is a torch module with a Brevitas module in it."""
    if not is_module(source):
        return False
    module: Any = source
    return any(is_of_brevitas(part) for part in module.modules())


def is_quant_tensor(value: object) -> bool:
    """Return whether the value is one of Brevitas' quantized tensors."""
    return isinstance(value, tuple) and is_of_brevitas(value)


def plain(value: Any) -> Any:
    """Return the tensor of a quantized tensor; anything else as it is."""
    return value.value if is_quant_tensor(value) else value


def unwrapped(module: Any) -> Any:
    """Return the module inside of DataParallel wrappers."""
    while type(module).__name__ in _WRAPPERS:
        module = module.module
    return module


def prepare(source: Any, options: ImportOptions) -> Prepared:
    """Return the source with its sample, and with the weights of a file where one is given.

    The user's module is not changed: with a weights file, a copy gets the weights.

    Raises:
        SourceError: No sample, or one that is no tensor of numbers; a weights file that cannot
            be read or does not fit.
    """
    if isinstance(source, Prepared):
        return source
    module, torch = unwrapped(source), torch_module()
    args = tuple(_sample(index, value, torch) for index, value in enumerate(options.args))
    if not args:
        raise SourceError(
            "a Brevitas module is traced on a sample: give one with args=(x,), or its shape "
            "with --input-shape"
        )
    if options.weights is not None:
        module = _with_weights(module, options.weights, torch)
    return Prepared(module, args)


def _sample(index: int, value: Any, torch: Any) -> Any:
    if is_quant_tensor(value):
        return value.detach().cpu()
    try:
        tensor = torch.as_tensor(value).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise SourceError(
            f"sample input {index} is a {type(value).__name__}, not an array of numbers; "
            f"keyword arguments and nested inputs need a module around the model that takes "
            f"tensors only"
        ) from error
    if tensor.is_floating_point() and tensor.dtype != torch.float32:
        raise SourceError(
            f"sample input {index} is {tensor.dtype}; models are converted in float32"
        )
    if tensor.numel() == 0:
        raise SourceError(f"sample input {index} of shape {list(tensor.shape)} is empty")
    return tensor


def _with_weights(module: Any, path: str, torch: Any) -> Any:
    if not Path(path).is_file():
        raise SourceError(f"weights file '{path}' does not exist")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises whatever the bytes make it raise
        reason = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise SourceError(
            f"'{path}' is no file of weights alone ({type(error).__name__}: {reason}); write "
            f"one with torch.save(model.state_dict(), path)"
        ) from error
    state = _state_in(state, path)
    changed = private_copy(module)
    try:
        with silent():
            changed.load_state_dict(state)
    except (RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise SourceError(
            f"the weights in '{path}' do not fit the module: {reason}"
        ) from error
    changed.train(module.training)
    return changed


def _state_in(found: Any, path: str) -> Mapping[str, Any]:
    for key in _STATE_KEYS:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not found:
        raise SourceError(f"'{path}' holds a {type(found).__name__}, not a state_dict")
    state = {str(name): value for name, value in found.items()}
    if all(name.startswith("module.") for name in state):
        return {name.removeprefix("module."): value for name, value in state.items()}
    return state


@contextmanager
def silent() -> Iterator[None]:
    """Keep what the frameworks warn about to themselves; one thread at a time."""
    with _LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def private_copy(module: Any) -> Any:
    """Return a copy of the module, on the CPU and for inference, that shares nothing with it.

    Raises:
        SourceError: It cannot be copied.
    """
    try:
        with silent():
            return copy.deepcopy(module).cpu().eval()
    except Exception as error:  # anything that hangs on the module may refuse
        raise SourceError(
            f"module {type(module).__name__} cannot be copied ({type(error).__name__}: "
            f"{error}), and the original is not touched; detach what it keeps from its last "
            f"forward pass, or remove its hooks"
        ) from error


def require_python_modules() -> None:
    """Raise where Brevitas compiles its quantizers: those cannot be seen in a trace.

    Raises:
        SourceError: It does.
    """
    config = require("brevitas.config", needed_by="adapter 'brevitas'", extra="brevitas")
    if getattr(config, "JIT_ENABLED", False):
        raise SourceError(
            "Brevitas runs with BREVITAS_JIT=1, and compiled quantizers cannot be traced: "
            "save the state_dict, and load it into the module where BREVITAS_JIT is not set"
        )


def require_float32(module: Any) -> None:
    """Raise unless the module computes in float32.

    Raises:
        SourceError: A parameter or buffer of another float type.
    """
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.is_floating_point() and str(tensor.dtype) != "torch.float32":
            raise SourceError(
                f"'{name}' is {tensor.dtype}; models are converted in float32: "
                f"call .float() on the module"
            )


def input_names(module: Any, count: int) -> list[str]:
    """Return the names of the inputs: those of the parameters of ``forward``."""
    signature = inspect.signature(module.forward)
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [p.name for p in signature.parameters.values() if p.kind in kinds]
    if len(names) < count:
        return ["input"] if count == 1 else [f"input_{index}" for index in range(count)]
    return names[:count]


def output_names(count: int) -> list[str]:
    """Return the names of a model's outputs."""
    return ["output"] if count == 1 else [f"output_{index}" for index in range(count)]


def flat_tensors(value: Any) -> list[Any]:
    """Return the tensors of an answer in order, quantized ones as their values.

    Raises:
        SourceError: Something in it that is no tensor.
    """
    if value is None:
        return []
    value = plain(value)
    if hasattr(value, "detach"):
        return [value]
    if isinstance(value, Mapping):
        return _joined(value.values())
    if isinstance(value, (tuple, list)):
        return _joined(value)
    raise SourceError(
        f"the module answers with a {type(value).__name__}; a graph has tensors only"
    )


def _joined(values: Iterable[Any]) -> list[Any]:
    return [tensor for one in values for tensor in flat_tensors(one)]


def run_forward(module: Any, args: Sequence[Any], torch: Any) -> Any:
    """Return a private copy's answer.

    Raises:
        SourceError: The module fails on these inputs.
    """
    try:
        with torch.no_grad(), silent():
            return module(*args)
    except Exception as error:  # somebody else's forward raises whatever it raises
        reason = " ".join(str(error).split())
        raise SourceError(
            f"module {type(module).__name__} fails on the sample: "
            f"{type(error).__name__}: {reason}"
        ) from error


def answer(source: Any, feeds: Feeds) -> Outputs:
    """Return a module's own answer at inference, under the names that its IR model uses.

    A module with a sample is run in pieces of the sample's batch: what it does with another
    number of samples is another graph.
    """
    torch = torch_module()
    original, samples = opened(source)
    module = private_copy(original)
    arrays = [np.asarray(feeds[name]) for name in input_names(module, len(feeds))]
    answers: list[list[Any]] = []
    for piece in _pieces(arrays, samples):
        found = flat_tensors(run_forward(module, as_samples(piece, samples, torch), torch))
        answers.append([tensor.detach().numpy() for tensor in found])
    joined = answers[0]
    if len(answers) > 1:
        joined = [np.concatenate(parts) for parts in zip(*answers, strict=True)]
    return dict(zip(output_names(len(joined)), joined, strict=True))


def opened(source: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return the module of a source, and its sample where it has one."""
    if isinstance(source, Prepared):
        return source.module, source.args
    return unwrapped(source), ()


def as_samples(arrays: Sequence[Any], samples: Sequence[Any], torch: Any) -> list[Any]:
    """Return arrays as what the samples are: tensors, quantized where those are."""
    tensors = [torch.from_numpy(np.array(array)) for array in arrays]
    if len(samples) != len(tensors):
        return tensors
    return [
        sample.set(value=tensor) if is_quant_tensor(sample) else tensor
        for tensor, sample in zip(tensors, samples, strict=True)
    ]


def _pieces(arrays: Sequence[Any], samples: Sequence[Any]) -> list[list[Any]]:
    """Return the arrays cut along the first axis into pieces of the sample's size."""
    units = {len(plain(sample)) for sample in samples if plain(sample).ndim}
    lengths = {len(array) for array in arrays if array.ndim}
    if len(units) != 1 or len(lengths) != 1:
        return [list(arrays)]
    unit, length = units.pop(), lengths.pop()
    if length <= unit or length % unit:
        return [list(arrays)]
    return [
        [array[start : start + unit] if array.ndim else array for array in arrays]
        for start in range(0, length, unit)
    ]
