"""torch, and HAWQ's layers: the stand-in's, and a real checkout's where there is one."""

from __future__ import annotations

import os

import pytest

from qonnx_hub_adapters.dependencies import is_installed

HAS_TORCH = is_installed("torch")
# These run without torch.
FREE = {"test_files.py"}
FRAMEWORK_WARNINGS = [
    r"ignore:.*:DeprecationWarning:(torch|qonnx|onnxruntime)\b.*",
    r"ignore:.*:FutureWarning:(torch|qonnx)\b.*",
]


def pytest_configure() -> None:
    if not HAS_TORCH and os.environ.get("QONNX_HUB_REQUIRE_TORCH") == "1":
        raise pytest.UsageError("QONNX_HUB_REQUIRE_TORCH=1, but torch is not installed")


def pytest_ignore_collect(collection_path) -> bool | None:
    if HAS_TORCH or not collection_path.name.startswith("test_"):
        return None
    return True if collection_path.name not in FREE else None


def pytest_collection_modifyitems(items) -> None:
    for item in items:
        if item.path.parent.name == "hawq":
            # What the frameworks warn about inside their own code is not ours to mend.
            for text in FRAMEWORK_WARNINGS:
                item.add_marker(pytest.mark.filterwarnings(text))


@pytest.fixture
def checkout():
    """HAWQ's own layer classes."""
    from tests.adapters.hawq.checkout import load_checkout

    root = os.environ.get("HAWQ_ROOT")
    if not root:
        pytest.skip("HAWQ_ROOT names no checkout of HAWQ")
    return load_checkout(root)


@pytest.fixture(params=["stand-in", "checkout"])
def layers(request):
    """A namespace with HAWQ's layer classes."""
    if request.param == "checkout":
        return request.getfixturevalue("checkout")
    from tests.adapters.hawq import hawq_standin

    return hawq_standin
