"""Quantizers of QKeras as files spell them: objects, texts and names of functions.

Source: the constructors in ``qkeras.quantizers``, 0.9.0 and qkeras-v3 1.2.1.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

import numpy as np

from qonnx_hub_adapters.qkeras import quantizers as qk

_COMMON = {"use_stochastic_rounding": False, "qnoise_factor": 1.0}

_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "quantized_bits": {
        "bits": 8,
        "integer": 0,
        "symmetric": 0,
        "keep_negative": True,
        "alpha": None,
        **_COMMON,
    },
    "quantized_linear": {
        "bits": 8,
        "integer": 0,
        "symmetric": 1,
        "keep_negative": True,
        "alpha": None,
        **_COMMON,
    },
    "quantized_hswish": {
        "bits": 8,
        "integer": 0,
        "symmetric": 0,
        "alpha": None,
        **_COMMON,
        "keep_negative": True,
        "relu_shift": 3,
        "relu_upper_bound": 6,
    },
    "binary": {"use_01": False, "alpha": None, "use_stochastic_rounding": False},
    "stochastic_binary": {"alpha": None, "temperature": 6.0, "use_real_sigmoid": True},
    "ternary": {
        "alpha": None,
        "threshold": None,
        "use_stochastic_rounding": False,
        "number_of_unrolls": 5,
    },
    "stochastic_ternary": {
        "alpha": None,
        "threshold": None,
        "temperature": 8.0,
        "use_real_sigmoid": True,
        "number_of_unrolls": 5,
    },
    "quantized_relu": {
        "bits": 8,
        "integer": 0,
        "use_sigmoid": 0,
        "negative_slope": 0.0,
        "use_stochastic_rounding": False,
        "relu_upper_bound": None,
        "is_quantized_clip": True,
        "qnoise_factor": 1.0,
    },
    "quantized_ulaw": {"bits": 8, "integer": 0, "symmetric": 0, "u": 255.0},
    "quantized_tanh": {
        "bits": 8,
        "use_stochastic_rounding": False,
        "symmetric": False,
        "use_real_tanh": False,
    },
    "quantized_sigmoid": {
        "bits": 8,
        "symmetric": False,
        "use_real_sigmoid": False,
        "use_stochastic_rounding": False,
    },
    "quantized_po2": {
        "bits": 8,
        "max_value": None,
        "use_stochastic_rounding": False,
        "quadratic_approximation": False,
        "log2_rounding": "rnd",
        "qnoise_factor": 1.0,
    },
    "quantized_relu_po2": {
        "bits": 8,
        "max_value": None,
        "negative_slope": 0,
        "use_stochastic_rounding": False,
        "quadratic_approximation": False,
        "log2_rounding": "rnd",
        "qnoise_factor": 1.0,
    },
}
"""Class -> arguments in order, with their defaults."""

FUNCTIONS = frozenset(
    {
        "hard_sigmoid",
        "smooth_sigmoid",
        "hard_tanh",
        "smooth_tanh",
        "binary_sigmoid",
        "binary_tanh",
    }
)
"""Functions of QKeras that a Q layer finds before those of Keras."""

SIGMOID = "hard"
"""QKeras' sigmoid, which a process can change and no file holds."""


def bare_name(spelled: Any) -> str:
    """Return the class or function that a quantizer or activation names; "" for none."""
    if isinstance(spelled, Mapping):
        name = str(spelled.get("class_name") or spelled.get("registered_name") or "")
        if name == "function":
            return str(spelled.get("config", ""))
        return name.rpartition(">")[2]
    return str(spelled or "").split("(")[0].strip()


def is_quantizer(spelled: Any) -> bool:
    """Return whether what a configuration spells is a quantizer of QKeras."""
    name = bare_name(spelled)
    return name in _DEFAULTS or name in ("bernoulli", "binary_sigmoid", "binary_tanh")


def read_quantizer(spelled: Any, *, of_kernel: bool = False) -> qk.Description | None:
    """Return the quantizer that a configuration spells; ``None`` for none.

    Args:
        spelled: An object, a text such as "quantized_bits(4,0,1)", or ``None``.
        of_kernel: Layers give kernels without a factor the one that is computed from the data.

    Raises:
        UnreadableQuantizerError: It is not known, or its arguments are broken.
    """
    if spelled is None or spelled == "":
        return None
    name, given = _parsed(spelled)
    if name in ("binary_sigmoid", "binary_tanh"):
        return qk.BinarySigmoid(two_sided=name == "binary_tanh")
    if name not in _DEFAULTS:
        return qk.read(name, {}, SIGMOID)
    values = {**_DEFAULTS[name], **given}
    if of_kernel and "alpha" in values and values["alpha"] is None:
        values["alpha"] = "auto_po2"
        if "symmetric" in values:
            values["symmetric"] = True
    return qk.read(name, {**values, **_derived(name, values)}, SIGMOID)


def _parsed(spelled: Any) -> tuple[str, dict[str, Any]]:
    """Return class and arguments by name."""
    if isinstance(spelled, Mapping):
        config = spelled.get("config")
        given = dict(config) if isinstance(config, Mapping) else {}
        return bare_name(spelled), {key: _plain(value) for key, value in given.items()}
    text = str(spelled).strip()
    try:
        call = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError) as error:
        short = f"'{text[:60]}' is no quantizer: {str(error)[:60]}"
        raise qk.UnreadableQuantizerError(short) from error
    if isinstance(call, ast.Name):
        return call.id, {}
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        raise qk.UnreadableQuantizerError(f"'{text[:60]}' is no quantizer")
    name = call.func.id
    order = list(_DEFAULTS.get(name, {}))
    try:
        given = {order[i]: ast.literal_eval(one) for i, one in enumerate(call.args)}
        given |= {str(one.arg): ast.literal_eval(one.value) for one in call.keywords}
    except (ValueError, IndexError, TypeError) as error:
        raise qk.UnreadableQuantizerError(
            f"'{text[:60]}': its arguments are broken"
        ) from error
    return name, given


def _plain(value: Any) -> Any:
    """Return a number or array that a file wraps in an object."""
    if isinstance(value, Mapping) and "config" in value and "class_name" in value:
        inner = value["config"]
        if str(value["class_name"]) in ("__numpy__", "__tensor__", "__array__"):
            return np.asarray(inner["value"], dtype=np.float32)
    return np.asarray(value, dtype=np.float32) if isinstance(value, list) else value


def _derived(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes that a constructor computes."""
    if name == "quantized_linear":
        alpha = values["alpha"]
        if isinstance(alpha, str):
            return {}
        step = 2.0 ** (values["integer"] - values["bits"] + bool(values["keep_negative"]))
        factor = np.asarray(1.0 if alpha is None else alpha, dtype=np.float32)
        return {"quantization_scale": (factor * np.float32(step)).astype(np.float32)}
    if name in ("ternary", "stochastic_ternary"):
        return {"default_threshold": 0.33}
    if not name.endswith("po2"):
        return {}
    limit = values["max_value"]
    has_sign = limit is None or limit > 1
    exponent_bits = int(values["bits"]) - (name == "quantized_po2") - has_sign
    highest = 2**exponent_bits - 1
    if values["quadratic_approximation"]:
        highest = 2 * (highest // 2)
    return {"_min_exp": -(2**exponent_bits), "_max_exp": highest}
