"""Train the jet-tagging net with QKeras, convert it, check it, and print the report.

The net is the 16-64-32-32-5 classifier of the hls4ml tutorial, with weights and activations of
6 bits. Its data are made here: five classes of 16 features each. Run it where one of the two
extras is installed::

    pip install 'qonnx-hub[qkeras]'        # or 'qonnx-hub[qkeras3]'
    python examples/qkeras_jet_tagger.py jets.onnx

The net is also a source of its own for the command line::

    qonnx-hub convert examples.qkeras_jet_tagger:make_model -o jets.onnx --to qcdq
"""

from __future__ import annotations

import os
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

import qonnx_hub as qh

CLASSES = 5
FEATURES = 16
SAMPLES = 4096


def frameworks() -> tuple[Any, Any]:
    """Return Keras and qkeras: of Keras 3 where qkeras-v3 is installed, else of Keras 2."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    owners = metadata.packages_distributions().get("qkeras", [])
    if "qkeras-v3" in {name.lower() for name in owners}:
        os.environ.setdefault("KERAS_BACKEND", "tensorflow")
        import keras
    else:
        os.environ["TF_USE_LEGACY_KERAS"] = "1"  # before TensorFlow is imported
        import tf_keras as keras
    import qkeras

    return keras, qkeras


def make_data(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return (features of shape (n, 16), classes of shape (n,)): five overlapping clouds."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(CLASSES, FEATURES))
    classes = rng.integers(0, CLASSES, SAMPLES)
    features = centres[classes] + rng.normal(size=(SAMPLES, FEATURES))
    # The input of a chip has a fixed number of bits: here multiples of 1/16.
    return (np.round(features * 16) / 16).astype(np.float32), classes


def make_model() -> Any:
    """Return the net, untrained."""
    keras, q = frameworks()

    def dense(units: int, name: str) -> Any:
        return q.QDense(
            units,
            kernel_quantizer=q.quantized_bits(6, 0, alpha=1),
            bias_quantizer=q.quantized_bits(6, 0, alpha=1),
            name=name,
        )

    x = start = keras.Input((FEATURES,), name="jets")
    for index, units in enumerate((64, 32, 32), start=1):
        x = dense(units, f"fc{index}")(x)
        x = q.QActivation(q.quantized_relu(6, 2), name=f"relu{index}")(x)
    x = dense(CLASSES, "output")(x)
    x = keras.layers.Activation("softmax", name="softmax")(x)
    return keras.Model(start, x, name="jet_tagger")


def main(path: str = "jets.onnx") -> int:
    """Train, convert, check, and print what was found; return the exit code."""
    keras, _ = frameworks()
    keras.utils.set_random_seed(0)
    features, classes = make_data()
    model = make_model()
    model.compile(
        keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    model.fit(features, classes, batch_size=128, epochs=8, verbose=0)
    _, accuracy = model.evaluate(features, classes, verbose=0)
    print(f"trained: accuracy {accuracy:.3f} on {SAMPLES} samples")

    report = qh.convert(model, path, to="qonnx")
    print(f"written: {report.path}, opset {report.opset}")
    for record in report.quantizers:
        print(f"  {record.node:28} {record.quantizer:24} {record.encoding}")

    expected = np.asarray(model(features, training=False))
    answer = qh.run(path, {"jets": features})["softmax"]
    largest = float(np.max(np.abs(expected - answer)))
    agree = float(np.mean(expected.argmax(axis=1) == answer.argmax(axis=1)))
    print(
        f"checked: {agree:.2%} of the classes agree with Keras, largest difference {largest:g}"
    )
    print(f"file against IR: {report.check.summary() if report.check else 'not checked'}")
    print(f"size: {Path(path).stat().st_size} bytes")
    return 0 if agree == 1.0 and largest < 1e-5 else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
