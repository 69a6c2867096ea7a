"""Recurrent layers: unrolled step by step, or as one LSTM where only weights are quantized.

Brevitas runs them on a twin of the cell that holds the inside of the quantizers; here the twin
calls the quantizers themselves, so that they are seen.
"""

from __future__ import annotations

from typing import Any

from qonnx_hub_adapters.brevitas.modules import is_quant_tensor, plain
from qonnx_hub_adapters.torch_common.modules import classes_from

_LAYER = "QuantRecurrentLayerMixin"
_LSTM = "_QuantLSTMLayer"


def _recurrent_layers(module: Any) -> list[Any]:
    """Return Brevitas' recurrent layers, one per layer and direction."""
    return [part for part in module.modules() if _LAYER in classes_from(part, "brevitas")]


def expose_quantizers(module: Any, torch: Any) -> None:
    """Make the recurrent layers of a private copy call their quantizers step by step.

    Args:
        module: A private copy.
        torch: The framework.
    """
    step = _step_class(torch)
    for layer in _recurrent_layers(module):
        layer._fast_cell = None
        layer._wrap_act_proxy = lambda name, cell=layer.cell: step(getattr(cell, name))
        layer.fast_mode = True


def _step_class(torch: Any) -> Any:
    class _Step(torch.nn.Module):  # type: ignore[misc]
        """A quantizer that answers with a tuple, as the cell expects."""

        def __init__(self, proxy: Any) -> None:
            super().__init__()
            # In a tuple: as a submodule it would be found, and named, twice.
            self.held = (proxy,)
            self.one: float | None = None

        def forward(self, x: Any) -> tuple[Any, Any, Any, Any]:
            found: Any = self.held[0](x)
            if is_quant_tensor(found):
                return found.value, found.scale, found.zero_point, found.bit_width
            return found, None, None, None

        def tensor_quant(self, x: Any) -> tuple[Any]:
            """Quantize ones, for coupled gates, without the activation."""
            fused = self.held[0].fused_activation_quant_proxy
            if fused is None:
                return (x,)
            if self.one is None:
                with torch.no_grad():
                    self.one = float(plain(fused.tensor_quant(torch.ones(()))[0]))
            return (torch.full_like(x, self.one),)

    return _Step


def keep_plain_lstms(module: Any, torch: Any) -> None:
    """Let the LSTMs that quantize nothing but parameters be one ONNX operator each.

    Args:
        module: A private copy; to be called in a trace only afterwards.
        torch: The framework.
    """
    for layer in _recurrent_layers(module):
        if _LSTM in classes_from(layer, "brevitas") and not any(
            part.is_quant_enabled
            for name, part in layer.cell.named_children()
            if name.endswith("_quant")
        ):
            # What a layer calls in place of its cell while Brevitas exports it.
            layer.export_handler = _lstm_cell(layer, torch)
            layer._export_mode = True


def _lstm_cell(layer: Any, torch: Any) -> Any:
    """Return what computes all steps: one operator, its gates in ONNX' order i, o, f, c."""
    operator = _lstm_operator(torch)
    direction = "reverse" if layer.cell.reverse_input else "forward"
    batch_first = bool(layer.cell.batch_first)

    def cell(x: Any, hidden: Any, state: Any, **parts: Any) -> tuple[Any, Any, Any]:
        size = int(hidden.shape[1])
        inner, outer, biases = (
            [parts[f"quant_{kind}{gate}"] for gate in gates]
            for kind, gates in (
                ("weight_i", "iofc"),
                ("weight_h", "iofc"),
                ("bias_", ("input", "output", "forget", "cell")),
            )
        )
        bias = torch.cat([one.expand(size) for one in biases])
        steps = x.transpose(0, 1) if batch_first else x
        found, last, last_state = operator.apply(
            steps,
            torch.cat(inner).unsqueeze(0),
            torch.cat(outer).unsqueeze(0),
            torch.cat([bias, torch.zeros_like(bias)]).unsqueeze(0),
            torch.full((int(steps.shape[1]),), int(steps.shape[0]), dtype=torch.int32),
            hidden.unsqueeze(0),
            state.unsqueeze(0),
            torch.zeros(steps.shape[0], 1, *hidden.shape),
            direction,
            int(layer.cifg),
        )
        found = found.squeeze(1)
        return (
            found.transpose(0, 1) if batch_first else found,
            last.squeeze(0),
            last_state.squeeze(0),
        )

    return cell


def _lstm_operator(torch: Any) -> Any:
    class Lstm(torch.autograd.Function):  # type: ignore[misc]
        """ONNX' LSTM in a trace; its numbers are not used there, their shapes are."""

        @staticmethod
        def symbolic(g: Any, *parts: Any) -> Any:
            *inputs, _blank, direction, coupled = parts
            return g.op(
                "LSTM",
                *inputs,
                direction_s=direction,
                hidden_size_i=int(inputs[2].type().sizes()[2]),
                input_forget_i=coupled,
                outputs=3,
            )

        @staticmethod
        def forward(_ctx: Any, *parts: Any) -> tuple[Any, Any, Any]:
            hidden, state, blank = parts[5:8]
            return blank.clone(), hidden.clone(), state.clone()

    return Lstm
