"""torch, its exporter and torchao: skipped where missing, unless they were asked for."""

from __future__ import annotations

import os

import pytest

from qonnx_hub_adapters.dependencies import is_installed

MISSING = [name for name in ("torch", "onnxscript", "torchao") if not is_installed(name)]
# These run without torch.
FREE = {"test_formula.py", "test_without_torch.py"}
FRAMEWORK_WARNINGS = [
    r"ignore:.*:DeprecationWarning:(torch|torchao|qonnx|onnxscript|copyreg)\b.*",
    r"ignore:.*:FutureWarning:(torch|torchao|qonnx|onnxscript|copyreg)\b.*",
    r"ignore:.*:UserWarning:(torch|torchao)\b.*",
    # torch points these at whoever calls it.
    r"ignore:\s*torch.ao.quantization is deprecated:DeprecationWarning",
    r"ignore:.*isinstance\(treespec, LeafSpec\):FutureWarning",
]


def pytest_configure() -> None:
    if MISSING and os.environ.get("QONNX_HUB_REQUIRE_TORCH") == "1":
        raise pytest.UsageError(
            f"QONNX_HUB_REQUIRE_TORCH=1, but not installed: {', '.join(MISSING)}"
        )


def pytest_ignore_collect(collection_path) -> bool | None:
    if not MISSING or not collection_path.name.startswith("test_"):
        return None
    return True if collection_path.name not in FREE else None


def pytest_collection_modifyitems(items) -> None:
    for item in items:
        if item.path.parent.name == "pytorch":
            # What the frameworks warn about inside their own code is not ours to mend.
            for text in FRAMEWORK_WARNINGS:
                item.add_marker(pytest.mark.filterwarnings(text))


if not MISSING:
    import torch

    # Sums are added up in the same order in every run, and cores are left to other tests.
    torch.set_num_threads(1)
