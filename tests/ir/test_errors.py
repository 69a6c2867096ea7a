"""The tree of errors: complete, told in one place, and each with its exit code."""

from __future__ import annotations

import importlib
import pkgutil
import re

import pytest

import qonnx_hub
import qonnx_hub_adapters
import qonnx_hub_ir
from qonnx_hub.cli.errors import exit_code
from qonnx_hub_ir import errors
from qonnx_hub_ir.errors import (
    Gap,
    HubError,
    InvalidModelError,
    Issue,
    SourceError,
    UnsupportedGraphError,
    reasons_of,
)

CODES = {
    "ConversionError": 1,
    "UsageError": 2,
    "UnknownNameError": 2,
    "NotExactError": 4,
    "MissingDependencyError": 5,
}
"""As the README documents them; 3 is the code of all others."""


def _subclasses(kind: type[Exception]) -> set[type[Exception]]:
    return {kind}.union(*(_subclasses(one) for one in kind.__subclasses__()))


def _all_errors() -> set[type[Exception]]:
    """Every error of the three rooms, found by importing all of their modules."""
    for room in (qonnx_hub, qonnx_hub_adapters, qonnx_hub_ir):
        for module in pkgutil.walk_packages(room.__path__, f"{room.__name__}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    return {one for one in _subclasses(HubError) if one.__module__.startswith("qonnx_hub")}


def _diagram() -> dict[str, str]:
    """Error -> its base, as the docstring draws them."""
    found, above = {}, {}
    for line in str(errors.__doc__).splitlines():
        match = re.match(r"    ((?:[│ ]   )*)(?:[├└]── )?(\w+Error)\b", line)
        if match is None:
            continue
        depth = len(match[1]) // 4 + ("── " in line)
        above[depth] = match[2]
        found[match[2]] = above.get(depth - 1, "Exception")
    return found


def test_the_diagram_shows_every_public_error_below_its_base() -> None:
    public = {one for one in _all_errors() if not one.__name__.startswith("_")}
    assert _diagram() == {one.__name__: one.__bases__[0].__name__ for one in public}


def test_public_errors_live_in_one_module() -> None:
    elsewhere = {
        f"{one.__module__}.{one.__name__}"
        for one in _all_errors()
        if one.__module__ != errors.__name__ and not one.__name__.startswith("_")
    }
    assert elsewhere == set()


@pytest.mark.parametrize("kind", sorted(_subclasses(HubError), key=lambda kind: kind.__name__))
def test_every_error_ends_in_its_documented_exit_code(kind: type[Exception]) -> None:
    assert exit_code(kind("what")) == CODES.get(kind.__name__, 3)


@pytest.mark.parametrize(
    ("error", "code"),
    [(ValueError("what"), 70), (OSError(28, "disk full"), 2), (MemoryError("what"), 3)],
)
def test_an_error_of_others_never_ends_in_the_code_for_different_models(
    error: Exception, code: int
) -> None:
    assert exit_code(error) == code


def test_a_message_lists_each_node_once_and_twenty_at_most() -> None:
    issues = [Issue(f"Quant 'q{k}'", rule) for k in range(23) for rule in ("one", "two")]
    error = InvalidModelError("no model:", [*issues, *issues])
    lines = str(error).splitlines()
    assert lines[1] == "  - Quant 'q0': one; two"
    assert lines[21:] == ["  - and 3 more nodes"]
    assert len(error.issues) == 92


def test_the_reasons_of_an_error_are_those_of_what_it_was_raised_from() -> None:
    outer = SourceError("outer")
    outer.__cause__ = UnsupportedGraphError("inner", [Gap("n", "Relu", "why")])
    assert [str(reason) for reason in reasons_of(outer)] == ["Relu 'n': why"]


def test_a_failure_of_onnxruntime_names_the_node_and_drops_its_source_code() -> None:
    told = (
        "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running "
        "DequantizeLinear node. Name:'weights' Status Message: /onnxruntime_src/a/b.cc:584 "
        "onnxruntime::common::Status f() const [with T = float] zero_point == nullptr || "
        "zp == T{0} was false. float8 takes no zero point"
    )
    assert (
        errors.words_of(RuntimeError(told))
        == "DequantizeLinear 'weights': float8 takes no zero point"
    )
    silent = "while running Add node. Name:'sum' Status Message: std::bad_alloc"
    assert errors.words_of(RuntimeError(silent)).startswith("Add 'sum': ")
