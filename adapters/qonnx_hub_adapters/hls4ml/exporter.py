"""Writes a folder for hls4ml: a model that it accepts, and a config that is exact for it."""

from __future__ import annotations

from typing import Any

from onnx_ir import Model

from qonnx_hub_adapters.hls4ml import project
from qonnx_hub_adapters.hls4ml.builder import result_places
from qonnx_hub_adapters.hls4ml.config import hls_config
from qonnx_hub_adapters.hls4ml.file_names import MODEL
from qonnx_hub_adapters.hls4ml.inputs import DEFAULT, input_type
from qonnx_hub_adapters.hls4ml.lowering import Lowered, lower
from qonnx_hub_adapters.hls4ml.options import Hls4mlOptions, read_options
from qonnx_hub_adapters.hls4ml.pointwise import SHIFTED
from qonnx_hub_adapters.hls4ml.source_interface import between_source_ports
from qonnx_hub_adapters.hls4ml.type_proof import prove_types
from qonnx_hub_adapters.onnx_writer import finish
from qonnx_hub_adapters.protocol import (
    AdapterInfo,
    Artifact,
    ExportOptions,
    Feature,
    Gap,
    Support,
)
from qonnx_hub_ir.errors import NotExactError
from qonnx_hub_ir.passes import InferShapes

INFO = AdapterInfo(
    name="hls4ml",
    summary="a folder for hls4ml 1.3: a QONNX model that it accepts, and an exact config",
    support={
        Feature.BITS_2_TO_8: Support.EXACT,
        Feature.BITS_9_TO_16: Support.EXACT,
        Feature.BITS_17_TO_32: Support.BOUNDED,
        Feature.UNSIGNED_1_BIT: Support.EXACT,
        Feature.BIPOLAR: Support.EXACT,
        Feature.NARROW: Support.EXACT,
        Feature.PER_CHANNEL: Support.BOUNDED,
        Feature.ZERO_POINT: Support.EXACT,
        Feature.ZERO_POINT_AFTER_ROUNDING: Support.EXACT,
        Feature.ROUNDING_MODES: Support.REFUSED,
        Feature.DYNAMIC: Support.REFUSED,
        Feature.MINIFLOAT: Support.REFUSED,
        Feature.TRUNC: Support.REFUSED,
        Feature.CHANNELS_LAST: Support.EXACT,
    },
    folder=MODEL,
)


class Hls4mlExporter:
    """IR -> hls4ml."""

    info = INFO

    def gaps(self, model: Model) -> list[Gap]:
        """Return everything that hls4ml refuses or computes wrongly, and nothing mends."""
        return list(lower(model, Hls4mlOptions()).gaps)

    def export(self, model: Model, options: ExportOptions) -> Artifact:
        """Return the folder's model and files. The model given is not changed.

        Raises:
            NotExactError: With all gaps, or an opset that cannot say the model.
            UsageError: An option that does not exist.
        """
        inputs = tuple(str(value.name) for value in model.graph.inputs)
        own = read_options(options.extra, inputs)
        lowered = lower(model, own, allow_lossy=options.allow_lossy)
        if lowered.gaps:
            raise NotExactError("hls4ml cannot compute these nodes exactly:", lowered.gaps)
        written = lowered.model
        finish(written, options.opset)
        types = {
            str(value.name): input_type(value, name, own)
            for value, name in zip(written.graph.inputs, lowered.inputs, strict=True)
        }
        hls = hls_config(written, types, own)
        proof = prove_types(written, hls)
        notes = (*lowered.notes, *_notes(lowered, own, types), proof.words())
        compared = between_source_ports(written, lowered.inputs, lowered.outputs)
        InferShapes()(compared)
        report = {**project.report(lowered, hls, notes), "types": proof.to_dict()}
        return Artifact(
            written,
            lowered.records,
            notes,
            project.files(project.project_config(own, hls), report, lowered.tensors),
            compared,
            lowered.reordered,
        )


def _notes(lowered: Lowered, own: Hls4mlOptions, types: dict[str, Any]) -> list[str]:
    notes = []
    for (name, term), kind in zip(lowered.inputs.items(), types.values(), strict=True):
        if not term.is_as_in_source():
            layout = "in one row" if term.flat else "channels last"
            sizes = "x".join(map(str, term.stored_shape()))
            notes.append(f"input '{name}' is fed {layout}: {sizes}")
        if kind == DEFAULT:
            notes.append(
                f"input '{name}' has no quantizer: {kind}, unless "
                f"input_range.{name}=LOW,HIGH says what is fed"
            )
    places = result_places(lowered.model.graph)
    if places != sorted(places):
        order = ", ".join(n for _, n in sorted(zip(places, lowered.outputs, strict=True)))
        notes.append(f"hls4ml returns its results in the order {order}")
    if lowered.reordered:
        notes.append("scales are multiplied after sums: float32 rounds at another place")
    shifted = sum(1 for record in lowered.records if record.encoding == SHIFTED)
    if shifted:
        notes.append(
            f"{shifted} quantizers add a zero point after rounding: each is rounded, shifted, "
            "saturated and shifted back, which costs one quantizer and one addition more"
        )
    softmax = [n for n in lowered.model.graph if n.op_type == "Softmax"]
    if softmax and own.softmax == "skip":
        notes.append("hls4ml leaves the trailing Softmax to the host: it returns logits")
    elif softmax:
        notes.append("hls4ml computes Softmax from tables: near, not equal")
    return notes
