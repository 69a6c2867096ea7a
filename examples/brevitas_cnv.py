"""Build a few-bit CNN with Brevitas, convert it to QONNX and QCDQ, and print the reports.

The net is a small CNV: four convolutions and a linear layer with weights and activations of
two bits, batch norms between them. No data are loaded: statistics and scales come from random
images. Run it where the extra is installed; it takes some seconds::

    pip install 'qonnx-hub[brevitas]'
    python examples/brevitas_cnv.py .

The net is also a source of its own for the command line::

    qonnx-hub convert examples.brevitas_cnv:make_model --input-shape 1,3,32,32 -o cnv.onnx
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

import qonnx_hub as qh

BITS = 2
CHANNELS = (16, 16, 32, 32)
CLASSES = 10


def make_model() -> Any:
    """Return the net for images of shape (n, 3, 32, 32), with statistics, for inference."""
    import brevitas.nn as qnn
    import torch
    from brevitas.quant import Int8ActPerTensorFixedPoint, Int8WeightPerChannelFloat
    from torch import nn

    class Cnv(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            image = qnn.QuantIdentity(Int8ActPerTensorFixedPoint, bit_width=8)
            layers: list[Any] = [image]
            before = 3
            for index, channels in enumerate(CHANNELS):
                layers += [
                    qnn.QuantConv2d(
                        before,
                        channels,
                        3,
                        padding=1,
                        bias=False,
                        weight_quant=Int8WeightPerChannelFloat,
                        weight_bit_width=BITS,
                    ),
                    nn.BatchNorm2d(channels),
                    qnn.QuantReLU(bit_width=BITS),
                ]
                layers += [nn.MaxPool2d(2)] if index % 2 else []
                before = channels
            self.conv_features = nn.Sequential(*layers)
            self.classifier = qnn.QuantLinear(
                before * 8 * 8, CLASSES, bias=True, weight_bit_width=BITS
            )

        def forward(self, image: Any) -> Any:
            return self.classifier(torch.flatten(self.conv_features(image), 1))

    torch.manual_seed(0)
    model = Cnv().train()
    with torch.no_grad():
        for _ in range(4):
            model(torch.rand(8, 3, 32, 32) * 2 - 1)
    return model.eval()


def main(folder: str = ".") -> int:
    """Build, convert, check, and print what was found; return the exit code."""
    model = make_model()
    image = np.zeros((1, 3, 32, 32), dtype=np.float32)
    good = True
    for form in ("qonnx", "qcdq"):
        path = Path(folder) / f"cnv_{form}.onnx"
        report = qh.convert(model, path, to=form, args=(image,))
        print(f"{path}: {report.format}, opset {report.opset}, {path.stat().st_size} bytes")
        for record in report.quantizers:
            print(f"  {record.node:30} {record.quantizer:24} {record.encoding}")
        print(f"  the module itself against what was read: {_words(report.own)}")
        print(f"  what was read against the file:          {_words(report.check)}")
        good = good and bool(report.own) and bool(report.check)
    return 0 if good else 1


def _words(result: Any) -> str:
    return "not checked" if result is None else str(result.summary())


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
