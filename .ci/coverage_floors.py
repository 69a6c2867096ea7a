"""Fails where a room's tests run less of it than its floor: ``python .ci/coverage_floors.py``.

Reads what ``pytest --cov`` wrote into the file that COVERAGE_FILE names.
"""

from __future__ import annotations

import io
import sys

import coverage

FLOORS = {
    "qonnx_hub_ir": 95,
    "qonnx_hub_adapters": 78,
    "qonnx_hub": 94,
}
"""Percent of lines, by room; live frameworks, in environments of their own, do not count."""


def main() -> int:
    """Print each room's share and floor; return 1 where one is below."""
    data = coverage.Coverage()
    data.load()
    below = []
    for room, floor in FLOORS.items():
        share = data.report(include=[f"*/{room}/*"], file=io.StringIO(), ignore_errors=True)
        print(f"{room:20} {share:5.1f} % of lines, floor {floor} %")
        below += [room] * (share < floor)
    return 1 if below else 0


if __name__ == "__main__":
    sys.exit(main())
