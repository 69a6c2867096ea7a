"""Two forms of a model: every value as the framework computes it, or quantizers only."""

from __future__ import annotations

EXACT, QUANT = "exact", "quant"
MODES = (EXACT, QUANT)
