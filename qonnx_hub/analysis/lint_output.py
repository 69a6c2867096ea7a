"""Findings of lint for other tools: SARIF, and a baseline of findings that are known."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from qonnx_hub._version import __version__
from qonnx_hub.analysis.lint import LintReport
from qonnx_hub.io.atomic import write_text
from qonnx_hub_adapters.lint.finding import LintFinding, Severity
from qonnx_hub_ir.errors import UsageError

SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
BASELINE = "qonnx-hub/lint-baseline/1"
_LEVELS = {
    Severity.REFUSED: "error",
    Severity.WRONG: "error",
    Severity.UNKNOWN: "warning",
    Severity.NOTE: "note",
}


def sarif(report: LintReport) -> dict[str, Any]:
    """Return a report in the form of SARIF 2.1.0: one rule per kind of finding.

    Args:
        report: What lint found.
    """
    rules: dict[str, dict[str, Any]] = {}
    results = []
    for finding, print_ in zip(report.findings, _fingerprints(report), strict=True):
        rule = rules.setdefault(
            _rule_name(report.target, finding),
            {
                "id": _rule_name(report.target, finding),
                "shortDescription": {"text": finding.reason},
                "help": {"text": finding.remedy or finding.effect},
            },
        )
        where: dict[str, Any] = {
            "physicalLocation": {"artifactLocation": {"uri": quote(report.source)}}
        }
        if finding.node:
            name = {"fullyQualifiedName": finding.node, "kind": "element"}
            where["logicalLocations"] = [name]
        results.append(
            {
                "ruleId": rule["id"],
                "level": _LEVELS[finding.severity],
                "message": {"text": str(finding)},
                "locations": [where],
                "partialFingerprints": {"qonnxHub/v1": print_},
            }
        )
    driver = {"name": "qonnx-hub lint", "version": __version__, "rules": list(rules.values())}
    run = {"tool": {"driver": driver}, "results": results}
    return {"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}


def write_baseline(report: LintReport, path: str | Path) -> None:
    """Write what lint found as known, to be left out later.

    Raises:
        UsageError: The path cannot be written.
    """
    known = [
        {"fingerprint": print_, "finding": str(finding)}
        for finding, print_ in zip(report.findings, _fingerprints(report), strict=True)
    ]
    data = {"schema": BASELINE, "target": report.target, "known": known}
    write_text(path, json.dumps(data, indent=2) + "\n")


def without_known(report: LintReport, path: str | Path) -> LintReport:
    """Return a report without the findings of a baseline.

    A finding is the same where target, operator, node and reason are; the place in the graph
    and the path of the file do not matter.

    Args:
        report: What lint found.
        path: What :func:`write_baseline` wrote.

    Raises:
        UsageError: The file cannot be read, is no baseline, or one of another target.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
        schema, target = data["schema"], data["target"]
        known = Counter(str(row["fingerprint"]) for row in data["known"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"'{path}' cannot be read as a baseline of lint: {error}") from error
    if (schema, target) != (BASELINE, report.target):
        raise UsageError(
            f"'{path}' is a baseline '{schema}' for '{target}', not for '{report.target}'"
        )
    found = zip(report.findings, _fingerprints(report), strict=True)
    left = tuple(finding for finding, print_ in found if print_ not in known)
    return report.with_findings(left, known=len(report.findings) - len(left))


def _fingerprints(report: LintReport) -> Iterable[str]:
    """Give what tells findings apart; of two that say the same, the second has a number."""
    seen: Counter[str] = Counter()
    for finding in report.findings:
        key = "\0".join((report.target, finding.op, finding.node, finding.reason))
        seen[key] += 1
        counted = f"{key}\0{seen[key]}"
        yield hashlib.sha256(counted.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _rule_name(target: str, finding: LintFinding) -> str:
    """Return a name for a kind of finding: its reason without what it names and counts."""
    words = re.sub(r"'[^']*'|\S*\d\S*", "", finding.reason).lower()
    slug = re.sub(r"[^a-z]+", "-", words).strip("-")
    return f"{target}/{slug or 'finding'}"
