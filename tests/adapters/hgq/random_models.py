"""Random models of HGQ2, drawn from a seed: layers, quantizers of every kind, widths."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from hgq import layers as hgq
from hgq.config import QuantizerConfig

ROUNDS = ("RND", "TRN", "RND_CONV", "TRN_ZERO", "RND_ZERO", "RND_MIN_INF", "RND_INF")
OVERFLOWS = ("SAT", "SAT_SYM", "WRAP")


class Draw:
    """What draws layers for one model."""

    def __init__(self, seed: Any) -> None:
        self.rng = np.random.default_rng(seed)
        # Behind exponentials and divisions of floats a sum may lie on another side of a tie.
        self.exact = True

    def pick(self, *options: Any) -> Any:
        return options[int(self.rng.integers(len(options)))]

    def conf(self, place: str, rank: int | None = None) -> Any:
        """Draw the quantizer of a place; ``rank`` of what it reads, where axes are drawn."""
        given: dict[str, Any] = {
            "round_mode": self.pick(*ROUNDS, "S_RND"),
            "overflow_mode": self.pick(*OVERFLOWS),
        }
        if rank is not None and place == "datalane":
            given["homogeneous_axis"] = self.pick((0,), tuple(range(rank)), (0, rank - 1))
        return QuantizerConfig(self.pick("kbi", "kif"), place, **given)

    def around(self, rank: int, *, weights: bool = True, out: bool = True) -> dict[str, Any]:
        """Draw the quantizers of a layer."""
        given: dict[str, Any] = {"iq_conf": self.conf("datalane", rank)}
        if weights:
            given["kq_conf"], given["bq_conf"] = self.conf("weight"), self.conf("bias")
        if out:
            given["enable_oq"], given["oq_conf"] = True, self.conf("datalane")
        given["enable_ebops"] = self.pick(True, False)
        return given

    def small(self, x: Any) -> Any:
        """Put values on a coarse grid, so that sums behind it are exact."""
        conf = QuantizerConfig("kif", "datalane", overflow_mode="SAT", i0=2, f0=3)
        return hgq.Quantizer(conf)(x)

    def vector(self, x: Any) -> Any:
        n, act = int(self.rng.integers(2, 6)), self.pick(None, "relu")
        kind = self.pick("dense", "dense", "bn_dense", "bn", "lut", "softmax", "quantizer")
        if kind == "dense":
            bias = self.pick(True, False)
            return hgq.QDense(n, activation=act, use_bias=bias, **self.around(2))(x)
        if kind == "bn_dense":
            return hgq.QBatchNormDense(n, activation=act, **self.around(2))(x)
        if kind == "bn":
            return self.normalized(x)
        if kind == "lut":
            self.exact = False
            function = self.pick("tanh", "sigmoid", "relu")
            return hgq.QUnaryFunctionLUT(function, **self.around(2, weights=False))(x)
        if kind == "softmax":
            self.exact = False
            return hgq.QSoftmax(axis=-1, stable=self.pick(True, False))(x)
        return hgq.Quantizer(self.conf("datalane", 2))(x)

    def normalized(self, x: Any) -> Any:
        given = {"scale": self.pick(True, False), "center": self.pick(True, False)}
        return hgq.QBatchNormalization(**given, **self.around(len(x.shape)))(x)

    def sequence(self, x: Any) -> Any:
        n, act = int(self.rng.integers(2, 5)), self.pick(None, "relu")
        kind = self.pick("conv", "conv", "einsum", "pool", "bn", "sum", "mha", "rnn", "rnn")
        if kind == "conv":
            window = self.pick({"strides": 2}, {"dilation_rate": 2}, {})
            given = {"padding": self.pick("valid", "same"), "activation": act}
            size = int(self.rng.integers(1, 4))
            return hgq.QConv1D(n, size, **window, **given, **self.around(3))(x)
        if kind == "einsum":
            shape, bias = (x.shape[1], n), self.pick("C", None)
            text = self.pick("bxc,cC->bxC", "...xc,cC->...xC")
            return hgq.QEinsumDense(text, shape, bias_axes=bias, **self.around(3))(x)
        if kind == "pool":
            self.exact = False
            layer = self.pick(hgq.QMaxPooling1D, hgq.QAveragePooling1D)
            return layer(
                2, padding=self.pick("valid", "same"), **self.around(3, weights=False)
            )(x)
        if kind == "bn":
            return self.normalized(x)
        if kind == "sum":
            layer = self.pick(hgq.QSum, hgq.QMeanPow2)
            return layer(axes=self.pick(1, 2), **self.around(3, weights=False))(x)
        if kind == "rnn":
            return self.recurrent(n)(x)
        self.exact = False
        return hgq.QMultiHeadAttention(2, 3, fuse=self.pick("none", "qkv"))(x, x)

    def recurrent(self, units: int) -> Any:
        """Draw a recurrent layer, whose state is on a coarse grid at every step."""
        state = QuantizerConfig("kif", "datalane", overflow_mode="SAT", i0=2, f0=3)
        given: dict[str, Any] = {
            "iq_conf": self.conf("datalane", 2),
            "sq_conf": state,
            "kq_conf": self.conf("weight"),
            "rkq_conf": self.conf("weight"),
            "bq_conf": self.conf("bias"),
            "use_bias": self.pick(True, False),
            "return_sequences": self.pick(True, False),
            "go_backwards": self.pick(True, False),
            "enable_ebops": self.pick(True, False),
        }
        if self.pick(True, False):
            return hgq.QSimpleRNN(units, enable_sq=self.pick(True, False), **given)
        return hgq.QGRU(units, reset_after=self.pick(True, False), **given)

    def image(self, x: Any) -> Any:
        n, act = int(self.rng.integers(2, 5)), self.pick(None, "relu")
        kind = self.pick("conv", "conv", "conv", "pool", "bn", "flatten")
        if kind == "conv":
            window = self.pick({"strides": (2, 1)}, {"dilation_rate": 2}, {"strides": 2}, {})
            given = {"padding": self.pick("valid", "same"), "activation": act}
            size = self.pick(1, 2, 3, (2, 3))
            return hgq.QConv2D(n, size, **window, **given, **self.around(4))(x)
        if kind == "pool":
            return hgq.QMaxPooling2D(2, **self.around(4, weights=False))(x)
        return self.normalized(x) if kind == "bn" else keras.layers.Flatten()(x)

    def merged(self, x: Any) -> Any:
        other = hgq.Quantizer(self.conf("datalane", len(x.shape)))(x)
        names = ("QAdd", "QSubtract", "QMultiply", "QMaximum", "QMinimum", "QAveragePow2")
        return getattr(hgq, self.pick(*names))()([x, other])

    def step(self, x: Any) -> Any:
        if self.rng.random() < 0.15:
            return self.merged(x)
        return {2: self.vector, 3: self.sequence, 4: self.image}[len(x.shape)](x)


def drawn(seed: Any) -> tuple[Any, Any, bool]:
    """Return a model, its input, and whether every sum in it is exact."""
    draw = Draw(seed)
    a, b = (int(n) for n in draw.rng.integers(5, 9, 2))
    start = keras.Input(draw.pick((a,), (a, draw.pick(2, 3)), (a, b, draw.pick(2, 3))))
    x = draw.small(start)
    for _ in range(draw.pick(1, 2, 3)):
        x = draw.small(draw.step(x))
        if len(x.shape) > 2 and min(x.shape[1:-1]) < 4:
            x = keras.layers.Flatten()(x)
    model = keras.Model(start, x)
    feeds = draw.rng.normal(0, 2, (8, *start.shape[1:])).astype(np.float32)
    model(feeds, training=True)  # builds what is built at the first call
    _set_variables(model, draw)
    return model, feeds, draw.exact


def _set_variables(model: Any, draw: Draw) -> None:
    """Give weights random values, and quantizers random widths, below the exact 24 bits."""
    ends = {"b": (1, 6), "i": (-1, 3), "f": (0, 4)}
    for variable in model.variables:
        name, shape = variable.path.rpartition("/")[2], tuple(variable.shape)
        quantizes = "quantizer" in variable.path
        if quantizes and name in ends:
            low, high = ends[name]
            value: Any = draw.rng.uniform(low, high, shape)
        elif quantizes and name == "k":
            continue
        elif name == "moving_variance":
            value = draw.rng.uniform(0.3, 2, shape)
        elif name in ("kernel", "recurrent_kernel", "bias", "gamma", "beta", "moving_mean"):
            value = draw.rng.normal(0, 0.7, shape)
        else:
            continue
        variable.assign(np.asarray(value, dtype=np.float32))
