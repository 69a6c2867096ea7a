"""Train the jet-tagging net with HGQ2 and save it: what follows needs neither HGQ2 nor Keras.

The net is the 16-64-32-32-5 classifier of the hls4ml tutorial. HGQ2 trains the bit widths
along: one for every weight, one for every tensor of activations. Its data are made here: five
classes of 16 features each::

    pip install HGQ2 jax
    python examples/hgq2_jet_tagger.py jets.keras    # trains, converts, checks
    qonnx-hub convert jets.keras -o jets.onnx
    qonnx-hub check jets.keras jets.onnx
    qonnx-hub convert jets.keras -o jets_hls --to hls4ml
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

import qonnx_hub as qh

CLASSES = 5
FEATURES = 16
SAMPLES = 4096


def make_data(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return (features of shape (n, 16), classes of shape (n,)): five overlapping clouds."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(CLASSES, FEATURES))
    classes = rng.integers(0, CLASSES, SAMPLES)
    features = centres[classes] + rng.normal(size=(SAMPLES, FEATURES))
    # The input of a chip has a fixed number of bits: here multiples of 1/16.
    return (np.round(features * 16) / 16).astype(np.float32), classes


def make_model() -> Any:
    """Return the net, untrained; it gives logits."""
    os.environ.setdefault("KERAS_BACKEND", "jax")  # before Keras is imported
    import keras
    from hgq.config import QuantizerConfig, QuantizerConfigScope
    from hgq.layers import QDense

    # Activations saturate, and share one width per tensor: hls4ml's types do the same.
    saturating = QuantizerConfig(
        "kif", "datalane", overflow_mode="SAT", i0=3, f0=4, homogeneous_axis=(0, 1)
    )
    with QuantizerConfigScope(place="weight", overflow_mode="SAT_SYM"):
        x = start = keras.Input((FEATURES,), name="jets")
        for index, units in enumerate((64, 32, 32), start=1):
            x = QDense(
                units, activation="relu", iq_conf=saturating, beta0=1e-6, name=f"fc{index}"
            )(x)
        x = QDense(CLASSES, iq_conf=saturating, beta0=1e-6, name="output")(x)
        return keras.Model(start, x, name="jet_tagger")


def main(path: str = "jets.keras") -> int:
    """Train, save, convert, check, and print what was found; return the exit code."""
    model = make_model()
    import keras

    keras.utils.set_random_seed(0)
    features, classes = make_data()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(3e-3), loss, metrics=["accuracy"])
    model.fit(features, classes, batch_size=128, epochs=8, verbose=0)
    _, accuracy = model.evaluate(features, classes, verbose=0)
    print(f"trained: accuracy {accuracy:.3f} on {SAMPLES} samples")
    model.save(path)

    target = Path(path).with_suffix(".onnx")
    report = qh.convert(path, target, to="qonnx")
    print(f"written: {report.path}, opset {report.opset}")
    for record in report.quantizers:
        print(f"  {record.node:28} {record.quantizer:24} {record.encoding}")

    expected = np.asarray(model(features, training=False))
    (answer,) = qh.run(target, {"jets": features}).values()
    same = float(np.mean(np.all(expected == answer, axis=1)))
    print(f"checked: {same:.2%} of the answers are those of HGQ2, bit for bit")
    print(f"file against IR: {report.check.summary() if report.check else 'not checked'}")
    return 0 if same == 1.0 else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
