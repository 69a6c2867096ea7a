"""What looks at a model: inspect, lint, cost, diff."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx_ir import Model

from qonnx_hub.api.reading import as_model, label_of
from qonnx_hub.io import registry
from qonnx_hub.io.python_sources import resolve
from qonnx_hub_ir import choices

if TYPE_CHECKING:
    from qonnx_hub.analysis.cost.cost import Cost
    from qonnx_hub.analysis.diff import Difference
    from qonnx_hub.analysis.inspection import Inspection
    from qonnx_hub.analysis.lint import LintReport
    from qonnx_hub_ir.analysis import InputRange


def inspect(
    model: Any,
    *,
    ranges: bool = False,
    weights: bool = False,
    inputs: Mapping[str, InputRange] | None = None,
) -> Inspection:
    """Return what is quantized in a model, tensor by tensor, with totals.

    Args:
        model: As in :func:`load`; an IR model is used as it is.
        ranges: Infer the range of every tensor and the accumulators of all layers as well.
        weights: Compute the integers of all weights as well.
        inputs: Input name -> (lowest, highest), or its type, such as "UINT8", for the ranges.

    Raises:
        HubError: As in :func:`load`.
    """
    from qonnx_hub.analysis.inspection import inspect_model

    return inspect_model(as_model(model), ranges=ranges, weights=weights, inputs=inputs)


def lint(
    model: Any,
    target: str,
    from_: str | None = None,
    *,
    fused: bool = False,
    config: str | Path | None = None,
) -> LintReport:
    """Return what a tool would refuse or compute wrongly in a model, and what to do about it.

    Args:
        model: As in :func:`load`; ONNX files are looked at as they lie, too.
        target: Name of the tool, such as "hls4ml" or "finn"; ``lint --list`` shows them all.
        from_: Name of the source's format.
        fused: For the target "ort", ask onnxruntime which layers it runs in integers.
        config: For the target "hls4ml", a config of hls4ml: types that cannot hold every
            number are named, with inputs in ``report.shown``. A folder brings its own.

    Raises:
        UsageError: There is no such target, or it is not "ort" where ``fused`` is asked, or
            not "hls4ml" where a config is given.
        MissingDependencyError: ``fused`` without onnxruntime.
        HubError: As in :func:`load`.
    """
    from qonnx_hub.analysis.lint import lint_source

    return lint_source(model, target, from_, label_of(model), fused=fused, config=config)


def cost(
    model: Any,
    convention: choices.Convention = "true",
    *,
    sparsity: bool = False,
    input_types: Mapping[str, str] | None = None,
    input_shapes: Sequence[Sequence[int]] = (),
    from_: str | None = None,
) -> Cost:
    """Return what one inference costs: MACs, bit operations, weights, activations, by layer.

    Args:
        model: As in :func:`load`; an IR model is used as it is.
        convention: "true" (exact datatypes), "qonnx" (as the qonnx tool counts) or "paper" (as
            the published table of the model zoo); see
            :class:`qonnx_hub.analysis.cost.cost.CostOptions`.
        sparsity: Leave out weights that are zero, and their products.
        input_types: Input name -> its type, such as "INT8"; the name "" stands for all.
        input_shapes: Sizes of the inputs in the model's order, where it leaves them open.
        from_: Name of the source's format.

    Raises:
        UsageError: An unknown convention, input or type; a shape that does not fit its input.
        HubError: As in :func:`load`; sizes that are not known.
    """
    from qonnx_hub.analysis.cost.cost import CostOptions, count_cost

    options = CostOptions(convention, sparsity, input_types or {}, input_shapes)
    return count_cost(as_model(model, from_), options, label_of(model))


def diff(a: Any, b: Any, from_: str | None = None) -> Difference:
    """Return in what two models differ: quantizers, weights, nodes; nothing is run.

    Args:
        a: As in :func:`load`; an IR model is used as it is.
        b: The other, likewise.
        from_: Name of the format of both.

    Raises:
        HubError: As in :func:`load`.
    """
    from qonnx_hub.analysis.diff import find_differences

    names = label_of(a), label_of(b)
    # Once: a callable may build another model at every call.
    sides = resolve(a), resolve(b)
    forms = [
        "" if isinstance(one, Model) else registry.find_importer(one, from_).info.name
        for one in sides
    ]
    models = as_model(sides[0], from_), as_model(sides[1], from_)
    found = find_differences(*models, *names)
    if all(forms) and forms[0] != forms[1]:
        said = " and ".join(f"{n} as {form}" for n, form in zip(names, forms, strict=True))
        note = f"read {said}: what both mean is compared; Q, Clip and DQ are a quantizer"
        found = replace(found, notes=(note, *found.notes))
    return found
