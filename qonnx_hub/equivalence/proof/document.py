"""A certificate of two files: what a stranger needs to prove their equality again.

The proof runs on what was read of the files. The certificate names values of the files
themselves, and is verified against them by :mod:`qonnx_hub.verifier`, which trusts none of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx_ir import Node, Value

from qonnx_hub.equivalence.proof.deadline import DEFAULT_SECONDS, Deadline
from qonnx_hub.equivalence.proof.graph_matching import FunctionPair, GraphMatching, paired
from qonnx_hub.equivalence.proof.proof_model import ProofModel
from qonnx_hub.equivalence.proof.prove import different_interface, matched
from qonnx_hub.equivalence.proof.step_functions import StepFunction, find_steps
from qonnx_hub.io import registry
from qonnx_hub.verifier import FORMAT, RejectedError, derive, digest
from qonnx_hub_adapters.protocol import ImportOptions
from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.analysis.value_ranges import prepared
from qonnx_hub_ir.errors import NotProvenError, TooManyLevelsError


def certify(
    path_a: str | Path, path_b: str | Path, *, seconds: float = DEFAULT_SECONDS
) -> dict[str, Any]:
    """Return the certificate that two ONNX files compute equal outputs from equal inputs.

    Args:
        path_a: The first file.
        path_b: The second one.
        seconds: How long pieces may be compared.

    Returns:
        Plain data, fit for JSON.

    Raises:
        NotProvenError: It is not proven, or a table of thresholds is too long to be listed.
        HubError: A file cannot be read.
    """
    sides = []
    for path in (path_a, path_b):
        importer, source = registry.open_source(path, None, ImportOptions())
        sides.append(ProofModel(prepared(importer.load(source, ImportOptions()))))
    a, b = sides
    reason = different_interface(a.model, b.model)
    if reason:
        raise NotProvenError(f"not proven: {reason}")
    matching = matched(a, b, Deadline(seconds))
    if any(value in matching.findings.supposed for value in b.model.graph.outputs):
        found = [*matching.findings.unmatched, *matching.findings.late]
        raise NotProvenError(f"not proven: {'; '.join(found) or 'a piece is refuted'}")
    files = _names(path_a), _names(path_b)
    inputs, outputs = (
        [[str(one.name), str(other.name)] for one, other in paired(*ends)]
        for ends in (
            (a.model.graph.inputs, b.model.graph.inputs),
            (a.model.graph.outputs, b.model.graph.outputs),
        )
    )
    functions = list(_functions(matching, files))
    proven = {claim["other"]["target"] for claim in functions}
    document = {
        "format": FORMAT,
        "files": {"a": digest(path_a), "b": digest(path_b)},
        "inputs": inputs,
        "outputs": outputs,
        "values": list(_values(matching, files, proven)),
        "functions": functions,
    }
    try:
        # What the verifier needs, as it finds it on the files.
        used = derive(document, path_a, path_b)
    except RejectedError as error:
        raise NotProvenError(f"proven, but not so that it can be verified: {error}") from None
    return document | {"assumptions": {kind: sorted(found) for kind, found in used.items()}}


def _names(path: str | Path) -> set[str]:
    """Return the names of all values of a file's main graph."""
    graph = onnx.load(str(path), load_external_data=False).graph
    made = {name for node in graph.node for name in node.output}
    return made | {t.name for t in graph.initializer} | {v.name for v in graph.input}


def _values(
    matching: GraphMatching, files: tuple[set[str], set[str]], proven: set[str]
) -> Iterator[list[str]]:
    """Yield name in the first file, in the second, and the rule that makes them equal."""
    b = matching.b
    held = {matching.a.number(value): value for value in matching.a.constants}
    for other in b.constants:
        one = held.get(b.number(other))
        if one is not None and one.name in files[0] and other.name in files[1]:
            yield [str(one.name), str(other.name), "constant"]
    for node in b.nodes():
        for other in node.outputs:
            partner = matching.partner(other)
            if partner is None or partner.name not in files[0] or other.name not in files[1]:
                continue
            rule = "function" if other.name in proven else "operator"
            yield [str(partner.name), str(other.name), rule]


def _functions(
    matching: GraphMatching, files: tuple[set[str], set[str]]
) -> Iterator[dict[str, Any]]:
    for pair in _pairs(matching, files):
        compared = matching.functions(pair)
        if compared is None:
            continue
        f, _, dtype = compared
        try:
            table = find_steps(f, f.channels, dtype)
        except TooManyLevelsError:
            # The same operator on both sides needs no table.
            continue
        yield {
            "one": _end("a", pair.one, pair.start),
            "other": _end("b", pair.other, pair.source),
            "table": _table(table),
        }


def _end(side: str, target: Value, source: Value) -> dict[str, str]:
    return {"side": side, "source": str(source.name), "target": str(target.name)}


def _table(table: StepFunction) -> dict[str, Any]:
    """Return thresholds as keys of floats; channels that are alike share a row."""
    rows: list[dict[str, Any]] = []
    channels: list[int] = []
    for channel in range(table.channels):
        part = table.segments(channel)
        levels = [float(level) for level in table.level[part]]
        row = {
            "starts": table.start[part].tolist(),
            "levels": [x if np.isfinite(x) else str(x) for x in levels],
        }
        if row not in rows:
            rows.append(row)
        channels.append(rows.index(row))
    return {"rows": rows, "channels": channels}


def _pairs(
    matching: GraphMatching, files: tuple[set[str], set[str]]
) -> Iterator[FunctionPair]:
    """Yield the quantizers of the second model beside those that equal them."""
    for node in matching.b.nodes():
        other = node.outputs[0]
        one = matching.partner(other)
        maker = None if one is None else one.producer()
        if one is None or maker is None:
            continue
        if one.name not in files[0] or other.name not in files[1]:
            continue
        pair = matching.proven_pair(other)
        if pair is not None and _is_named(pair, files):
            yield pair
            continue
        hidden = _hides(maker, files[0]) or _hides(node, files[1])
        if not hidden and not (_quantizes(node) and _quantizes(maker)):
            continue
        start = _common_start(matching, one, other, files)
        if start is not None:
            yield start


def _is_named(pair: FunctionPair, files: tuple[set[str], set[str]]) -> bool:
    """Return whether the files themselves hold all four values."""
    ours, theirs = (pair.one, pair.start), (pair.other, pair.source)
    return all(v.name in files[0] for v in ours) and all(v.name in files[1] for v in theirs)


def _hides(node: Node, names: set[str]) -> bool:
    """Return whether the node reads a value that the file itself does not hold."""
    value = node.inputs[0] if node.inputs else None
    return value is not None and value.producer() is not None and value.name not in names


def _common_start(
    matching: GraphMatching, one: Value, other: Value, files: tuple[set[str], set[str]]
) -> FunctionPair | None:
    """Return both values as functions of the nearest equal values that both files hold."""
    starts = {matching.a.number(v): v for v in reversed(matching.a.chain(one))}
    for source in matching.b.chain(other):
        start = starts.get(matching.b.number(source))
        if start is not None and _is_named(FunctionPair(one, start, other, source), files):
            return FunctionPair(one, start, other, source)
    return None


def _quantizes(node: Node) -> bool:
    return dialect.is_quantizer(node) or operators.is_qdq(node)
