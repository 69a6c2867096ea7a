"""One case per layer and option."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.adapters.qkeras.kit import Case, Kit


def bits(kit: Kit, width: int = 4, integer: int = 0) -> Any:
    return kit.q.quantized_bits(width, integer, alpha=1)


def layer(
    name: str, shape: tuple[int | None, ...], quantizers: int, make: Any, **options: Any
) -> Case:
    """A model that is one layer, made by ``make(kit)``."""

    def build(kit: Kit) -> Any:
        return kit.model(shape, make(kit))

    return Case(name, build, quantizers, **options)


def conv(name: str, quantizers: int = 2, shape: Any = (7, 8, 3), **arguments: Any) -> Case:
    options = {
        key: arguments.pop(key) for key in ("sample", "generations") if key in arguments
    }

    def make(kit: Kit) -> Any:
        given = {"kernel_quantizer": bits(kit), "bias_quantizer": bits(kit, 6, 2), **arguments}
        return kit.q.QConv2D(4, 3, **given)

    return layer(f"QConv2D {name}", shape, quantizers, make, **options)


def plain(name: str, shape: Any, make: Any, **options: Any) -> Case:
    options.setdefault("tolerance", 1e-5)
    return layer(name, shape, 0, make, **options)


ROUNDED = {"tolerance": 1e-5}

CONVOLUTIONS = [
    conv("valid"),
    conv("same", padding="same"),
    conv("same, strides 2", padding="same", strides=2),
    conv("valid, strides 2 and 3", strides=(2, 3)),
    conv("dilation 2", dilation_rate=2),
    conv("dilation 2, same", dilation_rate=2, padding="same"),
    conv("two groups", shape=(7, 8, 4), groups=2),
    conv("no bias", 1, use_bias=False),
    conv("channels first", shape=(3, 7, 8), data_format="channels_first"),
    conv("open sizes", shape=(None, None, 3), sample=(9, 6)),
    conv("auto_po2 kernel", kernel_quantizer="quantized_bits(4,0)"),
    conv("no quantizers", 0, kernel_quantizer=None, bias_quantizer=None),
    conv("kernel only", 1, bias_quantizer=None),
    conv("quantized activation", 3, activation="quantized_relu(4,2)"),
    conv("relu", 2, activation="relu"),
    conv("hard_sigmoid of QKeras", 2, activation="hard_sigmoid"),
    layer(
        "QConv2D scale_axis 2",
        (6, 6, 3),
        1,
        lambda k: k.q.QConv2D(
            4,
            3,
            kernel_quantizer=k.q.quantized_bits(4, 0, alpha="auto_po2", scale_axis=2),
            use_bias=False,
        ),
    ),
    layer(
        "QConv2D even kernel, same, stride 4",
        (9, 9, 2),
        1,
        lambda k: k.q.QConv2D(
            3, 4, strides=4, padding="same", kernel_quantizer=bits(k), use_bias=False
        ),
    ),
    *(
        layer(
            f"QConv1D {padding}",
            (9, 3),
            2,
            lambda k, p=padding: k.q.QConv1D(
                4, 3, padding=p, kernel_quantizer=bits(k), bias_quantizer=bits(k, 6, 2)
            ),
            # The layer of qkeras-v3 hands "causal" on to a convolution that does not know it.
            generations=(2,) if padding == "causal" else (2, 3),
        )
        for padding in ("valid", "same", "causal")
    ),
    layer(
        "QConv1D dilation 2, causal",
        (9, 3),
        1,
        lambda k: k.q.QConv1D(
            4, 3, padding="causal", dilation_rate=2, kernel_quantizer=bits(k), use_bias=False
        ),
        generations=(2,),
    ),
    layer(
        "QConv1D stride 2, auto kernel",
        (9, 3),
        1,
        lambda k: k.q.QConv1D(4, 3, strides=2, kernel_quantizer="ternary()", use_bias=False),
    ),
    *(
        layer(
            f"QConv2DTranspose {padding}, stride {stride}",
            (5, 6, 3),
            2,
            lambda k, p=padding, s=stride: k.q.QConv2DTranspose(
                4,
                3,
                padding=p,
                strides=s,
                kernel_quantizer="quantized_bits(4,0)",
                bias_quantizer=bits(k, 6, 2),
            ),
        )
        for padding in ("valid", "same")
        for stride in (1, 2)
    ),
    *(
        layer(
            f"QDepthwiseConv2D multiplier {count}, {padding}",
            (7, 8, 3),
            2,
            lambda k, c=count, p=padding: k.q.QDepthwiseConv2D(
                3,
                padding=p,
                depth_multiplier=c,
                depthwise_quantizer="quantized_bits(4,0)",
                bias_quantizer=bits(k, 6, 2),
            ),
        )
        for count in (1, 2)
        for padding in ("valid", "same")
    ),
    layer(
        "QDepthwiseConv2D activation, stride 2",
        (7, 8, 3),
        2,
        lambda k: k.q.QDepthwiseConv2D(
            3,
            strides=2,
            depthwise_quantizer=bits(k),
            use_bias=False,
            activation=k.q.quantized_relu(4, 2),
        ),
    ),
    layer("QDepthwiseConv2D no quantizers", (7, 8, 3), 0, lambda k: k.q.QDepthwiseConv2D(3)),
    layer(
        "QSeparableConv1D",
        (9, 3),
        3,
        lambda k: k.q.QSeparableConv1D(
            4,
            3,
            depthwise_quantizer=bits(k),
            pointwise_quantizer="quantized_bits(4,0)",
            bias_quantizer=bits(k, 6, 2),
        ),
    ),
    *(
        layer(
            f"QSeparableConv2D {padding}",
            (7, 8, 3),
            3,
            lambda k, p=padding: k.q.QSeparableConv2D(
                4,
                3,
                padding=p,
                depth_multiplier=2,
                depthwise_quantizer="quantized_bits(4,0)",
                pointwise_quantizer=bits(k),
                bias_quantizer=bits(k, 6, 2),
            ),
        )
        for padding in ("valid", "same")
    ),
    layer(
        "QSeparableConv2D no quantizers", (7, 8, 3), 0, lambda k: k.q.QSeparableConv2D(4, 3)
    ),
]


def mobilenet(kit: Kit) -> Any:
    start = kit.keras.Input((7, 8, 3))
    x = kit.q.QMobileNetSeparableConv2D(
        4,
        (3, 3),
        depthwise_quantizer=bits(kit),
        pointwise_quantizer=bits(kit),
        bias_quantizer=bits(kit, 6, 2),
        depthwise_activation="quantized_relu(4,2)",
        name="mobile",
    )(start)
    return kit.keras.Model(start, x)


def adaptive(kind: str, per_channel: bool) -> Any:
    def build(kit: Kit) -> Any:
        act = kit.q.QAdaptiveActivation(kind, 6, per_channel=per_channel, current_step=1)
        model = kit.model((5,), act)
        # Training sets the integer bits; here they are set as training would leave them.
        size = int(np.prod(act.quantizer.integer.shape))
        act.quantizer.integer.assign(
            np.arange(1, 1 + size, dtype=np.int32).reshape(act.quantizer.integer.shape)
        )
        return model

    return build


NORMALIZATIONS = [
    layer("QBatchNormalization default", (6,), 0, lambda k: k.q.QBatchNormalization()),
    layer("QBatchNormalization on images", (4, 5, 3), 0, lambda k: k.q.QBatchNormalization()),
    layer(
        "QBatchNormalization without scale",
        (6,),
        0,
        lambda k: k.q.QBatchNormalization(scale=False),
    ),
    layer(
        "QBatchNormalization without center",
        (6,),
        0,
        lambda k: k.q.QBatchNormalization(center=False),
    ),
    layer(
        "QBatchNormalization own quantizers",
        (6,),
        0,
        lambda k: k.q.QBatchNormalization(
            beta_quantizer="quantized_bits(8,3)",
            gamma_quantizer="quantized_bits(8,3,alpha=1)",
            mean_quantizer="quantized_bits(8,3)",
            variance_quantizer="quantized_relu(8,4)",
        ),
    ),
    layer(
        "QBatchNormalization no quantizers",
        (6,),
        0,
        lambda k: k.q.QBatchNormalization(
            beta_quantizer=None,
            gamma_quantizer=None,
            mean_quantizer=None,
            variance_quantizer=None,
        ),
        **ROUNDED,
    ),
    *(
        layer(
            f"QConv2DBatchnorm {mode}",
            (7, 8, 3),
            1,
            lambda k, m=mode: k.q.QConv2DBatchnorm(
                4, 3, kernel_quantizer=bits(k, 6, 2), folding_mode=m
            ),
            **ROUNDED,
        )
        for mode in ("ema_stats_folding", "batch_stats_folding")
    ),
    layer(
        "QConv2DBatchnorm bias quantizer, activation",
        (7, 8, 3),
        3,
        lambda k: k.q.QConv2DBatchnorm(
            4,
            3,
            kernel_quantizer="quantized_bits(4,0)",
            bias_quantizer=bits(k, 8, 3),
            activation="quantized_relu(6,3)",
            use_bias=False,
        ),
    ),
    layer(
        "QConv2DBatchnorm no quantizers",
        (7, 8, 3),
        0,
        lambda k: k.q.QConv2DBatchnorm(4, 3),
        **ROUNDED,
    ),
    layer(
        "QDepthwiseConv2DBatchnorm",
        (7, 8, 3),
        2,
        lambda k: k.q.QDepthwiseConv2DBatchnorm(
            3, depthwise_quantizer=bits(k, 6, 2), bias_quantizer=bits(k, 8, 3)
        ),
    ),
    layer(
        "QDenseBatchnorm",
        (6,),
        3,
        lambda k: k.q.QDenseBatchnorm(
            5,
            kernel_quantizer=bits(k, 6, 2),
            bias_quantizer=bits(k, 8, 3),
            activation="quantized_relu(6,3)",
        ),
    ),
]

POOLING = [
    *(
        layer(
            f"QAveragePooling2D {padding}",
            (6, 6, 3),
            2,
            lambda k, p=padding: k.q.QAveragePooling2D(
                pool_size=(2, 2),
                padding=p,
                average_quantizer=bits(k, 8, 1),
                activation=k.q.quantized_relu(6, 2),
            ),
        )
        for padding in ("valid", "same")
    ),
    layer(
        "QAveragePooling2D 3x3 same",
        (7, 7, 2),
        1,
        lambda k: k.q.QAveragePooling2D(
            pool_size=3, padding="same", strides=2, average_quantizer=bits(k, 8, 1)
        ),
        **ROUNDED,
    ),
    layer("QAveragePooling2D no quantizers", (6, 6, 3), 0, lambda k: k.q.QAveragePooling2D()),
    layer(
        "QGlobalAveragePooling2D",
        (4, 4, 3),
        2,
        lambda k: k.q.QGlobalAveragePooling2D(
            average_quantizer=bits(k, 8, 1), activation=k.q.quantized_bits(8, 3)
        ),
    ),
    layer(
        "QGlobalAveragePooling2D no quantizers",
        (4, 4, 3),
        0,
        lambda k: k.q.QGlobalAveragePooling2D(),
    ),
]

STEPS = 4


def recurrent(kind: str, quantizers: int, **arguments: Any) -> Case:
    options = {key: arguments.pop(key) for key in ("flips", "tolerance") if key in arguments}
    tag = arguments.pop("tag", "")

    def make(kit: Kit) -> Any:
        given = {
            "kernel_quantizer": bits(kit),
            "recurrent_quantizer": bits(kit),
            "bias_quantizer": bits(kit, 6, 2),
            "state_quantizer": kit.q.quantized_bits(6, 1),
            "activation": kit.q.quantized_tanh(6),
            **arguments,
        }
        return getattr(kit.q, kind)(3, **given)

    return layer(f"{kind}{tag}", (STEPS, 5), quantizers, make, **options)


# Three weights, then per step: states, activations. The two states of an LSTM are the same
# zeros in the first step, so that their quantizers are one.
RECURRENT = [
    recurrent("QSimpleRNN", 3 + 2 * STEPS),
    recurrent("QSimpleRNN", 3 + 2 * STEPS, return_sequences=True, tag=" sequences"),
    recurrent("QSimpleRNN", 3 + 2 * STEPS, go_backwards=True, tag=" backwards"),
    recurrent(
        "QSimpleRNN",
        0,
        kernel_quantizer=None,
        recurrent_quantizer=None,
        bias_quantizer=None,
        state_quantizer=None,
        activation="tanh",
        tag=" no quantizers",
        **ROUNDED,
    ),
    recurrent("QLSTM", 2 + 4 * STEPS, **ROUNDED),
    recurrent("QLSTM", 2 + 4 * STEPS, return_sequences=True, tag=" sequences", **ROUNDED),
    recurrent(
        "QLSTM",
        2 + 7 * STEPS,
        recurrent_activation="quantized_sigmoid(6)",
        tag=" quantized gates",
        **ROUNDED,
    ),
    recurrent("QGRU", 3 + 2 * STEPS, **ROUNDED),
]


def bidirectional(kit: Kit) -> Any:
    inner = kit.q.QSimpleRNN(
        3,
        kernel_quantizer=bits(kit),
        recurrent_quantizer=bits(kit),
        bias_quantizer=bits(kit, 6, 2),
        state_quantizer=kit.q.quantized_bits(6, 1),
        activation=kit.q.quantized_tanh(6),
    )
    return kit.model((STEPS, 5), kit.q.QBidirectional(inner))


RECURRENT.append(Case("QBidirectional", bidirectional, 2 * (3 + 2 * STEPS)))

DENSE = [
    layer(
        "QDense with everything",
        (6,),
        3,
        lambda k: k.q.QDense(
            5,
            kernel_quantizer=bits(k),
            bias_quantizer=bits(k, 6, 2),
            activation=k.q.quantized_relu(4, 2),
        ),
    ),
    layer(
        "QDense on sequences",
        (4, 6),
        2,
        lambda k: k.q.QDense(5, kernel_quantizer=bits(k), bias_quantizer=bits(k, 6, 2)),
    ),
    layer("QDense no quantizers", (6,), 0, lambda k: k.q.QDense(5)),
    layer(
        "QDense linear",
        (6,),
        1,
        lambda k: k.q.QDense(5, kernel_quantizer=bits(k), activation="linear"),
    ),
    layer(
        "QDense softmax",
        (6,),
        1,
        lambda k: k.q.QDense(5, kernel_quantizer=bits(k), activation="softmax"),
        **ROUNDED,
    ),
    layer(
        "QDense, one quantizer object for kernel and bias",
        (6,),
        2,
        lambda k: (lambda q: k.q.QDense(5, kernel_quantizer=q, bias_quantizer=q))(
            k.q.quantized_bits(4, 1)
        ),
    ),
    layer(
        "QDense from a config dict",
        (6,),
        1,
        lambda k: k.q.QDense(
            5,
            kernel_quantizer={
                "class_name": "quantized_bits",
                "config": {"bits": 4, "integer": 0, "symmetric": 1, "alpha": 1},
            },
            use_bias=False,
        ),
        generations=(2,),
    ),
    layer(
        "Keras Dense with a quantizer as activation",
        (6,),
        1,
        lambda k: k.layers.Dense(5, activation=k.q.quantized_relu(4, 2)),
    ),
    layer(
        "Keras Activation with a quantizer",
        (6,),
        1,
        lambda k: k.layers.Activation(k.q.quantized_bits(4, 1)),
    ),
    layer(
        "QScaleShift",
        (6,),
        2,
        lambda k: k.q.QScaleShift(
            weight_quantizer=k.q.quantized_bits(6, 1, alpha=1),
            bias_quantizer=k.q.quantized_bits(6, 1, alpha=1),
        ),
        generations=(3,),
    ),
]
DENSE.append(Case("QAdaptiveActivation bits", adaptive("quantized_bits", False), 1))
DENSE.append(Case("QAdaptiveActivation relu", adaptive("quantized_relu", False), 1))
DENSE.append(Case("QAdaptiveActivation per channel", adaptive("quantized_bits", True), 1))
CONVOLUTIONS.append(Case("QMobileNetSeparableConv2D", mobilenet, 4))

LAYERS = [*CONVOLUTIONS, *NORMALIZATIONS, *POOLING, *RECURRENT, *DENSE]
