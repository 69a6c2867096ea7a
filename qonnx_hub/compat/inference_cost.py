"""``qonnx-inference-cost``: products and bits, as the qonnx package counts them."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from onnx_ir import Model

from qonnx_hub.analysis.cost.cost import CostOptions, LayerCost, count_cost
from qonnx_hub.analysis.cost.types import counted_by_tool, named
from qonnx_hub.compat.arguments import run_tool
from qonnx_hub.compat.files import open_model, write
from qonnx_hub.io.atomic import replacing
from qonnx_hub.passes import run
from qonnx_hub_ir.facts import facts_of


def inference_cost(
    model_filename_or_wrapper: Any,
    *,
    output_json: str | None = None,
    output_onnx: str | None = None,
    preprocess: bool = True,
    discount_sparsity: bool = True,
    cost_breakdown: bool = False,
) -> dict[str, Any]:
    """Return what one inference costs: multiplications and memory, by datatypes.

    Args:
        model_filename_or_wrapper: The model.
        output_json: File for the result.
        output_onnx: File for the model that was counted.
        preprocess: Rename nodes as the qonnx package does; datatypes are inferred in any case.
        discount_sparsity: Leave out weights that are zero.
        cost_breakdown: Also return the cost by operator, and by node.

    Returns:
        "total_cost", and with ``cost_breakdown`` "optype_cost" and "node_cost": keys such as
        "op_mac_INT4_INT2", "mem_w_INT2", "mem_o_INT32", "total_bops".

    Raises:
        HubError: The model cannot be read, or has unknown sizes.
    """
    model = open_model(model_filename_or_wrapper)
    if preprocess:
        run(model, ["name_nodes", "give_names:scheme=qonnx"])
    options = CostOptions(convention="qonnx", sparsity=discount_sparsity)
    layers = count_cost(model, options, "the model").layers
    total = _sums(layers)
    total["unsupported"] = str(_uncounted(model))
    total["discount_sparsity"] = discount_sparsity
    found: dict[str, Any] = {"total_cost": total}
    if cost_breakdown:
        kinds = dict.fromkeys(layer.op for layer in layers)
        found["optype_cost"] = {
            kind: _sums(layer for layer in layers if layer.op == kind) for kind in kinds
        }
        found["node_cost"] = {layer.name: _sums([layer]) for layer in layers}
    if output_onnx:
        write(model.clone(), output_onnx)
    if output_json:
        with replacing(Path(output_json)) as temporary:
            temporary.write_text(json.dumps(found, sort_keys=True, indent=2), encoding="utf-8")
    return found


def _sums(layers: Iterable[LayerCost]) -> dict[str, Any]:
    counts: Counter[str] = Counter()
    for layer in layers:
        counts[f"op_mac_{layer.input_type}_{layer.weight_type}"] += layer.macs
        # The qonnx package writes down the zero weights of two activations multiplied.
        if layer.weights or layer.op == "MatMul":
            counts[f"mem_w_{layer.weight_type}"] += layer.weights
        counts[f"mem_o_{layer.output_type}"] += layer.activations
    sums: dict[str, Any] = {key: float(count) for key, count in counts.items()}
    bops = sum(
        count * named(key.split("_")[2]).bits * named(key.split("_")[3]).bits
        for key, count in counts.items()
        if key.startswith("op_mac_")
    )
    for kind in ("w", "o"):
        held = {k: count for k, count in counts.items() if k.startswith(f"mem_{kind}_")}
        bits = sum(count * named(key.split("_")[2]).bits for key, count in held.items())
        sums[f"total_mem_{kind}_bits"] = float(bits)
        sums[f"total_mem_{kind}_elems"] = float(sum(held.values()))
    macs = sum(count for key, count in counts.items() if key.startswith("op_mac_"))
    return {**sums, "total_bops": float(bops), "total_macs": float(macs)}


def _uncounted(model: Model) -> set[str]:
    """Return the operators on the way of values of which the qonnx package has no cost."""
    dynamic = facts_of(model).dynamic
    return {
        node.op_type
        for node in model.graph
        if node.outputs[0].name in dynamic and not counted_by_tool(node)
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool."""
    return run_tool(inference_cost, argv)


if __name__ == "__main__":
    sys.exit(main())
