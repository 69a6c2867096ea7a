"""Reads HAWQ: live modules, checkpoints, and the ONNX files of its exporter."""

from __future__ import annotations

from pathlib import Path

from onnx_ir import Model

from qonnx_hub_adapters.adapter_options import read_own_options
from qonnx_hub_adapters.hawq import modules
from qonnx_hub_adapters.hawq.checkpoints import SUFFIXES, import_checkpoint, is_checkpoint
from qonnx_hub_adapters.hawq.files import import_file, is_hawq_file
from qonnx_hub_adapters.hawq.layers import find_layers
from qonnx_hub_adapters.hawq.options import HawqOptions
from qonnx_hub_adapters.onnx_reader import describe, is_onnx
from qonnx_hub_adapters.protocol import (
    AdapterInfo,
    Feature,
    Feeds,
    ImportOptions,
    Outputs,
    Support,
)
from qonnx_hub_adapters.torch_common.modules import is_module
from qonnx_hub_ir.errors import SourceError

INFO = AdapterInfo(
    name="hawq",
    summary="HAWQ: live torch modules, checkpoints, and ONNX files of its exporter",
    extra="hawq",
    requires=("torch",),
    suffixes=(*SUFFIXES, ".onnx"),
    support={
        Feature.BITS_2_TO_8: Support.EXACT,
        Feature.BITS_9_TO_16: Support.EXACT,
        Feature.UNSIGNED_1_BIT: Support.EXACT,
        Feature.BIPOLAR: Support.REFUSED,
        Feature.PER_CHANNEL: Support.EXACT,
    },
    options=HawqOptions,
)


class HawqImporter:
    """HAWQ -> IR."""

    info = INFO

    def accepts(self, source: object) -> bool:
        """Return whether the source is a module with HAWQ layers, or a file of HAWQ's."""
        if is_module(source):
            return bool(find_layers(source))
        return is_checkpoint(source) or is_hawq_file(source)

    def load(self, source: object, options: ImportOptions) -> Model:
        """Return the source as a verified IR model. A live module is not changed.

        Raises:
            MissingDependencyError: torch is not installed.
            SourceError: It cannot be read or traced.
            UnsupportedGraphError: Layers without an exact form; all of them are listed.
            UsageError: An option that does not exist.
        """
        own = read_own_options(HawqOptions, self.info.name, options)
        if is_module(source):
            return modules.import_module(source, options.args, own)
        if is_onnx(source):
            return import_file(source, own.act_bits, fold=own.fold_scales)
        if not isinstance(source, (str, Path)):
            raise SourceError(f"{describe(source)} is no HAWQ model")
        return import_checkpoint(source, options.args, own)

    def run_source(self, source: object, feeds: Feeds) -> Outputs | None:
        """Return the frozen module's own answer; ``None`` for files."""
        return modules.run_module(source, feeds) if is_module(source) else None
