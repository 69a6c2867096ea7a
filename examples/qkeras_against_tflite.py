"""Write a QKeras net as TFLite, and compare the file with the net itself.

Run it where the extra is installed; it takes some seconds, most of them TensorFlow's::

    pip install 'qonnx-hub[qkeras]' && export TF_USE_LEGACY_KERAS=1
    python examples/qkeras_against_tflite.py net.tflite

With the extra ``litert`` as well, the report names what the reference kernels and XNNPACK of
ai-edge-litert answer.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

import qonnx_hub as qh


def make_model() -> Any:
    """Return a net of two convolutions and a dense layer, 8 bits everywhere, 4-bit weights."""
    import tf_keras as keras
    from qkeras import QActivation, QConv2D, QDense, quantized_bits

    weights, sums = quantized_bits(4, 0, alpha=1), quantized_bits(8, 3, alpha=1)
    keras.utils.set_random_seed(0)
    x = image = keras.layers.Input((12, 12, 3), batch_size=1)
    x = QActivation(quantized_bits(8, 2, alpha=1), name="image_bits")(x)
    for index, channels in enumerate((8, 12)):
        x = QConv2D(
            channels,
            3,
            kernel_quantizer=weights,
            bias_quantizer=quantized_bits(8, 2, alpha=1),
            name=f"conv_{index}",
        )(x)
        x = QActivation(sums, name=f"conv_bits_{index}")(x)
    x = keras.layers.Flatten()(x)
    x = QDense(
        5,
        kernel_quantizer=weights,
        bias_quantizer=quantized_bits(8, 2, alpha=1),
        name="classes",
    )(x)
    return keras.Model(image, QActivation(quantized_bits(8, 5, alpha=1), name="scores")(x))


def main() -> None:
    """Take the path to write, print the report, and compare some images by hand."""
    path = sys.argv[1] if len(sys.argv) > 1 else "net.tflite"
    net = make_model()
    report = qh.convert(net, path, to="tflite", allow_lossy=True)
    print(report.summary(), report.conclusion(), *report.notes, sep="\n  ")
    images = np.random.default_rng(0).normal(size=(32, 12, 12, 3)).astype(np.float32)
    (name,) = (str(value.name) for value in qh.load(path).graph.inputs)
    off, step = [], 2.0 ** (5 + 1 - 8)
    for image in images:
        own = net(image[None], training=False).numpy()
        (made,) = qh.run(path, {name: image[None]}).values()
        off.append(np.abs(made.reshape(own.shape) - own) / step)
    print(f"{np.count_nonzero(off)} of {np.size(off)} scores differ, by {np.max(off):g} steps")


if __name__ == "__main__":
    main()
