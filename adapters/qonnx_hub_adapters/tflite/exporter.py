"""Writes TFLite: the net that was read, or one made of layers and quantizers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import onnx_ir
from onnx_ir import Model, Node

from qonnx_hub_adapters.adapter_options import read_own_options
from qonnx_hub_adapters.protocol import (
    Artifact,
    ExportOptions,
    Feature,
    Gap,
    NearForm,
    QuantizerRecord,
    Support,
)
from qonnx_hub_adapters.tflite.distances import distances_of
from qonnx_hub_adapters.tflite.float_rules import float_form
from qonnx_hub_adapters.tflite.graph_net import net_of
from qonnx_hub_adapters.tflite.info import INFO as READ
from qonnx_hub_adapters.tflite.net import TfliteNet
from qonnx_hub_adapters.tflite.net_writer import write_net
from qonnx_hub_adapters.tflite.nodes import net_as_nodes
from qonnx_hub_adapters.tflite.options import TfliteOptions
from qonnx_hub_adapters.tflite.origins import origin_of
from qonnx_hub_adapters.tflite.reader import read_net
from qonnx_hub_ir import dialect
from qonnx_hub_ir.describe import describe_quantizer
from qonnx_hub_ir.errors import NotExactError, SourceError
from qonnx_hub_ir.graph.queries import every_quantizer, is_standard, is_weight
from qonnx_hub_ir.passes import InferShapes, LowerChannelsLast, run_passes

_EXACT = (
    "the net that was read, as it is now: the same codes on the reference kernels and on all "
    "others"
)
_NEAR = "TFLite rounds the sums of a layer twice, and halves away from zero"

INFO = replace(
    READ,
    support={
        **dict.fromkeys(READ.support, Support.BOUNDED),
        Feature.UNSIGNED_1_BIT: Support.BOUNDED,
        # Of activations: weights may have a scale per channel, and be bipolar.
        Feature.PER_CHANNEL: Support.REFUSED,
        Feature.BIPOLAR: Support.REFUSED,
        Feature.BITS_17_TO_32: Support.REFUSED,
        Feature.ROUNDING_MODES: Support.REFUSED,
    },
    options=TfliteOptions,
)


class TfliteExporter:
    """IR -> TFLite."""

    info = INFO

    def gaps(self, model: Model) -> list[Gap]:
        """Return what a TFLite file cannot say; all quantizers, where it is only near."""
        if origin_of(model) is not None:
            return []
        _, gaps = net_or_gaps(model)
        return gaps or _near(model)

    def export(self, model: Model, options: ExportOptions) -> Artifact:
        """Return the model as a TFLite file. The model given is not changed.

        Raises:
            NotExactError: It has layers without quantizers, or others that TFLite does not
                have; near forms where the options do not allow them.
        """
        read_own_options(TfliteOptions, self.info.name, options)
        net = origin_of(model)
        if net is not None:
            original = onnx_ir.from_proto(net_as_nodes(net))
            return replace(_artifact(net), original=original, notes=(_EXACT,))
        made, gaps = net_or_gaps(model)
        if made is None:
            raise NotExactError("TFLite cannot say these nodes:", gaps)
        near = _near(model)
        if near and not options.allow_lossy:
            raise NotExactError("TFLite cannot say these nodes exactly:", near)
        records = tuple(
            QuantizerRecord(
                str(node.name),
                describe_quantizer(dialect.read_quantizer(node)),
                "codes",
                exact=is_weight(node),
                reason="" if is_weight(node) else _NEAR,
            )
            for node in every_quantizer(model)
        )
        records += tuple(
            QuantizerRecord(str(node.name), node.op_type, "codes", exact=False, reason=_NEAR)
            for node in _linear_quantizers(model)
        )
        said = (f"near: {_NEAR}",) if near else ()
        written = _artifact(made)
        form = _near_form(written.content, made) if near else None
        return replace(written, quantizers=records, notes=said, near=form)


def net_or_gaps(model: Model) -> tuple[TfliteNet | None, list[Gap]]:
    """Return a model as a net, or the first thing that cannot be said."""
    copy = model.clone()
    run_passes(copy, [LowerChannelsLast(), InferShapes()])
    return net_of(copy)


def _near(model: Model) -> list[Gap]:
    remedy = "allow near forms (--allow-lossy)"
    return [
        Gap(str(node.name), node.op_type, _NEAR, remedy)
        for node in (*every_quantizer(model), *_linear_quantizers(model))
        if not is_weight(node)
    ]


def _linear_quantizers(model: Model) -> Iterator[Node]:
    """Yield the standard quantizers of values that are computed: those of integer outputs."""
    return (
        node
        for node in model.graph.all_nodes()
        if is_standard(node, "QuantizeLinear") and not is_weight(node)
    )


def _near_form(content: bytes, net: TfliteNet) -> NearForm:
    """Return the float layers of what was written, and how near it is to them."""
    again = read_net(content)
    named = replace(again, input_names=net.input_names, output_names=net.output_names)
    # Tensors have names of the source's values, and hold codes, or other layouts of them.
    apart = tuple(replace(t, name=f"{t.name}/tflite") for t in named.tensors)
    model = onnx_ir.from_proto(float_form(replace(named, tensors=apart)))
    return NearForm(model, distances_of(named))


def _artifact(net: TfliteNet) -> Artifact:
    """Return a file with the model that it is compared by: what is read from its bytes."""
    content = write_net(net)
    try:
        again = read_net(content)
    except SourceError as error:
        raise NotExactError(f"the TFLite file would not be read again: {error}", []) from error
    named = replace(again, input_names=net.input_names, output_names=net.output_names)
    model = onnx_ir.from_proto(net_as_nodes(named))
    return Artifact(model, content=content)
