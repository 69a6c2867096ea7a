"""Reads live modules with Brevitas layers."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from onnx_ir import Model

from qonnx_hub_adapters.adapter_options import read_own_options
from qonnx_hub_adapters.brevitas import modules
from qonnx_hub_adapters.brevitas.assembly import assemble
from qonnx_hub_adapters.brevitas.quantizer_sites import QuantizerProxy, find_gaps, find_sites
from qonnx_hub_adapters.brevitas.quantizers import read_forms
from qonnx_hub_adapters.brevitas.recording import layer_values, record
from qonnx_hub_adapters.brevitas.recurrent import expose_quantizers
from qonnx_hub_adapters.brevitas.tracing import trace
from qonnx_hub_adapters.onnx_reader import describe
from qonnx_hub_adapters.protocol import (
    AdapterInfo,
    Feature,
    Feeds,
    ImportOptions,
    Outputs,
    Support,
)
from qonnx_hub_adapters.torch_common.framework import INTEGER_QUANTIZERS, require_torch
from qonnx_hub_adapters.torch_common.modules import (
    PreparedModule,
    input_names,
    prepared,
    private_copy,
)
from qonnx_hub_ir.errors import SourceError, UnsupportedGraphError, UsageError


@dataclass(frozen=True, slots=True)
class BrevitasOptions:
    """How to read a Brevitas model.

    Attributes:
        dynamo: Trace with torch.export instead of TorchScript.

    Raises:
        UsageError: A value that is neither true nor false.
    """

    dynamo: bool = False

    def __post_init__(self) -> None:
        """Refuse what is no boolean."""
        if not isinstance(self.dynamo, bool):
            raise UsageError(f"option 'dynamo' is true or false, not {self.dynamo!r}")


INFO = AdapterInfo(
    name="brevitas",
    summary="Brevitas: live torch modules, traced on a sample",
    weights=True,
    extra="brevitas",
    requires=("torch", "brevitas"),
    support={
        **INTEGER_QUANTIZERS,
        Feature.BIPOLAR: Support.EXACT,
        Feature.ROUNDING_MODES: Support.EXACT,
        Feature.DYNAMIC: Support.REFUSED,
        Feature.MINIFLOAT: Support.EXACT,
        Feature.TRUNC: Support.EXACT,
    },
    options=BrevitasOptions,
)


class BrevitasImporter:
    """Brevitas -> IR."""

    info = INFO

    def accepts(self, source: object) -> bool:
        """Return whether the source is a torch module with Brevitas layers."""
        return isinstance(source, PreparedModule) or modules.has_brevitas_layers(source)

    def prepare(self, source: object, options: ImportOptions) -> PreparedModule:
        """Return the source with its sample, and with the weights of a file if one is given.

        What it returns is taken by :meth:`load` and :meth:`run_source` in the module's place.

        Raises:
            SourceError: No sample, or weights that do not fit.
        """
        if not self.accepts(source):
            raise SourceError(f"{describe(source)} is no torch module with Brevitas layers")
        return modules.prepare(source, options)

    def load(self, source: object, options: ImportOptions) -> Model:
        """Return the source as a verified IR model. The module is not changed.

        Raises:
            MissingDependencyError: torch is not installed.
            SourceError: No sample, weights that do not fit, or a module that fails on the
                sample or cannot be traced.
            UnsupportedGraphError: Quantizers without an exact form; all of them are listed.
            UsageError: An option that does not exist.
        """
        own = read_own_options(BrevitasOptions, self.info.name, options)
        given, torch = self.prepare(source, options), require_torch("brevitas")
        name = type(given.module).__name__
        gaps = find_gaps(given.module)
        if gaps:
            raise UnsupportedGraphError(
                f"module {name} has quantizers that cannot be converted:", gaps
            )
        modules.require_traceable(given.module)
        module, sites = _observable(given.module, torch)
        args = copy.deepcopy(given.args)
        recording = record(module, sites, args, torch)
        forms = read_forms(recording, torch)
        traced = trace(module, sites, recording, args, torch, dynamo=own.dynamo)
        return assemble(traced, recording.calls, forms, name)

    def runtime(self, source: object) -> str:
        """Return the framework that answers for a source."""
        return "in PyTorch"

    def run_source(self, source: object, feeds: Feeds) -> Outputs | None:
        """Return the module's own answer at inference."""
        return modules.answer(source, feeds)

    def run_layers(self, source: object, feeds: Feeds) -> Outputs:
        """Return what the module's layers compute, by the names that its IR model uses."""
        torch = require_torch("brevitas")
        given = prepared(source)
        module, sites = _observable(given.module, torch)
        arrays = [feeds[name] for name in input_names(module, len(feeds))]
        args = modules.as_samples(arrays, given.args, torch)
        return layer_values(module, sites, args, torch)


def _observable(original: Any, torch: Any) -> tuple[Any, Sequence[QuantizerProxy]]:
    """Return a private copy in which every quantizer is called as a module, and these."""
    module = private_copy(original).eval()
    expose_quantizers(module, torch)
    return module, find_sites(module)
