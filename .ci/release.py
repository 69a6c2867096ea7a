"""Prepares a release: the version in its one place, and a heading in the changelog.

    python .ci/release.py 0.2.0 2027-01-31
    tox run -e release        # builds sdist and wheel, and looks at both

Nothing is committed, tagged or uploaded here; the last lines say what is left to do.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VERSION = Path("qonnx_hub", "_version.py")
CHANGELOG = Path("CHANGELOG.md")
UNRELEASED = "## [Unreleased]\n"


def prepare(root: Path, version: str, date: str) -> None:
    """Write the version and the changelog's heading below a root.

    Raises:
        ValueError: The version or the date is none, or nothing stands under "Unreleased".
    """
    if not re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", version):
        raise ValueError(f"'{version}' is no version such as 1.2.3 or 1.2.3rc1")
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", date):
        raise ValueError(f"'{date}' is no date such as 2027-01-31")
    log = (root / CHANGELOG).read_text(encoding="utf-8")
    before, found, after = log.partition(UNRELEASED)
    if not found or not after.partition("\n## [")[0].strip():
        raise ValueError(f"{CHANGELOG} has nothing under '{UNRELEASED.strip()}'")
    heading = f"{UNRELEASED}\n## [{version}] - {date}\n"
    text = (root / VERSION).read_text(encoding="utf-8")
    changed, count = re.subn(r'__version__ = ".*"', f'__version__ = "{version}"', text)
    if count != 1:
        raise ValueError(f"{VERSION} names no version")
    (root / VERSION).write_text(changed, encoding="utf-8")
    (root / CHANGELOG).write_text(before + heading + after, encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    try:
        prepare(ROOT, *sys.argv[1:])
    except ValueError as error:
        sys.exit(f"release: {error}")
    print(f"written: {VERSION}, {CHANGELOG}")
    print(f"left: tox; tox run -e release; git commit; git tag v{sys.argv[1]}; upload")
