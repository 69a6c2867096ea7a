"""Reads plain PyTorch: modules, traced graphs, exported programs and their files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from onnx_ir import Model

from qonnx_hub_adapters.adapter_options import read_own_options
from qonnx_hub_adapters.onnx_reader import describe
from qonnx_hub_adapters.protocol import (
    AdapterInfo,
    Feature,
    Feeds,
    ImportOptions,
    Outputs,
    Support,
)
from qonnx_hub_adapters.pytorch import tracing
from qonnx_hub_adapters.pytorch.assembly import assemble, free_names
from qonnx_hub_adapters.pytorch.expansion import attach_forms
from qonnx_hub_adapters.pytorch.modules import answer, frozen_copy, inference_copy, layers
from qonnx_hub_adapters.pytorch.programs import mark
from qonnx_hub_adapters.pytorch.reference import call_fake_quantization
from qonnx_hub_adapters.pytorch.tracing import is_program, is_program_file
from qonnx_hub_adapters.torch_common.framework import (
    EXACT,
    INTEGER_QUANTIZERS,
    MODES,
    require_torch,
)
from qonnx_hub_adapters.torch_common.modules import (
    PreparedModule,
    input_names,
    is_module,
    prepared,
    unwrapped,
)
from qonnx_hub_adapters.torch_common.weights import with_weights
from qonnx_hub_ir import dialect
from qonnx_hub_ir.choices import require_choice
from qonnx_hub_ir.errors import SourceError, UsageError
from qonnx_hub_ir.quantizers import Array


@dataclass(frozen=True, slots=True)
class PyTorchOptions:
    """How to read a model of PyTorch's.

    Attributes:
        mode: "exact" (every value as torch computes it) or "quant" (``Quant`` nodes only,
            which differ from torch where a value lies on a rounding tie).

    Raises:
        UsageError: A mode that does not exist.
    """

    mode: str = EXACT

    def __post_init__(self) -> None:
        """Refuse unknown modes."""
        require_choice("mode", self.mode, MODES)


INFO = AdapterInfo(
    name="pytorch",
    summary="PyTorch modules, FX and PT2E quantized graphs, exported programs",
    weights=True,
    extra="pytorch",
    requires=("torch", "onnxscript"),
    suffixes=(tracing.SUFFIX,),
    support={**INTEGER_QUANTIZERS, Feature.DYNAMIC: Support.REFUSED},
    options=PyTorchOptions,
)

_NEEDED = (INFO.name, "onnxscript")


class PyTorchImporter:
    """PyTorch -> IR."""

    info = INFO

    def accepts(self, source: object) -> bool:
        """Return whether the source is a torch module, an exported program, or its file."""
        return _is_module(source) or is_program(source) or is_program_file(source)

    def prepare(self, source: object, options: ImportOptions) -> object:
        """Return the source with its sample and weights; a file as the program that it holds.

        What it returns is taken by :meth:`load` and :meth:`run_source` in the source's place.

        Raises:
            MissingDependencyError: torch or onnxscript is not installed.
            SourceError: It cannot be read, or the weights do not fit.
            UsageError: No sample input, or weights for what has them already.
        """
        torch = require_torch(*_NEEDED)
        if isinstance(source, PreparedModule):
            return source
        if is_module(source):
            module = unwrapped(source)
            args = tracing.samples_of(module, options.args, torch)
            if options.weights is not None:
                module = with_weights(module, options.weights, torch)
            return PreparedModule(module, args)
        if options.weights is not None:
            raise UsageError("an exported program has its weights already")
        return _program(source, torch, options.allow_code)

    def load(self, source: object, options: ImportOptions) -> Model:
        """Return the source as a verified IR model. A live module is not changed.

        Raises:
            MissingDependencyError: torch or onnxscript is not installed.
            SourceError: It cannot be read, traced or written as a graph.
            UnsupportedGraphError: Layers or operators without an exact form; all are listed.
            UsageError: An option that does not exist, or no sample input.
        """
        own = read_own_options(PyTorchOptions, self.info.name, options)
        torch = require_torch(*_NEEDED)
        given: Any = self.prepare(source, options)
        if isinstance(given, PreparedModule):
            module = frozen_copy(given.module, torch)
            program = tracing.export(module, given.args, torch)
            inputs = input_names(given.module, len(given.args))
            name = type(given.module).__name__
        else:
            program, name = given, "program"
            inputs = list(program.graph_signature.user_inputs)
        model, forms = assemble(mark(program, torch), torch, mode=own.mode, name=name)
        _name_inputs(model, inputs)
        attach_forms(model, forms)
        return model

    def runtime(self, source: object) -> str:
        """Return the framework that answers for a source."""
        return "in PyTorch"

    def run_source(self, source: object, feeds: Feeds) -> Outputs | None:
        """Return the model's own answer at inference."""
        torch = require_torch(*_NEEDED)
        module, args = _at_inference(source, feeds, torch)
        return answer(module, args, torch)

    def run_layers(self, source: object, feeds: Feeds) -> Outputs:
        """Return what the model's modules compute, by the names that its IR model uses."""
        torch = require_torch(*_NEEDED)
        module, args = _at_inference(source, feeds, torch)
        call_fake_quantization(module, torch)  # the same values, by modules that show them
        return layers(module, args, torch)


def _at_inference(source: object, feeds: Feeds, torch: Any) -> tuple[Any, list[Array]]:
    """Return a module that answers for a source, and its inputs in order."""
    if _is_module(source):
        module = inference_copy(prepared(source).module, torch)
        names = input_names(module, len(feeds))
    else:
        program = _program(source, torch)
        module = inference_copy(program.module(), torch)
        names = list(program.graph_signature.user_inputs)
    return module, [feeds[name] for name in names]


def _is_module(source: object) -> bool:
    return isinstance(source, PreparedModule) or is_module(source)


def _program(source: object, torch: Any, allow_code: bool = False) -> Any:
    if is_program(source):
        return source
    if not is_program_file(source):
        raise SourceError(f"{describe(source)} is no model of PyTorch's")
    return tracing.read_program(str(source), torch, allow_code=allow_code)


def _name_inputs(model: Model, names: Sequence[str]) -> None:
    """Give the inputs their names; other values with such a name are renamed."""
    inputs = list(model.graph.inputs)
    if len(inputs) != len(names):
        given = ", ".join(str(value.name) for value in inputs)
        raise SourceError(
            f"the traced model has the inputs {given}; {len(names)} were expected: inputs "
            "must be tensors, not lists or tables of them"
        )
    for value, name in zip(inputs, names, strict=True):
        if value.name != name:
            free_names(model, name)
            value.name = name
        value.metadata_props[dialect.PROVENANCE] = name
