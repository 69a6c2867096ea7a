"""What was converted, on the kernels of ai-edge-litert: where either side is a TFLite file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx_ir import Model

from qonnx_hub.equivalence.comparison.compare import distances
from qonnx_hub.equivalence.inputs.batches import SampleBatch, take_samples
from qonnx_hub.equivalence.runners.sides import ExecutorRunner, renamed
from qonnx_hub_adapters.onnx_reader import read_model
from qonnx_hub_adapters.protocol import Artifact, Feeds
from qonnx_hub_adapters.tflite.importer import TfliteImporter, bytes_of
from qonnx_hub_adapters.tflite.litert import (
    KERNELS,
    is_litert_installed,
    litert_version,
    run_on_litert,
)
from qonnx_hub_adapters.tflite.reader import read_net
from qonnx_hub_ir.errors import HubError
from qonnx_hub_ir.facts import fixed_batch

ASKED = ("ref", "xnn")
"""The kernels that a conversion names: those that are exact here, and those of phones."""

_MOST_SAMPLES = 64


@dataclass(frozen=True, slots=True)
class KernelAnswer:
    """How a TFLite file on some kernels compares to the other side of a conversion.

    Attributes:
        kernels: In words: "the reference kernels".
        values: Output values compared.
        differing: Those of them that differ.
        largest: The largest difference: in codes for integers, absolute for floats.
    """

    kernels: str
    values: int
    differing: int
    largest: float

    def words(self) -> str:
        """Return it in words."""
        most = f", by {self.largest:g} at most" if self.differing else ""
        return (
            f"{self.differing} of {self.values} output values differ on {self.kernels}{most}"
        )


@dataclass(frozen=True, slots=True)
class LitertAnswers:
    """What the interpreter said.

    Attributes:
        kernels: An answer for each of :data:`ASKED`; empty where nothing was run.
        notes: The same in words, or why nothing was run.
    """

    kernels: tuple[KernelAnswer, ...] = ()
    notes: tuple[str, ...] = ()


def check_on_litert(
    source: Any, model: Model, artifact: Artifact, message: onnx.ModelProto, feeds: Feeds
) -> LitertAnswers:
    """Return how a TFLite file on ai-edge-litert compares to what it was made of, or became.

    Args:
        source: What was converted.
        model: What it computes, on the executor.
        artifact: What was made.
        message: Its graph.
        feeds: Inputs, by the names of the model.

    Returns:
        Nothing where no side is a TFLite file, or ai-edge-litert is not installed.
    """
    is_written = bool(artifact.content)
    if not (is_written or TfliteImporter().accepts(source)) or not is_litert_installed():
        return LitertAnswers()
    side = ExecutorRunner(model if is_written else read_model(message), "the other side")
    batch = fixed_batch(model) or 1
    some = take_samples(feeds, slice(0, max(_MOST_SAMPLES // batch, 1) * batch))
    try:
        content = artifact.content or bytes_of(source)
        expected = side.answer(SampleBatch(0, 0, renamed(some, side)), side.output_names)
        ordered = [expected[name] for name in side.output_names]
        found = tuple(_answer(content, some, kernels, ordered) for kernels in ASKED)
    except HubError as error:
        return LitertAnswers(notes=(f"not run on {litert_version()}: {error}",))
    told = "; ".join(one.words() for one in found)
    what = "the file written" if is_written else "the source"
    return LitertAnswers(found, (f"{what} on {litert_version()}: {told}",))


def _answer(content: bytes, feeds: Feeds, kernels: str, expected: list[Any]) -> KernelAnswer:
    net = read_net(content)
    given = dict(zip(net.input_names, feeds.values(), strict=True))
    made = run_on_litert(content, net, given, kernels).values()
    values = differing = 0
    largest = 0.0
    for x, y in zip(expected, made, strict=True):
        apart = distances(x, y.reshape(x.shape))
        values, differing = values + x.size, differing + int(np.count_nonzero(apart))
        largest = max(largest, float(apart.max(initial=0)))
    return KernelAnswer(KERNELS[kernels], values, differing, largest)
