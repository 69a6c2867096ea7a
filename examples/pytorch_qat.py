"""Train a 4-bit net in plain PyTorch, convert it to QONNX and QCDQ, and print the reports.

The net has a convolution, a residual and a linear layer, with 4-bit weights (a scale for every
channel) and 4-bit activations, trained with the fake quantizers of ``torch.ao.quantization``.
torch's own ONNX export knows no range of 4 bits. Its data are made here: stripes in four
directions. Run it where the extra is installed::

    pip install 'qonnx-hub[pytorch]'
    python examples/pytorch_qat.py

The net is also a source of its own for the command line::

    qonnx-hub convert examples.pytorch_qat:make_model -o stripes.onnx --input-shape 1,1,16,16
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.ao import quantization as tq
from torch.ao.quantization.quantize_fx import prepare_qat_fx

import qonnx_hub as qh

BITS = 4
SIZE = 16
SAMPLES = 2048


class Stripes(nn.Module):
    """The net in floats: PyTorch quantizes it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 5, stride=2, padding=2)
        self.bn = nn.BatchNorm2d(8)
        self.inner = nn.Conv2d(8, 8, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.fc = nn.Linear(8 * 4 * 4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return one score per direction for images of shape (n, 1, 16, 16)."""
        x = torch.relu(self.bn(self.conv(x)))
        x = self.pool(x + torch.relu(self.inner(x)))
        return self.fc(x.flatten(1))


def make_data(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return (images of shape (n, 1, 16, 16), directions of shape (n,))."""
    rng = np.random.default_rng(seed)
    directions = rng.integers(0, 4, SAMPLES)
    angles = directions * (np.pi / 4) + rng.normal(0, 0.15, SAMPLES)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    along = np.cos(angles)[:, None, None] * rows + np.sin(angles)[:, None, None] * columns
    images = np.sin(along + rng.uniform(0, 6.28, (SAMPLES, 1, 1)))
    images += rng.normal(0, 0.5, images.shape)
    return images[:, None].astype(np.float32), directions


def few_bits() -> tq.QConfig:
    """Return what quantizes: unsigned activations, signed weights with a scale per channel."""
    return tq.QConfig(
        activation=tq.FakeQuantize.with_args(
            observer=tq.MovingAverageMinMaxObserver, quant_min=0, quant_max=2**BITS - 1
        ),
        weight=tq.FakeQuantize.with_args(
            observer=tq.MovingAveragePerChannelMinMaxObserver,
            quant_min=-(2 ** (BITS - 1)),
            quant_max=2 ** (BITS - 1) - 1,
            dtype=torch.qint8,
            qscheme=torch.per_channel_symmetric,
            ch_axis=0,
        ),
    )


def make_model(steps: int = 60) -> Any:
    """Return the net after some steps of quantization-aware training."""
    torch.manual_seed(0)
    images, directions = make_data()
    x, y = torch.from_numpy(images), torch.from_numpy(directions)
    config = tq.QConfigMapping().set_global(few_bits())
    with warnings.catch_warnings():
        # torch announces that torchao will take this over one day.
        warnings.simplefilter("ignore", DeprecationWarning)
        model = prepare_qat_fx(Stripes().train(), config, (x[:1],))
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for step in range(steps):
        batch = slice(step * 128 % SAMPLES, step * 128 % SAMPLES + 128)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
        optimizer.step()
    return model.apply(tq.disable_observer).eval()


def main(folder: str = ".") -> int:
    """Train, convert, check, and print what was found; return the exit code."""
    model = make_model()
    images, directions = make_data(seed=1)
    with torch.no_grad():
        scores = model(torch.from_numpy(images)).numpy()
    print(f"trained: accuracy {np.mean(scores.argmax(axis=1) == directions):.3f}")
    equal = True
    for form in ("qonnx", "qcdq"):
        path = Path(folder, f"stripes_{form}.onnx")
        report = qh.convert(model, path, form, args=(images[:1],))
        print(f"written: {report.path}, opset {report.opset}, {path.stat().st_size} bytes")
        for record in report.quantizers:
            print(f"  {record.node:28} {record.quantizer:26} {record.encoding}")
        print(f"  the model itself against its IR: {report.own and report.own.summary()}")
        print(f"  the file against the IR:         {report.check and report.check.summary()}")
        answer = qh.run(path, {"x": images[:256]})["output"]
        agree = float(np.mean(answer.argmax(axis=1) == scores[:256].argmax(axis=1)))
        print(f"  {agree:.2%} of the answers to new images are PyTorch's")
        equal &= bool(report) and agree > 0.99
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
