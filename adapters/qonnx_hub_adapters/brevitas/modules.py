"""Modules with Brevitas layers: their samples, their quantized tensors, their own answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from qonnx_hub_adapters.dependencies import first_line, quiet, require
from qonnx_hub_adapters.protocol import Feeds, ImportOptions, Outputs
from qonnx_hub_adapters.torch_common import modules
from qonnx_hub_adapters.torch_common.framework import require_torch
from qonnx_hub_adapters.torch_common.modules import PreparedModule, array_of, classes_from
from qonnx_hub_adapters.torch_common.weights import with_weights
from qonnx_hub_ir.errors import SourceError
from qonnx_hub_ir.quantizers import Array


def is_of_brevitas(thing: object) -> bool:
    """Return whether a class of the object is one of Brevitas'."""
    return bool(classes_from(thing, "brevitas"))


def has_brevitas_layers(source: Any) -> bool:
    """Return whether the source is a torch module with a Brevitas module in it."""
    return modules.is_module(source) and any(map(is_of_brevitas, source.modules()))


def is_quant_tensor(value: object) -> bool:
    """Return whether the value is one of Brevitas' quantized tensors."""
    return isinstance(value, tuple) and is_of_brevitas(value)


def plain(value: Any) -> Any:
    """Return the tensor of a quantized tensor; anything else as it is."""
    return value.value if is_quant_tensor(value) else value


def prepare(source: Any, options: ImportOptions) -> PreparedModule:
    """Return the source with its sample, and with the weights of a file where one is given.

    The user's module is not changed: with a weights file, a copy gets the weights.

    Raises:
        SourceError: No sample, or one that is no tensor of numbers; a weights file that cannot
            be read or does not fit.
    """
    if isinstance(source, PreparedModule):
        return source
    module, torch = modules.unwrapped(source), require_torch("brevitas")
    args = tuple(_sample(index, value, torch) for index, value in enumerate(options.args))
    if not args:
        raise SourceError(
            "a Brevitas module is traced on a sample: give one with args=(x,), or its shape "
            "with --input-shape"
        )
    if options.weights is not None:
        module = with_weights(module, options.weights, torch)
    return PreparedModule(module, args)


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


def require_traceable(module: Any) -> None:
    """Raise unless the module computes in float32, with quantizers that a trace can see.

    Raises:
        SourceError: Brevitas compiles its quantizers, or a parameter or buffer has another
            float type.
    """
    config = require("brevitas.config", needed_by="adapter 'brevitas'", extra="brevitas")
    if getattr(config, "JIT_ENABLED", False):
        raise SourceError(
            "Brevitas runs with BREVITAS_JIT=1, and compiled quantizers cannot be traced: "
            "save the state_dict, and load it into the module where BREVITAS_JIT is not set"
        )
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.is_floating_point() and str(tensor.dtype) != "torch.float32":
            raise SourceError(
                f"'{name}' is {tensor.dtype}; models are converted in float32: "
                f"call .float() on the module"
            )


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
        value = list(value.values())
    if isinstance(value, (tuple, list)):
        return [tensor for one in value for tensor in flat_tensors(one)]
    raise SourceError(
        f"the module answers with a {type(value).__name__}; a graph has tensors only"
    )


def run_forward(module: Any, args: Sequence[Any], torch: Any) -> list[Any]:
    """Return the tensors that a private copy answers with.

    Raises:
        SourceError: The module fails on these inputs, or answers with other things.
    """
    try:
        with torch.no_grad(), quiet():
            answer = module(*args)
    except Exception as error:  # the user's forward may raise anything
        raise SourceError(
            f"module {type(module).__name__} fails on the sample: {first_line(error)}"
        ) from error
    return flat_tensors(answer)


def answer(source: Any, feeds: Feeds) -> Outputs:
    """Return a module's own answer at inference, under the names that its IR model uses."""
    torch = require_torch("brevitas")
    given = modules.prepared(source)
    module, samples = modules.private_copy(given.module).eval(), given.args
    sizes = {len(plain(sample)) for sample in samples if plain(sample).ndim}

    def forward(arrays: list[Array]) -> list[Array]:
        found = run_forward(module, as_samples(arrays, samples, torch), torch)
        return [array_of(tensor) for tensor in found]

    arrays = [np.asarray(feeds[name]) for name in modules.input_names(module, len(feeds))]
    unit = sizes.pop() if len(sizes) == 1 else 0
    return modules.answer_in_pieces(forward, arrays, unit)


def as_samples(arrays: Sequence[Any], samples: Sequence[Any], torch: Any) -> list[Any]:
    """Return arrays as what the samples are: tensors, quantized where those are."""
    tensors = [torch.from_numpy(np.array(array)) for array in arrays]
    return tensors if len(samples) != len(tensors) else with_values(samples, tensors)


def with_values(samples: Sequence[Any], tensors: Sequence[Any]) -> list[Any]:
    """Return tensors, quantized ones where the samples are."""
    return [
        sample.set(value=tensor) if is_quant_tensor(sample) else tensor
        for sample, tensor in zip(samples, tensors, strict=True)
    ]
