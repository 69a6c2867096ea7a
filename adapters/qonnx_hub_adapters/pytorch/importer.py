"""Reads plain PyTorch: modules, traced graphs, exported programs and their files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
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
from qonnx_hub_adapters.pytorch import inference, tracing
from qonnx_hub_adapters.pytorch.assembly import assemble, free_names
from qonnx_hub_adapters.pytorch.expansion import (
    SCALED,
    SNAPPED,
    UNPROVEN,
    WrittenQuantizer,
)
from qonnx_hub_adapters.pytorch.modules import frozen_copy, inference_copy, shown_modules
from qonnx_hub_adapters.pytorch.options import PyTorchOptions
from qonnx_hub_adapters.pytorch.programs import mark
from qonnx_hub_adapters.pytorch.tracing import is_program, is_program_file
from qonnx_hub_adapters.torch_common.framework import require_torch
from qonnx_hub_adapters.torch_common.modules import (
    PreparedModule,
    input_names,
    is_module,
    unwrapped,
)
from qonnx_hub_adapters.torch_common.weights import with_weights
from qonnx_hub_ir import dialect
from qonnx_hub_ir.errors import SourceError, UsageError

INFO = AdapterInfo(
    name="pytorch",
    summary="PyTorch modules, FX and PT2E quantized graphs, exported programs",
    extra="pytorch",
    requires=("torch", "onnxscript"),
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

_NEEDED = (INFO.name, "onnxscript")

FORMS = "qonnx_hub.pytorch.forms"
"""Metadata key of a model: how each quantizer was written, as JSON."""


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
        return _program(source, torch)

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
        prepared: Any = self.prepare(source, options)
        if isinstance(prepared, PreparedModule):
            module = frozen_copy(prepared.module, torch)
            program = tracing.export(module, prepared.args, torch)
            inputs = input_names(prepared.module, len(prepared.args))
            name = type(prepared.module).__name__
        else:
            program, name = prepared, "program"
            inputs = list(program.graph_signature.user_inputs)
        model, forms = assemble(mark(program, torch), torch, mode=own.mode, name=name)
        _name_inputs(model, inputs)
        _attach(model, forms)
        return model

    def run_source(self, source: object, feeds: Feeds) -> Outputs | None:
        """Return the model's own answer at inference."""
        torch = require_torch(*_NEEDED)
        module, names = _at_inference(source, len(feeds), torch)
        return inference.answer(module, [feeds[name] for name in names], torch)

    def run_layers(self, source: object, feeds: Feeds) -> Outputs:
        """Return what the model's modules compute, by the names that its IR model uses."""
        torch = require_torch(*_NEEDED)
        module, names = _at_inference(source, len(feeds), torch)
        args = [feeds[name] for name in names]
        return inference.layers(module, shown_modules(module), args, torch)


def _at_inference(source: object, count: int, torch: Any) -> tuple[Any, list[str]]:
    """Return a module that answers for a source, and the names of its inputs."""
    if _is_module(source):
        given = source.module if isinstance(source, PreparedModule) else source
        module = inference_copy(given, torch)
        return module, input_names(module, count)
    program = _program(source, torch)
    module = inference_copy(program.module(), torch)
    return module, list(program.graph_signature.user_inputs)


def _is_module(source: object) -> bool:
    return isinstance(source, PreparedModule) or is_module(source)


def _program(source: object, torch: Any) -> Any:
    if is_program(source):
        return source
    if not is_program_file(source):
        raise SourceError(f"{describe(source)} is no model of PyTorch's")
    return tracing.read_program(str(source), torch)


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
            free_names(model, name)
            value.name = name
        value.metadata_props[dialect.PROVENANCE] = name


def _attach(model: Model, forms: Sequence[WrittenQuantizer]) -> None:
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


def read_forms(model: Model) -> tuple[WrittenQuantizer, ...]:
    """Return how the quantizers of an imported model were written, in order."""
    return tuple(
        WrittenQuantizer(**entry)
        for entry in json.loads(model.metadata_props.get(FORMS, "[]"))
    )
