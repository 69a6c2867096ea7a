"""Brevitas; without it the folder is skipped, or refused."""

from __future__ import annotations

import os
import warnings

import pytest

from qonnx_hub_adapters.dependencies import is_installed

NEEDED = ("torch", "brevitas")
MISSING = [name for name in NEEDED if not is_installed(name)]
# These run without any framework.
FREE = {"test_without_frameworks.py"}
FRAMEWORK_WARNINGS = [
    r"ignore:.*:DeprecationWarning:(torch|brevitas|qonnx|onnxruntime|onnxscript)\b.*",
    r"ignore:.*:FutureWarning:(torch|brevitas|qonnx)\b.*",
    r"ignore:.*:UserWarning:(torch|brevitas)\b.*",
]


def pytest_configure() -> None:
    if MISSING and os.environ.get("QONNX_HUB_REQUIRE_TORCH") == "1":
        raise pytest.UsageError(
            f"QONNX_HUB_REQUIRE_TORCH=1, but {', '.join(MISSING)} is not installed"
        )


def pytest_ignore_collect(collection_path) -> bool | None:
    if not MISSING or not collection_path.name.startswith("test_"):
        return None
    return True if collection_path.name not in FREE else None


def pytest_collection_modifyitems(items) -> None:
    for item in items:
        if item.path.parent.name == "brevitas":
            # What the frameworks warn about inside their own code is not ours to mend.
            for text in FRAMEWORK_WARNINGS:
                item.add_marker(pytest.mark.filterwarnings(text))


if not MISSING:
    with warnings.catch_warnings():
        # What a framework warns about when it is imported is not ours to mend either.
        warnings.simplefilter("ignore")
        import brevitas.export
        import brevitas.nn  # noqa: F401
        import torch

    # Sums are added up in the same order in every run, and cores are left to other tests.
    torch.set_num_threads(1)
