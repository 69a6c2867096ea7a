"""Parts of a model, each in a file and one node."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnx_ir import Graph, Model, Node
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub.io.model_files import has_external_data, write_models
from qonnx_hub_adapters.onnx_writer import finish
from qonnx_hub_ir.errors import PassError
from qonnx_hub_ir.graph.parts import PARTITION, cut_part


@dataclass(frozen=True)
class CreatePartitions(InPlacePass):
    """Put parts of a model into files, and a GenericPartition in the place of each.

    Before -> after (``parts="{'front': ['Conv_0', 'Relu_0']}"``)::

        y = MatMul(Relu(Conv(x, w)), v)
        y = MatMul(GenericPartition{model="partitions/partition_front.onnx"}(x), v)

    Tensors keep their names, in the model and in the files. The node reads its file when it
    runs, from the folder that it is run in: an absolute folder serves everywhere.

    Attributes:
        parts: ``{part: [node, ...]}``, nodes by name or by their place in the graph, as a
            mapping or as text of Python.
        folder: Where the files are written, as ``partition_<part>.onnx``.

    Raises:
        PassError: Parts of another form, a node that there is not or that two parts have, a
            part that needs itself or that nobody needs. Nothing is written then.
    """

    parts: Any
    folder: str = "partitions"

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        chosen = _chosen(model.graph, _read(self.parts))
        made: dict[Path, Model] = {}
        for part, nodes in chosen.items():
            path = Path(self.folder) / f"partition_{part}.onnx"
            made[path] = cut_part(model, nodes, f"{PARTITION}_{part}", str(path))
        for path in made:
            path.parent.mkdir(parents=True, exist_ok=True)
        beside = any(map(has_external_data, made.values()))
        if made:
            write_models({p: finish(held) for p, held in made.items()}, external=beside)
        return PassResult(model, modified=bool(made))


def _read(given: Any) -> Mapping[Any, Any]:
    found = given
    if isinstance(given, str):
        try:
            found = ast.literal_eval(given)
        except (ValueError, SyntaxError):
            raise PassError(f"the parts '{given}' are no Python dict") from None
    if not isinstance(found, Mapping):
        raise PassError("parts are a dict: {part: [names or places of nodes]}")
    return found


def _chosen(graph: Graph, parts: Mapping[Any, Any]) -> dict[str, set[Node]]:
    nodes = list(graph)
    known: dict[Any, Node] = {**dict(enumerate(nodes)), **{n.name: n for n in nodes}}
    taken: dict[Node, str] = {}
    found: dict[str, set[Node]] = {}
    for key, members in parts.items():
        part = str(key)
        if isinstance(members, str) or not hasattr(members, "__iter__"):
            raise PassError(f"part '{part}' is no list of nodes")
        if not part.replace("_", "").replace("-", "").isalnum():
            raise PassError(f"part '{part}' cannot be part of a file's name")
        if part in found:
            raise PassError(f"two parts are called '{part}'")
        found[part] = set()
        for member in members:
            node = known.get(member)
            if node is None:
                raise PassError(f"part '{part}': there is no node '{member}'")
            if taken.setdefault(node, part) != part:
                raise PassError(f"'{node.name}' is in the parts {taken[node]} and {part}")
            found[part].add(node)
        if not found[part]:
            raise PassError(f"part '{part}' has no nodes")
    return found
