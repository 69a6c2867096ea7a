"""What a whole test session is held to, whichever folder it runs."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sysconfig
import warnings
from pathlib import Path

import pytest
from hypothesis import settings

ORACLES = ("qonnx", "onnxruntime")
PACKAGES = ("qonnx_hub", "qonnx_hub_adapters", "qonnx_hub_ir")

# Property tests draw the same examples on every machine: a red run can be repeated.
settings.register_profile("house", derandomize=True, deadline=None, database=None)
settings.load_profile("house")


def pytest_configure() -> None:
    """Refuse a session that would pass only because what it must test is not there."""
    if os.environ.get("QONNX_HUB_REQUIRE_ORACLES") == "1":
        _require_oracles()
    if os.environ.get("QONNX_HUB_REQUIRE_INSTALLED") == "1":
        _require_installed()


def pytest_report_header() -> list[str]:
    places = [f"{name} from {_place(name)}" for name in PACKAGES]
    found = [name for name in ORACLES if importlib.util.find_spec(name) is not None]
    return [*places, f"oracles: {', '.join(found) or 'none'}"]


def _require_oracles() -> None:
    with warnings.catch_warnings():
        # What an oracle warns about at its own import is not ours to mend.
        warnings.simplefilter("ignore")
        try:
            for name in ORACLES:
                importlib.import_module(name)
        except ImportError as error:
            raise pytest.UsageError(
                f"QONNX_HUB_REQUIRE_ORACLES=1, but an oracle cannot be imported: {error}"
            ) from error


def _require_installed() -> None:
    site = Path(sysconfig.get_path("purelib")).resolve()
    for name in PACKAGES:
        place = _place(name)
        if place is None or not place.resolve().is_relative_to(site):
            raise pytest.UsageError(
                f"QONNX_HUB_REQUIRE_INSTALLED=1, but '{name}' would come from {place}, "
                f"not from {site}"
            )


def _place(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)
    return Path(spec.origin) if spec is not None and spec.origin is not None else None
