"""What ranges allow to be said more plainly: a quantizer that wraps but never overflows."""

from __future__ import annotations

from onnx_ir import Model, Value

from qonnx_hub_adapters.keras_files.scope import Net
from qonnx_hub_ir.analysis import infer_values
from qonnx_hub_ir.graph.rewriting import replace_value


def write_plain_forms(net: Net, model: Model) -> None:
    """Write the plain form of everything whose ranges allow it.

    Args:
        net: What was written, with the plain forms that it may have.
        model: The model of its graph; nodes that are not needed any more stay.
    """
    if not net.plain_forms:
        return
    known, written = infer_values(model), dict[Value, Value]()
    for form in net.plain_forms:
        info = known.get(str(form.read.name))
        if info is None or not info.is_bounded or not form.holds(info.low, info.high):
            continue
        form.scope.reopen()
        made = form.write(form.scope, written.get(form.read, form.read))
        form.scope.close()
        replace_value(form.made, made, keep_name=False)
        written[form.made] = made
    net.graph.sort()
