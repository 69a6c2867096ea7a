"""Passes by name: which there are, what they do, how text asks for them, how they run.

    import qonnx_hub as qh
    qh.passes.names()
    step = qh.passes.make("change_batch:batch=4")
    records = qh.passes.run(model, ["cleanup", step])

A pass is a frozen dataclass on :class:`onnx_ir.passes.InPlacePass`; its fields are its
options. The project's own are those that :mod:`qonnx_hub_ir.passes` exports, each under the
name of its module; other distributions register theirs under the entry point
``qonnx_hub.passes``.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, TypeGuard

from onnx_ir import Model, Node
from onnx_ir.passes import InPlacePass, PassResult, PostconditionError, PreconditionError

import qonnx_hub_ir.passes as own_passes
from qonnx_hub.io.registry import merged
from qonnx_hub.transformation.pass_options import build, option_names
from qonnx_hub_ir import dialect
from qonnx_hub_ir.choices import not_among
from qonnx_hub_ir.effects import Effect, effect_of
from qonnx_hub_ir.errors import (
    AdapterConflictError,
    HubError,
    PassError,
    UsageError,
    words_of,
)
from qonnx_hub_ir.graph.partition import extract_model, merge_models, split_model
from qonnx_hub_ir.passes import InferShapes
from qonnx_hub_ir.places import place_of
from qonnx_hub_ir.validity import require_valid

__all__ = [
    "PASS_GROUP",
    "PIPELINES",
    "Effect",
    "PassInfo",
    "Pipeline",
    "Stage",
    "Step",
    "StepRecord",
    "describe",
    "extract_model",
    "get",
    "make",
    "merge_models",
    "names",
    "run",
    "split_model",
]

PASS_GROUP = "qonnx_hub.passes"
"""Entry points of passes: name -> "module:class"."""

Step: TypeAlias = str | InPlacePass
"""A pass, or text that names a pass ("name:option=value,...") or a pipeline."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A pass at its place in a pipeline.

    Attributes:
        step: The pass as text.
        reason: Why it stands there.
    """

    step: str
    reason: str


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Passes in a given order.

    Attributes:
        summary: What it is for, in one line.
        stages: The passes, each with the reason for its place.
        rounds: How often all of them run at most, until none changes anything.
    """

    summary: str
    stages: tuple[Stage, ...]
    rounds: int = 1


PIPELINES: Mapping[str, Pipeline] = {
    "cleanup": Pipeline(
        "the standard pipeline: canonical spelling, constants folded, nothing left over",
        (
            Stage("name_nodes", "every later message points at nodes by name"),
            Stage("normalize", "every later pass reads one spelling of each quantizer"),
            Stage("fold_constants", "a factor or a shape must be known to be found useless"),
            Stage("infer_shapes", "what is an identity depends on shapes; reads constants"),
            Stage("fold_shapes", "a shape that is known is a constant of its readers"),
            Stage(
                "fold_weight_layout", "a weight that is turned is turned once, as it is stored"
            ),
            Stage("remove_identity", "before quantizers are compared with their neighbours"),
            Stage("remove_redundant_quant", "needs the quantizers side by side"),
            Stage("drop_unused", "what the passes before left unread"),
        ),
        rounds=4,
    ),
    "thresholds": Pipeline(
        "integer weights and counted thresholds, the form that FINN's own passes begin with",
        (
            Stage("lower_channels_last", "thresholds and biases are written channels first"),
            Stage("extract_bias", "a bias can be moved only where it is an operator"),
            Stage("gemm_to_matmul", "after it: what is left of a Gemm is a plain product"),
            Stage("fold_weight_layout", "only constants become integers, no Transpose of one"),
            Stage("fold_quantized_constants", "before activations: both are quantizers"),
            Stage("quant_to_multithreshold", "what is left to quantize are activations"),
            Stage("remove_identity", "scales of 1 and the like"),
            Stage("drop_unused", "parameters of the quantizers that are gone"),
        ),
    ),
}
"""Pipelines by name. A name is never that of a pass."""


@dataclass(frozen=True, slots=True)
class PassInfo:
    """What is known about a pass.

    Attributes:
        name: The name that text asks for it by.
        location: "module:class".
        summary: The first line of its documentation.
        change: Its documented "before -> after", as lines.
        options: Its options, each with type and default, in words.
        effect: What it promises about values.
    """

    name: str
    location: str
    summary: str
    change: tuple[str, ...]
    options: tuple[str, ...]
    effect: Effect


@dataclass(frozen=True, slots=True)
class StepRecord:
    """What one pass did.

    Attributes:
        name: Name of the pass.
        options: Its options in words, those that are not at their default.
        modified: Whether it changed the model.
        effect: What it promises about values.
        seconds: How long it took.
        operators: Operator -> how many nodes more (or fewer, below zero).
        added: Names of new nodes.
        removed: Names of nodes that are gone.
        constants: How many initializers more (or fewer, below zero).
    """

    name: str
    options: Mapping[str, str]
    modified: bool
    effect: Effect
    seconds: float
    operators: Mapping[str, int] = field(default_factory=dict)
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    constants: int = 0


_OF_THE_HUB: Mapping[str, str] = {
    "create_partitions": "qonnx_hub.transformation.create_partitions:CreatePartitions",
    "extend_partitions": "qonnx_hub.transformation.extend_partitions:ExtendPartitions",
    "infer_datatypes": "qonnx_hub.transformation.infer_datatypes:InferDatatypes",
}
"""Passes that need analyses or files of the hub: name -> "module:class"."""


def locations() -> dict[str, str]:
    """Return name -> "module:class" of every pass, in alphabetical order.

    Raises:
        AdapterConflictError: Two passes, or a pass and a pipeline, have one name.
    """
    exported = (getattr(own_passes, name) for name in own_passes.__all__)
    classes = [cls for cls in exported if _is_pass(cls)]
    own = {cls.__module__.rpartition(".")[2]: _location(cls) for cls in classes}
    own |= _OF_THE_HUB
    found = merged("passes", own, PASS_GROUP)
    for name in PIPELINES:
        if name in found:
            raise AdapterConflictError(
                f"the pass '{name}' ({found[name]}) has the name of a pipeline; uninstall its "
                "distribution"
            )
    return dict(sorted(found.items()))


def _is_pass(found: object) -> TypeGuard[type[InPlacePass]]:
    return inspect.isclass(found) and issubclass(found, InPlacePass)


def _location(cls: type) -> str:
    return f"{cls.__module__}:{cls.__name__}"


def names() -> list[str]:
    """Return the names of all passes."""
    return list(locations())


def get(name: str) -> type[InPlacePass]:
    """Return the class of the pass of that name.

    Raises:
        UsageError: There is none, or what is registered is no pass.
    """
    known = locations()
    if name not in known:
        hints = dict.fromkeys(PIPELINES, "that is a pipeline, which takes no options;")
        names = [*known, *PIPELINES]
        raise UsageError(not_among(f"no pass is called '{name}'", name, names, hints))
    module, _, attribute = known[name].partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"the pass '{name}' cannot be imported: {error}") from error
    if not _is_pass(found):
        raise UsageError(
            f"'{known[name]}', registered as the pass '{name}', is no onnx_ir InPlacePass"
        )
    return found


def make(text: str) -> InPlacePass:
    """Return the pass that a text asks for: "name" or "name:option=value,...".

    Values are words, numbers, ``true`` and ``false``, JSON, or ``@path`` of a .json or .npz
    file. An option that takes several values is repeated: ``inputs=a,inputs=b``; one that
    maps names to values takes ``names=old=new``.

    Raises:
        UsageError: An unknown pass or option, or a value of another type.
    """
    name, colon, rest = text.strip().partition(":")
    return build(get(name), name, rest if colon else "")


def describe(name: str) -> PassInfo:
    """Return what is known about the pass of that name."""
    cls = get(name)
    summary, change = _documentation(cls)
    # What a class of passes promises, with default options where options decide.
    decided = isinstance(getattr(cls, "effect", None), property)
    effect = effect_of(cls() if decided else cls)
    return PassInfo(name, _location(cls), summary, change, option_names(cls), effect)


def _documentation(cls: type) -> tuple[str, tuple[str, ...]]:
    """Return the summary and the "before -> after" of a class's documentation."""
    lines = (inspect.getdoc(cls) or "").splitlines()
    summary = lines[0] if lines else ""
    start = next((i for i, s in enumerate(lines) if s.startswith("Before -> after")), None)
    if start is None:
        return summary, ()
    found: list[str] = []
    for line in lines[start:]:
        if found and line and not line.startswith(" ") and found[-1] == "":
            break
        found.append(line)
    while found and not found[-1]:
        found.pop()
    return summary, tuple(found)


@dataclass(frozen=True, slots=True)
class Group:
    """What one step stands for.

    Attributes:
        passes: (name, pass), in order.
        rounds: How often all of them run at most.
    """

    passes: tuple[tuple[str, InPlacePass], ...]
    rounds: int = 1


def expand(steps: Iterable[Step]) -> list[Group]:
    """Return the passes that each step stands for.

    Raises:
        UsageError: An unknown pass, pipeline or option.
    """
    places = {location: name for name, location in locations().items()}
    groups = []
    for step in steps:
        if isinstance(step, str) and step.strip() in PIPELINES:
            pipeline = PIPELINES[step.strip()]
            passes, rounds = [make(stage.step) for stage in pipeline.stages], pipeline.rounds
        else:
            passes, rounds = [make(step) if isinstance(step, str) else step], 1
        # A pass that is not registered goes by the name of its class.
        named = ((places.get(_location(type(p)), type(p).__name__), p) for p in passes)
        groups.append(Group(tuple(named), rounds))
    return groups


def run(model: Model, steps: Sequence[Step], *, verify: bool = True) -> tuple[StepRecord, ...]:
    """Run passes over a model, in place, and return what each of them did.

    Args:
        model: An IR model.
        steps: Passes, or texts that name passes or pipelines.
        verify: Hold the model to the rules of the IR before the first pass and after each
            that changed it. Values without a shape get one then, where it can be inferred.

    Raises:
        UsageError: An unknown pass, pipeline or option.
        InvalidModelError: The model given breaks the rules of the IR.
        PassError: A pass cannot transform the model, fails, or breaks it.
    """
    groups = expand(steps)
    if verify:
        require_valid(model, "the model given")
    records: list[StepRecord] = []
    for group in groups:
        for _ in range(group.rounds):
            done = [_run_one(model, step, name, verify) for name, step in group.passes]
            records.extend(done)
            if not any(record.modified for record in done):
                break
    return tuple(records)


def _run_one(model: Model, step: InPlacePass, name: str, verify: bool) -> StepRecord:
    before, constants = _nodes(model), len(model.graph.initializers)
    start = time.perf_counter()
    result = _call(model, step, name)
    seconds = time.perf_counter() - start
    if result.modified:
        _settle(model, name, verify)
    after = _nodes(model)
    counts = Counter(after.values())
    counts.subtract(Counter(before.values()))
    return StepRecord(
        name=name,
        options=_changed_options(step),
        modified=result.modified,
        effect=effect_of(step),
        seconds=seconds,
        operators={op: n for op, n in sorted(counts.items()) if n},
        added=tuple(n for n in after if n not in before),
        removed=tuple(n for n in before if n not in after),
        constants=len(model.graph.initializers) - constants,
    )


def _call(model: Model, step: InPlacePass, name: str) -> PassResult:
    try:
        return step(model)
    except PreconditionError as error:
        raise PassError(
            f"pass '{name}' cannot run here: {error.__cause__ or error}"
        ) from error
    except PostconditionError as error:
        raise PassError(
            f"pass '{name}' broke its promise: {error.__cause__ or error}"
        ) from error
    except PassError as error:
        raise PassError(f"pass '{name}': {error}") from error
    except HubError:
        raise
    except Exception as error:  # a pass of another distribution may raise anything
        place = place_of(error)
        where = f" at {place}" if place else ""
        told = f"pass '{name}' failed{where}: {type(error).__name__}: {words_of(error)}"
        raise PassError(told) from error


def _settle(model: Model, name: str, verify: bool) -> None:
    """Hold the model to the rules of the IR, and give new values their shapes.

    Raises:
        PassError: The pass broke a rule, or made shapes that contradict each other.
    """
    try:
        if verify:
            require_valid(model, f"what the pass '{name}' made")
        if any(value.shape is None for node in model.graph for value in node.outputs):
            InferShapes()(model)
    except HubError as error:
        raise PassError(f"{error}\nThis is a defect of the pass '{name}'") from error


def _nodes(model: Model) -> dict[str, str]:
    """Return name -> operator of every node; nodes of one name count once each."""
    found: dict[str, str] = {}
    for node in model.graph.all_nodes():
        name = node.name or (str(node.outputs[0].name) if node.outputs else "")
        key, count = name, 1
        while key in found:
            count += 1
            key = f"{name} ({count})"
        found[key] = operator_words(node)
    return found


def operator_words(node: Node) -> str:
    """Return a node's operator, with the domain where that is neither ONNX's nor our own."""
    plain = node.domain in ("", dialect.DOMAIN)
    return node.op_type if plain else f"{node.domain.rpartition('.')[2]}::{node.op_type}"


_SHORT = (str, int, float, tuple)


def _changed_options(step: InPlacePass) -> dict[str, str]:
    if not dataclasses.is_dataclass(step):
        return {}
    changed = {}
    for option in dataclasses.fields(step):
        value = getattr(step, option.name)
        if isinstance(value, Mapping):
            # Of an array, the name is enough.
            words = [f"{k}={v}" if isinstance(v, _SHORT) else str(k) for k, v in value.items()]
            changed[option.name] = ", ".join(words)
        elif option.default is dataclasses.MISSING or value != option.default:
            changed[option.name] = str(value)
    return {name: words for name, words in changed.items() if words}
