"""Tensors get the names that a user gives them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from onnx_ir import Model
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir.effects import Effect
from qonnx_hub_ir.errors import PassError
from qonnx_hub_ir.graph.names import rename_values
from qonnx_hub_ir.graph.subgraphs import every_value


@dataclass(frozen=True)
class RenameTensors(InPlacePass):
    """Rename inputs, outputs, initializers and values in between.

    Before -> after (``names=x=image``): ``y = Relu(x)`` -> ``y = Relu(image)``. Names may be
    exchanged. The source layer's name in the metadata stays. Does not fire where every tensor
    has its new name already.

    Attributes:
        names: Name -> new name.

    Raises:
        PassError: A tensor that does not exist, or a new name that another tensor has; all of
            them are listed.
    """

    names: Mapping[str, str]
    effect = Effect.SIGNATURE

    def requires(self, model: Model) -> None:
        """Refuse names that are unknown, empty or taken."""
        names, known = self.names, {str(value.name) for value in every_value(model)}
        done = {new for old, new in names.items() if old not in known and new in known}
        counts, staying = Counter(names.values()), known - set(names)
        problems = [
            *(
                f"there is no tensor '{old}'"
                for old, new in names.items()
                if old not in known and new not in done
            ),
            *(f"{n} tensors shall be called '{new}'" for new, n in counts.items() if n > 1),
            *(f"'{old}' shall have an empty name" for old, new in names.items() if not new),
            *(
                f"another tensor is called '{new}' already"
                for old, new in names.items()
                if new in staying and old in known
            ),
        ]
        if problems:
            raise PassError("; ".join(problems))

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        changed = [
            (value, self.names[str(value.name)])
            for value in every_value(model)
            if self.names.get(str(value.name), value.name) != value.name
        ]
        rename_values(model, changed)
        return PassResult(model, modified=bool(changed))
