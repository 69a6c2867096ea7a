"""No module of the rooms needs a framework to be imported."""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterator

import pytest

FRAMEWORKS = (
    "brevitas",
    "hls4ml",
    "jax",
    "keras",
    "onnxruntime",
    "onnxscript",
    "qkeras",
    "qonnx",
    "tensorflow",
    "tf2onnx",
    "tf_keras",
    "torch",
    "torchao",
    "torchvision",
)
DEPENDENCIES = {
    "ml-dtypes": "ml_dtypes",
    "numpy": "numpy",
    "onnx": "onnx",
    "onnx-ir": "onnx_ir",
    "protobuf": "google",
    "h5py": "h5py",
    "jinja2": "jinja2",
    "rich": "rich",
    "threadpoolctl": "threadpoolctl",
    "typer": "typer",
}
ROOMS = {"qonnx_hub", "qonnx_hub_adapters", "qonnx_hub_ir"}
ALLOWED = sys.stdlib_module_names | set(DEPENDENCIES.values()) | ROOMS
IMPORTING_CALLS = {"import_module", "__import__", "require"}


def foreign_imports(source: str) -> list[str]:
    """Return what importing a module with this source imports beyond the allowed packages."""
    names = _imported(ast.parse(source))
    return [name for name in names if name.partition(".")[0] not in ALLOWED]


def _imported(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Import():
            yield from (alias.name for alias in node.names)
        case ast.ImportFrom(module=str(module), level=0):
            yield module
        case ast.Call(args=[ast.Constant(value=str(name)), *_]):
            if _called(node.func) in IMPORTING_CALLS:
                yield name
    for child in _executed_on_import(node):
        yield from _imported(child)


def _called(function: ast.expr) -> str:
    match function:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


def _executed_on_import(node: ast.AST) -> list[ast.AST]:
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            return [*node.decorator_list, node.args]
        case ast.Lambda():
            return [node.args]
        case ast.If() if _called(node.test) == "TYPE_CHECKING":
            return list(node.orelse)
    return list(ast.iter_child_nodes(node))


@pytest.mark.parametrize(
    "source",
    [
        "import torch",
        "import numpy, torch.nn as nn",
        "from torch.nn import functional",
        "if True:\n    import torch",
        "try:\n    import torch\nexcept ImportError:\n    torch = None",
        "class A:\n    import torch",
        "with open('x'):\n    import torch",
        "if TYPE_CHECKING:\n    pass\nelse:\n    import torch",
        "if not TYPE_CHECKING:\n    import torch",
        "import importlib\nx = importlib.import_module('torch.nn')",
        "from importlib import import_module\nx = import_module('torch')",
        "x = require('torch')",
        "def f(x=__import__('torch')): ...",
        "@require('torch')\ndef f(): ...",
    ],
)
def test_an_import_that_runs_with_the_module_is_found(source):
    found = foreign_imports(source)
    assert [name.partition(".")[0] for name in found] == ["torch"]


@pytest.mark.parametrize(
    "source",
    [
        "import numpy as np\nimport onnx_ir.passes\nfrom qonnx_hub_ir import quant",
        "from . import torch",
        "def f():\n    import torch",
        "class A:\n    def f(self):\n        import torch",
        "async def f():\n    import torch",
        "f = lambda: __import__('torch')",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch",
        "import typing\nif typing.TYPE_CHECKING:\n    import torch",
        "def f():\n    return require('torch')",
    ],
)
def test_an_import_that_waits_for_a_call_is_not_counted(source):
    assert foreign_imports(source) == []


def test_no_framework_is_among_the_allowed_packages():
    assert ALLOWED.isdisjoint(FRAMEWORKS)


def test_the_allowed_packages_are_those_that_every_installation_has(repository):
    tomllib = pytest.importorskip("tomllib", reason="tomllib came with Python 3.11")
    text = (repository / "pyproject.toml").read_text(encoding="utf-8")
    declared = tomllib.loads(text)["project"]["dependencies"]
    assert {line.partition(">=")[0] for line in declared} == set(DEPENDENCIES)


def test_no_module_imports_a_framework_at_its_top_level(room_files, repository):
    found = {
        str(file.relative_to(repository)): names
        for file in room_files
        if (names := foreign_imports(file.read_text(encoding="utf-8")))
    }
    assert found == {}


IMPORT_ALL_WITHOUT_FRAMEWORKS = """
import importlib, json, pkgutil, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in FRAMEWORKS:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

FRAMEWORKS = set(json.loads(sys.argv[1]))
sys.meta_path.insert(0, Absent())
imported = []
for package in json.loads(sys.argv[2]):
    module = importlib.import_module(package)
    imported.append(package)
    for found in pkgutil.walk_packages(module.__path__, prefix=package + "."):
        if not found.name.endswith(".__main__"):
            importlib.import_module(found.name)
            imported.append(found.name)
print(json.dumps(imported))
"""


def test_every_module_is_importable_where_no_framework_is(room_files, run_python):
    packages = ["qonnx_hub", "qonnx_hub_adapters", "qonnx_hub_ir"]
    program = IMPORT_ALL_WITHOUT_FRAMEWORKS
    done = run_python(program, json.dumps(FRAMEWORKS), json.dumps(packages))
    assert done.returncode == 0, done.stderr
    imported = json.loads(done.stdout.splitlines()[-1])
    # One module a file, so that a folder without __init__.py is not passed over in silence.
    modules = [file for file in room_files if file.name != "__main__.py"]
    assert len(imported) == len(set(imported)) == len(modules)


def test_a_blocked_framework_is_really_absent_in_that_interpreter(run_python):
    done = run_python(
        IMPORT_ALL_WITHOUT_FRAMEWORKS, json.dumps(["onnx"]), json.dumps(["onnx"])
    )
    assert done.returncode == 1
    assert "No module named 'onnx'" in done.stderr


IMPORT_THE_HUB = """
import json, sys
import qonnx_hub
for name in qonnx_hub.__all__:
    getattr(qonnx_hub, name)
print(json.dumps(sorted(sys.modules)))
"""


def test_importing_the_hub_and_all_its_names_loads_no_framework(run_python):
    done = run_python(IMPORT_THE_HUB)
    assert done.returncode == 0, done.stderr
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}
    assert {"qonnx_hub", "qonnx_hub_ir"} <= loaded
    assert loaded.isdisjoint(FRAMEWORKS)


def test_help_loads_neither_onnx_nor_the_ir_of_graphs(run_python):
    code = (
        "import sys, qonnx_hub, qonnx_hub.cli; "
        "print([n for n in ('numpy', 'onnx', 'onnx_ir') if n in sys.modules])"
    )
    assert run_python(code).stdout.strip() == "[]"


def test_naming_the_formats_loads_none_of_them(run_python):
    code = (
        "import sys, qonnx_hub.io.registry; "
        "print([n for n in sys.modules if n.endswith(('.lowering', '.passes', '.exporter')) "
        "and n.startswith('qonnx_hub')])"
    )
    assert run_python(code).stdout.strip() == "[]"
