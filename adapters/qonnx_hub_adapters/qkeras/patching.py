"""Finding the quantizers of a live model, and putting others in their place for a while.

Attributes are replaced with ``object.__setattr__``, past Keras' tracking, and put back as they
were, together with the state that a call leaves behind (a quantizer's ``scale``, moving
averages, step counters): the user's model is the same object with the same contents
afterwards, also when something fails on the way.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from qonnx_hub_adapters.qkeras.expansion import check_expandable
from qonnx_hub_adapters.qkeras.framework import Framework
from qonnx_hub_adapters.qkeras.quantizers import (
    Description,
    UnreadableQuantizerError,
    describe,
    is_quantizer,
    words,
)
from qonnx_hub_ir.errors import Gap
from qonnx_hub_ir.graph.names import free_name

WEIGHT_ROLES = frozenset(
    {
        *("average", "bias", "depthwise", "depthwise_kernel", "kernel"),
        *("pointwise", "pointwise_kernel", "recurrent", "weight"),
    }
)
"""Roles whose quantizer sees a constant; its quantized value becomes an initializer."""

FOLDED_ROLES = frozenset({"beta", "gamma", "inverse", "mean", "variance"})
"""Roles of QBatchNormalization: quantized constants that fold into one factor and offset."""


@dataclass(frozen=True, slots=True, eq=False)
class QuantizerSlot:
    """One place of a model where a quantizer is called.

    Attributes:
        key: Unique name, "layer/role".
        layer: The layer's path inside the model.
        role: "kernel", "bias", "activation", "state" and so on.
        owner: The layer object.
        attribute: Name of its attribute that holds the quantizer.
        quantizer: The quantizer.
        description: What it computes.
    """

    key: str
    layer: str
    role: str
    owner: Any
    attribute: str
    quantizer: Any
    description: Description

    @property
    def is_constant(self) -> bool:
        """Return whether what it quantizes does not depend on the model's inputs."""
        return self.role in WEIGHT_ROLES or self.role in FOLDED_ROLES


def find_layers(model: Any) -> list[tuple[str, Any]]:
    """Return every layer of a model with its path, nested models and RNN cells included."""
    taken: set[str] = set()
    layers = model._flatten_layers(include_self=False, recursive=True)
    return [(free_name(str(layer.name), taken), layer) for layer in layers]


def find_sites(model: Any, sigmoid: str) -> tuple[list[QuantizerSlot], list[Gap]]:
    """Return every place where a quantizer is called, and those that cannot be converted.

    Args:
        model: The live model.
        sigmoid: QKeras' process-wide sigmoid.
    """
    sites: list[QuantizerSlot] = []
    gaps: list[Gap] = []
    for path, layer in find_layers(model):
        for attribute, role, quantizer in _called_quantizers(layer):
            called = quantizer
            if type(layer).__name__ == "QAdaptiveActivation":
                # This layer sets the factor to 1 before every call outside training.
                called = copy.copy(quantizer)
                object.__setattr__(called, "qnoise_factor", 1.0)
            try:
                described = describe(called, sigmoid)
                key = f"{path}/{role}"
                site = QuantizerSlot(key, path, role, layer, attribute, quantizer, described)
                if not site.is_constant:
                    check_expandable(described)
            except UnreadableQuantizerError as error:
                gaps.append(Gap(path, f"{role} quantizer {words(quantizer)}", str(error)))
                continue
            sites.append(site)
    return sites, gaps


def _called_quantizers(layer: Any) -> Iterator[tuple[str, str, Any]]:
    """Yield (attribute, role, quantizer) of one layer, in a fixed order."""
    held = vars(layer)
    is_adaptive = type(layer).__name__ == "QAdaptiveActivation"
    for attribute in sorted(held):
        value = held[attribute]
        if not is_quantizer(value) and not _is_foreign(layer, attribute, value):
            continue
        if attribute.endswith("_quantizer") and f"{attribute}_internal" in held:
            continue  # what the constructor was given; the internal one is called
        if attribute == "activation" and callable(held.get("quantizer")):
            continue  # QActivation and QAdaptiveActivation call ``quantizer``
        if is_adaptive:
            yield "call", "activation", value
        elif attribute == "quantizer":
            yield attribute, "activation", value
        else:
            role = attribute.removesuffix("_internal").removesuffix("_quantizer")
            yield attribute, role, value


def _is_foreign(layer: Any, attribute: str, value: Any) -> bool:
    """Return whether a foreign object stands in the place of a QKeras quantizer.

    Traced as it is, it would leave no quantizer in the graph; it is described, and so refused.
    """
    is_place = attribute.endswith("_quantizer_internal") or (
        type(layer).__name__ == "QActivation" and attribute in {"activation", "quantizer"}
    )
    if not is_place or not callable(value):
        return False
    home = str(getattr(value, "__module__", "")).partition(".")[0]
    return home not in {"keras", "qkeras", "tensorflow", "tf_keras"}


class Patches:
    """Attributes replaced for a while."""

    def __init__(self) -> None:
        self._saved: list[tuple[Any, str, bool, Any]] = []

    def set(self, owner: Any, attribute: str, value: Any) -> None:
        """Replace an attribute of an object."""
        held = vars(owner)
        self._saved.append((owner, attribute, attribute in held, held.get(attribute)))
        object.__setattr__(owner, attribute, value)

    def undo(self) -> None:
        """Put every attribute back."""
        while self._saved:
            owner, attribute, existed, value = self._saved.pop()
            if existed:
                object.__setattr__(owner, attribute, value)
            else:
                object.__delattr__(owner, attribute)


@contextlib.contextmanager
def replaced(
    sites: list[QuantizerSlot], replacement: Callable[[QuantizerSlot], Callable[..., Any]]
) -> Iterator[Patches]:
    """Put ``replacement(site)`` in the place of every site's quantizer, until the end.

    Yields:
        The patches, to which others may be added.
    """
    patches = Patches()
    try:
        for site in sites:
            patches.set(site.owner, site.attribute, replacement(site))
        yield patches
    finally:
        patches.undo()


@contextlib.contextmanager
def preserved(model: Any, sites: list[QuantizerSlot], framework: Framework) -> Iterator[None]:
    """Put every variable, and every attribute of the quantizers, back at the end."""
    layers = [layer for _, layer in find_layers(model)]
    quantizers = [site.quantizer for site in sites]
    adaptive = [layer for layer in layers if type(layer).__name__ == "QAdaptiveActivation"]
    states = [(one, dict(vars(one))) for one in _distinct([*quantizers, *adaptive])]
    variables = _variables(model, [*layers, *quantizers], framework)
    values = [variable.numpy() for variable in variables]
    try:
        yield
    finally:
        for owner, state in states:
            for name in vars(owner).keys() - state.keys():
                object.__delattr__(owner, name)
            for name, value in state.items():
                if vars(owner).get(name) is not value:
                    object.__setattr__(owner, name, value)
        for variable, value in zip(variables, values, strict=True):
            if variable.numpy().tobytes() != value.tobytes():
                variable.assign(value)


def _variables(model: Any, holders: list[Any], framework: Framework) -> list[Any]:
    """Return every variable of the model and those its layers and quantizers hide."""
    kinds: tuple[type, ...] = (framework.tf.Variable,)
    if framework.generation == 3:
        kinds = (*kinds, framework.keras.Variable)
    found = list(model.variables)
    for holder in holders:
        found.extend(value for value in vars(holder).values() if isinstance(value, kinds))
    return _distinct(found)


def _distinct(objects: list[Any]) -> list[Any]:
    return list({id(one): one for one in objects}.values())
