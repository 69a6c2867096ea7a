"""Running a model: feeds checked, plan executed, batches handled."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from onnx_ir import Model

from qonnx_hub.executor.batch_axis import Batcher, batcher_of
from qonnx_hub.executor.blas import limited_to
from qonnx_hub.executor.kernels.spec import Array
from qonnx_hub.executor.plan import Plan, execute
from qonnx_hub.executor.planner import make_plan
from qonnx_hub.executor.threads import default_threads, parallel_map, use_threads
from qonnx_hub.executor.tiles import cut_feeds, join_runs, pieces_of, unequal_samples
from qonnx_hub.io.arrays import read_feeds
from qonnx_hub_ir import operators
from qonnx_hub_ir.choices import Backend, require_choice
from qonnx_hub_ir.errors import UsageError
from qonnx_hub_ir.graph.queries import dims

if TYPE_CHECKING:
    from qonnx_hub.executor.onnxruntime.backend import OrtRuns

BACKENDS: tuple[str, ...] = get_args(Backend)
"""Where a session can run."""

_Shapes = tuple[tuple[int, ...], ...]

_MOST_SHAPES = 64
"""Shapes of feeds of which a session remembers how they are run."""

_NOT_APART = (
    "the graph is not known to keep samples apart, so it cannot be run in batches; leave the "
    "batch out"
)


class Session:
    """A model made ready to run many times.

    The graph is walked once, kernels are resolved once and constants computed once. A session
    may be used from several threads.
    """

    def __init__(
        self,
        model: Any,
        *,
        backend: str = "numpy",
        threads: int | None = None,
        outputs: Sequence[str] | None = None,
    ) -> None:
        """Prepare the model.

        Args:
            model: A source as :func:`qonnx_hub.run` takes it, or a verified IR model, which
                must not be changed while the session is used.
            backend: "numpy", or "ort": onnxruntime, on the form of the model that it computes
                fastest. Sums may be rounded in another order there.
            threads: How many threads compute; as many as numpy's matrix library uses by
                default, or as onnxruntime chooses. The results are the same for any number.
            outputs: Names of the values that a run returns, inner ones as well; the graph's
                outputs by default.

        Raises:
            UnsupportedGraphError: Operators that nothing can run; all of them are listed.
            ExecutionError: A node with constant inputs fails.
            UsageError: An unknown backend, a number of threads below 1, or outputs that the
                graph does not have.
            MissingDependencyError: The backend is not installed.
        """
        require_choice("backend", backend, BACKENDS)
        if threads is not None and threads < 1:
            raise UsageError(f"a session runs on 1 thread or more, not on {threads}")
        if not isinstance(model, Model):
            # By its name, because the verbs are built on this module.
            model = importlib.import_module("qonnx_hub.api.reading").load_to_run(model)
        self._model: Model = model
        self._threads = threads
        self._batcher = batcher_of(model) if outputs is None else Batcher(model, outputs)
        self._ort: OrtRuns | None = None
        if backend == "ort":
            # Imported here because it loads an exporter, which numpy does not need.
            from qonnx_hub.executor.onnxruntime.backend import OrtRuns

            if outputs is not None:
                raise UsageError("the backend ort returns the graph's outputs only")
            self._ort = OrtRuns(model, threads)
        else:
            self._plan = self._make_plan(keep_all=False)
        self._wide_plans: dict[bool, Plan | None] = {}
        self._pieces = pieces_of(model, self._batcher.file_batch)
        self._dtypes = {
            str(v.name): None if v.dtype is None else np.dtype(v.dtype.numpy())
            for v in model.graph.inputs
        }
        self._shapes = {str(v.name): dims(v) for v in model.graph.inputs}
        self._at_once = self._plain_inputs()
        # Shapes of feeds, in order, that run as they are -> the plan that runs them.
        self._uncut: dict[_Shapes | None, Plan | None] = {}
        if self._at_once is not None:
            own = tuple(shape for _, shape in self._at_once.values())
            self._uncut[own] = self._plan if self._ort is None else None
        self.input_names: tuple[str, ...] = tuple(self._dtypes)
        given = [str(v.name) for v in model.graph.outputs] if outputs is None else outputs
        self.output_names: tuple[str, ...] = tuple(given)

    def _make_plan(self, *, keep_all: bool) -> Plan:
        """Return a plan for the file's batch; where possible, it takes any number as well."""
        batcher, model = self._batcher, self._model
        if batcher.free_shapes is not None:
            plan = batcher.widened(keep_all=keep_all)
            assert plan is not None
            return plan
        return make_plan(model, keep_all=keep_all, outputs=batcher.values_of(model))

    def _wide_plan(self, *, keep_all: bool) -> Plan | None:
        """Return a plan for any number of samples, or ``None`` where none is proven right."""
        if self._batcher.free_shapes is not None:
            return self._plan_for(keep_all)
        if keep_all not in self._wide_plans:
            self._wide_plans[keep_all] = self._batcher.widened(keep_all=keep_all)
        return self._wide_plans[keep_all]

    def run(
        self, feeds: Any, *, all_tensors: bool = False, batch: int | None = None
    ) -> dict[str, Array]:
        """Return the outputs, by name, in the graph's order.

        Args:
            feeds: Input name -> array of the input's dtype; an array alone, for a model with
                one input; or the path of an .npz or .npy file of them. The first axis may be
                another than the file says: the samples are then computed together where the
                graph keeps them apart; otherwise batch by batch of the file, of which there
                must be whole ones.
            all_tensors: Return every value of the graph instead, by name.
            batch: Samples to compute at once; by default as many as the processor's cache
                holds, several such pieces side by side.

        Raises:
            UsageError: Names, dtypes or shapes that do not fit the model.
            ExecutionError: A node fails; the message names it and its inputs.
        """
        if not isinstance(feeds, Mapping):
            feeds = read_feeds(feeds, self.input_names)
        if self._ort is not None:
            return self._run_on_ort(self._ort, feeds, all_tensors, batch)
        if batch is None and not all_tensors:
            plan = self._uncut.get(self._shapes_at_once(feeds))
            if plan is not None:
                with limited_to(1):
                    return execute(plan, feeds)
        arrays = self._checked(feeds)
        factor = self._batch_factor(arrays)
        if batch is None and (piece := self._piece(arrays)) is not None:
            return self._run_pieces(arrays, piece, all_tensors)
        with use_threads(self._team()):
            if factor == 1 and batch is None:
                return execute(self._plan_for(all_tensors), arrays)
            return self._run_batches(arrays, factor, batch, all_tensors)

    def _run_on_ort(
        self, ort: OrtRuns, feeds: Mapping[str, Any], all_tensors: bool, batch: int | None
    ) -> dict[str, Array]:
        if all_tensors:
            raise UsageError("the backend ort shows outputs only; numpy shows all tensors")
        if batch is None and self._shapes_at_once(feeds) in self._uncut:
            return ort.run(feeds)
        arrays = self._checked(feeds)
        factor = self._batch_factor(arrays)
        if factor == 1 and batch is None:
            return ort.run(arrays)
        if batch is not None and factor == 1 and not self._batcher.is_apart():
            raise UsageError(_NOT_APART)
        step = int((batch or factor) * self._batcher.file_batch)
        return ort.run_batches(arrays, step, self._batcher)

    def _plain_inputs(self) -> dict[str, tuple[np.dtype[Any], tuple[Any, ...]]] | None:
        """Return types and shapes of inputs that need no more than a look at each.

        ``None`` where a shape is open, or where threads share the larger operations.
        """
        if any(operators.is_convolution(n, any_layout=True) for n in self._model.graph):
            return None
        plain: dict[str, tuple[np.dtype[Any], tuple[Any, ...]]] = {}
        for name, shape in self._shapes.items():
            dtype = self._dtypes[name]
            if dtype is None or shape is None or not all(isinstance(d, int) for d in shape):
                return None
            plain[name] = (dtype, shape)
        return plain

    def _shapes_at_once(self, feeds: Mapping[str, Any]) -> _Shapes | None:
        """Return the shapes of feeds that are, to the letter, arrays of the file's types."""
        if self._at_once is None or len(feeds) != len(self._at_once):
            return None
        shapes = []
        for name, (dtype, _) in self._at_once.items():
            array = feeds.get(name)
            if type(array) is not np.ndarray or array.dtype != dtype:
                return None
            shapes.append(array.shape)
        return tuple(shapes)

    def _team(self) -> int:
        """Return how many threads share the larger operations."""
        return default_threads() if self._threads is None else self._threads

    def _piece(self, arrays: Mapping[str, Array]) -> int | None:
        """Return the samples of a piece; ``None`` where the feeds are not worth cutting."""
        lengths = {a.shape[0] if a.ndim else 0 for a in arrays.values()}
        if self._pieces is None or len(lengths) != 1:
            return None
        size = self._pieces.size(lengths.pop())
        return size if size is not None and self._batcher.is_apart() else None

    def _run_pieces(
        self, arrays: dict[str, Array], piece: int, all_tensors: bool
    ) -> dict[str, Array]:
        plan = self._wide_plan(keep_all=all_tensors)
        assert plan is not None
        cuts = cut_feeds(arrays, piece)
        runs = parallel_map(lambda cut: execute(plan, cut), cuts, self._team())
        return _joined(runs, plan, self._batcher)

    def _plan_for(self, all_tensors: bool) -> Plan:
        return self._full_plan if all_tensors else self._plan

    @cached_property
    def _full_plan(self) -> Plan:
        return self._make_plan(keep_all=True)

    def _checked(self, feeds: Mapping[str, Any]) -> dict[str, Array]:
        if feeds.keys() != self._dtypes.keys():
            self._explain_names(feeds)
        arrays: dict[str, Array] = {}
        for name, dtype in self._dtypes.items():
            value = feeds[name]
            array = value if isinstance(value, np.ndarray) else np.asarray(value, dtype=dtype)
            if not array.dtype.isnative:
                array = array.astype(array.dtype.newbyteorder("="))
            if dtype is not None and dtype.kind == "O" and array.dtype.kind in "US":
                array = array.astype(object)
            if dtype is not None and array.dtype != dtype:
                raise UsageError(
                    f"input '{name}' takes {dtype.name}, {array.dtype.name} is given; "
                    f"convert it with .astype(np.{dtype.name})"
                )
            arrays[name] = array
        return arrays

    def _explain_names(self, feeds: Mapping[str, Any]) -> None:
        missing = [name for name in self._dtypes if name not in feeds]
        unknown = [str(name) for name in feeds if name not in self._dtypes]
        parts = [
            *([f"missing inputs: {', '.join(missing)}"] if missing else []),
            *([f"unknown inputs: {', '.join(unknown)}"] if unknown else []),
            f"the model's inputs are {', '.join(self._dtypes) or 'none'}",
        ]
        raise UsageError("; ".join(parts))

    def _batch_factor(self, arrays: Mapping[str, Array]) -> Fraction:
        """Return how many times the file's batch the feeds hold; check every other axis.

        It is no whole number only where the graph keeps samples apart.
        """
        factors: set[Fraction] = set()
        for name, sizes in self._shapes.items():
            given = arrays[name].shape
            if sizes is None or given == sizes:
                factors.add(Fraction(1))
                continue
            fits = len(given) == len(sizes) and all(
                not isinstance(d, int) or d == g
                for d, g in zip(sizes[1:], given[1:], strict=True)
            )
            if not fits or not sizes:
                raise UsageError(
                    f"input '{name}' has shape [{', '.join(map(str, sizes))}], "
                    f"{list(given)} is given"
                )
            factors.add(self._times(name, sizes[0], given[0]))
        if len(factors) > 1:
            raise unequal_samples(arrays)
        return factors.pop() if factors else Fraction(1)

    def _times(self, name: str, own: int | str | None, given: int) -> Fraction:
        """Return how many of the file's own batches the given length is."""
        if not isinstance(own, int):
            return Fraction(1)
        if own <= 0 or given == 0:
            raise UsageError(f"input '{name}' takes batches of {own}, {given} are given")
        if given % own and not self._batcher.is_apart():
            raise UsageError(
                f"input '{name}' takes samples in multiples of {own}, {given} are given, and "
                "the graph is not known to keep samples apart"
            )
        return Fraction(given, own)

    def _run_batches(
        self, arrays: dict[str, Array], factor: Fraction, batch: int | None, all_tensors: bool
    ) -> dict[str, Array]:
        apart = self._batcher.is_apart()
        if batch is not None and factor == 1 and not apart:
            raise UsageError(_NOT_APART)
        plan = self._wide_plan(keep_all=all_tensors) or self._plan_for(all_tensors)
        step = int(((batch or factor) if apart else 1) * self._batcher.file_batch)
        pieces = cut_feeds(arrays, step)
        if len(pieces) == 1 and not all_tensors and self._ort is None:
            shapes = self._shapes_at_once(arrays)
            if shapes is not None and batch is None and len(self._uncut) < _MOST_SHAPES:
                self._uncut[shapes] = plan  # from now on it is run without another look
        runs = [execute(plan, piece) for piece in pieces]
        return _joined(runs, plan, self._batcher)


def _joined(
    pieces: Sequence[dict[str, Array]], plan: Plan, batcher: Batcher
) -> dict[str, Array]:
    """Return the arrays of several runs behind each other; constants are the same in each."""
    slots = (plan.tensors or plan.results).items()
    constants = {name for name, slot in slots if plan.initial[slot] is not None}
    return join_runs(pieces, batcher.file_batch, constants | batcher.still)
