"""Options of the TFLite exporter: it has none yet that are its own."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TfliteOptions:
    """How a TFLite file is written; there is one way."""
