"""No value that the executor computes ever leaves its inferred range, or its grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

import qonnx_hub as qh
from benchmarks import nets
from qonnx_hub_ir.analysis import ValueInfo, infer_values
from tests.ir.graphs import DOMAIN, f32, i64, info, proto
from tests.support import needs_shared, shared_models

CHANNELS = 4


def require_inside(values: np.ndarray, found: ValueInfo, name: str) -> None:
    wide = values.astype(np.float64)
    assert np.all(wide >= found.low), f"{name} goes below"
    assert np.all(wide <= found.high), f"{name} goes above"
    grid = found.grid
    if grid is None:
        return
    integers = (wide - grid.offset) / grid.scale
    # Floats that are not exact stand for the integers up to the rounding of a few sums.
    slack = np.zeros((), dtype=np.float64)
    if not grid.exact:
        reach = np.maximum(np.abs(found.low), np.abs(found.high)) + np.abs(grid.offset)
        slack = 2.0**-16 * reach / grid.scale
    assert np.all(integers >= grid.low - slack), f"{name}: integers go below"
    assert np.all(integers <= grid.high + slack), f"{name}: integers go above"
    if grid.exact:
        assert np.array_equal(integers, np.rint(integers)), f"{name} is off its grid"


def require_sound(model: Any, feeds: dict[str, np.ndarray], ranges: dict[str, Any]) -> int:
    """Compare every tensor of a run with what was inferred, and return how many had bounds."""
    found = infer_values(model, ranges)
    values = qh.Session(model).run(feeds, all_tensors=True)
    compared = 0
    for name, array in values.items():
        require_inside(np.asarray(array), found[name], name)
        compared += found[name].is_bounded
    return compared


class Net:
    """A graph of random layers over images of a few channels, one node after the other."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[Any] = []
        self.weights: dict[str, np.ndarray] = {}
        self.values = ["x"]
        self.layers = ["x"]

    def constant(self, array: np.ndarray) -> str:
        name = f"c{len(self.weights)}"
        self.weights[name] = array
        return name

    def add(self, op_type: str, inputs: list[str], domain: str = "", **attributes: Any) -> str:
        out = f"v{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(op_type, inputs, [out], name=out, domain=domain, **attributes)
        )
        self.values.append(out)
        return out

    def scale(self) -> np.ndarray:
        powers = 2.0 ** self.random.integers(-4, 2, CHANNELS)
        any_scale = self.random.uniform(0.05, 2.0, CHANNELS)
        scales = powers if self.random.random() < 0.5 else any_scale
        if self.random.random() < 0.5:
            return f32(scales[0])
        return f32(scales.reshape(CHANNELS, 1, 1))

    def quant(self, x: str, scale: np.ndarray, bits: int, **attributes: Any) -> str:
        zero = self.random.choice([0.0, 0.0, 2.0, 0.5])
        inputs = [x, self.constant(scale), self.constant(f32(zero)), self.constant(f32(bits))]
        known = {"signed": 1, "narrow": 0, "rounding_mode": "ROUND", **attributes}
        return self.add("Quant", inputs, DOMAIN, **known)

    def grow(self, kind: str) -> None:
        x = self.values[-1]
        getattr(self, f"_{kind}")(x)
        self.layers.append(self.values[-1])

    def _activation(self, x: str) -> None:
        self.quant(
            x,
            self.scale(),
            int(self.random.integers(2, 9)),
            signed=int(self.random.integers(2)),
            rounding_mode=str(self.random.choice(["ROUND", "FLOOR", "CEIL", "HALF_UP"])),
        )

    def _bipolar(self, x: str) -> None:
        self.add("BipolarQuant", [x, self.constant(f32(0.5))], DOMAIN)

    def _conv(self, x: str) -> None:
        groups = int(self.random.choice([1, 2, CHANNELS]))
        shape = (CHANNELS, CHANNELS // groups, 3, 3)
        weight = self.constant(self.random.normal(size=shape).astype(np.float32))
        scale = self.random.uniform(0.1, 0.5, (CHANNELS, 1, 1, 1)).astype(np.float32)
        quantized = self.quant(weight, scale, int(self.random.integers(2, 6)), narrow=1)
        self.values.pop()
        inputs = [x, quantized]
        if self.random.random() < 0.5:
            inputs.append(self.constant(self.random.normal(size=CHANNELS).astype(np.float32)))
        self.add("Conv", inputs, pads=[1, 1, 1, 1], group=groups)

    def _batchnorm(self, x: str) -> None:
        arrays = [self.random.normal(size=CHANNELS) for _ in range(3)]
        arrays.append(self.random.uniform(0.1, 2, CHANNELS))
        inputs = [self.constant(a.astype(np.float32)) for a in arrays]
        self.add("BatchNormalization", [x, *inputs])

    def _affine(self, x: str) -> None:
        op_type = str(self.random.choice(["Add", "Sub", "Mul", "Div"]))
        self.add(op_type, [x, self.constant(self.scale())])

    def _residual(self, x: str) -> None:
        self.add(str(self.random.choice(["Add", "Mul", "Sub"])), [x, self.layers[-2:][0]])

    def _function(self, x: str) -> None:
        op_types = ["Relu", "Sigmoid", "Tanh", "LeakyRelu", "HardSigmoid", "Abs", "Neg"]
        op_types += ["Elu", "Softplus", "HardSwish", "Floor", "Softmax", "Sign"]
        self.add(str(self.random.choice(op_types)), [x])

    def _clip(self, x: str) -> None:
        ends = sorted(self.random.integers(-6, 7, 2))
        self.add("Clip", [x, *(self.constant(f32(end)) for end in ends)])

    def _spread(self, x: str) -> None:
        weight = self.random.normal(size=(CHANNELS, CHANNELS // 2, 3, 3)).astype(np.float32)
        inputs = [x, self.constant(weight)]
        wide = self.add("ConvTranspose", inputs, strides=[2, 2], pads=[1, 1, 1, 1], group=2)
        self.add("MaxPool", [wide], kernel_shape=[3, 3])

    def _minifloat(self, x: str) -> None:
        numbers = [self.random.choice([1.0, 0.3]), 3.0, 2.0, 3.0, 28.0]
        inputs = [x, *(self.constant(f32(number)) for number in numbers)]
        self.add("FloatQuant", inputs, DOMAIN, rounding_mode="ROUND")

    def _truncation(self, x: str) -> None:
        inputs = [self.quant(x, f32(0.5), 8)]
        inputs += [self.constant(f32(number)) for number in (0.5, 0.0, 8.0, 2.0, 4.0)]
        mode = str(self.random.choice(["FLOOR", "CEIL"]))
        self.add("Trunc", inputs, DOMAIN, rounding_mode=mode)

    def _thresholds(self, x: str) -> None:
        steps = np.sort(self.random.uniform(-8, 8, (CHANNELS, 5)), axis=1).astype(np.float32)
        attributes = {"out_scale": 0.3, "out_bias": -1.0, "out_dtype": "FLOAT32"}
        inputs = [x, self.constant(steps)]
        self.add("MultiThreshold", inputs, DOMAIN, data_layout="NCHW", **attributes)

    def _reduction(self, x: str) -> None:
        op_type = str(self.random.choice(["ReduceSum", "ReduceMax", "ReduceMean"]))
        axes = [[2, 3], [1], [3]][int(self.random.integers(3))]
        reduced = self.add(op_type, [x, self.constant(i64(axes))])
        self.add("Sub", [x, reduced])

    def _resize(self, x: str) -> None:
        sizes = [self.constant(f32([])), self.constant(f32([1, 1, 2, 1]))]
        mode = str(self.random.choice(["nearest", "linear"]))
        wide = self.add("Resize", [x, *sizes], mode=mode)
        self.add("MaxPool", [wide], kernel_shape=[2, 1], strides=[2, 1])

    def _along_a_row(self, x: str) -> None:
        gains = self.random.normal(size=3).astype(np.float32)
        scaled = self.add("Mul", [x, self.constant(gains)])
        self.add("MaxPool", [scaled], kernel_shape=[1, 3], pads=[0, 2, 0, 0])

    def _pool(self, x: str) -> None:
        op_type = str(self.random.choice(["AveragePool", "MaxPool"]))
        self.add(op_type, [x], kernel_shape=[3, 3], pads=[1, 1, 1, 1])

    def _shuffle(self, x: str) -> None:
        there = self.add("Transpose", [x], perm=[0, 2, 3, 1])
        cut = self.add("Slice", [there, *(self.constant(i64([v])) for v in (-1, -9, 3, -1))])
        back = self.add("Transpose", [cut], perm=[0, 3, 1, 2])
        flat = self.add("Flatten", [back])
        shape = self.constant(i64([-1, CHANNELS, 3, 3]))
        self.add("Reshape", [flat, shape])

    def _halves(self, x: str) -> None:
        index = self.constant(i64([2, 0]))
        left = self.add("Gather", [x, index], axis=1)
        right = self.add("Slice", [x, *(self.constant(i64([v])) for v in (1, 3, 1))])
        self.add("Concat", [left, right], axis=1)

    def model(self) -> onnx.ModelProto:
        shape = ["N", CHANNELS, 3, 3]
        outputs = [info(self.values[-1], shape)]
        return proto(
            self.nodes, [info("x", shape)], outputs, self.weights, {"": 19, DOMAIN: 2}
        )


KINDS = sorted(name[1:] for name in vars(Net) if name[0] == "_" and name[1] != "_")


@settings(max_examples=40)
@given(
    kinds=st.lists(st.sampled_from(KINDS), min_size=2, max_size=7),
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from([("INT4", -8, 7), ("UINT8", 0, 255), ("BIPOLAR", -1, 1)]),
)
def test_no_value_of_a_random_net_leaves_its_range(kinds, seed, kind):
    net = Net(seed)
    for name in kinds:
        net.grow(name)
    model = qh.load(net.model())
    name, low, high = kind
    random = np.random.default_rng(seed)
    x = random.integers(low, high + 1, (4, CHANNELS, 3, 3))
    if name == "BIPOLAR":
        x = 2 * (x > 0) - 1
    # The first two samples sit at the ends, where the extremes are.
    x[0], x[1] = low, high
    require_sound(model, {"x": x.astype(np.float32)}, {"x": name})


@pytest.mark.parametrize(
    ("build", "ends"), [(nets.tfc, (0, 1)), (nets.resnet8, (-1, 1)), (nets.cnv, (0, 1))]
)
def test_no_value_of_a_known_net_leaves_its_range(build, ends):
    model = qh.load(build())
    (given_input,) = model.graph.inputs
    shape = [d if isinstance(d, int) else 2 for d in given_input.shape]
    x = np.random.default_rng(0).uniform(*ends, shape).astype(np.float32)
    assert require_sound(model, {"x": x}, {"x": ends}) > 10


PUBLIC = shared_models()


@needs_shared
@pytest.mark.parametrize("path", PUBLIC, ids=[path.stem for path in PUBLIC])
def test_no_value_of_a_public_model_leaves_its_range(path: Path):
    recorded = path.with_suffix("").with_suffix(".io.npz")
    model = qh.load(path)
    (given_input,) = model.graph.inputs
    if not recorded.exists():
        pytest.skip("nothing was recorded for this model")
    with np.load(recorded) as arrays:
        x = arrays["x"][0].astype(np.float32)
    ends = (float(x.min()), float(x.max()))
    assert require_sound(model, {str(given_input.name): x}, {str(given_input.name): ends}) > 2
