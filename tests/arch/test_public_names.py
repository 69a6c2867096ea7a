"""What `import qonnx_hub as qh` offers."""

from __future__ import annotations

import inspect

import pytest

import qonnx_hub as qh

DOCUMENTED = {
    "Session",
    "__version__",
    "bench",
    "check",
    "check_many",
    "check_stages",
    "convert",
    "cost",
    "diff",
    "inspect",
    "ir",
    "lint",
    "load",
    "passes",
    "reduce",
    "routes",
    "run",
    "save",
    "testing",
    "transform",
    "zoo",
    # The errors, so that one import is enough to catch them.
    "AdapterConflictError",
    "ConversionError",
    "ExecutionError",
    "HubError",
    "InvalidExportError",
    "InvalidModelError",
    "MissingDependencyError",
    "NotExactError",
    "NotProvenError",
    "PassError",
    "SourceError",
    "TooManyLevelsError",
    "UnknownAdapterError",
    "UnknownNameError",
    "UnsupportedGraphError",
    "UsageError",
}


def test_the_public_names_are_the_documented_ones():
    assert set(qh.__all__) == DOCUMENTED


def test_the_public_names_are_listed_in_order_and_once():
    assert list(qh.__all__) == sorted(set(qh.__all__))


@pytest.mark.parametrize("name", sorted(DOCUMENTED))
def test_a_public_name_resolves_and_says_what_it_is(name):
    value = getattr(qh, name)
    if name == "__version__":
        assert value.count(".") >= 2
    else:
        assert inspect.getdoc(value)


def test_the_ir_is_the_room_of_that_name():
    assert qh.ir.__name__ == "qonnx_hub_ir"
