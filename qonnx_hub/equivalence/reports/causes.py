"""Causes of a difference for people: equal ones are told once, for all their layers."""

from __future__ import annotations

from collections.abc import Sequence

from qonnx_hub.equivalence.diagnosis.quantizer_causes import Explanation

_MOST_NAMES = 3


def grouped(findings: Sequence[Explanation]) -> list[tuple[Explanation, list[str]]]:
    """Return each cause once, with all layers that show it, in the order of the first.

    Two are the same cause where the words are the same, the layer's own name aside.
    """
    groups: dict[tuple[str, str], tuple[Explanation, list[str]]] = {}
    for finding in findings:
        words = finding.words.replace(f"'{finding.layer}'", "''")
        key = (finding.cause.value, words)
        groups.setdefault(key, (finding, []))[1].append(finding.layer)
    return list(groups.values())


def layers_in_words(layers: Sequence[str]) -> str:
    """Return the names of layers, of many the first ones and their number."""
    shown = ", ".join(f"'{layer}'" for layer in layers[:_MOST_NAMES])
    if len(layers) <= _MOST_NAMES:
        return shown
    return f"{len(layers)} layers ({shown} and {len(layers) - _MOST_NAMES} more)"
