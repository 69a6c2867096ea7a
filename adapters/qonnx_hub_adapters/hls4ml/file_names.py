"""Names of the files in a folder for hls4ml, by which it is known.

Importing them brings nothing of what writes or reads such a folder.
"""

from __future__ import annotations

from pathlib import Path

MODEL = "model.onnx"
CONFIG = "hls4ml_config.yml"
REPORT = "report.json"
SCRIPT = "build.py"
TENSORS = "tensors.json"


def is_folder(source: object) -> bool:
    """Return whether a path is a folder that holds a model and a config for hls4ml."""
    if not isinstance(source, (str, Path)):
        return False
    try:
        return all((Path(source) / name).is_file() for name in (MODEL, CONFIG))
    except (OSError, ValueError):
        return False
