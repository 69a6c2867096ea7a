"""HAWQ's own layer classes, out of a checkout that HAWQ_ROOT names."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import torch

PACKAGE = "hawq_checkout"
PLACES = ("utils/quantization_utils", "hawq/utils/quantization_utils")


def load_checkout(root: str) -> ModuleType:
    """The module ``quant_modules``, without the packages around it, which need torchvision."""
    if not torch.cuda.is_available():
        # HAWQ moves constants to the GPU wherever it runs.
        torch.Tensor.cuda = lambda self, *_, **__: self
    if PACKAGE not in sys.modules:
        folders = [Path(root) / place for place in PLACES]
        package = ModuleType(PACKAGE)
        package.__path__ = [str(folder) for folder in folders if folder.is_dir()]
        sys.modules[PACKAGE] = package
    return importlib.import_module(f"{PACKAGE}.quant_modules")
