"""Sides that are not run: tensors that somebody recorded, and golden folders of our own."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx
import onnx_ir
from onnx_ir import Model

from qonnx_hub.equivalence.inputs.batches import InputSource, SampleBatch
from qonnx_hub.io.arrays import read_arrays, write_arrays
from qonnx_hub.io.atomic import replacing_folder, write_text
from qonnx_hub.io.model_files import in_one_message
from qonnx_hub_adapters.hls4ml.traces import HardwareTypes, read_trace
from qonnx_hub_adapters.protocol import Feeds
from qonnx_hub_ir.errors import SourceError, UsageError
from qonnx_hub_ir.facts import facts_of
from qonnx_hub_ir.quantizers import Array

_INDEX = "golden.json"
_MODEL = "model.onnx"
_VERSION = 1


class _Record:
    """A side that only knows what another run answered."""

    __slots__ = ()

    @property
    def input_names(self) -> None:
        """``None``: nothing is run."""
        return

    def run_graph(self, model: Model, feeds: Feeds) -> dict[str, Array] | None:
        """Return ``None``: nothing is run."""
        return None


@dataclass(frozen=True, slots=True)
class RecordedRunner(_Record):
    """Tensors of a whole run, by name, the first axis over samples.

    Attributes:
        arrays: Tensor name -> array.
        label: How reports call it.
        model: Always ``None``: only values are known.
        folder: Where the tensors lie, if they were read from a file.
        notes: What is to be said about the tensors.
        of_hardware: Whether they were computed in fixed-point types.
        types: Tensor -> the types that hardware computes it in, where they are known.
    """

    arrays: Mapping[str, Array]
    label: str
    model: Model | None = None
    folder: Path | None = None
    notes: tuple[str, ...] = ()
    of_hardware: bool = False
    types: Mapping[str, HardwareTypes] = field(default_factory=dict)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of all tensors."""
        return tuple(self.arrays)

    def inner_names(self) -> tuple[str, ...]:
        """Return the names of all tensors."""
        return tuple(self.arrays)

    def answer(self, batch: SampleBatch, names: Sequence[str]) -> dict[str, Array]:
        """Return the samples of a batch.

        Raises:
            UsageError: Fewer samples are recorded than there are inputs.
        """
        stop = batch.start + batch.samples
        for name in names:
            held = self.arrays[name].shape[0] if self.arrays[name].ndim else 1
            if held < stop:
                raise UsageError(
                    f"{self.label} holds {held} samples of '{name}', the inputs go on: give "
                    f"the inputs that the tensors were recorded with"
                )
        return {name: self.arrays[name][batch.start : stop] for name in names}


def named_like(record: RecordedRunner, model: Model | None) -> RecordedRunner:
    """Return a record under the names of a model where its own are those of a tool's layers.

    Traces of hls4ml are known; any other record is returned as it is.

    Raises:
        SourceError: What a tool's folder says about its names cannot be read.
    """
    trace = None if model is None else read_trace(record.arrays, model, record.folder)
    if trace is None:
        return record
    return replace(
        record, arrays=trace.arrays, notes=trace.notes, of_hardware=True, types=trace.types
    )


def is_golden(source: object) -> bool:
    """Return whether the source is a folder that :class:`GoldenWriter` wrote."""
    return isinstance(source, (str, Path)) and (Path(source) / _INDEX).is_file()


class GoldenWriter:
    """Writes inputs and answers of a side, batch by batch; see :func:`golden_folder`."""

    def __init__(self, folder: Path, label: str) -> None:
        """Take the folder to write into, and how reports call the side."""
        self._folder = folder
        self._label = label
        self._batches: list[int] = []
        self._names: list[dict[str, list[str]]] = []

    def add(self, batch: SampleBatch, outputs: Feeds, inner: Feeds) -> None:
        """Write one batch."""
        groups = {"inputs": batch.feeds, "outputs": outputs, "inner": inner}
        arrays: dict[str, Array] = {}
        self._names.append({group: list(named) for group, named in groups.items()})
        for group, named in groups.items():
            # Names of tensors may hold what names of files may not.
            arrays.update({f"{group}_{i}": a for i, a in enumerate(named.values())})
        path = self._folder / _batch_name(len(self._batches))
        write_arrays(path, arrays)
        self._batches.append(batch.samples)

    def finish(self, source: InputSource) -> None:
        """Write the index, without which the folder is no golden."""
        index = {
            "version": _VERSION,
            "label": self._label,
            "source": source.description,
            "batches": self._batches,
            "names": self._names,
        }
        write_text(self._folder / _INDEX, json.dumps(index, indent=2) + "\n")


@contextlib.contextmanager
def golden_folder(
    folder: str | Path, label: str, model: Model | None
) -> Iterator[GoldenWriter]:
    """Give the writer of a golden folder, which is there when all of it is written.

    Args:
        folder: Made where it is not there; an older golden is replaced.
        label: How reports call the side.
        model: Its IR: names, quantizers, provenance.

    Raises:
        UsageError: The folder cannot be made, or holds something else.
    """
    place = Path(folder)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"'{folder}' cannot be made: {error.strerror}") from error
    with replacing_folder(place, _INDEX, (_MODEL, "batch_")) as fresh:
        if model is not None:
            data = in_one_message(model).SerializeToString(deterministic=True)
            (fresh / _MODEL).write_bytes(data)
        yield GoldenWriter(fresh, label)


def _batch_name(index: int) -> str:
    return f"batch_{index:05d}.npz"


class Golden(_Record):
    """A golden folder: both the inputs of a check and one of its sides."""

    def __init__(self, folder: str | Path) -> None:
        """Read the index of a folder.

        Raises:
            SourceError: It cannot be read.
        """
        self._folder = Path(folder)
        self._last: tuple[int, dict[str, dict[str, Array]]] | None = None
        try:
            index: dict[str, Any] = json.loads((self._folder / _INDEX).read_text("utf-8"))
            self._batches: list[int] = [int(n) for n in index["batches"]]
            self._names: list[dict[str, list[str]]] = index["names"]
            self.label = f"golden of {index['label']}"
            self.description = f"golden: {index['source']}"
            version = int(index["version"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SourceError(f"'{folder}' is no golden folder: {error}") from error
        if version != _VERSION or not self._batches or len(self._names) != len(self._batches):
            raise SourceError(f"'{folder}' is of version {version}, or holds no batches")
        path = self._folder / _MODEL
        self.model = onnx_ir.from_proto(onnx.load(path)) if path.is_file() else None

    @property
    def samples(self) -> int:
        """Samples in all batches together."""
        return sum(self._batches)

    @property
    def count(self) -> int:
        """How many batches there are."""
        return len(self._batches)

    def feeds(self, index: int) -> Feeds:
        """Return the inputs of one batch."""
        return self._read(index)["inputs"]

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs recorded."""
        return tuple(self._names[0]["outputs"])

    def inner_names(self) -> tuple[str, ...]:
        """Return the names of the inner values recorded."""
        known = {} if self.model is None else facts_of(self.model).values
        return tuple(name for name in self._names[0]["inner"] if name in known)

    def answer(self, batch: SampleBatch, names: Sequence[str]) -> dict[str, Array]:
        """Return what was recorded for a batch."""
        found = self._read(batch.index)
        both = {**found["inner"], **found["outputs"]}
        return {name: both[name] for name in names if name in both}

    def _read(self, index: int) -> dict[str, dict[str, Array]]:
        if self._last is not None and self._last[0] == index:
            return self._last[1]
        path = self._folder / _batch_name(index)
        try:
            archive = read_arrays(path)
            groups = {
                group: {name: archive[f"{group}_{i}"] for i, name in enumerate(names)}
                for group, names in self._names[index].items()
            }
        except (UsageError, KeyError) as error:
            raise SourceError(f"'{path}' cannot be read: {error}") from error
        self._last = (index, groups)
        return groups
