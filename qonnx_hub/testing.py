"""For test suites, of this project and of others: models that must agree, and why they do not.

In a suite that uses pytest, ``pytest_plugins = ["qonnx_hub.testing"]`` in the uppermost
``conftest.py`` gives a fixture ``assert_equivalent``, which is the function of that name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qonnx_hub.equivalence.reports.report import CheckResult
    from qonnx_hub_ir.quantizers import Array


def assert_equivalent(
    a: Any, b: Any, inputs: Mapping[str, Array] | None = None, **options: Any
) -> CheckResult:
    """Return the result of a check that must find two models equal, or within tolerances.

    Args:
        a: The reference, as in :func:`qonnx_hub.check`.
        b: The other side.
        inputs: Inputs by name; generated otherwise.
        **options: As in :func:`qonnx_hub.check`; ``level="proof"`` demands a proof.

    Raises:
        AssertionError: They differ, or could not be proven equal; the message shows the
            tables, the first layer that differs, and the cause.
        HubError: They cannot be compared.
    """
    # Tells pytest to show the line that called, not this function.
    __tracebackhide__ = True
    import qonnx_hub
    from qonnx_hub.equivalence.comparison.compare import Verdict

    result = qonnx_hub.check(a, b, inputs, **options)
    if not result:
        raise AssertionError(f"the models are not equivalent\n\n{result.table()}")
    if options.get("level") == "proof" and result.verdict is not Verdict.PROVEN:
        raise AssertionError(f"the models are not proven equivalent\n\n{result.table()}")
    return result


def pytest_configure(config: Any) -> None:
    """Give pytest the fixture ``assert_equivalent``, where this module is used as a plugin."""
    import pytest

    class Fixtures:
        @pytest.fixture(name="assert_equivalent")
        def give(self) -> Any:
            """Return :func:`qonnx_hub.testing.assert_equivalent`."""
            return assert_equivalent

    name = "qonnx_hub.fixtures"
    if not config.pluginmanager.has_plugin(name):
        config.pluginmanager.register(Fixtures(), name)
