"""HGQ2 on JAX; without it the folder is skipped, or refused."""

from __future__ import annotations

import os

import pytest

from qonnx_hub_adapters.dependencies import is_installed

MISSING = [name for name in ("hgq", "keras", "jax") if not is_installed(name)]

if not MISSING:
    # Read when Keras is imported, which only the tests of this folder do here.
    os.environ["KERAS_BACKEND"] = "jax"


def pytest_configure() -> None:
    if MISSING and os.environ.get("QONNX_HUB_REQUIRE_HGQ") == "1":
        raise pytest.UsageError(
            f"QONNX_HUB_REQUIRE_HGQ=1, but these are not installed: {', '.join(MISSING)}"
        )


def pytest_ignore_collect(collection_path) -> bool | None:
    return True if MISSING and collection_path.name.startswith("test_") else None
