"""Reads plain PyTorch: modules, traced graphs, exported programs and their files."""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from onnx_ir import Model

from qonnx_hub_adapters.onnx_reader import describe
from qonnx_hub_adapters.protocol import (
    AdapterInfo,
    Feature,
    Feeds,
    ImportOptions,
    Outputs,
    Support,
)
from qonnx_hub_adapters.pytorch import inference, tracing
from qonnx_hub_adapters.pytorch.assembly import assemble, give_way
from qonnx_hub_adapters.pytorch.expansion import SCALED, SNAPPED, UNPROVEN, Form
from qonnx_hub_adapters.pytorch.framework import NEEDED, torch_module
from qonnx_hub_adapters.pytorch.modules import (
    frozen_copy,
    inference_copy,
    is_module,
    own_copy,
    shown_modules,
    unwrapped_module,
)
from qonnx_hub_adapters.pytorch.options import read_settings
from qonnx_hub_adapters.pytorch.programs import mark
from qonnx_hub_adapters.pytorch.tracing import is_program, is_program_file
from qonnx_hub_adapters.pytorch.weights import load_weights
from qonnx_hub_ir import dialect
from qonnx_hub_ir.errors import SourceError, UsageError

INFO = AdapterInfo(
    name="pytorch",
    summary="PyTorch modules, FX and PT2E quantized graphs, exported programs",
    extra="pytorch",
    requires=NEEDED,
    suffixes=(tracing.SUFFIX,),
    support={
        Feature.BITS_2_TO_8: Support.EXACT,
        Feature.BITS_9_TO_16: Support.EXACT,
        Feature.BITS_17_TO_32: Support.EXACT,
        Feature.UNSIGNED_1_BIT: Support.EXACT,
        Feature.NARROW: Support.EXACT,
        Feature.PER_CHANNEL: Support.EXACT,
        Feature.ZERO_POINT: Support.EXACT,
        Feature.DYNAMIC: Support.REFUSED,
    },
)

FORMS = "qonnx_hub.pytorch.forms"
"""Metadata key of a model: how each quantizer was written, as JSON."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A module with what it is read with.

    Attributes:
        module: The user's, or a copy of it with other weights.
        args: Sample inputs, as tensors.
    """

    module: Any
    args: tuple[Any, ...]


class PyTorchImporter:
    """PyTorch -> IR."""

    info = INFO

    def accepts(self, source: object) -> bool:
        """Return whether the source is a torch module, an exported program, or its file."""
        return (
            isinstance(source, Prepared)
            or is_module(source)
            or is_program(source)
            or is_program_file(source)
        )

    def prepare(self, source: object, options: ImportOptions) -> object:
        """Return the source with its sample and weights; a file as the program that it holds.

        What it returns is taken by :meth:`load` and :meth:`run_source` in the source's place.

        Raises:
            MissingDependencyError: torch or onnxscript is not installed.
            SourceError: It cannot be read, or the weights do not fit.
            UsageError: No sample input, or weights for what has them already.
        """
        torch = torch_module()
        if isinstance(source, Prepared):
            return source
        if is_module(source):
            return _prepared(source, options, torch)
        if options.weights is not None:
            raise UsageError("an exported program has its weights already")
        return _program(source, torch)

    def load(self, source: object, options: ImportOptions) -> Model:
        """Return the source as a verified IR model. A live module is not changed.

        Raises:
            MissingDependencyError: torch or onnxscript is not installed.
            SourceError: It cannot be read, traced or written as a graph.
            UnsupportedGraphError: Layers or operators without an exact form; all are listed.
            UsageError: An option that does not exist, or no sample input.
        """
        settings = read_settings(options)
        torch = torch_module()
        prepared: Any = self.prepare(source, options)
        if isinstance(prepared, Prepared):
            module = frozen_copy(prepared.module, torch)
            program = tracing.export(module, prepared.args, torch)
            inputs = input_names(prepared.module, len(prepared.args))
            name = type(prepared.module).__name__
        else:
            program, name = prepared, "program"
            inputs = list(program.graph_signature.user_inputs)
        model, forms = assemble(mark(program, torch), torch, mode=settings.mode, name=name)
        _name_inputs(model, inputs)
        _attach(model, forms)
        return model

    def run_source(self, source: object, feeds: Feeds) -> Outputs | None:
        """Return the model's own answer at inference."""
        torch = torch_module()
        module, names = _at_inference(source, len(feeds), torch)
        return inference.answer(module, [feeds[name] for name in names], torch)

    def run_layers(self, source: object, feeds: Feeds) -> Outputs:
        """Return what the model's modules compute, by the names that its IR model uses."""
        torch = torch_module()
        module, names = _at_inference(source, len(feeds), torch)
        args = [feeds[name] for name in names]
        return inference.layers(module, shown_modules(module), args, torch)


def _at_inference(source: object, count: int, torch: Any) -> tuple[Any, list[str]]:
    """Return a module that answers for a source, and the names of its inputs."""
    if isinstance(source, Prepared) or is_module(source):
        module = inference_copy(
            source.module if isinstance(source, Prepared) else source, torch
        )
        return module, input_names(module, count)
    program = _program(source, torch)
    module = inference_copy(program.module(), torch)
    return module, list(program.graph_signature.user_inputs)


def _prepared(source: Any, options: ImportOptions, torch: Any) -> Prepared:
    module = unwrapped_module(source)
    args = tracing.samples_of(module, options.args, torch)
    if options.weights is not None:
        module = own_copy(module)
        load_weights(module, options.weights, torch)
    return Prepared(module, args)


def _program(source: object, torch: Any) -> Any:
    if is_program(source):
        return source
    if not is_program_file(source):
        raise SourceError(f"{describe(source)} is no model of PyTorch's")
    return tracing.read_program(str(source), torch)


def input_names(module: Any, count: int) -> list[str]:
    """Return the names of the inputs: those of the parameters of ``forward``."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(module.forward).parameters.values()
    named = [one.name for one in parameters if one.kind in kinds]
    if len(named) >= count:
        return named[:count]
    return [f"input_{index}" for index in range(count)]


def _name_inputs(model: Model, names: Sequence[str]) -> None:
    """Give the inputs their names; whoever has such a name gives way."""
    inputs = list(model.graph.inputs)
    if len(inputs) != len(names):
        given = ", ".join(str(value.name) for value in inputs)
        raise SourceError(
            f"the traced model has the inputs {given}; {len(names)} were expected: inputs "
            "must be tensors, not lists or tables of them"
        )
    for value, name in zip(inputs, names, strict=True):
        if value.name != name:
            give_way(model.graph, name)
            value.name = name
        value.metadata_props[dialect.PROVENANCE] = name


def _attach(model: Model, forms: Sequence[Form]) -> None:
    """Write into the model's metadata which form each quantizer has."""
    model.metadata_props[FORMS] = json.dumps([asdict(form) for form in forms])
    spelled = [form.name for form in forms if form.form in (SNAPPED, SCALED)]
    if spelled:
        model.metadata_props[dialect.NOTE] = (
            f"{len(spelled)} of {len(forms)} quantizers are not a Quant node alone, because "
            "torch multiplies by the rounded 1/scale where Quant divides: --option mode=quant "
            f"writes Quant nodes only, equal but beside ties ({', '.join(spelled)})"
        )
    unproven = [form.name for form in forms if form.form == UNPROVEN]
    if unproven:
        model.metadata_props[dialect.BOUNDED] = (
            "torch multiplies by the rounded 1/scale and adds the zero point after rounding, "
            "where Quant divides and adds before: values within float32 rounding of a tie can "
            f"be one step apart at {len(unproven)} of {len(forms)} quantizers: "
            f"{', '.join(unproven)}"
        )


def read_forms(model: Model) -> tuple[Form, ...]:
    """Return how the quantizers of an imported model were written, in order."""
    return tuple(Form(**entry) for entry in json.loads(model.metadata_props.get(FORMS, "[]")))
