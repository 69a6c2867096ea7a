"""Random files of integer operators and of QDQ: in and out again, equal operators, equal bits.

The reference is onnxruntime on the file itself, without optimizations.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.helper import make_node, make_tensor_value_info

import qonnx_hub as qh
from qonnx_hub.equivalence.proof.prove import prove_models
from qonnx_hub.equivalence.verdicts import Verdict
from qonnx_hub_adapters.protocol import ExportOptions, ImportOptions
from qonnx_hub_adapters.qcdq.exporter import QcdqExporter
from qonnx_hub_adapters.qcdq.importer import QcdqImporter
from qonnx_hub_adapters.qlinear.importer import QlinearImporter
from qonnx_hub_ir import dialect
from qonnx_hub_ir.quantizers import IntQuant, single_value
from tests.adapters.qcdq.random_pairs import random_pairs
from tests.adapters.qlinear.kit import export
from tests.adapters.qlinear.test_importer import MICROSOFT

CODES = {np.uint8: TensorProto.UINT8, np.int8: TensorProto.INT8}


@dataclass(frozen=True)
class Grid:
    """A value of a random file, in integers or in floats, with its scale and zero point."""

    name: str
    shape: tuple[int, ...]
    scale: str
    zero: str

    @property
    def operand(self) -> list[str]:
        return [self.name, self.scale, self.zero]


@dataclass
class Random:
    """A file that grows."""

    rng: np.random.Generator
    dtype: Any
    opset: int
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)

    def name(self, stem: str) -> str:
        return f"{stem}{len(self.nodes)}_{len(self.constants)}"

    def constant(self, stem: str, value: Any) -> str:
        name = self.name(stem)
        self.constants[name] = np.asarray(value)
        return name

    def grid(self, low: float = 0.005, high: float = 0.05) -> tuple[str, str]:
        """Names of a scale and a zero point, which may be odd."""
        scale = np.float32(self.rng.uniform(low, high))
        if self.rng.random() < 0.2:
            scale = np.float32(2.0 ** self.rng.integers(-7, -3))
        least = np.iinfo(self.dtype).min
        zero = least if self.rng.random() < 0.2 else least + int(self.rng.integers(60, 200))
        return self.constant("s", scale), self.constant("z", self.dtype(zero))

    def node(self, op_type: str, inputs: list[str], domain: str = "", **attrs: Any) -> str:
        output = self.name("v")
        self.nodes.append(make_node(op_type, inputs, [output], output, domain=domain, **attrs))
        return output

    def codes(self, shape: tuple[int, ...]) -> np.ndarray:
        """Weights: of the activations' type, or int8 beside uint8 ones."""
        both = self.dtype is np.int8 or self.rng.random() < 0.5
        kind: Any = np.int8 if both else np.uint8
        low = np.iinfo(kind).min
        return self.rng.integers(low, low + 256, shape).astype(kind)

    def weight(self, shape: tuple[int, ...], channels: int, axis: int) -> list[str]:
        """Names of integers, scale and zero point, per channel or not."""
        codes = self.codes(shape)
        kind: Any = codes.dtype.type
        scale: Any = np.float32(self.rng.uniform(0.002, 0.01))
        zero: Any = kind(0 if kind is np.int8 else self.rng.integers(100, 150))
        if self.rng.random() < 0.4 and channels > 1 and kind is np.int8:
            scale = self.rng.uniform(0.002, 0.01, channels).astype(np.float32)
            zero = np.zeros(channels, dtype=kind)
        given = {"w": codes, "s": scale, "z": zero}
        return [self.constant(stem, value) for stem, value in given.items()]

    def bias(self, channels: int) -> str:
        return self.constant("b", self.rng.integers(-2000, 2000, channels).astype(np.int32))


def made(r: Random, value: str, shape: tuple[int, ...], grid: tuple[str, str]) -> Grid:
    return Grid(value, shape, *grid)


def conv(r: Random, x: Grid) -> Grid:
    n, channels, *sizes = x.shape
    out, size, grid = int(r.rng.integers(1, 5)), int(min(3, *sizes)), r.grid()
    weight = r.weight((out, channels, size, size), out, 0)
    bias = [r.bias(out)] if r.rng.random() < 0.7 else []
    pads = [int(p) for p in r.rng.integers(0, size, 4)]
    value = r.node("QLinearConv", [*x.operand, *weight, *grid, *bias], pads=pads)
    spatial = [s + pads[i] + pads[i + 2] - size + 1 for i, s in enumerate(sizes)]
    return made(r, value, (n, out, *spatial), grid)


def average(r: Random, x: Grid) -> Grid:
    grid, (n, channels, height, width) = r.grid(), x.shape
    if r.rng.random() < 0.5:
        value = r.node("QLinearGlobalAveragePool", [*x.operand, *grid], MICROSOFT)
        return made(r, value, (n, channels, 1, 1), grid)
    if min(height, width) < 2:
        return x
    inputs = [*x.operand, *grid]
    value = r.node("QLinearAveragePool", inputs, MICROSOFT, kernel_shape=[2, 2])
    return made(r, value, (n, channels, height - 1, width - 1), grid)


def largest(r: Random, x: Grid) -> Grid:
    n, channels, height, width = x.shape
    if min(height, width) < 2 or r.opset < 12:  # it took no integers before
        return x
    value = r.node("MaxPool", [x.name], kernel_shape=[2, 2])
    return Grid(value, (n, channels, height - 1, width - 1), x.scale, x.zero)


def flat(r: Random, x: Grid) -> Grid:
    return Grid(
        r.node("Flatten", [x.name]), (x.shape[0], int(np.prod(x.shape[1:]))), x.scale, x.zero
    )


def matrix(r: Random, x: Grid) -> Grid:
    rows, grid = int(r.rng.integers(1, 6)), r.grid()
    weight = r.weight((x.shape[-1], rows), rows, 1)
    shape = (*x.shape[:-1], rows)
    if len(x.shape) == 2 and r.rng.random() < 0.5:
        inputs = [*x.operand, *weight, r.bias(rows), *grid]
        return made(r, r.node("QGemm", inputs, MICROSOFT), shape, grid)
    return made(r, r.node("QLinearMatMul", [*x.operand, *weight, *grid]), shape, grid)


def pair(r: Random, x: Grid) -> Grid:
    grid, other = r.grid(), x
    op_type = str(r.rng.choice(["QLinearAdd", "QLinearMul", "QLinearConcat"]))
    if r.rng.random() < 0.5:
        other = curve(r, x)
    if op_type == "QLinearConcat":
        inputs = [*grid, *x.operand, *other.operand]
        shape = (x.shape[0], 2 * x.shape[1], *x.shape[2:])
        return made(r, r.node(op_type, inputs, MICROSOFT, axis=1), shape, grid)
    inputs = [*x.operand, *other.operand, *grid]
    return made(r, r.node(op_type, inputs, MICROSOFT), x.shape, grid)


def curve(r: Random, x: Grid) -> Grid:
    grid, op_type = r.grid(), str(r.rng.choice(["LeakyRelu", "Sigmoid"]))
    attrs = {"alpha": float(r.rng.uniform(0, 0.5))} if op_type == "LeakyRelu" else {}
    value = r.node(f"QLinear{op_type}", [*x.operand, *grid], MICROSOFT, **attrs)
    return made(r, value, x.shape, grid)


def turned(r: Random, x: Grid) -> Grid:
    if len(x.shape) != 2:
        return x
    return Grid(r.node("Transpose", [x.name], perm=[1, 0]), x.shape[::-1], x.scale, x.zero)


Step = Callable[[Random, Grid], Grid]
IMAGES: list[Step] = [
    conv,
    conv,
    average,
    largest,
    pair,
    curve,
    flat,
]
ROWS: list[Step] = [matrix, matrix, pair, curve, turned]


def random_file(seed: int) -> onnx.ModelProto:
    rng = np.random.default_rng(seed)
    opset = int(rng.choice([10, 11, 12, 13, 15, 17, 19, 21, 23, 25]))
    r = Random(rng, np.uint8 if rng.random() < 0.6 else np.int8, opset)
    shape = (2, 3, 5, 6) if rng.random() < 0.6 else (4, 7)
    grid, integers_in = r.grid(0.02, 0.04), rng.random() < 0.3
    kind = CODES[r.dtype] if integers_in else TensorProto.FLOAT
    codes = "x" if integers_in else r.node("QuantizeLinear", ["x", *grid])
    x = Grid(codes, shape, *grid)
    for _ in range(int(rng.integers(1, 6))):
        steps = IMAGES if len(x.shape) == 4 else ROWS
        x = steps[int(rng.integers(0, len(steps)))](r, x)
    outputs = [x.name]
    floats = rng.random() < 0.7 or not r.nodes
    if floats:
        outputs = [r.node("DequantizeLinear", x.operand)]
    out_kind = TensorProto.FLOAT if floats else CODES[r.dtype]
    graph = helper.make_graph(
        r.nodes,
        "g",
        [make_tensor_value_info("x", kind, shape)],
        [make_tensor_value_info(name, out_kind, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in r.constants.items()],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid(MICROSOFT, 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=7)


def answers(proto: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    ort = pytest.importorskip("onnxruntime")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, {"x": x})[0])


def inputs_of(proto: onnx.ModelProto, seed: int) -> np.ndarray:
    tensor = proto.graph.input[0].type.tensor_type
    shape = [dim.dim_value for dim in tensor.shape.dim]
    rng = np.random.default_rng(seed)
    if tensor.elem_type == TensorProto.FLOAT:
        return rng.normal(0, 2, shape).astype(np.float32)
    dtype: Any = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    return rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max + 1, shape).astype(dtype)


def counted(proto: onnx.ModelProto) -> Counter[str]:
    """Count operators that somebody reads and that do something."""
    graph = proto.graph
    read = {name for node in graph.node for name in node.input}
    read |= {value.name for value in graph.output}
    nodes = (n for n in graph.node if n.op_type != "Identity")
    return Counter(n.op_type for n in nodes if read & set(n.output))


def opset_of(proto: onnx.ModelProto) -> int:
    return next(one.version for one in proto.opset_import if not one.domain)


@pytest.mark.parametrize("seed", range(40))
def test_a_file_of_integer_operators_comes_back_as_it_was(seed: int) -> None:
    proto = random_file(seed)
    if not QlinearImporter().accepts(proto):
        pytest.skip("no integer operator was drawn")
    model = QlinearImporter().load(proto, ImportOptions())
    written = onnx_ir.to_proto(export(model).model)
    assert counted(written) == counted(proto)
    assert opset_of(written) == opset_of(proto)
    assert qh.check(proto, written, level="proof").verdict is Verdict.PROVEN
    for feed in range(2):
        x = inputs_of(proto, feed)
        np.testing.assert_array_equal(answers(written, x), answers(proto, x))


def without_origins(proto: onnx.ModelProto) -> onnx.ModelProto:
    for node in proto.graph.node:
        del node.metadata_props[:]
    del proto.metadata_props[:]
    return proto


def random_qdq_file(seed: int) -> onnx.ModelProto:
    """A file of the above in QuantizeLinear and DequantizeLinear, which remembers nothing."""
    model = QlinearImporter().load(random_file(seed), ImportOptions())
    return without_origins(
        onnx_ir.to_proto(QcdqExporter().export(model, ExportOptions()).model)
    )


def grids(model: onnx_ir.Model) -> set[tuple[float, float, bool]]:
    """Scale, zero point and signedness of every activation that has 8 bits."""
    found = set()
    for node in model.graph:
        if dialect.is_quantizer(node) and dialect.constant_tensor(node.inputs[0]) is None:
            quant = dialect.read_quantizer(node)
            assert isinstance(quant, IntQuant)
            scale, zero = single_value(quant.scale), single_value(quant.zero_point)
            assert scale is not None
            assert zero is not None
            found.add((scale, zero, quant.signed))
    return found


@pytest.mark.parametrize("seed", range(30))
def test_a_qdq_file_comes_back_from_integer_operators(seed: int) -> None:
    proto = random_qdq_file(seed)
    model = QcdqImporter().load(proto, ImportOptions())
    first = onnx_ir.to_proto(export(model).model)
    if not QlinearImporter().accepts(first):
        return  # nothing was multiplied
    back = QlinearImporter().load(first, ImportOptions())
    second = onnx_ir.to_proto(export(back).model)
    assert qh.check(first, second, level="proof").verdict is Verdict.PROVEN
    if opset_of(proto) < 21:  # from there on signed integers are written as unsigned ones
        assert counted(second) == counted(first)
        # The scale before a product whose sums alone are scaled may not be in the file.
        assert {grid for grid in grids(back) if grid[0] != 1} <= grids(model)
    for feed in range(2):
        x = inputs_of(proto, feed)
        np.testing.assert_array_equal(answers(second, x), answers(first, x))


def back_from_integers(proto: onnx.ModelProto) -> tuple[onnx_ir.Model, onnx_ir.Model]:
    """Return a QDQ file, and what comes back from its integer operators."""
    source = QcdqImporter().load(proto, ImportOptions())
    first = onnx_ir.to_proto(export(source).model)
    reader = QlinearImporter() if QlinearImporter().accepts(first) else QcdqImporter()
    written = QcdqExporter().export(reader.load(first, ImportOptions()), ExportOptions())
    back = QcdqImporter().load(onnx_ir.to_proto(written.model), ImportOptions())
    return QcdqImporter().load(proto, ImportOptions()), back


_ROUNDED = {2, 17, 21, 27}
"""Seeds with a layer whose float sums round, and its integer sums do not: one step apart."""

_ADDED_FIRST = {15, 25}
"""Seeds with an odd zero point that is added before rounding, behind an average."""

_MOVED_TABLE = {12}
"""Seeds with integers of two tables side by side, which no quantizer reads."""


@pytest.mark.parametrize("seed", sorted({*range(30)} - _ROUNDED - _ADDED_FIRST - _MOVED_TABLE))
def test_the_way_back_from_integer_operators_is_proven(seed: int) -> None:
    source, back = back_from_integers(random_qdq_file(seed))
    assert prove_models(source, back, search=False).proven


@pytest.mark.parametrize("seed", [1, 5, 6, 11, 12, 14, 16, 19, 21, 23])
def test_the_way_back_of_pairs_around_products_is_proven(seed: int) -> None:
    source, back = back_from_integers(random_pairs(seed))
    assert prove_models(source, back, search=False).proven


@pytest.mark.parametrize("kinds", ["UINT8 UINT8", "UINT8 INT8", "INT8 INT8"])
@pytest.mark.parametrize("opset", [13, 21])
def test_8_bit_types_of_a_qdq_file_come_back_from_integer_operators(
    kinds: str, opset: int
) -> None:
    rng, (data, weight) = np.random.default_rng(opset), kinds.split()
    types = {"x": data, "w": weight, "y": data}
    zeros = {kind: 3 if kind == "UINT8" else 0 for kind in types.values()}
    codes = {"w": rng.integers(0, 100, (4, 3)), "b": rng.integers(-50, 50, 3)}
    pairs = {"x": 0.25, "w": 0.125, "y": 0.5, "b": 0.25 * 0.125}
    tensors = [
        helper.make_tensor(f"{n}_s", TensorProto.FLOAT, (), [s]) for n, s in pairs.items()
    ]
    tensors += [
        helper.make_tensor(f"{n}_z", getattr(TensorProto, t), (), [zeros[t]])
        for n, t in types.items()
    ]
    tensors.append(helper.make_tensor("b_z", TensorProto.INT32, (), [0]))
    tensors += [
        helper.make_tensor(n, getattr(TensorProto, t), codes[n].shape, codes[n].reshape(-1))
        for n, t in (("w", weight), ("b", "INT32"))
    ]
    nodes = [
        make_node("QuantizeLinear", ["x", "x_s", "x_z"], ["xq"]),
        make_node("DequantizeLinear", ["xq", "x_s", "x_z"], ["xd"]),
        make_node("DequantizeLinear", ["w", "w_s", "w_z"], ["wd"]),
        make_node("DequantizeLinear", ["b", "b_s", "b_z"], ["bd"]),
        make_node("Gemm", ["xd", "wd", "bd"], ["sums"]),
        make_node("QuantizeLinear", ["sums", "y_s", "y_z"], ["yq"]),
        make_node("DequantizeLinear", ["yq", "y_s", "y_z"], ["y"]),
    ]
    ends = [
        make_tensor_value_info(n, TensorProto.FLOAT, (2, k)) for n, k in (("x", 4), ("y", 3))
    ]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors)
    imports = [helper.make_opsetid("", opset)]
    proto = helper.make_model(graph, opset_imports=imports, ir_version=8)
    first = onnx_ir.to_proto(export(QcdqImporter().load(proto, ImportOptions())).model)
    assert "QLinearConv" in counted(first)
    back = QlinearImporter().load(first, ImportOptions())
    written = onnx_ir.to_proto(QcdqExporter().export(back, ExportOptions()).model)
    assert stored_types(written) == stored_types(proto)


def stored_types(proto: onnx.ModelProto) -> Counter[str]:
    """Count the types of zero points of QuantizeLinear and DequantizeLinear."""
    types = {one.name: one.data_type for one in proto.graph.initializer}
    kinds = ("QuantizeLinear", "DequantizeLinear")
    quantizers = [node for node in proto.graph.node if node.op_type in kinds]
    names = [
        (node.op_type, types[node.input[2]]) for node in quantizers if len(node.input) > 2
    ]
    return Counter(f"{kind} {TensorProto.DataType.Name(t)}" for kind, t in names)
