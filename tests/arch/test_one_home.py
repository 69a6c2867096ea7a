"""Each fact has one home: operators in their table, a class name once, no import circles."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import onnx.defs
import pytest

from qonnx_hub_ir import dialect

OPERATORS = {schema.name for schema in onnx.defs.get_all_schemas()} | dialect.QUANTIZERS
PACKAGES = {"qonnx_hub", "qonnx_hub_adapters", "qonnx_hub_ir"}
# Tables of other tools, as those tools have them.
FOREIGN_TABLES = {
    "adapters/qonnx_hub_adapters/finn/hardware.py",
    "adapters/qonnx_hub_adapters/lint/finn.py",
    "adapters/qonnx_hub_adapters/lint/hls4ml.py",
    "qonnx_hub/analysis/cost/types.py",
    "qonnx_hub/verifier.py",  # it trusts no table of this project
}
PAIRS = 4
"""Short lists in all modules outside the home together: pairs and fours of one rule."""


def listed_operators(source: str) -> Iterator[set[str]]:
    """Yield the operators in every set, list, tuple or text that holds two or more of them."""
    for node in ast.walk(ast.parse(source)):
        texts: list[object] = []
        if isinstance(node, (ast.Set, ast.List, ast.Tuple)):
            texts = [getattr(element, "value", None) for element in node.elts]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            texts = [*node.value.split()]
        known = [text for text in texts if isinstance(text, str) and text in OPERATORS]
        if len(known) >= 2 and len(known) >= 0.7 * len(texts):
            yield set(known)


def runtime_imports(source: str, modules: set[str]) -> set[str]:
    """Return which of the modules are imported when a module runs, inside functions too."""
    tree, found = ast.parse(source), set()
    typing_only = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found.update(name if name in modules else node.module for name in names)
    return found & modules


@pytest.fixture(scope="module")
def sources(room_files, repository) -> dict[Path, str]:
    """Every module of the rooms, by its path in the repository."""
    return {f.relative_to(repository): f.read_text(encoding="utf-8") for f in room_files}


def test_a_list_of_operators_is_recognized():
    found = list(listed_operators('A = frozenset({"Conv", "Gemm"})\nB = ("Conv", "weight")'))
    assert found == [{"Conv", "Gemm"}]
    assert list(listed_operators('A = "Conv Gemm".split()')) == [{"Conv", "Gemm"}]


def test_operators_are_listed_in_their_table_only(sources):
    lists = [
        (str(file), names)
        for file, source in sources.items()
        if not {"operators", "kernels"} & set(file.parts)
        and file.as_posix() not in FOREIGN_TABLES
        for names in listed_operators(source)
    ]
    long = [(file, names) for file, names in lists if len(names) > 4]
    assert long == []
    assert len(lists) <= PAIRS, lists


def test_a_public_class_name_is_borne_once(sources):
    names = Counter(
        node.name
        for source in sources.values()
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert len(names) > 100
    assert [name for name, count in names.items() if count > 1] == []


def test_an_import_circle_is_recognized():
    modules = {"a", "b"}
    graph = {
        "a": runtime_imports("import b", modules),
        "b": runtime_imports("import a", modules),
    }
    with pytest.raises(CycleError):
        TopologicalSorter(graph).prepare()


def test_no_modules_import_each_other_in_a_circle(sources):
    modules = {}
    for file, source in sources.items():
        parts = file.with_suffix("").parts
        start = next(i for i, part in enumerate(parts) if part in PACKAGES)
        modules[".".join(p for p in parts[start:] if p != "__init__")] = source
    graph = {m: runtime_imports(s, set(modules)) - {m} for m, s in modules.items()}
    TopologicalSorter(graph).prepare()
