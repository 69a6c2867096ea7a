"""Random models of Keras and QKeras, drawn from a seed, with weights and inputs.

A model is drawn ``exact`` or not. An exact one holds only parts whose sums and products stay
on dyadic grids, so that every order of sums gives the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.adapters.qkeras.kit import Kit, dyadic


@dataclass(frozen=True)
class Drawn:
    """A model with inputs.

    Attributes:
        model: Of Keras.
        feeds: One array per input.
        exact: Whether equal bits are to be expected.
    """

    model: Any
    feeds: list[Any]
    exact: bool


class Draw:
    """What draws layers for one model."""

    def __init__(self, kit: Kit, seed: Any) -> None:
        self.kit, self.rng = kit, np.random.default_rng(seed)
        self.exact = bool(self.rng.integers(2))
        self.two = kit.generation == 2

    def pick(self, *options: Any) -> Any:
        return options[int(self.rng.integers(len(options)))]

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    # Quantizers, in every spelling.

    def kernel_quantizer(self) -> Any:
        q, bits = self.kit.q, int(self.rng.integers(2, 7))
        alpha = self.pick(1.0, 0.5, "auto_po2", None)
        if not self.exact:
            alpha = self.pick(1.0, 0.75, "auto_po2", "auto", None)
        kinds: list[Callable[[], Any]] = [
            lambda: q.quantized_bits(bits, self.pick(0, 1), self.pick(0, 1), alpha=alpha),
            lambda: f"quantized_bits({bits}, 0, 1, alpha={alpha!r})",
            lambda: f"quantized_bits({bits},{self.pick(0, 1, 2)},alpha={alpha!r})",
            lambda: q.quantized_po2(self.pick(3, 4), self.pick(None, 1, 2)),
            lambda: f"quantized_po2({self.pick(3, 4, 5)})",
            lambda: q.binary(alpha=1.0),
            lambda: q.ternary(alpha=1.0, threshold=self.pick(0.25, 0.5)),
            lambda: "ternary(alpha=1)",
            lambda: None,
        ]
        if not self.exact:
            kinds += [
                lambda: q.binary(alpha="auto_po2"),
                lambda: q.ternary(alpha=self.pick("auto", "auto_po2")),
                lambda: "binary(alpha='auto_po2')",
            ]
        if not self.two:
            kinds += [
                lambda: q.quantized_linear(bits, self.pick(0, 1), alpha=self.pick(1.0, 2.0))
            ]
            if not self.exact:
                kinds += [lambda: q.quantized_linear(bits, 0, alpha="auto_po2")]
        return self.pick(*kinds)()

    def bias_quantizer(self) -> Any:
        q, bits = self.kit.q, int(self.rng.integers(3, 9))
        return self.pick(
            None,
            q.quantized_bits(bits, 2, 1, alpha=1.0),
            f"quantized_bits({bits},1,alpha=1)",
            q.quantized_po2(4),
        )

    def activation(self) -> Any:
        q, bits = self.kit.q, int(self.rng.integers(3, 7))
        options = [
            f"quantized_relu({bits},{self.pick(1, 2)})",
            f"quantized_bits({bits}, 2, alpha=1)",
            q.quantized_bits(bits, 1, self.pick(0, 1), alpha=self.pick(1.0, 0.5)),
            q.quantized_relu(bits, self.pick(0, 1, 2)),
            q.quantized_relu(bits, 2, negative_slope=self.pick(0.25, 0.5)),
            q.quantized_relu(bits, 2, relu_upper_bound=self.pick(1.5, 3)),
            q.quantized_tanh(bits, symmetric=self.pick(False, True)),
            f"quantized_tanh({bits})",
            q.quantized_sigmoid(bits, symmetric=self.pick(False, True)),
            q.quantized_po2(4, 4),
            f"quantized_relu_po2({self.pick(3, 4)},4)",
            "binary(alpha=1)",
            q.ternary(alpha=1, threshold=0.5),
            "hard_tanh",
            "hard_sigmoid",
        ]
        if not self.exact:
            options += [
                q.quantized_ulaw(bits, 1, 0, 15),
                q.quantized_sigmoid(bits, use_real_sigmoid=True),
                q.quantized_tanh(bits, use_real_tanh=True),
                "smooth_sigmoid",
                "binary_tanh",
            ]
        return self.pick(*options)

    def small(self, x: Any) -> Any:
        """Put values back on a coarse grid, so that sums behind it are exact."""
        q = self.kit.q.quantized_bits(6, 2, 1, alpha=1.0)
        return self.kit.q.QActivation(q)(x)

    # Layers by the rank of what they read.

    def step(self, x: Any) -> Any:
        rank = len(x.shape)
        quantized = {2: self.q_vector, 3: self.q_sequence, 4: self.q_image}[rank]
        plain = {2: self.vector, 3: self.sequence, 4: self.image}[rank]
        kind = self.pick("quantized", "quantized", "plain", "any", "activation", "merge")
        if kind == "activation":
            return self.kit.q.QActivation(self.activation())(x)
        if kind == "quantized":
            return self.small(self.pick(*quantized())(x))
        if kind == "merge":
            return self.merged(x)
        if kind == "plain":
            return self.small(self.pick(*plain())(x))
        y = self.pick(*self.pointwise())(x)
        return self.small(y) if self.chance(0.7) else y

    def pointwise(self) -> list[Any]:
        k = self.kit.layers
        made = [
            k.ReLU(max_value=self.pick(None, 2.0), threshold=self.pick(0.0, 0.5)),
            k.ReLU(max_value=self.pick(None, 3.0), negative_slope=0.25),
            k.LeakyReLU(0.25),
            k.Dropout(0.5),
            k.Activation(self.pick("relu", "linear")),
            k.GaussianNoise(0.1),
            k.Rescaling(0.5, self.pick(0.0, 1.0)),
            k.PReLU(),
        ]
        if not self.exact:
            names = ["tanh", "sigmoid", "elu", "selu", "softplus", "swish", "gelu", "softsign"]
            names += ["exponential", "hard_sigmoid", "relu6", "mish"][:4]
            made += [
                k.Activation(self.pick(*names)),
                k.ELU(self.pick(1.0, 0.5)),
                k.Softmax(),
                k.BatchNormalization(
                    scale=self.pick(True, False), center=self.pick(True, False)
                ),
                k.LayerNormalization(scale=self.pick(True, False)),
                k.UnitNormalization(),
            ]
        return made

    def q_settings(self, kernel: str = "kernel_quantizer") -> dict[str, Any]:
        given = {kernel: self.kernel_quantizer(), "use_bias": self.pick(True, False)}
        given["bias_quantizer"] = self.bias_quantizer()
        if self.chance(0.4):
            given["activation"] = self.activation()
        return given

    def q_vector(self) -> list[Any]:
        q = self.kit.q
        made = [q.QDense(int(self.rng.integers(2, 9)), **self.q_settings())] * 3
        norm = q.QBatchNormalization(
            gamma_quantizer=self.pick(None, q.quantized_bits(5, 2, 1, alpha=1.0)),
            scale=self.pick(True, False),
        )
        return made if self.exact else [*made, norm]

    def slide(self, count: int, *, dilated: bool = True) -> dict[str, Any]:
        """Draw a window: strides and dilation exclude each other in TensorFlow."""
        given: dict[str, Any] = {"padding": self.pick("valid", "same")}
        which = self.pick("plain", "strides", "dilation" if dilated else "strides")
        if which == "strides":
            given["strides"] = 2 if count == 1 else self.pick(2, (2, 2))
        elif which == "dilation":
            given["dilation_rate"] = 2 if count == 1 else (self.pick(1, 2), 2)
        return given

    def q_sequence(self) -> list[Any]:
        q, n = self.kit.q, int(self.rng.integers(2, 6))
        window = self.slide(1)
        if self.chance(0.3):
            window["padding"] = "causal"
        made = [
            q.QConv1D(n, int(self.rng.integers(1, 4)), **window, **self.q_settings()),
            q.QDense(n, **self.q_settings()),
        ]
        settings = self.q_settings("depthwise_quantizer")
        settings["pointwise_quantizer"] = self.kernel_quantizer()
        slid = self.slide(1, dilated=False)
        made.append(
            q.QSeparableConv1D(n, 2, **slid, **settings, depth_multiplier=self.pick(1, 2))
        )
        if not self.exact:
            made += [self.q_recurrent(), self.q_recurrent()]
        return made

    def q_recurrent(self) -> Any:
        q = self.kit.q
        kind = self.pick(q.QLSTM, q.QGRU, q.QSimpleRNN)
        given: dict[str, Any] = {
            "kernel_quantizer": q.quantized_bits(5, 1, 1, alpha=1.0),
            "recurrent_quantizer": self.pick("quantized_bits(5,1,1,alpha=1)", None),
            "bias_quantizer": self.bias_quantizer(),
            "state_quantizer": self.pick(None, q.quantized_bits(6, 1, 1, alpha=1.0)),
            "activation": self.pick("quantized_tanh(6)", "tanh", "hard_tanh"),
            "return_sequences": self.pick(True, False),
            "go_backwards": self.pick(False, True),
        }
        if kind is not q.QSimpleRNN:
            given["recurrent_activation"] = self.pick("hard_sigmoid", "sigmoid")
        if kind is q.QGRU:
            given["reset_after"] = self.pick(True, False)
        layer = kind(int(self.rng.integers(2, 5)), **given)
        if self.chance(0.3):
            given["go_backwards"] = False
            layer = q.QBidirectional(
                kind(3, **given), merge_mode=self.pick("concat", "sum", "ave", "mul")
            )
        return layer

    def q_image(self) -> list[Any]:
        q, n = self.kit.q, int(self.rng.integers(2, 6))
        size = self.pick(1, 2, 3, (2, 3), (3, 1))
        made = [q.QConv2D(n, size, **self.slide(2), **self.q_settings()) for _ in range(2)]
        made += [
            q.QDepthwiseConv2D(
                self.pick(2, 3),
                **self.slide(2, dilated=False),
                **self.q_settings("depthwise_quantizer"),
                depth_multiplier=self.pick(1, 2),
            ),
            q.QConv2DTranspose(
                n,
                self.pick(1, 2, 3),
                strides=self.pick(1, 2, 3),
                padding=self.pick("valid", "same"),
                **self.q_settings(),
            ),
        ]
        settings = self.q_settings("depthwise_quantizer")
        settings["pointwise_quantizer"] = self.kernel_quantizer()
        if self.two:
            made.append(q.QSeparableConv2D(n, 2, **self.slide(2, dilated=False), **settings))
        if not self.exact:
            made += [
                q.QAveragePooling2D(
                    self.pick(2, 3), average_quantizer="quantized_bits(6,0,1,alpha=1)"
                ),
                self.folded(n),
                q.QGlobalAveragePooling2D(),
            ]
        return made

    def folded(self, n: int) -> Any:
        q = self.kit.q
        if self.chance(0.5):
            return q.QConv2DBatchnorm(
                n,
                2,
                padding=self.pick("valid", "same"),
                kernel_quantizer=self.kernel_quantizer(),
                bias_quantizer=self.bias_quantizer(),
                use_bias=self.pick(True, False),
                folding_mode=self.pick("ema_stats_folding", "batch_stats_folding"),
            )
        return q.QDepthwiseConv2DBatchnorm(
            2, depthwise_quantizer=self.kernel_quantizer(), use_bias=self.pick(True, False)
        )

    def vector(self) -> list[Any]:
        k = self.kit.layers
        return [
            k.Dense(
                int(self.rng.integers(2, 9)),
                activation=self.pick(None, "relu"),
                use_bias=self.pick(True, False),
            ),
            k.RepeatVector(self.pick(2, 3)),
            k.Reshape((-1, 1)),
        ]

    def sequence(self) -> list[Any]:
        k, n = self.kit.layers, int(self.rng.integers(2, 6))
        made = [
            k.Conv1D(
                n, self.pick(1, 2, 3), **self.slide(1), activation=self.pick(None, "relu")
            ),
            k.Dense(n),
            k.MaxPooling1D(2, strides=self.pick(None, 1), padding=self.pick("valid", "same")),
            k.GlobalMaxPooling1D(keepdims=self.pick(True, False)),
            k.ZeroPadding1D(self.pick(1, (0, 2))),
            k.UpSampling1D(2),
            k.Permute((2, 1)),
            k.Flatten(),
            k.TimeDistributed(k.Dense(3)),
            k.Conv1DTranspose(
                n,
                self.pick(1, 2, 3),
                strides=self.pick(1, 2),
                padding=self.pick("valid", "same"),
            ),
            k.DepthwiseConv1D(2, depth_multiplier=self.pick(1, 2), padding="same"),
        ]
        if not self.exact:
            made += [
                k.AveragePooling1D(2, padding=self.pick("valid", "same")),
                k.GlobalAveragePooling1D(),
                self.recurrent(),
                self.recurrent(),
                lambda x: k.MultiHeadAttention(2, 3)(x, x),
                k.SeparableConv1D(n, 2),
            ]
        return made

    def recurrent(self) -> Any:
        k, n = self.kit.layers, int(self.rng.integers(2, 5))
        given: dict[str, Any] = {"return_sequences": self.pick(True, False)}
        kind = self.pick("LSTM", "GRU", "SimpleRNN", "RNN", "Bidirectional", "Stacked")
        if kind == "RNN":
            return k.RNN(self.pick(k.LSTMCell(n), k.GRUCell(n), k.SimpleRNNCell(n)), **given)
        if kind == "Stacked":
            return k.RNN([k.LSTMCell(n), k.GRUCell(n)], **given)
        if kind == "Bidirectional":
            inner = self.pick(k.LSTM, k.GRU)(n, **given)
            return k.Bidirectional(inner, merge_mode=self.pick("concat", "sum", "ave", "mul"))
        given["go_backwards"] = self.pick(True, False)
        if kind == "GRU":
            given["reset_after"] = self.pick(True, False)
        given["use_bias"] = self.pick(True, True, False)
        return getattr(k, kind)(n, **given)

    def image(self) -> list[Any]:
        k, n = self.kit.layers, int(self.rng.integers(2, 6))
        made = [
            k.Conv2D(
                n, self.pick(1, 2, 3), **self.slide(2), activation=self.pick(None, "relu")
            ),
            k.DepthwiseConv2D(2, **self.slide(2, dilated=False)),
            k.MaxPooling2D(
                self.pick(2, (2, 1)),
                strides=self.pick(None, 1, 2),
                padding=self.pick("valid", "same"),
            ),
            k.GlobalMaxPooling2D(keepdims=self.pick(True, False)),
            k.ZeroPadding2D(self.pick(1, (1, 2), ((0, 1), (2, 0)))),
            k.UpSampling2D(self.pick(2, (1, 2))),
            k.Permute(self.pick((2, 1, 3), (3, 1, 2))),
            k.Flatten(),
            k.Conv2DTranspose(
                n,
                self.pick(1, 2, 3),
                strides=self.pick(1, 2, 3),
                padding=self.pick("valid", "same"),
            ),
            k.Cropping2D(((0, 1), (1, 0))),
        ]
        if not self.exact:
            made += [
                k.AveragePooling2D(
                    2, strides=self.pick(None, 1), padding=self.pick("valid", "same")
                ),
                k.GlobalAveragePooling2D(),
                k.UpSampling2D(2, interpolation="bilinear"),
                k.SeparableConv2D(n, 2, depth_multiplier=self.pick(1, 2)),
                k.GroupNormalization(1),
            ]
        return made

    def merged(self, x: Any) -> Any:
        """Merge branches of one value, operators between layers among them."""
        k = self.kit.layers
        one = self.kit.q.QActivation(self.activation())(x)
        kind = self.pick(
            "Add",
            "Subtract",
            "Multiply",
            "Maximum",
            "Minimum",
            "Average",
            "Concatenate",
            "operators",
            "slice",
        )
        if kind == "operators":
            return self.small(self.pick(one + x, one - 0.5, 1.0 - x, one * 2.0, x / 4.0, -one))
        if kind == "slice":
            return x[:, 1:] if x.shape[1] and x.shape[1] > 2 else x
        if kind == "Concatenate":
            axis = self.pick(-1, 1)
            return k.Concatenate(axis=axis)([one, x])
        if kind == "Subtract":
            return self.small(k.Subtract()([one, x]))
        given = [one, x] if kind == "Average" or self.chance(0.5) else [x, one, one]
        return self.small(getattr(k, kind)()(given))


def _starts(draw: Draw) -> tuple[int, ...]:
    a, b = (int(n) for n in draw.rng.integers(4, 8, 2))
    return draw.pick((a,), (a, draw.pick(2, 3)), (a, b, draw.pick(2, 3)))


def _chain(draw: Draw, x: Any, count: int) -> Any:
    for _ in range(count):
        fits = all(size is None or size >= 4 for size in x.shape[1:-1])
        if len(x.shape) > 2 and not fits:
            x = draw.kit.layers.Flatten()(x)
        x = draw.step(x)
    return x


def _nested(draw: Draw, x: Any) -> Any:
    """Call a model inside the model, once or twice with the same weights."""
    keras = draw.kit.keras
    start = keras.Input(tuple(x.shape)[1:])
    inner = keras.Model(start, _chain(draw, start, 2))
    y = inner(x)
    if draw.chance(0.5):
        z = inner(draw.kit.q.QActivation("quantized_bits(4,1,alpha=1)")(x))
        y = draw.small(draw.kit.layers.Add()([y, z]))
    return y


def drawn(kit: Kit, seed: Any) -> Drawn:
    """Return the model of a seed, a number or several."""
    draw = Draw(kit, seed)
    keras = kit.keras
    starts = [keras.Input(_starts(draw)) for _ in range(draw.pick(1, 1, 1, 2))]
    ends = [_chain(draw, draw.small(x), draw.pick(1, 2, 3)) for x in starts]
    if draw.chance(0.4):
        ends[0] = _nested(draw, ends[0])
    if len(ends) == 2 and draw.chance(0.6):
        flat = [draw.small(kit.layers.Flatten()(x)) for x in ends]
        ends = [kit.layers.Concatenate()(flat)]
    if len(ends) == 1 and draw.chance(0.3):
        ends.append(kit.q.QActivation(draw.activation())(ends[0]))
    model = keras.Model(starts, ends)
    set_random_weights(model, draw)
    feeds = [dyadic(draw.rng, (8, *x.shape[1:]), 4.0, 16) for x in starts]
    return Drawn(model, feeds, draw.exact)


def set_random_weights(model: Any, draw: Draw) -> None:
    """Give every weight new values: dyadic ones in an exact model."""
    for variable in model.weights:
        name, shape = (
            str(getattr(variable, "path", None) or variable.name),
            tuple(variable.shape),
        )
        if "iteration" in name or "seed" in name or "int" in str(variable.dtype):
            continue
        if draw.exact:
            value: Any = dyadic(draw.rng, shape, 1.25, 64)
        elif "variance" in name:
            value = draw.rng.uniform(0.25, 2, shape).astype(np.float32)
        else:
            value = draw.rng.normal(0, 0.5, shape).astype(np.float32)
        variable.assign(value)


def answers(model: Any, feeds: Sequence[Any]) -> list[Any]:
    """Return what the model computes layer by layer, not compiled."""
    found = model(list(feeds) if len(feeds) > 1 else feeds[0], training=False)
    return [
        np.asarray(one) for one in (found if isinstance(found, (list, tuple)) else [found])
    ]
