"""The variables of HGQ2's layers: their own in order, then those of their quantizers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from qonnx_hub_adapters.keras_files.graph import Layer
from qonnx_hub_adapters.keras_files.hgq import quantizer_variables
from qonnx_hub_adapters.keras_files.variables import Variables

_IO = ("iq", "oq")

Names = Callable[[Mapping[str, Any]], Sequence[str]]


def holding(
    own: Names, *quantizers: str, fixed: tuple[str, ...] = (), loss: bool = True
) -> Callable[[Layer], Variables]:
    """Return what says a layer's variables: its own, then those of its quantizers."""

    def holds(layer: Layer) -> Variables:
        c = layer.config
        names = [(name, True) for name in own(c)]
        if loss and c.get("enable_ebops"):
            names += [("loss_weight", False), ("ebops", False)]
        before = [(n, False) for n in fixed if layer.class_name == "QBatchNormalization"]
        after = [(n, False) for n in fixed if layer.class_name != "QBatchNormalization"]
        count = len(own(c))
        names = [*names[:count], *before, *names[count:], *after]
        return Variables(tuple(names), tuple(_parts(c, quantizers)))

    return holds


def _parts(c: Mapping[str, Any], quantizers: Sequence[str]) -> list[tuple[str, Variables]]:
    found = []
    if c.get("enable_oq") and c.get("oq_conf") is not None:
        found.append(("oq", quantizer_variables(c["oq_conf"], "oq/quantizer")))
    if c.get("enable_iq") and c.get("iq_conf") is not None:
        found.append(("iq", quantizer_variables(c["iq_conf"], "iq/quantizer")))
    for number, conf in enumerate(c.get("iq_confs") or ()):
        tail = f"_{number}" if number else ""
        path = f"iq/quantizers/quantizer{tail}/quantizer"
        if c.get("enable_iq"):
            found.append((f"iq_{number}", quantizer_variables(conf, path)))
    confs = {
        name: c[f"{name}_conf"] for name in quantizers if c.get(f"{name}_conf") is not None
    }
    own = [(n, quantizer_variables(conf, f"{n}/quantizer")) for n, conf in confs.items()]
    return [*found, *own]


def nothing(c: Mapping[str, Any]) -> list[str]:
    """Return no variables."""
    return []


def kernel_and_bias(c: Mapping[str, Any]) -> list[str]:
    """Return kernel, and bias where the layer has one."""
    uses = c.get("use_bias", True) if "equation" not in c else c.get("bias_axes") is not None
    return ["kernel", *(["bias"] if uses else [])]


def normalized(c: Mapping[str, Any]) -> list[str]:
    """Return the trainable variables of a folded layer."""
    return ["kernel", "bias", *(["gamma"] if c.get("scale", True) else [])]


def gamma_beta(c: Mapping[str, Any]) -> list[str]:
    """Return the trainable variables of a normalization."""
    return [n for n, key in (("gamma", "scale"), ("beta", "center")) if c.get(key, True)]


STATISTICS = ("moving_mean", "moving_variance")


def _loss(c: Mapping[str, Any]) -> tuple[tuple[str, bool], ...]:
    return (("loss_weight", False), ("ebops", False)) if c.get("enable_ebops") else ()


def _softmax_variables(c: Mapping[str, Any], loss: bool) -> list[tuple[str, Variables]]:
    own = (("loss_weight", False), ("ebops", False)) if loss else ()
    found = []
    for table in ("inv", "exp"):
        parts = []
        for name in ("oq", "iq"):
            if table == "exp" and name == "iq" and not c.get("stable", True):
                continue
            conf = c[f"{table}_{name}_conf"]
            parts.append((name, quantizer_variables(conf, f"{name}/quantizer")))
        counted = own if table == "inv" or c.get("stable", True) else ()
        found.append((f"{table}_table", Variables(counted, tuple(parts))))
    return found


def softmax_variables_of(layer: Layer) -> Variables:
    """Return the variables of a QSoftmax."""
    c = layer.config
    parts = [*_parts(c, ()), *_softmax_variables(c, bool(c.get("enable_ebops")))]
    return Variables(_loss(c), tuple(parts))


def recurrent_variables(layer: Layer) -> Variables:
    """Return the variables of a recurrent layer and its cell."""
    c = layer.config
    names = ["kernel", "recurrent_kernel", *(["bias"] if c.get("use_bias", True) else [])]
    # In the order in which each cell makes them.
    roles: tuple[str, ...] = ("paq", "praq", "sq", "kq", "rkq", "bq", "rhq")
    if layer.class_name == "QSimpleRNN":
        roles = ("sq", "kq", "rkq", "bq", "paq")
    cell = Variables(tuple((n, True) for n in names), tuple(_parts(c, roles)))
    return Variables(_loss(c), (("cell", cell),))


def attention_variables(layer: Layer) -> Variables:
    """Return the variables of a QMultiHeadAttention."""
    c = layer.config
    loss, fuse = _loss(c), str(c.get("fuse", "none"))
    has_iq = bool(c.get("enable_iq", True))
    confs = {f"{n}_conf": c[f"qkvo_{n}_conf"] for n in ("iq", "kq", "bq", "oq")}
    parts = _parts({**c, "iq_conf": None}, ())
    # A shared input is quantized once, by what is stored with the key, in front of it.
    sharing = {"qkv": ("query", "key", "value"), "kv": ("key", "value")}.get(fuse, ())
    for role in ("query", "key", "value", "softmax", "output"):
        if role == "softmax":
            parts.append(("_softmax", _inner_softmax(c, loss)))
            continue
        if role == "key" and sharing and has_iq:
            shared = quantizer_variables(confs["iq_conf"], "key_dense/iq/quantizer")
            parts.append((SHARED_INPUT, shared))
        own_iq = has_iq and role not in sharing
        biased = bool(c.get("use_bias", True)) and role != "key"
        inner = {**confs, "enable_iq": own_iq, "enable_oq": role != "output"}
        if not biased:
            inner["bq_conf"] = None
        names = (("kernel", True), *((("bias", True),) if biased else ()))
        held = Variables((*names, *loss), tuple(_parts(inner, ("kq", "bq"))))
        parts.append((f"{role}_dense", held))
    return Variables(loss, tuple(parts))


SHARED_INPUT = "shared_iq"
"""Attribute of the quantizer that several projections share."""


def _inner_softmax(c: Mapping[str, Any], loss: tuple[tuple[str, bool], ...]) -> Variables:
    confs = {
        "stable": c.get("stable_softmax", True),
        **{f"{t}_{n}_conf": c[f"softmax_{t}_{n}_conf"] for t in ("exp", "inv") for n in _IO},
    }
    outer = {"oq_conf": c["softmax_oq_conf"], "enable_oq": True}
    return Variables(loss, (*_parts(outer, ()), *_softmax_variables(confs, bool(loss))))


def table_variables(layer: Layer) -> Variables:
    """Return the variables of a dense layer of tables."""
    c = layer.config
    own = (("kernel", True), *((("bias", True),) if c.get("use_bias", True) else ()))
    inner = [
        (f"{n}", Variables(own, path="layers/einsum_dense" + (f"_{n}" if n else "")))
        for n in range(int(c["n_hl"]) + 1)
    ]
    parts = [*_parts(c, ("toq",)), ("module", Variables((), tuple(inner)))]
    if c.get("batch_norm"):
        keys = (("gamma", "bn_scale"), ("beta", "bn_center"))
        names = [(n, True) for n, key in keys if c.get(key, True)]
        names += [(n, False) for n in STATISTICS]
        parts.append(("bn_module", Variables(tuple(names))))
    return Variables(_loss(c), tuple(parts))
