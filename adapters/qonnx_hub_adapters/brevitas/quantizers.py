"""What a Brevitas quantizer is in terms of the IR, compared with Brevitas' own function.

The parameters come from the quantized tensors that a forward pass made. A quantizer of
activations is then run on ties, limits and values between, by itself: only one that gives the
very same numbers is taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from qonnx_hub_adapters.brevitas.modules import is_quant_tensor, plain
from qonnx_hub_adapters.brevitas.quantizer_sites import (
    ACTIVATION,
    PARAMETERS,
    TRUNCATION,
    QuantizerProxy,
)
from qonnx_hub_adapters.brevitas.recording import Call, Recording
from qonnx_hub_adapters.dependencies import first_line, quiet
from qonnx_hub_adapters.torch_common.modules import floats_of
from qonnx_hub_ir import dialect
from qonnx_hub_ir.describe import describe_quantizer
from qonnx_hub_ir.errors import Gap, SourceError, UnsupportedGraphError
from qonnx_hub_ir.graph.constants import without_extra_axes
from qonnx_hub_ir.quantizers import (
    Array,
    BipolarQuant,
    FloatQuant,
    IntQuant,
    Quantizer,
    Rounding,
    Trunc,
    single_value,
)
from qonnx_hub_ir.semantics import largest_float, quantize

_MOST_LEVELS = 1 << 12
"""Levels of a quantizer whose ties are all tried; of finer ones, as many spread evenly."""

_BEYOND = (3e3, 1e7, 1e30)
"""Magnitudes, in steps, that saturate a quantizer; the last one overflows some."""


@dataclass(frozen=True, slots=True)
class QuantizerForm:
    """One quantizer in terms of the IR.

    Attributes:
        quantizer: The quantizer; ``None`` where values are constants that none makes.
        threshold: Magnitudes up to this become zero before it (ternary quantizers whose
            threshold is not half a step).
        clip_below: Whether negative values become zero before it.
    """

    quantizer: Quantizer | None
    threshold: Array | None = None
    clip_below: bool = False

    def apply(self, x: Array) -> Array:
        """Return what the form makes of values."""
        if self.quantizer is None:
            return x
        if self.clip_below:
            x = np.maximum(x, np.zeros((), dtype=x.dtype))
        if self.threshold is not None and isinstance(self.quantizer, IntQuant):
            scale = np.asarray(self.quantizer.scale)
            x = np.where(np.abs(x) > self.threshold, np.sign(x) * scale, np.float32(0))
        return quantize(x, self.quantizer)


def read_forms(recording: Recording, torch: Any) -> list[QuantizerForm]:
    """Return each use of a quantizer in terms of the IR.

    Raises:
        UnsupportedGraphError: Quantizers without an exact form; all of them are listed.
        SourceError: A quantizer that fails on the values it is tried with.
    """
    forms: list[QuantizerForm] = []
    gaps: dict[str, Gap] = {}
    known: dict[tuple[int, Any], QuantizerForm | Gap] = {}
    for call in recording.calls:
        found = _form(call, known, torch)
        if isinstance(found, Gap):
            gaps.setdefault(found.node, found)
            found = QuantizerForm(None)
        forms.append(found)
    if gaps:
        raise UnsupportedGraphError(
            "the module has quantizers that cannot be converted:", [*gaps.values()]
        )
    return forms


def _form(
    call: Call, known: dict[tuple[int, Any], QuantizerForm | Gap], torch: Any
) -> QuantizerForm | Gap:
    site = call.site
    if not is_quant_tensor(call.output):
        kind = type(call.output).__name__
        return site.gap(f"answers with a {kind}, not with a quantized tensor")
    try:
        quantizer = _read_quantizer(site, call.output, call.given)
    except SourceError:
        return site.gap(f"has an unknown rounding mode ({site.proxy.rounding_mode})")
    if site.kind in PARAMETERS:
        if not np.all(np.isfinite(call.values)):
            words = describe_quantizer(quantizer)
            return site.gap(f"makes values that are not finite ({words})")
        return _constant_form(call.values, quantizer)
    key = (id(site), quantizer)
    if key not in known:
        known[key] = _verified_form(site, quantizer, call.given, torch)
    return known[key]


def _array(value: Any) -> Array:
    return floats_of(plain(value))


def _arrays(tensor: Any, *names: str) -> list[Array]:
    return [_array(getattr(tensor, name)) for name in names]


def _read_quantizer(site: QuantizerProxy, output: Any, given: Any) -> Quantizer:
    """Return the quantizer that made a quantized tensor.

    Args:
        site: Where it was made.
        output: Brevitas' quantized tensor.
        given: What was quantized; truncations need its parameters.

    Raises:
        SourceError: A rounding mode that is unknown.
    """
    proxy = site.proxy
    rounding = Rounding.ROUND
    if site.kind in {ACTIVATION, TRUNCATION} and proxy.rounding_mode is not None:
        rounding = dialect.parse_rounding(str(proxy.rounding_mode), site.path)
    if hasattr(output, "exponent_bias"):
        return _float_quantizer(site, output, rounding)
    scale, zero, bits = _arrays(output, "scale", "zero_point", "bit_width")
    signed, narrow = bool(output.signed), bool(proxy.is_narrow_range)
    if site.kind == TRUNCATION:
        in_scale, in_zero, in_bits = _arrays(given, "scale", "zero_point", "bit_width")
        return Trunc(in_scale, in_zero, in_bits, scale, bits, signed, narrow, rounding)
    if signed and single_value(bits) == 1:
        return BipolarQuant(scale)
    return IntQuant(scale, zero, bits, signed, narrow, rounding)


def _float_quantizer(site: QuantizerProxy, output: Any, rounding: Rounding) -> FloatQuant:
    names = ("exponent_bit_width", "mantissa_bit_width", "exponent_bias", "scale")
    exponent, mantissa, bias, scale = _arrays(output, *names)
    limit = largest_float(exponent, mantissa, bias)
    for part in site.proxy.modules():
        available = getattr(part, "max_available_float", None)
        if available is not None:
            limit = np.minimum(limit, _array(available()))
    return FloatQuant(
        scale,
        exponent,
        mantissa,
        bias,
        np.asarray(limit, dtype=np.float32),
        has_inf=output.inf_values is not None,
        has_nan=output.nan_values is not None,
        has_subnormal=True,
        saturation=bool(output.saturating),
        rounding=rounding,
    )


def _constant_form(values: Array, quantizer: Quantizer) -> QuantizerForm:
    """Return the form of quantized weights: with the quantizer, where it keeps every value."""
    try:
        kept = quantize(values, quantizer)
    except ValueError:
        return QuantizerForm(None)
    return QuantizerForm(quantizer if np.array_equal(kept, values) else None)


def _verified_form(
    site: QuantizerProxy, quantizer: Quantizer, given: Any, torch: Any
) -> QuantizerForm | Gap:
    """Return the form that gives the numbers of Brevitas' own function, or why none does.

    Args:
        site: A quantizer of activations, or a truncation.
        quantizer: The quantizer that its parameters describe.
        given: What was quantized in a forward pass.
        torch: The framework.

    Raises:
        SourceError: Brevitas' function fails on the values tried.
    """
    x = _probes(quantizer, _array(given))
    expected, scale = _own_answer(site, x, given, torch)
    own_scale = quantizer.out_scale if isinstance(quantizer, Trunc) else quantizer.scale
    if not np.array_equal(np.asarray(own_scale).reshape(-1), scale.reshape(-1)):
        return site.gap("its scale depends on the values that it quantizes")
    for form in _candidates(site, quantizer):
        if np.array_equal(form.apply(x), expected, equal_nan=True):
            return form
    got = quantize(x, quantizer)
    unlike = (got != expected) & ~(np.isnan(got) & np.isnan(expected))
    where = np.unravel_index(int(np.argmax(unlike)), x.shape)
    words = describe_quantizer(quantizer)
    return site.gap(
        f"of {float(x[where])!r} it makes {float(expected[where])!r}, a quantizer with its "
        f"parameters ({words}) {float(got[where])!r}"
    )


def _candidates(site: QuantizerProxy, quantizer: Quantizer) -> Iterator[QuantizerForm]:
    yield QuantizerForm(quantizer)
    if isinstance(quantizer, FloatQuant):
        yield QuantizerForm(quantizer, clip_below=True)
    if not isinstance(quantizer, IntQuant) or quantizer.scale is None:
        return
    for part in site.proxy.modules():
        factor = getattr(part, "threshold", None)
        if isinstance(factor, float):
            # As Brevitas computes it: a Python number times a float32 tensor.
            threshold = np.asarray(np.float32(factor) * quantizer.scale, dtype=np.float32)
            yield QuantizerForm(quantizer, threshold=threshold)


def _own_answer(site: QuantizerProxy, x: Array, given: Any, torch: Any) -> tuple[Array, Array]:
    tensor = torch.from_numpy(x)
    try:
        with torch.no_grad(), quiet():
            if site.kind == TRUNCATION:
                known = (given.scale, given.zero_point, given.bit_width, given.signed)
                found = site.proxy.tensor_quant(tensor, *known)
            else:
                found = site.proxy.fused_activation_quant_proxy.tensor_quant(tensor)
    except Exception as error:  # quantizers are built of anybody's parts
        raise SourceError(
            f"quantizer '{site.path}' fails on values of shape {list(x.shape)} "
            f"({first_line(error)})"
        ) from error
    return _array(found[0]), _array(found[1])


def _probes(quantizer: Quantizer, sample: Array) -> Array:
    """Return values on and beside every tie and limit, along the first of the axes.

    Per-channel quantizers get them for every channel. A truncation gets the values of every
    integer that its input can be.
    """
    scale = without_extra_axes(np.asarray(quantizer.scale))
    zero = np.zeros((), dtype=np.float32)
    if isinstance(quantizer, IntQuant):
        zero = without_extra_axes(np.asarray(quantizer.zero_point))
    rank = max(scale.ndim, zero.ndim)
    spread = _steps_of(quantizer).reshape(-1, *([1] * max(rank - 1, 0)))
    points = np.asarray((spread - zero) * scale, dtype=np.float32)
    if isinstance(quantizer, Trunc):
        return points
    sides = [np.nextafter(points, np.float32(limit)) for limit in (-np.inf, np.inf)]
    if rank:
        return np.concatenate([points, *sides], axis=0)
    return np.concatenate([points, *sides, sample.reshape(-1)[:_MOST_LEVELS]], axis=0)


def _steps_of(quantizer: Quantizer) -> Array:
    """Return critical positions in steps: ties, levels, far beyond both ends, zeros."""
    if isinstance(quantizer, Trunc):
        top = int(2.0 ** min(float(np.max(np.asarray(quantizer.in_bits))), 20.0))
        lowest, apart = -top if quantizer.signed else 0, max(1, top // _MOST_LEVELS)
        return np.arange(lowest, top, apart).astype(np.float32)
    if isinstance(quantizer, FloatQuant):
        bias = single_value(quantizer.exponent_bias) or 0.0
        mantissa = single_value(quantizer.mantissa_bits) or 0.0
        largest = single_value(quantizer.max_val) or 1.0
        least = 1.0 - bias - mantissa
        octaves = np.exp2(np.arange(least - 2, np.log2(largest) + 2))
        eighths = np.arange(8, 16.001, 0.25, dtype=np.float64) / 8
        sizes = np.outer(octaves, eighths).reshape(-1)
        sizes = np.concatenate([sizes, [largest * f for f in (0.99, 1, 1.01, 1.03, 1.1, 9)]])
    else:
        bits = quantizer.bits if isinstance(quantizer, IntQuant) else np.float32(2)
        top = 2.0 ** min(8.0 if bits is None else float(np.max(bits)), 40.0)
        count = int(min(top, _MOST_LEVELS)) + 2
        levels = np.unique(np.rint(np.linspace(0, top + 1, count)))
        sizes = np.concatenate([levels, levels + 0.5, levels + 0.2, np.array(_BEYOND) * top])
    both = np.concatenate([sizes, -sizes, [0.0, -0.0]])
    return np.asarray(both, dtype=np.float32)
