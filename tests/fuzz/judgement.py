"""What is wrong with the outcome of a call, whatever the model was."""

from __future__ import annotations

import re

import onnx

from qonnx_hub.io.terminal import visible
from qonnx_hub_ir.dialect import QUANTIZERS
from tests.fuzz.worker import Outcome

DOCUMENTED = frozenset({0, 1, 2, 3, 4, 5})
USAGE = 2
DEFECT = 70
MOST_LINES = 24
MOST_CHARACTERS = 20_000

_FOREIGN = re.compile(
    r"<lambda>|NoneType|[Aa]ssertion|bad_alloc|positional argument|std::|\bONNXRuntimeError\b"
    r"|object has no attribute|/project/|\.(cc|cpp|h):\d|object at 0x|clone_graph"
)
_LABEL = re.compile(r"(\w+) '[^']*'")
"""An operator and a name, which may be one that a pass gave."""

_NUMBERED = re.compile(r"\b([A-Z]\w+) '\1_\d+'")
"""A node without a name of its own, and what it is called for that."""

_QUOTED = re.compile(r"'([^']+)'")
_WHOLE_FILE = re.compile(
    r"holds no graph|holds no node|is cut off|is empty|no output|no importer reads"
    r"|not an ONNX file|graph (input|output) \d|an initializer|\b[A-Z]\w+ ''|::\w|the file: "
    r"|is no text|node \d+ ''"
    r"|is no UTF-8"
)
"""Reasons that concern the file and no node, and places that have no name."""


def names_in(data: bytes) -> frozenset[str]:
    """Return the names of nodes, values and operators that a message can name."""
    try:
        model = onnx.ModelProto.FromString(data)
    except Exception:  # spoiled bytes: there is nothing to name
        return frozenset()
    found: set[str] = {model.graph.name, *QUANTIZERS}
    bodies = [model.graph, *model.functions]
    found.update(function.name for function in model.functions)
    while bodies:
        body = bodies.pop()
        if isinstance(body, onnx.GraphProto):
            found.update(v.name for v in (*body.input, *body.output, *body.value_info))
            found.update(t.name for t in body.initializer)
        for node in body.node:
            found.update((node.name, node.op_type, *node.input, *node.output))
            for attribute in node.attribute:
                bodies += [graph for graph in (attribute.g, *attribute.graphs) if graph.node]
    found.update(o.domain for o in model.opset_import)
    # Spoiled text comes as bytes; control characters are printed as escapes.
    return frozenset(
        written
        for name in found
        if name and isinstance(name, str)
        for written in (name, visible(name))
    )


def faults_of(outcome: Outcome, verb: str, data: bytes, file: str) -> list[str]:
    """Return the kinds of fault in an outcome; none for what is as documented.

    Args:
        outcome: What the call did.
        verb: The verb.
        data: The model.
        file: Its name, as the call named it.
    """
    if outcome.code is None:
        return ["hang"]
    if outcome.code < 0:
        return [f"signal {-outcome.code}"]
    found = []
    if "Traceback" in outcome.err:
        found.append("traceback")
    if outcome.code == DEFECT:
        found.append("70")
    elif outcome.code not in DOCUMENTED:
        found.append("undocumented exit")
    if "\x1b" in outcome.out + outcome.err:
        found.append("control characters")
    if "Warning" in outcome.err:
        found.append("warning")
    if outcome.code > 1 and outcome.code != DEFECT:
        found += _message_faults(outcome.err, data, file, outcome.code == USAGE)
    return found


def _message_faults(told: str, data: bytes, file: str, usage: bool) -> list[str]:
    found = []
    if not told.strip():
        return ["no message"]
    if _FOREIGN.search(told):
        found.append("foreign words")
    if len(told) > MOST_CHARACTERS or told.count("\n") > MOST_LINES:
        found.append("long")
    if not usage and not _has_place(told, data, file):
        found.append("no place")
    return found


def _has_place(told: str, data: bytes, file: str) -> bool:
    """Return whether a message names a node or value, or speaks of the file as a whole."""
    if _WHOLE_FILE.search(told):
        return True
    names = names_in(data)
    quoted = {text for text in _QUOTED.findall(told) if file not in text}
    if _NUMBERED.search(told):
        return True
    # What a pass makes on the way has the name of what it was made from, and more behind it.
    if any(word in names for word in _LABEL.findall(told)):
        return True
    return any(text in names or any(n in text for n in names if len(n) > 1) for text in quoted)
