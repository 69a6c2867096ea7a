"""Reads Keras files without a framework."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from onnx_ir import Model

from qonnx_hub_adapters.keras_files.containers import open_container
from qonnx_hub_adapters.keras_files.graph import read_graph
from qonnx_hub_adapters.keras_files.kinds import Kind
from qonnx_hub_adapters.keras_files.network import build
from qonnx_hub_adapters.onnx_reader import read_model
from qonnx_hub_adapters.protocol import (
    AdapterInfo,
    Feature,
    Feeds,
    ImportOptions,
    Outputs,
    Support,
)
from qonnx_hub_adapters.qkeras.importer import QkerasImporter
from qonnx_hub_adapters.qkeras.model_files import SUFFIXES, is_keras_file
from qonnx_hub_ir.passes import (
    DropUnused,
    FoldConstants,
    FoldWeightLayout,
    InferShapes,
    NameNodes,
    RemoveIdentity,
    SinkTransposes,
    run_passes,
)
from qonnx_hub_ir.verify import require_valid

INFO = AdapterInfo(
    name="keras",
    summary="Files of Keras 2 and 3, QKeras and HGQ2 (.h5, .keras, .json), without TensorFlow",
    suffixes=(*SUFFIXES, ".json"),
    support={
        Feature.BITS_2_TO_8: Support.EXACT,
        Feature.BITS_9_TO_16: Support.EXACT,
        Feature.BITS_17_TO_32: Support.BOUNDED,
        Feature.UNSIGNED_1_BIT: Support.EXACT,
        Feature.BIPOLAR: Support.EXACT,
        Feature.NARROW: Support.EXACT,
        Feature.PER_CHANNEL: Support.EXACT,
        Feature.DYNAMIC: Support.REFUSED,
    },
)


class KerasFileImporter:
    """Keras files -> IR."""

    info = INFO

    def accepts(self, source: object) -> bool:
        """Return whether the source is a file of a Keras model (folders hold code)."""
        return is_keras_file(source) and not Path(str(source)).is_dir()

    def load(self, source: object, options: ImportOptions) -> Model:
        """Return the file as a verified IR model.

        Raises:
            SourceError: The file is broken, or a layer cannot be written.
            UnsupportedGraphError: Classes that are not known; all of them are listed.
        """
        own = options.custom_objects.values()
        if options.allow_code or any(not isinstance(one, Kind) for one in own):
            # Code, or classes of Keras: only Keras can say what they compute.
            return QkerasImporter().load(source, options)
        file = open_container(str(source), options.weights)
        graph = read_graph(file.config, file.generation)
        model = read_model(build(graph, file.weights, file.generation, _custom(options)))
        run_passes(
            model,
            [
                RemoveIdentity(),
                FoldConstants(),
                FoldWeightLayout(),
                SinkTransposes(),
                FoldWeightLayout(),
                RemoveIdentity(),
                DropUnused(),
                NameNodes(),
                InferShapes(),
            ],
        )
        require_valid(model, f"model '{graph.name}'")
        return model

    def run_source(self, source: object, feeds: Feeds) -> Outputs | None:
        """Return nothing: no framework is run."""
        return None


def _custom(options: ImportOptions) -> Any:
    return {name: one for name, one in options.custom_objects.items() if isinstance(one, Kind)}
