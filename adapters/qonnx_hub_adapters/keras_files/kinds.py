"""The classes that are known: what they hold, and how they are written."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from qonnx_hub_adapters.keras_files.graph import Layer
from qonnx_hub_adapters.keras_files.scope import Scope
from qonnx_hub_adapters.keras_files.variables import LayerWeights, Variables

Config: TypeAlias = Mapping[str, Any]
Holds: TypeAlias = Callable[[Layer], Variables]


@dataclass(frozen=True, slots=True)
class Use:
    """One use of a layer, for the function that writes it.

    Attributes:
        layer: The layer.
        weights: Its arrays.
        args: Positional arguments; tensors are values.
        kwargs: Arguments by name.
    """

    layer: Layer
    weights: LayerWeights
    args: tuple[Any, ...]
    kwargs: Config

    @property
    def config(self) -> Config:
        """The layer's configuration."""
        return self.layer.config

    @property
    def x(self) -> Any:
        """The first argument: a value, or a list of them."""
        return self.args[0]


Writes: TypeAlias = Callable[[Scope, Use], Any]
"""Returns a value, a list or a dict of values."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A class of layers.

    Attributes:
        writes: Writes one use.
        holds: Says what variables a layer has.
        arguments: How many positional arguments it reads; ``None`` where it refuses others
            itself.
        named: Arguments by name that it reads, beside ``mask`` and ``training``.
    """

    writes: Writes
    holds: Holds = lambda layer: Variables()
    arguments: int | None = 1
    named: frozenset[str] = frozenset()

    def unread(self, use: Use) -> list[int | str]:
        """Return the arguments of a use that would be left out of what is written."""
        if self.arguments is None:
            return []
        read = {*range(self.arguments), "mask", "training", *self.named}
        given: list[tuple[int | str, Any]] = [*enumerate(use.args), *use.kwargs.items()]
        return [
            name
            for name, value in given
            if name not in read and value is not None and value is not False
        ]


FAMILIES = (
    "activations",
    "convolutions",
    "hgq_layers",
    "core",
    "merging",
    "normalization",
    "operations",
    "pooling",
    "qkeras_layers",
    "recurrent",
    "attention",
)


def kind_of(name: str) -> Kind | None:
    """Return what is known of a class, by package and class ("keras>Dense")."""
    if not _KINDS:
        for family in FAMILIES:
            path = f"qonnx_hub_adapters.keras_files.layers.{family}"
            _KINDS.update(importlib.import_module(path).KINDS)
    return _KINDS.get(name)


_KINDS: dict[str, Kind] = {}
