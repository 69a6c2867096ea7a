"""Checks as JUnit's XML, which servers for continuous integration show."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from qonnx_hub.equivalence.verdicts import Verdict

if TYPE_CHECKING:
    from qonnx_hub.equivalence.reports.report import CheckResult

_ILLEGAL = re.compile(r"[^\t\n\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What no XML may hold, not even escaped, and what steers terminals."""


def junit_xml(
    results: Mapping[str, CheckResult], refused: Mapping[str, str] = MappingProxyType({})
) -> str:
    """Return checks as one document: a suite for each, a case for each output and the verdict.

    Where bounds on predictions are given, they alone fail a suite, as they alone decide the
    exit code.

    Args:
        results: Name of the suite -> check.
        refused: Name of the suite -> why nothing was checked; an error, not a failure.
    """
    root = ElementTree.Element("testsuites", name="qonnx-hub check")
    for name, result in results.items():
        suite = ElementTree.SubElement(root, "testsuite", name=_clean(name))
        decided = result.accepted is not None
        failures = 0
        for output in result.outputs:
            case = _case(suite, name, f"output {output.name}")
            if output.verdict is Verdict.DIFFERENT and not decided:
                failures += 1
                _fail(case, "DIFFERENT", output.words(), result)
        case = _case(suite, name, "bounds on predictions" if decided else "verdict")
        if not result:
            failures += 1
            _fail(case, str(result.verdict), result.summary(), result)
        out = ElementTree.SubElement(suite, "system-out")
        out.text = _clean(result.table(120))
        suite.set("tests", str(len(result.outputs) + 1))
        suite.set("failures", str(failures))
    for name, why in refused.items():
        suite = ElementTree.SubElement(
            root, "testsuite", name=_clean(name), tests="1", failures="0", errors="1"
        )
        error = ElementTree.SubElement(_case(suite, name, "verdict"), "error", type="refused")
        error.set("message", _clean(why))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _case(suite: ElementTree.Element, owner: str, name: str) -> ElementTree.Element:
    return ElementTree.SubElement(
        suite, "testcase", classname=_clean(owner), name=_clean(name)
    )


def _fail(case: ElementTree.Element, kind: str, words: str, result: CheckResult) -> None:
    failure = ElementTree.SubElement(case, "failure", type=kind, message=_clean(words))
    causes = [f"{f.cause} in layer '{f.layer}': {f.words}" for f in result.findings]
    failure.text = _clean("\n".join(causes or [words]))


def _clean(text: str) -> str:
    return _ILLEGAL.sub(lambda found: ascii(found.group())[1:-1], text)
