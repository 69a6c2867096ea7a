"""Reads Keras files without a framework."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from onnx_ir import Model

from qonnx_hub_adapters.dependencies import one_line
from qonnx_hub_adapters.keras_files.containers import open_container
from qonnx_hub_adapters.keras_files.graph import KerasGraph, read_graph
from qonnx_hub_adapters.keras_files.kinds import Kind
from qonnx_hub_adapters.keras_files.network import build
from qonnx_hub_adapters.onnx_reader import read_model
from qonnx_hub_adapters.protocol import (
    AdapterInfo,
    Feeds,
    ImportOptions,
    Outputs,
)
from qonnx_hub_adapters.qkeras.importer import QkerasImporter
from qonnx_hub_adapters.qkeras.model_files import (
    SUFFIXES,
    OpenedFile,
    is_keras_file,
)
from qonnx_hub_ir.errors import HubError, MissingDependencyError, SourceError
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
from qonnx_hub_ir.validity import require_valid

INFO = AdapterInfo(
    name="keras",
    summary="Files of Keras 2 and 3, QKeras and HGQ2 (.h5, .keras, .json), without TensorFlow",
    weights=True,
    suffixes=(*SUFFIXES, ".json"),
    support=QkerasImporter.info.support,
)


_MOST_WORDS = 200
"""Characters of Keras' own reason that a report repeats."""


@dataclass(slots=True)
class FileWithAnswer:
    """A file of Keras, and what Keras makes of it, once somebody asks for its answer.

    Attributes:
        path: The file.
        options: How it is read.
    """

    path: str
    options: ImportOptions
    _opened: OpenedFile | None = field(default=None, init=False)
    _why_not: str = field(default="", init=False)

    def live(self) -> OpenedFile | None:
        """Return the live model, loaded once; ``None`` where Keras is missing or refuses."""
        if self._opened is None and not self._why_not:
            try:
                self._opened = QkerasImporter().prepare(self.path, self.options)
            except MissingDependencyError:
                self._why_not = "TensorFlow, QKeras or tf2onnx is not installed"
            except HubError as error:
                self._why_not = f"Keras does not load it ({str(error)[:_MOST_WORDS]})"
        return self._opened

    @property
    def why_not(self) -> str:
        """Why there is no live model; empty where there is."""
        return "" if self.live() is not None else self._why_not


class KerasFileImporter:
    """Keras files -> IR."""

    info = INFO

    def accepts(self, source: object) -> bool:
        """Return whether the source is a file of a Keras model (folders hold code)."""
        if isinstance(source, FileWithAnswer):
            return True
        return is_keras_file(source) and not Path(str(source)).is_dir()

    def prepare(self, source: object, options: ImportOptions) -> FileWithAnswer:
        """Return the file with the way it is read; nothing is loaded yet."""
        return (
            source
            if isinstance(source, FileWithAnswer)
            else FileWithAnswer(str(source), options)
        )

    def load(self, source: object, options: ImportOptions) -> Model:
        """Return the file as a verified IR model.

        Raises:
            SourceError: The file is broken, or a layer cannot be written.
            UnsupportedGraphError: Classes that are not known; all of them are listed.
        """
        path = self.prepare(source, options).path
        own = options.custom_objects.values()
        if options.allow_code or any(not isinstance(one, Kind) for one in own):
            # Code, or classes of Keras: only Keras can say what they compute.
            return QkerasImporter().load(path, options)
        graph, built = _built(path, options)
        model = read_model(built)
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

    def runtime(self, source: object) -> str:
        """Return the Keras that answers for a file, or why none does."""
        file = self.prepare(source, ImportOptions())
        live = file.live()
        if live is None:
            return f"as read, on the executor: {file.why_not}"
        return QkerasImporter().runtime(live)

    def run_source(self, source: object, feeds: Feeds) -> Outputs | None:
        """Return Keras' own answer; ``None`` where it is missing or refuses the file."""
        live = self.prepare(source, ImportOptions()).live()
        return None if live is None else QkerasImporter().run_source(live, feeds)


_BROKEN = (
    *(ArithmeticError, AttributeError, LookupError, MemoryError, OSError, RuntimeError),
    *(TypeError, ValueError),
)
"""What h5py, numpy and plain Python raise over a file that was spoiled."""


def _built(path: str, options: ImportOptions) -> tuple[KerasGraph, Model]:
    """Return the graph of a file, and what it becomes.

    Raises:
        SourceError: The file is broken.
    """
    try:
        with ExitStack() as held:
            file = open_container(path, options.weights, held)
            graph = read_graph(file.config, file.generation)
            given = options.custom_objects.items()
            kinds = {name: kind for name, kind in given if isinstance(kind, Kind)}
            return graph, build(graph, file.weights, file.generation, kinds)
    except HubError:
        raise
    except _BROKEN as error:
        kind = type(error).__name__
        raise SourceError(f"'{path}' is broken: {kind}: {one_line(error)[:200]}") from error
