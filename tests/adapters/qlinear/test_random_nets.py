"""Random layers with random epilogues: what is called exact is equal, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx_ir import Model

from qonnx_hub.executor.session import Session
from tests.adapters.qlinear.kit import Net, export, inputs_of, net, run_everywhere
from tests.support import DOMAIN

ROUNDINGS = ["ROUND"] * 6 + ["FLOOR", "CEIL", "HALF_UP", "HALF_DOWN", "DOWN", "UP"]


def random_scale(rng: np.random.Generator, odd: bool) -> np.float32:
    exponent = 2.0 ** rng.integers(-4, 1)
    return np.float32(exponent * (rng.uniform(0.6, 1.4) if odd else 1.0))


def random_quantizer(rng: np.random.Generator, n: Net, x: str, y: str, odd: bool) -> None:
    if rng.random() < 0.1:
        n.constants[f"{y}_s"] = random_scale(rng, odd)
        n.add("BipolarQuant", [x, f"{y}_s"], y, domain=DOMAIN)
        return
    signed = int(rng.integers(0, 2))
    n.quant(
        x,
        y,
        random_scale(rng, odd),
        int(rng.integers(2, 9)),
        float(rng.integers(-2, 3)) if rng.random() < 0.2 else 0.0,
        signed=signed,
        narrow=int(rng.integers(0, 2)),
        rounding_mode=str(rng.choice(ROUNDINGS)),
    )


def random_epilogue(
    rng: np.random.Generator, n: Net, x: str, channels: int, conv: bool
) -> str:
    along = (1, channels, 1, 1) if conv else (channels,)
    for index in range(int(rng.integers(0, 4))):
        y = f"e{index}"
        kind = rng.choice(
            ["Add", "Mul", "Sub", "BatchNormalization", "Relu", "LeakyRelu", "Clip"]
        )
        values = rng.normal(0, 1, along).astype(np.float32)
        if kind in {"Add", "Mul", "Sub"}:
            operands = [x, n.constant(f"{y}_c", values)]
            n.add(kind, operands[:: int(rng.choice([1, -1]))], y)
        elif kind == "BatchNormalization":
            names = [f"{y}_{k}" for k in "gsmv"]
            for name in names:
                n.constants[name] = rng.normal(0, 1, channels).astype(np.float32)
            n.constants[names[3]] = np.abs(n.constants[names[3]])
            n.add(kind, [x, *names], y)
        elif kind == "Clip":
            ends = [n.constant(f"{y}_{k}", v) for k, v in (("lo", -1.5), ("hi", 2.0))]
            n.add(kind, [x, *ends], y)
        else:
            n.add(kind, [x], y)
        x = y
    if conv and rng.random() < 0.3:
        n.add("MaxPool", [x], "pool", kernel_shape=[2, 2])
        x = "pool"
    return x


def random_net(seed: int) -> Model:
    rng = np.random.default_rng(seed)
    conv, odd = bool(rng.integers(0, 2)), rng.random() < 0.3
    channels = int(rng.integers(1, 6))
    n = net()
    random_quantizer(rng, n, "x", "xq", odd)
    scale: Any = random_scale(rng, odd)
    if rng.random() < 0.5:
        scales = [random_scale(rng, odd) for _ in range(channels)]
        scale = np.array(scales, dtype=np.float32)
        scale = scale.reshape(-1, 1, 1, 1) if conv else scale
    bits = int(rng.integers(2, 9))
    shape = (channels, 2, 3, 3) if conv else (12, channels)
    n.weight("w", rng.normal(0, 2.0 ** (bits - 3), shape), scale, bits, narrow=1)
    operands = ["xq", "w"]
    if conv and rng.random() < 0.5:
        operands.append(n.constant("b", rng.normal(0, 1, channels).astype(np.float32)))
    pads = {"pads": [1, 0, 1, 1]} if conv and rng.random() < 0.5 else {}
    n.add("Conv" if conv else "MatMul", operands, "acc", **pads)
    last = random_epilogue(rng, n, "acc", channels, conv)
    random_quantizer(rng, n, last, "y", odd)
    return n.model((2, 2, 6, 6) if conv else (64, 12), "y")


@pytest.mark.parametrize("seed", range(60))
def test_what_is_called_exact_is_equal(seed: int) -> None:
    model = random_net(seed)
    artifact = export(model)
    reference = Session(model)
    exact = all(record.exact for record in artifact.quantizers)
    for other in range(2):
        feeds = inputs_of(model, other)
        ours = run_everywhere(artifact, feeds)["y"]
        expected = reference.run(feeds)["y"]
        if exact:
            np.testing.assert_array_equal(ours, expected)
            continue
        levels = np.unique(np.concatenate([ours.reshape(-1), expected.reshape(-1)]))
        step = np.min(np.diff(levels)) if levels.size > 1 else 1.0
        # A layer called inexact may be apart, and then by one step of its quantizer.
        assert np.max(np.abs(ours - expected)) <= 1.001 * step
