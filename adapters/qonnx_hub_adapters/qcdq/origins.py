"""How a file spelled a quantizer: integer type, domain, blocks, names of its nodes.

The note is kept on the quantizer, so that writing can choose the same spelling. It chooses
between spellings that compute the same and never supplies a number: scale, zero point, range
and codes are the quantizer's, and a note that does not fit them is not followed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import onnx_ir
from onnx_ir import Node, Value

from qonnx_hub_adapters.qcdq.chains import Chain
from qonnx_hub_adapters.qcdq.parameters import INTEGER_RANGES, MINIFLOATS
from qonnx_hub_ir import dialect
from qonnx_hub_ir.graph.builder import copy_node
from qonnx_hub_ir.graph.queries import attribute, is_standard
from qonnx_hub_ir.graph.rewriting import replace_node
from qonnx_hub_ir.quantizers import Array

KEY = "qonnx_hub.qdq"
"""Metadata key of a quantizer: the note, as JSON."""

OLD_KEY = "qonnx_hub.qdq_old"
"""Metadata key of a quantizer whose note is not of the file that was read, but of one before:
what broke a runtime there need not break it here."""

DOMAIN_KEY = "qonnx_hub.domain"
"""Metadata key of a QuantizeLinear or DequantizeLinear: the domain that the file has it in."""


CLIP_KEY = "qonnx_hub.clip"
"""Metadata key of a DequantizeLinear: name of the Clip of constants, which is folded."""


INTEGERS = "qonnx_hub.integers"
"""Key in the memory of a quantizer of constants: the int32 numbers of its file, where float32
does not hold them all. They are written again only where they make the same values."""

_FLOAT32_HOLDS = 1 << 24
"""Up to here float32 holds all whole numbers."""


@dataclass(frozen=True, slots=True)
class Origin:
    """How a file spelled a quantizer.

    Attributes:
        type_name: ONNX name of the type of its integers (or small floats); empty for none.
        quantize: Name of its QuantizeLinear; empty where the file stores integers.
        clip: Name of the Clip of its integers; empty without one, and with several.
        dequantize: Name of its DequantizeLinear.
        more: Name of a further DequantizeLinear of the same integers -> its readers: each the
            name of what it makes, and the input that it reads the values at.
        domain: Domain of the nodes.
        axis: Axis of blocks.
        block_size: Elements per block; 0 without blocks.
    """

    type_name: str = ""
    quantize: str = ""
    clip: str = ""
    dequantize: str = ""
    more: Mapping[str, list[list[Any]]] = field(default_factory=dict)
    domain: str = ""
    axis: int = 0
    block_size: int = 0

    @property
    def integers(self) -> tuple[int, bool] | None:
        """Width and signedness of the integer type, up to 32 bits; ``None`` for others."""
        if self.type_name not in INTEGER_RANGES or self.type_name.endswith("64"):
            return None
        dtype = onnx_ir.DataType[self.type_name]
        return int(dtype.bitwidth), dtype.is_signed()

    @property
    def minifloat(self) -> onnx_ir.DataType | None:
        """The small float type; ``None`` for others."""
        return onnx_ir.DataType[self.type_name] if self.type_name in MINIFLOATS else None


NOTHING = Origin()


def remember(chain: Chain, made: Value) -> None:
    """Note on a quantizer how the file spelled it.

    Args:
        chain: What the file says.
        made: The quantizer's output. What is made by another operator has no note.
    """
    quantizer, target, source = made.producer(), chain.target, chain.source
    dtype = chain.codes.dtype
    if quantizer is None or not dialect.is_quantizer(quantizer) or dtype is None:
        return
    origin = Origin(
        type_name=dtype.name,
        quantize="" if source is None else str(source.name or ""),
        clip=clip_of(chain),
        dequantize=str(target.name or ""),
        domain=target.metadata_props.get(DOMAIN_KEY, ""),
        axis=int(attribute(target, "axis", 1)),
        block_size=int(attribute(target, "block_size", 0)),
    )
    quantizer.metadata_props[KEY] = json.dumps(asdict(origin))
    stored = dialect.constant_tensor(chain.codes)
    if stored is None or dtype != onnx_ir.DataType.INT32 or chain.moves:
        return
    if np.any(np.abs(stored.numpy().astype(np.int64)) > _FLOAT32_HOLDS):
        quantizer.meta[INTEGERS] = stored


def clip_of(chain: Chain) -> str:
    """Return the name of the only Clip of a chain's integers; empty without one."""
    names = chain.clips or (chain.target.metadata_props.get(CLIP_KEY, ""),)
    return names[0] if len(names) == 1 else ""


def remember_another(chain: Chain, made: Value) -> None:
    """Note a further DequantizeLinear of integers whose quantizer has a note already."""
    quantizer, target = made.producer(), chain.target
    origin = NOTHING if quantizer is None else origin_of(quantizer)
    if quantizer is None or not origin.type_name or not target.name:
        return
    (out,) = target.outputs
    readers: list[list[Any]] = [[str(u.node.outputs[0].name), u.idx] for u in out.uses()]
    readers += [[str(out.name), 0]] if out.is_graph_output() else []
    more = {**origin.more, str(target.name): readers}
    quantizer.metadata_props[KEY] = json.dumps({**asdict(origin), "more": more})


def origin_of(node: Node) -> Origin:
    """Return how the file spelled a quantizer; an empty note where nothing is known."""
    try:
        noted: Any = json.loads(node.metadata_props.get(KEY, "{}"))
        origin = Origin(**noted)
        texts = [origin.type_name, origin.domain, origin.quantize, origin.clip]
        texts.append(origin.dequantize)
        numbers = (origin.axis, origin.block_size)
        places = [place for readers in origin.more.values() for place in readers]
        names = [str(name) for name, position in places if position >= 0]
    except (ValueError, TypeError, AttributeError):
        return NOTHING
    is_sound = all(isinstance(t, str) for t in (*texts, *names, *origin.more))
    known = origin.domain in ("", dialect.ONNXRUNTIME_DOMAIN)
    return origin if is_sound and known and all(type(n) is int for n in numbers) else NOTHING


def restore(value: Value, origin: Origin, taken: set[str]) -> None:
    """Give written nodes the domain, names and further nodes that a note says.

    Args:
        value: The output of the last node, in its place in the graph.
        origin: The note.
        taken: Names that other nodes have; what is given is added.
    """
    target = value.producer()
    if target is None or not is_standard(target, "DequantizeLinear"):
        return
    clip = _producer(target, "Clip")
    source = _producer(clip or target, "QuantizeLinear")
    named = (
        (source, origin.quantize),
        (clip, origin.clip),
        (target, origin.dequantize),
    )
    for node, name in named:
        if node is not None and name and name not in taken:
            node.name = name
            taken.add(name)
    for name, readers in origin.more.items():
        if name not in taken:
            taken.update(_add_another(target, name, {(n, k) for n, k in readers}))
    if origin.domain:
        codes = target.inputs[0]
        twins = [] if codes is None else codes.consumers()
        linear = [n for n in twins if is_standard(n, "DequantizeLinear") and n is not target]
        for node in (source, target, *linear):
            if node is not None:
                to_domain(node, origin.domain)


def to_domain(node: Node, domain: str) -> None:
    """Put a node of a graph into a domain that its model then imports."""
    node.domain = domain
    if node.graph is not None:
        node.graph.opset_imports.setdefault(domain, 1)


def _producer(node: Node, op_type: str) -> Node | None:
    """Return the standard operator of that name that makes a node's first input."""
    value = node.inputs[0]
    maker = None if value is None else value.producer()
    return maker if maker is not None and is_standard(maker, op_type) else None


def _add_another(target: Node, name: str, readers: set[tuple[str, int]]) -> list[str]:
    """Give some readers of a DequantizeLinear a further one, if they still are there."""
    value = target.outputs[0]
    uses = [u for u in value.uses() if (str(u.node.outputs[0].name), u.idx) in readers]
    if not uses:
        return []
    twin = copy_node(target, target.inputs, name=name)
    out = twin.outputs[0]
    # The source's value is compared with the first of them, which its other readers have.
    out.metadata_props.pop(dialect.PROVENANCE, None)
    target.append(twin)
    for use in uses:
        if is_standard(use.node, "Identity") and use.node.outputs[0].is_graph_output():
            replace_node(use.node, out)
            continue
        use.node.replace_input_with(use.idx, out)
    return [name]


def compressed(values: Array, shape: tuple[int, ...], origin: Origin) -> Array | None:
    """Return a parameter with one entry per block; ``None`` where it does not fit the note.

    Args:
        values: Any shape that broadcasts to ``shape``.
        shape: What it belongs to.
        origin: Says axis and size of the blocks.
    """
    axis = origin.axis + (len(shape) if origin.axis < 0 else 0)
    if not (origin.block_size > 0 and 0 <= axis < len(shape)) or 0 in shape:
        return None
    try:
        full = np.broadcast_to(values, shape)
    except ValueError:
        return None
    firsts = full.take(range(0, shape[axis], origin.block_size), axis=axis)
    again = np.repeat(firsts, origin.block_size, axis=axis).take(range(shape[axis]), axis=axis)
    return np.ascontiguousarray(firsts) if np.array_equal(again, full) else None
