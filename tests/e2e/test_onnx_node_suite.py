"""ONNX's own node tests, through load and run.

They are the operator documents' examples with the answers of the standard's authors: an oracle
that knows nothing of this project. A test counts where all its inputs and outputs are plain
tensors and all its operators belong to the standard.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import qonnx_hub as qh
from qonnx_hub.executor.kernels import kernel_table
from qonnx_hub_ir.errors import HubError
from tests.node_suite import Case, node_cases

pytestmark = pytest.mark.skipif(
    os.environ.get("QONNX_HUB_REQUIRE_ORACLES") != "1",
    reason="takes half a minute; part of the environment 'oracle'",
)


def _has_only_our_kernels(case: Case) -> bool:
    table = kernel_table()
    return all((node.domain, node.op_type) in table for node in case.model.graph.node)


def _cases() -> list[Case]:
    return [
        case
        for case in node_cases()
        if all(node.domain in {"", "ai.onnx"} for node in case.model.graph.node)
    ]


def _fails(case: Case) -> str:
    """Return why the case fails, or an empty string."""
    try:
        session = qh.Session(qh.load(case.model))
        for given, wanted in case.data:
            results = session.run(dict(zip(session.input_names, given, strict=True)))
            for answer, expected in zip(results.values(), wanted, strict=True):
                _compare(answer, expected, case)
    except (HubError, AssertionError, ValueError) as error:
        return " ".join(str(error).split())[:150] or type(error).__name__
    return ""


def _compare(answer: Any, expected: np.ndarray, case: Case) -> None:
    assert isinstance(answer, np.ndarray), f"gave a {type(answer).__name__}"
    if expected.dtype.kind in "OU":
        # The reference gives texts of fixed length where the suite has objects.
        np.testing.assert_array_equal(answer.astype(object), expected.astype(object))
        return
    assert answer.dtype == expected.dtype, f"{answer.dtype} instead of {expected.dtype}"
    assert answer.shape == expected.shape, f"{answer.shape} instead of {expected.shape}"
    if expected.dtype.kind in "fV":
        ours, theirs = answer.astype(np.float64), expected.astype(np.float64)
        rtol, atol = case.rtol, case.atol
        if expected.dtype.itemsize == 2:
            # The suite asks for less than one unit in the last place of its 16-bit answers.
            unit = float(ml_dtypes.finfo(expected.dtype).eps)
            rtol, atol = max(rtol, 2 * unit), max(atol, unit / 2)
        np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=atol)
    else:
        np.testing.assert_array_equal(answer, expected)


def test_onnx_node_tests_pass(capsys: pytest.CaptureFixture[str]) -> None:
    cases = _cases()
    assert len(cases) > 1400
    failures = {case.name: reason for case in cases if (reason := _fails(case))}
    ours = [case for case in cases if _has_only_our_kernels(case)]
    lost = Counter(
        operator for case in cases if case.name in failures for operator in case.operators
    )
    passed = len(cases) - len(failures)
    with capsys.disabled():
        print(f"\nONNX node tests: {passed} of {len(cases)} ({passed / len(cases):.1%}) pass")
        print(f"  {len(ours)} of them on kernels of ours alone")
        print(f"  operators lost: {', '.join(f'{n} ({c})' for n, c in sorted(lost.items()))}")
        for name, reason in sorted(failures.items()):
            print(f"  {name}: {reason}")
    assert not [case.name for case in ours if case.name in failures]
    assert passed / len(cases) >= 0.95
