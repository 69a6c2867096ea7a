"""Numpy kernels: what they take and return, and the node that they are built for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

Array = npt.NDArray[Any]
Kernel = Callable[..., Any]
"""Takes the node's inputs in order (``None`` where an optional input is left out) and returns
one array for a node with one output, otherwise a tuple with one entry per output."""


@dataclass(frozen=True, slots=True)
class KernelSpec:
    """Everything about a node that is known before it runs.

    Attributes:
        op_type: Operator name.
        domain: Operator domain, ``""`` for standard ONNX.
        version: Opset version that the model imports for the domain (19 or newer for ``""``).
        name: Node name, for error messages.
        attributes: Attribute values as Python objects: int, float, str, tuple of int / float /
            str, numpy array for tensors, onnx.TypeProto for types. Absent attributes are
            absent.
        constants: One entry per input: the array where the input is known when the plan is
            made (a weight, a shape, axes ...), else ``None``. A kernel must still take that
            input as an argument when it is called; it may ignore it.
        present: One entry per input: whether the input is connected.
        num_outputs: How many outputs the node has; trailing optional ones may be missing.
        reusable: Positions of inputs whose buffer the kernel may overwrite and return, because
            no later node reads it. A kernel may ignore this.
    """

    op_type: str
    domain: str = ""
    version: int = 19
    name: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    constants: tuple[Array | None, ...] = ()
    present: tuple[bool, ...] = ()
    num_outputs: int = 1
    reusable: frozenset[int] = frozenset()

    def attr(self, name: str, default: Any = None) -> Any:
        """Return the attribute, or ``default`` where the node does not carry it."""
        return self.attributes.get(name, default)

    def constant(self, index: int) -> Array | None:
        """Return the array known for input ``index`` when the plan is made, else ``None``."""
        return self.constants[index] if index < len(self.constants) else None

    def has_input(self, index: int) -> bool:
        """Return whether input ``index`` is connected."""
        return index < len(self.present) and self.present[index]

    def is_fixed(self, *positions: int) -> bool:
        """Return whether each of these inputs is constant or absent."""
        return all(self.constant(i) is not None or not self.has_input(i) for i in positions)

    def unserved(self, reason: str) -> Unserved:
        """Return the refusal of this node: "has no axis", with operator and name in front."""
        return Unserved(f"{self.op_type} '{self.name}' {reason}")

    def required(self, name: str) -> Any:
        """Return an attribute that has no default.

        Raises:
            Unserved: It is absent.
        """
        value = self.attr(name)
        if value is None:
            raise self.unserved(f"has no {name}")
        return value

    def whole(self, name: str, default: int | None, least: int = 1) -> int:
        """Return an attribute that counts something; ``None`` as default requires it.

        Raises:
            Unserved: It is absent without a default, or less than ``least``.
        """
        value = int(self.required(name) if default is None else self.attr(name, default))
        if value < least:
            raise self.unserved(f"has {name} {value}")
        return value

    def choice(self, name: str, default: Any, choices: Collection[Any]) -> Any:
        """Return an attribute that takes one of a few values.

        Raises:
            Unserved: It has another value.
        """
        value = self.attr(name, default)
        if value not in choices:
            raise self.unserved(f"has {name} {value!r}")
        return value


Factory = Callable[[KernelSpec], Kernel]
KernelTable = Mapping[tuple[str, str], Factory]
"""(domain, op_type) -> factory. A factory that cannot serve a spec (an option it does not
know) raises :class:`Unserved`; the plan then tries the fallback."""


class Unserved(Exception):  # noqa: N818 - a signal between plan and kernel, not an error
    """This kernel does not serve this combination of attributes, types or version."""
