"""Not written yet."""

from __future__ import annotations

from collections.abc import Mapping

from qonnx_hub_adapters.keras_files.kinds import Kind

KINDS: Mapping[str, Kind] = {}
