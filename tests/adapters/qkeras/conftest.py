"""The frameworks of this environment; without them the folder is skipped, or refused."""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Iterator

import pytest

from qonnx_hub_adapters.dependencies import is_installed
from tests.adapters.qkeras.kit import GENERATION, Kit

NEEDED = ("tensorflow", "qkeras", "tf2onnx")
MISSING = [name for name in NEEDED if not is_installed(name)]
# These run without any framework.
FREE = {"test_layout_passes.py", "test_without_frameworks.py"}


if not MISSING:
    # Both are read when TensorFlow is imported, which only the tests of this folder do.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if GENERATION == 2:
        os.environ["TF_USE_LEGACY_KERAS"] = "1"
    else:
        os.environ["KERAS_BACKEND"] = "tensorflow"


def pytest_configure() -> None:
    if MISSING and os.environ.get("QONNX_HUB_REQUIRE_QKERAS") == "1":
        raise pytest.UsageError(
            f"QONNX_HUB_REQUIRE_QKERAS=1, but these are not installed: {', '.join(MISSING)}"
        )


def pytest_ignore_collect(collection_path) -> bool | None:
    if MISSING and collection_path.name.startswith("test_"):
        return True if collection_path.name not in FREE else None
    return None


def pytest_collection_modifyitems(items) -> None:
    for item in items:
        if item.path.parent.name != "qkeras":
            continue
        # What the frameworks warn about inside their own code is not ours to mend.
        for text in FRAMEWORK_WARNINGS:
            item.add_marker(pytest.mark.filterwarnings(text))


FRAMEWORK_WARNINGS = [
    r"ignore:.*:DeprecationWarning:(tensorflow|keras|tf_keras|qkeras|tf2onnx|pyparsing|flatbuffers|google|gast|astunparse)\b.*",
    r"ignore:.*:FutureWarning:(tensorflow|keras|tf_keras|qkeras|tf2onnx)\b.*",
    r"ignore:.*:UserWarning:(tensorflow|keras|tf_keras|qkeras|tf2onnx)\b.*",
    r"ignore:.*:RuntimeWarning:(tensorflow|keras|tf_keras|qkeras|tf2onnx)\b.*",
]


@pytest.fixture(scope="session")
def kit():
    """The frameworks, imported once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from qonnx_hub_adapters.qkeras.framework import framework_for_files
        from qonnx_hub_adapters.qkeras.layers import dense_batchnorm

        framework = framework_for_files()
        importlib.import_module("tf2onnx.convert")
    qkeras = framework.qkeras
    if not hasattr(qkeras, "QDenseBatchnorm"):
        qkeras.QDenseBatchnorm = dense_batchnorm(framework)
    return Kit(framework.keras, qkeras, framework.generation)


@pytest.fixture(autouse=True)
def fresh(request) -> Iterator[None]:
    """Start every test with QKeras' own sigmoid and with layer names counted from one."""
    if MISSING:
        yield
        return
    kit = request.getfixturevalue("kit")
    kit.q.set_internal_sigmoid("hard")
    kit.keras.backend.clear_session()
    # Initial weights are the same in every run.
    kit.keras.utils.set_random_seed(0)
    yield
    kit.q.set_internal_sigmoid("hard")
