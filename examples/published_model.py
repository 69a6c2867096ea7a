"""Converts a published few-bit network to QCDQ and reports whether the two are the same.

The network is the quantized super-resolution model (ESPCN, per-channel 4- and 8-bit weights)
that the ``qonnx`` package carries as data; nothing of the package is executed or imported, so
``pip install --no-deps qonnx`` is enough.

    python examples/published_model.py [OUTPUT]
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from qonnx_hub.cli import main

MODEL = Path("data", "onnx", "bsd300x3-espcn", "nn_resize", "quant_model.onnx")


def published_model() -> Path:
    """Return where the package keeps the model."""
    spec = importlib.util.find_spec("qonnx")
    if spec is None or spec.origin is None:
        sys.exit("the model comes with the qonnx package: pip install --no-deps qonnx==1.0.0")
    return Path(spec.origin).parent / MODEL


if __name__ == "__main__":
    output = sys.argv[1] if len(sys.argv) > 1 else "espcn_qcdq.onnx"
    sys.argv = ["qonnx-hub", "convert", str(published_model()), "-o", output, "--to", "qcdq"]
    main()
