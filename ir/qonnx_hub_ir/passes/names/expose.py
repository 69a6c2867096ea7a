"""Inner values as outputs of the model."""

from __future__ import annotations

from dataclasses import dataclass

from onnx_ir import Model, Value
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir.effects import Effect
from qonnx_hub_ir.errors import PassError
from qonnx_hub_ir.facts import facts_of


@dataclass(frozen=True)
class Expose(InPlacePass):
    """Make inner values outputs of the model, behind those that it has.

    Before -> after (``names=h``): outputs ``y`` -> ``y, h``. Values that depend on no input
    are left out; so are those that are outputs already. Does not fire where nothing is left.

    Attributes:
        names: Names of values.
        patterns: Texts: values whose names hold one of them.

    Raises:
        PassError: No value has one of the names, or a value has no known type.
    """

    effect = Effect.SIGNATURE

    names: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        values = {str(v.name): v for node in model.graph for v in node.outputs if v.name}
        missing = [name for name in self.names if name not in values]
        if missing:
            raise PassError(f"no node makes a value called {', '.join(missing)}")
        dynamic = facts_of(model).dynamic
        chosen = [v for name, v in values.items() if name in dynamic and self._asks(name)]
        fresh: list[Value] = [value for value in chosen if not value.is_graph_output()]
        untyped = [str(value.name) for value in fresh if value.type is None]
        if untyped:
            raise PassError(f"the type of {', '.join(untyped)} is not known")
        model.graph.outputs.extend(fresh)
        return PassResult(model, modified=bool(fresh))

    def _asks(self, name: str) -> bool:
        return name in self.names or any(part in name for part in self.patterns)
