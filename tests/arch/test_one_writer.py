"""Files are written in one place, whole or not at all; nothing else opens one to write."""

from __future__ import annotations

import ast
from collections.abc import Iterator

WRITER = {"qonnx_hub/io/atomic.py", "qonnx_hub/io/model_files.py"}
ELSEWHERE = {
    # hls4ml's own work folder: what it compiled, and a note of it.
    "adapters/qonnx_hub_adapters/hls4ml/driver.py",
    "adapters/qonnx_hub_adapters/hls4ml/simulation.py",
    # Answers of one process to another.
    "adapters/qonnx_hub_adapters/tflite/litert.py",
    "adapters/qonnx_hub_adapters/tflite/litert_process.py",
    # A folder of the system that is removed again.
    "qonnx_hub/analysis/fused_layers.py",
    "qonnx_hub/executor/onnxruntime/backend.py",
    # A script that is written for others, and runs without this project.
    "adapters/qonnx_hub_adapters/hls4ml/project.py",
}
WRITES = {
    *("write_text", "write_bytes", "savez", "savez_compressed", "savefig", "tofile"),
    *("copyfile", "copytree", "rename", "symlink_to", "hardlink_to", "unlink", "rmtree"),
    *("NamedTemporaryFile", "TemporaryDirectory", "TemporaryFile", "mkstemp", "mkdtemp"),
}
"""Calls that write, whatever they are called of."""
OF_MODULES = {("np", "save"), ("onnx", "save"), ("onnx_ir", "save"), ("os", "remove")}


def _name(call: ast.Call) -> tuple[str, str]:
    made = call.func
    if isinstance(made, ast.Attribute):
        return getattr(made.value, "id", ""), made.attr
    return "", getattr(made, "id", "")


def _writes(call: ast.Call) -> bool:
    owner, name = _name(call)
    if name == "open":
        words = [*call.args, *(k.value for k in call.keywords if k.arg == "mode")]
        modes = [w.value for w in words if isinstance(w, ast.Constant)]
        return any(isinstance(m, str) and set(m) & set("wax+") for m in modes)
    # The writer's own function has the name of a method.
    is_method = isinstance(call.func, ast.Attribute)
    return (is_method and name in WRITES) or (owner, name) in OF_MODULES


def _outside(node: ast.AST) -> Iterator[ast.Call]:
    """Yield the calls that write and stand in no ``with replacing...``."""
    if isinstance(node, ast.With):
        made = [i.context_expr for i in node.items if isinstance(i.context_expr, ast.Call)]
        if any(_name(call)[1].startswith("replacing") for call in made):
            return
    if isinstance(node, ast.Call) and _writes(node):
        yield node
    for inner in ast.iter_child_nodes(node):
        yield from _outside(inner)


def test_calls_that_write_are_found():
    source = """
np.save("a", x)
path.write_text("b")
open("c", "w")
path.open(mode="ab")
path.open("rb")
with replacing("d") as temporary:
    temporary.write_bytes(b"")
text.replace("a", "b")
"""
    assert [call.lineno for call in _outside(ast.parse(source))] == [2, 3, 4, 5]


def test_only_the_writer_writes(room_files, repository):
    found = {
        str(file.relative_to(repository)): [
            ast.unparse(call)[:60]
            for call in _outside(ast.parse(file.read_text(encoding="utf-8")))
        ]
        for file in room_files
    }
    assert {k: v for k, v in found.items() if v and k not in WRITER | ELSEWHERE} == {}
