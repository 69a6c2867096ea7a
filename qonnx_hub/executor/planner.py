"""A graph becomes a plan: kernels resolved once, constants computed once, buffers freed early.

A plan is immutable and holds no run-time state, so that several threads can run one plan.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir
from onnx_ir import Graph, Model, Node, Value

from qonnx_hub.executor.control_flow import build_control, is_control
from qonnx_hub.executor.fallback import NoFallbackError, build_fallback
from qonnx_hub.executor.foreign import foreign_kernel
from qonnx_hub.executor.fusion import Link, build_chain
from qonnx_hub.executor.kernels import kernel_table
from qonnx_hub.executor.kernels.fusible import STAGES
from qonnx_hub.executor.kernels.spec import Array, Kernel, KernelSpec, Unserved
from qonnx_hub.executor.onnxruntime.nodes import build_on_onnxruntime
from qonnx_hub.executor.plan import Plan, Step, compile_program
from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.errors import ExecutionError, Gap, UnsupportedGraphError, failure
from qonnx_hub_ir.graph.queries import dims
from qonnx_hub_ir.graph.subgraphs import bodies, read_values
from qonnx_hub_ir.operators import Buffer
from qonnx_hub_ir.validity import label


def make_plan(
    model: Model,
    *,
    keep_all: bool = False,
    partial: bool = False,
    outputs: Sequence[Value] | None = None,
    shapes: Mapping[Node, Array] | None = None,
) -> Plan:
    """Return the plan of a model.

    Args:
        model: A verified IR model.
        keep_all: Keep every value until the end of a run, so that all can be read.
        partial: Take nodes that nothing can run for steps that fail; nothing behind them is
            constant.
        outputs: Values to return; the graph's outputs by default.
        shapes: Reshape node -> shape to use instead of the one that it reads; with it, feeds
            may be longer than the file says.

    Raises:
        UnsupportedGraphError: Operators that nothing can run; all of them are listed.
        ExecutionError: A node with constant inputs fails.
    """
    planner = _Planner(model.graph, dict(model.opset_imports), keep_all)
    planner.partial = partial
    if outputs is not None:
        planner.outputs = tuple(outputs)
    for node, shape in (shapes or {}).items():
        planner.shapes[node] = Value(name=None)
        planner.constants[planner.shapes[node]] = shape
    if shapes is None:
        planner.checked = frozenset(model.graph.inputs)
    return planner.build()


@dataclass(slots=True)
class _Job:
    """What becomes a step.

    Attributes:
        kernel: The kernel.
        inputs: What it reads, in order; ``None`` where an optional input is left out.
        node: The node, the last one of a chain.
        link: What a chain would do instead; ``None`` where the node fits into none.
    """

    kernel: Kernel
    inputs: tuple[Value | None, ...]
    node: Node
    link: Link | None = None


def _cannot_run(*_: Any) -> Any:
    raise ExecutionError("nothing here runs this node")


class _Planner:
    """Collects slots, constants and steps while it walks the graph once."""

    def __init__(
        self,
        graph: Graph,
        imports: dict[str, int],
        keep_all: bool,
        outer: Sequence[Value] = (),
    ) -> None:
        self.graph = graph
        self.imports = imports
        self.keep_all = keep_all
        self.partial = False
        self.given = (*graph.inputs, *outer)
        self.outputs = tuple(graph.outputs)
        self.shapes: dict[Node, Value] = {}
        self.checked: frozenset[Value] = frozenset()
        self.slots: dict[Value, int] = {}
        self.constants: dict[Value, Any] = {}
        self.jobs: list[_Job] = []
        self.gaps: list[Gap] = []
        # How often each value is read, outputs and subgraphs included.
        self.readers: Counter[Value] = Counter()
        self.by_reference: set[Node] = set()

    def build(self) -> Plan:
        reads = [value for node in self.graph for value in read_values(node)]
        self.readers = Counter((*self.outputs, *reads))
        for value in (*self.given, *self.shapes.values()):
            self._add(value)
        for name, value in self.graph.initializers.items():
            if value.const_value is None:
                raise UnsupportedGraphError(f"initializer '{name}' has no data")
            if not value.is_graph_input():
                self._add(value)
                self.constants[value] = _array_of(value.const_value)
        for node in self.graph:
            self._plan_node(node)
        if self.gaps:
            raise UnsupportedGraphError("no kernel can run these nodes:", self.gaps)
        return self._finish()

    def _add(self, value: Value) -> None:
        # Slot 0 stands for "not connected".
        self.slots[value] = len(self.slots) + 1

    def _plan_node(self, node: Node) -> None:
        for value in node.outputs:
            self._add(value)
        try:
            kernel, outer = self._resolve(node)
        except NoFallbackError as error:
            if self.partial:
                self.jobs.append(_Job(_cannot_run, tuple(node.inputs), node))
                return
            self.gaps.append(
                Gap(node.name or "", f"{node.domain}::{node.op_type}", str(error))
            )
            return
        inputs = (*self._inputs(node), *outer)
        reads = [v for v in inputs if v is not None]
        if node.op_type == "Shape" and (known := self._known_shape(node)) is not None:
            self.constants[node.outputs[0]] = np.asarray(kernel(known))
            return
        ready = all(v in self.constants for v in reads)
        if ready and not operators.is_random(node) and not self.gaps:
            self._compute_now(node, kernel, inputs)
            return
        self.jobs.append(_Job(kernel, inputs, node, self._link(node, kernel)))

    def _known_shape(self, node: Node) -> Array | None:
        """Return something of the shape that a Shape node reads, where that is certain.

        Only feeds are sure to have the shape that the file says: sessions hold them to it.
        """
        sizes = dims(node.inputs[0])
        if node.inputs[0] not in self.checked or sizes is None:
            return None
        numbers = [size for size in sizes if isinstance(size, int)]
        whole = len(numbers) == len(sizes)
        return np.broadcast_to(np.zeros((), dtype=np.bool_), numbers) if whole else None

    def _link(self, node: Node, kernel: Kernel) -> Link | None:
        """Return what a chain does for the node, if it is one that chains can hold."""
        make = STAGES.get((node.domain, node.op_type))
        stage = None if make is None or self.keep_all else make(self._spec(node))
        if stage is None or node.inputs[stage.data] in self.constants:
            return None
        others = [None if v is None else self.constants.get(v) for v in node.inputs]
        return Link(stage, kernel, tuple(others), label(node))

    def _resolve(self, node: Node) -> tuple[Kernel, list[Value]]:
        """Return the kernel, and the outer values that it takes after the node's inputs."""
        if is_control(node):
            return build_control(
                node, lambda graph, outer: _Planner(graph, self.imports, False, outer).build()
            )
        factory = kernel_table().get((node.domain, node.op_type))
        if factory is not None and not bodies(node):
            try:
                return factory(self._spec(node)), []
            except Unserved:
                pass
            except (TypeError, ValueError):
                if node.domain in dialect.STANDARD_DOMAINS:
                    raise
                # No document says what its attributes are: another runtime says what is wrong.
        self.by_reference.add(node)
        if node.domain in dialect.STANDARD_DOMAINS and not operators.is_opaque(node):
            return build_fallback(node, self.imports)
        spec = self._spec(node)
        if operators.is_opaque(node) and not bodies(node):
            foreign = foreign_kernel(node, dict(spec.attributes), spec.version, make_plan)
            if foreign is not None:
                return foreign, []
        return build_on_onnxruntime(node, self.imports, spec.constants), []

    def _spec(self, node: Node) -> KernelSpec:
        known = tuple(self.constants.get(v) if v else None for v in self._inputs(node))
        reusable = frozenset() if self.keep_all else self._reusable(node)
        return _spec_of(node, self.imports, known, reusable)

    def _reusable(self, node: Node) -> frozenset[int]:
        """Return input positions whose buffer dies here and is aliased by nobody."""
        return frozenset(
            index
            for index, value in enumerate(node.inputs)
            if value is not None
            and self.readers.get(value) == 1
            and (producer := value.producer()) is not None
            # What a body reads from around it is not its own: others may read it as well.
            and value not in self.given
            and self._makes_fresh(producer)
            and value not in self.constants
        )

    def _makes_fresh(self, node: Node) -> bool:
        """Return whether what runs a node never returns an input, or a view of one.

        The table of operators speaks of our kernels; what is not known may return a view.
        """
        is_fresh = operators.buffer_of(node) is Buffer.FRESH
        return is_fresh and node not in self.by_reference

    def _inputs(self, node: Node) -> Sequence[Value | None]:
        shape = self.shapes.get(node)
        return node.inputs if shape is None else (node.inputs[0], shape)

    def _compute_now(self, node: Node, kernel: Kernel, inputs: Sequence[Value | None]) -> None:
        args = [None if v is None else self.constants[v] for v in inputs]
        try:
            with np.errstate(all="ignore"):
                result = kernel(*args)
        except Exception as error:  # kernels raise whatever numpy raises
            raise ExecutionError(failure(label(node), args, error)) from error
        results = (result,) if len(node.outputs) == 1 else result
        for value, array in zip(node.outputs, results, strict=False):
            self.constants[value] = _in_order(array)

    def _drop_unread(self) -> None:
        """Leave out jobs that no output needs, such as sizes that a given shape replaces."""
        if self.keep_all:
            return
        needed, kept = set(self.outputs), []
        for job in reversed(self.jobs):
            if any(value in needed for value in job.node.outputs):
                needed.update(value for value in job.inputs if value is not None)
                kept.append(job)
        self.jobs = kept[::-1]

    def _joined(self) -> list[_Job]:
        """Return the jobs, with every run of chained nodes as one job at its last node."""
        runs: dict[Value, list[_Job]] = {}
        for job in self.jobs:
            if job.link is None:
                continue
            data = job.inputs[job.link.stage.data]
            assert data is not None
            follows = data in runs and self.readers.get(data) == 1
            runs[job.node.outputs[0]] = [*(runs.pop(data) if follows else ()), job]
        ends = {run[-1].node: run for run in runs.values() if len(run) > 1}
        inside = {job.node for run in ends.values() for job in run[:-1]}
        return [
            self._chain(ends[job.node]) if job.node in ends else job
            for job in self.jobs
            if job.node not in inside
        ]

    def _chain(self, run: Sequence[_Job]) -> _Job:
        links = [job.link for job in run if job.link is not None]
        position = links[0].stage.data
        reuse = position in self._reusable(run[0].node)
        kernel = build_chain(links, reuse=reuse)
        return _Job(kernel, (run[0].inputs[position],), run[-1].node)

    def _finish(self) -> Plan:
        self._drop_unread()
        jobs = self._joined()
        initial: list[Any] = [None] * (len(self.slots) + 1)
        needed = {value for job in jobs for value in job.inputs if value is not None}
        needed.update(self.outputs)
        for value in needed:
            if value not in self.slots:
                raise ExecutionError(f"value '{value.name}' is computed nowhere in the graph")
        for value, array in self.constants.items():
            if value in needed or self.keep_all:
                initial[self.slots[value]] = array
        last_reader = self._last_readers(jobs)
        steps = [
            Step(
                run=job.kernel,
                inputs=tuple(self.slots[v] if v else 0 for v in job.inputs),
                outputs=tuple(self.slots[v] for v in job.node.outputs),
                frees=tuple(self.slots[v] for v in last_reader.get(index, ())),
                node=label(job.node),
            )
            for index, job in enumerate(jobs)
        ]
        named = {str(v.name): s for v, s in self.slots.items() if v.name}
        feeds = {str(v.name): self.slots[v] for v in self.given}
        results = {str(v.name): self.slots[v] for v in self.outputs}
        returned = (named if self.keep_all else results).values()
        return Plan(
            initial=tuple(initial),
            feeds=feeds,
            steps=tuple(steps),
            results=results,
            outputs=tuple(str(v.name) for v in self.outputs),
            tensors=named if self.keep_all else {},
            shared=self._shared(named),
            program=compile_program(initial, list(feeds.values()), steps, list(returned)),
        )

    def _shared(self, named: dict[str, int]) -> frozenset[str]:
        """Return names of values whose arrays the caller must not get as they are."""
        shared: set[Value] = {*self.given, *self.constants}
        for node in (job.node for job in self.jobs):
            if not self._makes_fresh(node) and any(v in shared for v in read_values(node)):
                shared.update(node.outputs)
        return frozenset(str(value.name) for value in shared if str(value.name) in named)

    def _last_readers(self, jobs: Sequence[_Job]) -> dict[int, list[Value]]:
        if self.keep_all:
            return {}
        last: dict[Value, int] = {}
        for index, job in enumerate(jobs):
            touched = (*job.node.outputs, *(v for v in job.inputs if v is not None))
            last.update(dict.fromkeys(touched, index))
        kept = {*self.outputs, *self.constants}
        by_step: dict[int, list[Value]] = {}
        for value, index in last.items():
            if value not in kept:
                by_step.setdefault(index, []).append(value)
        return by_step


def _array_of(tensor: onnx_ir.TensorProtocol) -> Array:
    """Return a constant as an array; text as text, as inputs have it, not as its bytes."""
    array = tensor.numpy()
    if tensor.dtype != onnx_ir.DataType.STRING:
        return array
    try:
        texts = [t.decode() if isinstance(t, bytes) else str(t) for t in array.reshape(-1)]
    except UnicodeDecodeError as error:
        raise UnsupportedGraphError(
            f"initializer '{tensor.name}' holds a text that is no UTF-8"
        ) from error
    return np.array(texts, dtype=object).reshape(array.shape)


def free_kernel(
    node: Node, imports: Mapping[str, int], constants: Mapping[Value, Array]
) -> Kernel:
    """Return a kernel that takes weights and all other numbers as arguments.

    Those of a plan may be made for the constants of the model, whatever they are called with.

    Args:
        node: A node without bodies.
        imports: Domain -> opset version of the model.
        constants: What is known of the model; shapes, axes and the like are taken from it.

    Raises:
        NoFallbackError: Nothing can run the node.
    """
    factory = kernel_table().get((node.domain, node.op_type))
    settings = operators.setting_inputs(node)
    known = [
        constants.get(v) if v and i in settings else None for i, v in enumerate(node.inputs)
    ]
    if factory is not None:
        try:
            return factory(_spec_of(node, imports, tuple(known), frozenset()))
        except Unserved:
            pass
    return build_fallback(node, dict(imports))[0]


def _spec_of(
    node: Node,
    imports: Mapping[str, int],
    known: tuple[Array | None, ...],
    reusable: frozenset[int],
) -> KernelSpec:
    return KernelSpec(
        op_type=node.op_type,
        domain=node.domain,
        version=imports.get(node.domain, 1),
        name=node.name or "",
        attributes={k: _python_value(a) for k, a in node.attributes.data.items()},
        constants=known,
        present=tuple(v is not None for v in node.inputs),
        num_outputs=len(node.outputs),
        reusable=reusable,
    )


def _in_order(value: Any) -> Any:
    """Return a constant with its elements in memory order.

    A matrix product may add in another order for a transposed view than for the same numbers
    in order; how a weight came about must not show in the results.
    """
    if isinstance(value, np.ndarray) and not value.flags.c_contiguous:
        return value.copy(order="C")
    return value


def _python_value(attr: onnx_ir.Attr) -> Any:
    if attr.type == onnx_ir.AttributeType.TENSOR:
        return attr.value.numpy()
    if isinstance(attr.value, (list, tuple)):
        return tuple(attr.value)
    return attr.value
