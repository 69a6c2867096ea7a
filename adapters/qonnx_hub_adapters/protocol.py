"""What an adapter is: one foreign form, how it is read and how it is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy.typing as npt
import onnx
from onnx_ir import Model

from qonnx_hub_ir.errors import Gap

__all__ = [
    "QONNX_FEATURES",
    "AdapterInfo",
    "Artifact",
    "Bound",
    "BoundsLayers",
    "CodesOf",
    "ExportOptions",
    "Exporter",
    "Feature",
    "Feeds",
    "Gap",
    "ImportOptions",
    "Importer",
    "LayerDistance",
    "LayerDistances",
    "NearForm",
    "Outputs",
    "Prepares",
    "QuantizerRecord",
    "ReadsAsWritten",
    "ShowsLayers",
    "Support",
    "export_options",
    "import_options",
]

Feeds: TypeAlias = Mapping[str, npt.NDArray[Any]]
Outputs: TypeAlias = dict[str, npt.NDArray[Any]]


class Support(str, Enum):
    """How well a form says something. Unknown is not the same as refused."""

    EXACT = "exact"
    BOUNDED = "bounded"
    REFUSED = "refused"
    UNKNOWN = "unknown"


class Feature(str, Enum):
    """What a form may or may not be able to say."""

    BITS_2_TO_8 = "2..8 bits"
    BITS_9_TO_16 = "9..16 bits"
    BITS_17_TO_32 = "17..32 bits"
    UNSIGNED_1_BIT = "unsigned 1 bit"
    BIPOLAR = "bipolar"
    NARROW = "narrow range"
    PER_CHANNEL = "per-channel scale"
    ZERO_POINT = "zero point"
    ZERO_POINT_AFTER_ROUNDING = "zero point added after rounding"
    ROUNDING_MODES = "rounding modes"
    DYNAMIC = "dynamic parameters"
    MINIFLOAT = "minifloat"
    TRUNC = "truncation"
    CHANNELS_LAST = "channels-last operators"


QONNX_FEATURES: tuple[Feature, ...] = (
    Feature.BITS_2_TO_8,
    Feature.BITS_9_TO_16,
    Feature.BITS_17_TO_32,
    Feature.UNSIGNED_1_BIT,
    Feature.BIPOLAR,
    Feature.NARROW,
    Feature.PER_CHANNEL,
    Feature.ZERO_POINT,
    Feature.ROUNDING_MODES,
    Feature.DYNAMIC,
    Feature.MINIFLOAT,
    Feature.TRUNC,
    Feature.CHANNELS_LAST,
)
"""What QONNX says. Written out: a feature that is added later is claimed by nobody before an
adapter names it."""


@dataclass(frozen=True, slots=True)
class AdapterInfo:
    """What is known about an adapter without loading its framework.

    Attributes:
        name: The name users write after ``--from`` or ``--to``.
        summary: One line for ``qonnx-hub formats``.
        extra: The pip extra that installs its framework; empty where none is needed.
        requires: Import names that must be found.
        suffixes: File suffixes that it reads or writes, with the dot.
        support: Feature -> support; what is not listed is UNKNOWN.
        folder: For a form that is a folder, the name of the model in it; else empty.
        options: The dataclass of the options that only this adapter has, if there are any.
        weights: For an importer, whether it takes weights from a file of their own.
    """

    name: str
    summary: str
    extra: str = ""
    requires: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()
    support: Mapping[Feature, Support] = field(default_factory=dict)
    folder: str = ""
    options: type[Any] | None = None
    weights: bool = False

    @property
    def option_names(self) -> tuple[str, ...]:
        """Names of the options that only this adapter has, as its dataclass lists them."""
        return () if self.options is None else tuple(f.name for f in fields(self.options))


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """How to read a source.

    Attributes:
        weights: Path of a weights file, for sources that keep them apart.
        args: Sample inputs, for sources that must be traced.
        custom_objects: Name -> class, for sources with the user's own layers.
        extra: Options that only this adapter has, by name.
        allow_code: Run code that a file holds (Lambda layers, SavedModel folders, pickles).
    """

    weights: str | None = None
    args: tuple[Any, ...] = ()
    custom_objects: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    allow_code: bool = False


def import_options(
    weights: str | None = None,
    args: Sequence[Any] = (),
    custom_objects: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    allow_code: bool = False,
) -> ImportOptions:
    """Return the options of an import; ``options`` are those that only one adapter has."""
    return ImportOptions(
        weights, tuple(args), custom_objects or {}, options or {}, allow_code=allow_code
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """How to write a target.

    Attributes:
        opset: Standard opset of the file; the exporter's choice by default.
        allow_lossy: Write what is not exact as well, where a near form exists.
        extra: Options that only this exporter has, by name; see :attr:`AdapterInfo.options`.
    """

    opset: int | None = None
    allow_lossy: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)


def export_options(
    *, opset: int | None = None, allow_lossy: bool = False, **extra: Any
) -> ExportOptions:
    """Return the options of an export, those that only its exporter has among them."""
    return ExportOptions(opset=opset, allow_lossy=allow_lossy, extra=extra)


@dataclass(frozen=True, slots=True)
class Bound:
    """How far a form that is not exact may be from its quantizer, on the same values.

    Attributes:
        steps: Largest difference, in steps of the quantizer.
        share: Predicted share of values that differ, when all integers before it are equally
            likely; ``None`` where it is not known.
        near: Distance from a rounding tie, in steps, beyond which no value differs; ``None``
            where it is not known. Values within a few float32 spacings are on the tie.
    """

    steps: int = 1
    share: float | None = None
    near: float | None = None


@dataclass(frozen=True, slots=True)
class LayerDistance:
    """How far a float layer may be from the kernel that it stands for, on equal codes.

    Attributes:
        layer: What it makes.
        operator: Its operator, as the source calls it.
        steps: The largest difference, in steps, proven; ``None`` where no bound is known.
        share: The share of its sums, or codes, that differ; ``None`` where not counted.
    """

    layer: str
    operator: str
    steps: int | None
    share: float | None = None


@dataclass(frozen=True, slots=True)
class LayerDistances:
    """The layers of a model that are not exact.

    Attributes:
        layers: In order; layers that are exact are not among them.
        outputs: By how many steps the outputs of the whole may differ, proven; ``None`` where
            layers stand behind layers that differ, or have no bound.
    """

    layers: tuple[LayerDistance, ...] = ()
    outputs: int | None = None

    @property
    def unknown(self) -> tuple[LayerDistance, ...]:
        """Layers without a bound."""
        return tuple(one for one in self.layers if one.steps is None)

    @property
    def steps(self) -> int | None:
        """The largest difference of a layer; ``None`` where one has no bound."""
        known = [one.steps for one in self.layers if one.steps is not None]
        return None if self.unknown else max(known, default=0)

    def words(self) -> str:
        """Return in a sentence what is known of the layers."""
        if self.unknown:
            names = ", ".join(map(_layer_words, self.unknown[:3]))
            more = len(self.unknown) - 3
            return f"no bound is known of {names}" + (f" and {more} more" if more > 0 else "")
        if not self.layers:
            return "every layer gives equal codes"
        worst = max(self.layers, key=lambda one: one.share or 0.0)
        told = f"every layer gives equal codes but {len(self.layers)}, proven within "
        told += f"{self.steps} step{'s' if self.steps != 1 else ''} on equal codes"
        if worst.share:
            told += f"; of their sums {worst.share:.2g} differ at most ({_layer_words(worst)})"
        return told


_LONGEST_NAME = 60


def _layer_words(one: LayerDistance) -> str:
    name = one.layer
    cut = name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}..."
    return f"{one.operator} '{cut}'"


@dataclass(frozen=True, slots=True)
class NearForm:
    """What a form that is near says, as float layers, and how near it is to these.

    Attributes:
        model: Float layers and quantizers: the source's own, but for what was rounded.
        distances: How far the form's own layers are from them.
    """

    model: Model
    distances: LayerDistances


@dataclass(frozen=True, slots=True)
class CodesOf:
    """The value of a file that holds the integers of a quantizer.

    Attributes:
        value: Its name in the file.
        zero: The integer that stands for zero.
        low: Lowest integer that can occur.
        high: Highest integer that can occur.
    """

    value: str
    zero: int
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class QuantizerRecord:
    """What became of one quantizer.

    Attributes:
        node: Its name.
        quantizer: The quantizer in words (operator, bits, signedness).
        encoding: The form it was given.
        exact: Whether the form computes the same float32 values.
        reason: Why this form.
        bound: What a form that is not exact promises; a conversion that breaks it is refused.
            ``None`` for exact forms, and where nothing is promised.
    """

    node: str
    quantizer: str
    encoding: str
    exact: bool = True
    reason: str = ""
    bound: Bound | None = None


@dataclass(frozen=True, slots=True)
class Artifact:
    """What an exporter made, not yet written to disk.

    Attributes:
        model: The ONNX model.
        quantizers: One record per quantizer of the source.
        notes: Sentences that a user should read.
        files: Further files, name -> bytes, for forms that are folders.
        compared: The model between the source's own inputs and outputs, where the model itself
            takes or gives others (channels last, flat): what is compared with the source.
        reordered: Whether it multiplies and adds in another order than the source: float32
            rounds elsewhere then, and a sum within the last bits of a tie may fall to the
            other side.
        codes: Output of a quantizer in the source -> the value that holds its integers, for
            forms that compute in integers.
        original: The source in its own operators, where that is what was written and the IR is
            only near: it is compared with this.
        content: The bytes of the file, for forms that are no ONNX files; the model is then
            what they say.
        near: For forms whose layers round otherwise than float layers: how far they are apart.
    """

    model: Model
    quantizers: tuple[QuantizerRecord, ...] = ()
    notes: tuple[str, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)
    compared: Model | None = None
    reordered: bool = False
    codes: Mapping[str, CodesOf] = field(default_factory=dict)
    original: Model | None = None
    content: bytes = b""
    near: NearForm | None = None

    def to_proto(self) -> onnx.ModelProto:
        """Return the model as a protobuf message."""
        import onnx_ir

        return onnx_ir.to_proto(self.model)


@runtime_checkable
class Importer(Protocol):
    """Reads one foreign form."""

    @property
    def info(self) -> AdapterInfo:
        """What is known without loading anything."""

    def accepts(self, source: object) -> bool:
        """Return whether this importer reads the source. Cheap; imports no framework."""

    def load(self, source: object, options: ImportOptions) -> Model:
        """Return the source as a verified IR model.

        Raises:
            SourceError: It cannot be read.
            UnsupportedGraphError: It holds what the IR cannot say exactly.
        """

    def run_source(self, source: object, feeds: Feeds) -> Outputs | None:
        """Return the original's own answer; ``None`` where there is only the IR to run."""


@runtime_checkable
class Prepares(Protocol):
    """An importer whose sources need something beside them: a sample, a file of weights."""

    def prepare(self, source: object, options: ImportOptions) -> Any:
        """Return what the importer takes in the source's place, with all that it needs.

        ``load`` and ``run_source`` then mean the same thing. The source is not changed.

        Raises:
            SourceError: Something is missing, or does not fit.
        """


@runtime_checkable
class ShowsLayers(Protocol):
    """An importer that can say what the layers of a live model compute."""

    def run_layers(self, source: object, feeds: Feeds) -> Outputs:
        """Return inner values of one forward pass by the layers' names, as in provenance."""


@runtime_checkable
class NamesRuntime(Protocol):
    """An importer that says what answers for its sources."""

    def runtime(self, source: object) -> str:
        """Return what answers, such as "in Keras 2", or that it is only read, and why."""


@runtime_checkable
class BoundsLayers(Protocol):
    """An importer that knows how far its IR is from a source, layer by layer."""

    def layer_distances(self, source: object) -> LayerDistances:
        """Return the layers that are not exact, and by how much."""


@runtime_checkable
class ReadsAsWritten(Protocol):
    """An importer whose IR is near: it can also give a source's very operators, to be run."""

    def load_as_written(self, source: object) -> Model:
        """Return the source with the operators that it is written in.

        Raises:
            SourceError: It cannot be read.
        """


@runtime_checkable
class Exporter(Protocol):
    """Writes one foreign form."""

    @property
    def info(self) -> AdapterInfo:
        """What is known without loading anything."""

    def gaps(self, model: Model) -> list[Gap]:
        """Return everything in the model that this form cannot say exactly."""

    def export(self, model: Model, options: ExportOptions) -> Artifact:
        """Return the model in this form. The model given is not changed.

        Raises:
            UnsupportedGraphError: With all gaps, unless the options allow them.
        """
