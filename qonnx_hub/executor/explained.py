"""Work that trips over a model: a model that cannot run itself is told as what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from onnx_ir import Model

from qonnx_hub.executor.session import Session
from qonnx_hub_ir.errors import ExecutionError, HubError, SourceError
from qonnx_hub_ir.graph.queries import zeros_of

_OPEN_SIZES = (1, 2, 3)
"""What open axes are tried with: with one of them, nearly every sound model runs."""


@contextmanager
def explained(model: Model | None, name: str) -> Iterator[None]:
    """Work on a model; if that fails and the model itself cannot run, say where it cannot.

    Files can hold nodes whose inputs and attributes do not fit together, in more ways than
    can be looked for in advance. A failure on a model that runs stays as it is: a defect.

    Args:
        model: What is worked on, if it is at hand; the work does not change it.
        name: How messages call it.

    Raises:
        SourceError: The work failed, and a node of the model fails when it is run.

    Example:
        >>> with explained(model, "m.onnx"):
        ...     count_cost(model, options)
    """
    try:
        yield
    except (HubError, OSError, MemoryError):
        raise
    except Exception as error:  # the border: anything may trip over what does not fit
        reason = reason_not_to_run(model) if model is not None else ""
        if not reason:
            raise
        raise SourceError(f"{name} cannot run: {reason}") from error


def reason_not_to_run(model: Model) -> str:
    """Return which node of a model fails on zeros, and why; empty where none is found."""
    reasons = [_failure(model, size) for size in _OPEN_SIZES]
    return reasons[0] if all(reasons) else ""


def _failure(model: Model, size: int) -> str:
    try:
        Session(model).run({str(v.name): zeros_of(v, size) for v in model.graph.inputs})
    except ExecutionError as error:
        return str(error)
    except Exception:  # something else is in the way: nothing is known of the nodes
        return ""
    return ""
