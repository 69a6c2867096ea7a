"""Plain Keras layers, and the ways in which models are put together."""

from __future__ import annotations

from typing import Any

from tests.adapters.qkeras.kit import Case, Kit
from tests.adapters.qkeras.layer_cases import ROUNDED, bits, layer, plain


def dense(kit: Kit, units: int = 4, **options: Any) -> Any:
    given = {"kernel_quantizer": bits(kit), "bias_quantizer": bits(kit, 6, 2), **options}
    return kit.q.QDense(units, **given)


def nested(kit: Kit) -> Any:
    inner = kit.keras.Sequential(
        [kit.keras.Input((6,)), dense(kit), kit.q.QActivation("quantized_relu(4,2)")],
        name="inner",
    )
    return kit.model((6,), inner, dense(kit, 3))


def shared(kit: Kit) -> Any:
    a, b = kit.keras.Input((6,), name="a"), kit.keras.Input((6,), name="b")
    one = dense(kit, name="one")
    act = kit.q.QActivation(kit.q.quantized_relu(4, 2), name="act")
    total = kit.layers.Add(name="total")([act(one(a)), act(one(b))])
    return kit.keras.Model([a, b], total)


def several_outputs(kit: Kit) -> Any:
    start = kit.keras.Input((6,))
    x = kit.q.QActivation("quantized_bits(6,2)", name="act")(start)
    return kit.keras.Model(
        start, [dense(kit, 3, name="left")(x), dense(kit, 2, name="right")(x)]
    )


def residual(kit: Kit) -> Any:
    start = kit.keras.Input((8, 8, 3))

    def conv(x: Any, name: str) -> Any:
        return kit.q.QConv2D(
            3,
            3,
            padding="same",
            kernel_quantizer=bits(kit),
            bias_quantizer=bits(kit, 6, 2),
            name=name,
        )(x)

    x = kit.q.QActivation("quantized_bits(6,2)", name="in_q")(start)
    y = kit.q.QActivation("quantized_relu(4,2)", name="act1")(conv(x, "c1"))
    y = kit.q.QActivation("quantized_bits(6,3)", name="act2")(conv(y, "c2"))
    y = kit.layers.Add(name="sum")([x, y])
    y = kit.q.QActivation("quantized_relu(4,2)", name="act3")(y)
    return kit.keras.Model(start, y)


def branches(kit: Kit) -> Any:
    start = kit.keras.Input((6, 6, 3))
    left = kit.q.QConv2D(2, 1, kernel_quantizer=bits(kit), use_bias=False, name="left")(start)
    right = kit.q.QConv2D(3, 1, kernel_quantizer=bits(kit), use_bias=False, name="right")(
        start
    )
    x = kit.layers.Concatenate(name="cat")([left, right])
    x = kit.q.QActivation("quantized_relu(4,2)", name="act")(x)
    return kit.keras.Model(start, kit.layers.MaxPooling2D(name="pool")(x))


def cnn(kit: Kit) -> Any:
    q = kit.q
    return kit.model(
        (12, 12, 1),
        q.QConv2D(4, 3, kernel_quantizer=bits(kit), bias_quantizer=bits(kit, 6, 2), name="c1"),
        q.QActivation("quantized_relu(6,2)", name="a1"),
        kit.layers.MaxPooling2D(name="p1"),
        q.QConv2D(4, 3, kernel_quantizer=bits(kit), bias_quantizer=bits(kit, 6, 2), name="c2"),
        q.QActivation("quantized_relu(6,4)", name="a2"),
        kit.layers.Flatten(name="flat"),
        kit.layers.Dropout(0.3, name="drop"),
        dense(kit, 3, name="out"),
    )


def sequential(kit: Kit) -> Any:
    return kit.keras.Sequential(
        [kit.keras.Input((6,)), dense(kit, name="d"), kit.q.QActivation("quantized_tanh(4)")]
    )


def nothing_quantized(kit: Kit) -> Any:
    return kit.model((6,), kit.layers.Dense(4, activation="relu"), kit.layers.Dense(2))


def noise(kit: Kit) -> Any:
    return kit.model(
        (6,),
        kit.layers.GaussianNoise(0.5),
        kit.layers.Dropout(0.5),
        kit.q.QActivation("quantized_bits(4,1)"),
    )


STRUCTURES = [
    Case("nested model", nested, 5),
    Case("shared layer, two inputs", shared, 4),
    Case("several outputs", several_outputs, 5),
    Case("residual block", residual, 8),
    Case("branches and concatenation", branches, 3),
    Case("small CNN", cnn, 8),
    Case("Sequential", sequential, 3),
    Case("nothing quantized", nothing_quantized, 0),
    Case("noise and dropout", noise, 1),
]

PLAIN = [
    plain("Conv2D", (6, 7, 3), lambda k: k.layers.Conv2D(4, 3), tolerance=0.0),
    plain("Conv1D", (6, 3), lambda k: k.layers.Conv1D(4, 3), tolerance=0.0),
    plain("DepthwiseConv2D", (6, 7, 3), lambda k: k.layers.DepthwiseConv2D(3), tolerance=0.0),
    plain("BatchNormalization", (6,), lambda k: k.layers.BatchNormalization()),
    plain("BatchNormalization images", (4, 5, 3), lambda k: k.layers.BatchNormalization()),
    plain("LayerNormalization", (6,), lambda k: k.layers.LayerNormalization(), tolerance=1e-4),
    plain("MaxPooling2D same", (7, 7, 3), lambda k: k.layers.MaxPooling2D(padding="same")),
    plain("AveragePooling2D", (6, 6, 3), lambda k: k.layers.AveragePooling2D(2)),
    plain("GlobalAveragePooling2D", (4, 4, 3), lambda k: k.layers.GlobalAveragePooling2D()),
    plain("GlobalMaxPooling2D", (4, 4, 3), lambda k: k.layers.GlobalMaxPooling2D()),
    plain("UpSampling2D nearest", (4, 4, 3), lambda k: k.layers.UpSampling2D(2)),
    plain("UpSampling2D 2 and 3", (4, 4, 3), lambda k: k.layers.UpSampling2D((2, 3))),
    plain(
        "UpSampling2D bilinear",
        (4, 4, 3),
        lambda k: k.layers.UpSampling2D(2, interpolation="bilinear"),
    ),
    plain("ZeroPadding2D", (4, 4, 3), lambda k: k.layers.ZeroPadding2D(((1, 2), (0, 1)))),
    plain("Cropping2D", (6, 6, 3), lambda k: k.layers.Cropping2D(1)),
    plain("Reshape", (6, 4), lambda k: k.layers.Reshape((8, 3))),
    plain("Permute", (6, 4), lambda k: k.layers.Permute((2, 1))),
    plain("LeakyReLU", (6,), lambda k: k.layers.LeakyReLU()),
    plain("PReLU", (6,), lambda k: k.layers.PReLU()),
    plain("ELU", (6,), lambda k: k.layers.ELU()),
    plain("ReLU6", (6,), lambda k: k.layers.ReLU(6.0)),
    plain("Softmax", (6,), lambda k: k.layers.Softmax()),
    plain("sigmoid", (6,), lambda k: k.layers.Activation("sigmoid")),
    plain("RepeatVector", (6,), lambda k: k.layers.RepeatVector(3)),
    plain("LSTM", (4, 5), lambda k: k.layers.LSTM(3), span=1.0),
    plain("GRU", (4, 5), lambda k: k.layers.GRU(3), span=1.0),
    plain(
        "Conv2DTranspose", (5, 5, 3), lambda k: k.layers.Conv2DTranspose(2, 3), tolerance=0.0
    ),
    plain("SeparableConv2D", (6, 6, 3), lambda k: k.layers.SeparableConv2D(4, 3)),
    layer(
        "TimeDistributed QDense",
        (4, 6),
        2,
        lambda k: k.layers.TimeDistributed(dense(k, 3)),
    ),
    layer("Conv3D", (4, 4, 4, 2), 0, lambda k: k.layers.Conv3D(2, 2), **ROUNDED),
]

MODELS = [*STRUCTURES, *PLAIN]
