"""What one row of the table of operators says, and how a trait is asked for a node."""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from onnx_ir import Node

from qonnx_hub_ir import dialect
from qonnx_hub_ir.quantizers import Array


class Family(enum.Enum):
    """Kinds of operators; a family says nothing that a trait does not say more exactly."""

    ARITHMETIC = "arithmetic"
    FUNCTION = "function of one value"
    COMPARISON = "comparison"
    LOGIC = "logic"
    PRODUCT = "product"
    MOVEMENT = "movement"
    POOLING = "pooling"
    REDUCTION = "reduction"
    NORMALIZATION = "normalization"
    SOFTMAX = "softmax"
    QUANTIZER = "quantizer"
    RECURRENT = "recurrent"
    CONTROL = "control flow"
    RANDOM = "random"
    GENERATOR = "generator"
    SEQUENCE = "sequence"
    OTHER = "other"
    UNKNOWN = "unknown"


class Moves(enum.Flag):
    """What an operator does to elements that it copies and never computes.

    ``NOTHING`` keeps all elements in memory order, perhaps under another shape.

    Attributes:
        PERMUTES: The order of elements in memory may change.
        SELECTS: Elements may be left out.
        REPEATS: An element may appear several times.
        INSERTS: Elements may appear that are none of the data inputs'.
    """

    NOTHING = 0
    PERMUTES = enum.auto()
    SELECTS = enum.auto()
    REPEATS = enum.auto()
    INSERTS = enum.auto()


class Buffer(enum.Enum):
    """Whether the array that a kernel returns shares memory with an input."""

    FRESH = "never"
    MAY_VIEW = "perhaps"
    UNKNOWN = "unknown"


class Batch(enum.Enum):
    """When samples that lie apart along the first axis of the data stay apart.

    Attributes:
        BROADCAST: Always, in all inputs that have the rank of the output.
        FIRST_INPUT: Always, if only the first input holds samples.
        OTHER_AXIS: As FIRST_INPUT, unless it works along the first axis (``axis``).
        OTHER_AXES: As FIRST_INPUT, unless the first axis is one of its axes.
        UNKNOWN: By a rule of its own, or never.
    """

    BROADCAST = "broadcast"
    FIRST_INPUT = "first input"
    OTHER_AXIS = "other axis"
    OTHER_AXES = "other axes"
    UNKNOWN = "unknown"


class Arithmetic(enum.Enum):
    """The four binary operations that are affine in a value, given a constant."""

    ADDS = "offset"
    MULTIPLIES = "factor"

    @property
    def neutral(self) -> int:
        """The constant operand that changes nothing."""
        return int(self is Arithmetic.MULTIPLIES)


class Pool(enum.Enum):
    """What becomes of the elements under a window."""

    MAX = "largest"
    AVERAGE = "mean"
    NORM = "norm"


RISING, FALLING, UNORDERED = 1, -1, 0

Trait = bool | Callable[[Node], bool]
"""Whether something holds; a function where attributes, opset or constants decide."""

Directions = tuple[int, ...] | Callable[[Node], tuple[int, ...]]
"""Per input: RISING, FALLING or UNORDERED. A single number holds for all inputs."""


@dataclass(frozen=True, slots=True)
class Product:
    """Sums of products of data and weights.

    Attributes:
        weight: Input position of the weights (of the right factor).
        bias: Input position of what is added to the sums; ``None`` if there is none.
        scales: Input positions of scales: of data, of weights, of the result.
        zero_points: Input positions of zero points, in the same order.
        is_integer: The factors are stored integers.
        slides: A window slides over the data (convolutions).
    """

    weight: int = 1
    bias: int | None = None
    scales: tuple[int, ...] = ()
    zero_points: tuple[int, ...] = ()
    is_integer: bool = False
    slides: bool = False


@dataclass(frozen=True, slots=True)
class Inputs:
    """The inputs of an operator in order, in its newest version.

    Attributes:
        roles: Their names, for messages and names of initializers.
        data: Positions of values that flow through the model.
        settings: Positions of shapes, axes, indices and the like, which no value flows from.
            What is neither is a parameter: weights, scales, limits.
        is_variadic: The last one may appear any number of times.
    """

    roles: tuple[str, ...] = ()
    data: tuple[int, ...] = ()
    settings: tuple[int, ...] = ()
    is_variadic: bool = False


@functools.cache
def read_inputs(text: str) -> Inputs:
    """Return inputs written as ``"x +scale -axes"``: data, parameter, setting.

    Args:
        text: Names in order; ``*`` behind the last one if it is variadic.
    """
    words = text.rstrip("*").split()
    return Inputs(
        tuple(word.lstrip("+-") for word in words),
        tuple(i for i, word in enumerate(words) if word[0] not in "+-"),
        tuple(i for i, word in enumerate(words) if word[0] == "-"),
        text.endswith("*"),
    )


@dataclass(frozen=True, slots=True)
class Operator:
    """One row: what is known of an operator. What is not said is not known.

    Attributes:
        domain: Its domain; empty for the standard one.
        name: Its name.
        family: Its kind.
        inputs: Its inputs.
        elementwise: Each element of the output depends on those elements of the inputs that
            broadcasting puts at its position, and on nothing else.
        moves: What it does to elements that it copies; ``None`` if it computes.
        inserted: Input position of the constant that it inserts, if it has one; zero without.
        is_identity: It hands its first input on as it is.
        selects_by_order: Each element of the first output is one of the data inputs', chosen
            by comparing values: it commutes with every non-decreasing function of them.
        keeps_step: It computes, and whole multiples of a step stay whole multiples of it.
        clamps: It bounds values from below, above or both.
        monotone: Per input, whether the outputs rise or fall with it; what moves values
            rises with them and says nothing here.
        order_is_exact: The order holds under rounding of floating point numbers, too.
        commutative: Its two operands may change places.
        associative: Its operands may be combined in any order, bit by bit the same.
        arithmetic: Which of the four binary operations it is.
        in_numpy: numpy's function of the same inputs, exact on floats (of Max and Min: on
            two); ``None`` where there is none, or attributes decide.
        idempotent: It has one input, no attributes, and done twice it does nothing more.
        is_whole: Its results are whole numbers.
        piecewise_constant: Its results change at isolated inputs only.
        is_comparison: Its results tell the order of two operands.
        bounds: What every result lies within.
        slope: How much further apart than its inputs its results can be, at most; ``None``
            where that is not known or depends on the node.
        formula_size: Magnitude of what its formulas round besides its result: 1 of
            ``1 / (1 + exp(-x))``, which others write ``1 - 1 / (1 + exp(x))``.
        product: How it sums products; ``None`` if it is no product.
        pool: What it takes of a window.
        is_global: The window of a pool is all of an image.
        sums: It adds up elements with equal weights, as a sum or a mean.
        axis: Default of the attribute ``axis``, from an opset on.
        axes_input: Position of the input with the axes, and the opset that brought it.
        channel_axis: Axis of the channels that it counts on: 1, -1 or none.
        is_per_channel: Its parameters are vectors along the channel axis.
        is_windowed: It slides windows over the axes behind the channels.
        batch: When it keeps samples apart.
        buffer: Whether our kernel returns a view of an input.
        random: Two runs give different results.
        subgraphs: It holds graphs.
        quantizes: It rounds values to a grid of integers or of small floats.
        is_uniform: The steps of that grid are equal, and are its input 1.
        tells_zeros_apart: Its results differ for 0.0 and -0.0 by more than the sign of a zero.
        without_effect: Attributes that do not change results of inference.
        changed: Opsets that changed what it computes; ``None`` if that is not known.
        time_first: The first axis of its first input is time, not samples.
        no_tensors: It makes or reads sequences or optionals.
        shape_only: Its results depend on the shape of its input only.
        needs_type: ONNX's shape inference ends the process where its input has no type.
        resizes: It changes the sizes of an image, with or without interpolation.
        all_outputs: What the row says of results holds for all of its outputs; without it,
            for the first one.
    """

    domain: str
    name: str
    family: Family = Family.UNKNOWN
    inputs: Inputs = Inputs()
    elementwise: Trait = False
    moves: Moves | Callable[[Node], Moves | None] | None = None
    inserted: int | None = None
    is_identity: Trait = False
    selects_by_order: bool = False
    keeps_step: bool = False
    clamps: bool = False
    monotone: Directions = (UNORDERED,)
    order_is_exact: bool = False
    commutative: Trait = False
    associative: bool = False
    arithmetic: Arithmetic | None = None
    in_numpy: Callable[..., Any] | None = None
    idempotent: bool = False
    is_whole: bool = False
    piecewise_constant: Trait = False
    is_comparison: bool = False
    bounds: tuple[float, float] | None = None
    slope: float | None = None
    formula_size: Callable[[Node], float] = lambda node: 0.0
    product: Product | None = None
    pool: Pool | None = None
    is_global: bool = False
    sums: bool = False
    axis: tuple[tuple[int, int], ...] = ()
    axes_input: tuple[int, int] | None = None
    channel_axis: int | None = None
    is_per_channel: bool = False
    is_windowed: bool = False
    batch: Batch | Callable[[Node], Batch] = Batch.UNKNOWN
    buffer: Buffer = Buffer.UNKNOWN
    random: Trait = False
    subgraphs: bool = False
    quantizes: bool = False
    is_uniform: bool = False
    tells_zeros_apart: Trait = False
    without_effect: frozenset[str] = frozenset()
    changed: tuple[int, ...] | None = ()
    time_first: bool = False
    no_tensors: bool = False
    shape_only: bool = False
    needs_type: bool = False
    resizes: bool = False
    all_outputs: bool = False


UNKNOWN = Operator("?", "?", random=True, tells_zeros_apart=True, changed=None)
"""The row of what has none: nothing good is known of it."""


def row(domain: str, family: Family, name: str, inputs: str = "", **traits: Any) -> Operator:
    """Return a row; ``inputs`` as :func:`read_inputs` takes them."""
    return Operator(domain, name, family, read_inputs(inputs), **traits)


def rows(
    domain: str, family: Family, names: str, inputs: str = "", **traits: Any
) -> list[Operator]:
    """Return a row for each name; the rows are alike."""
    return [row(domain, family, name, inputs, **traits) for name in names.split()]


def version_of(node: Node) -> int | None:
    """Return the opset version in which the node is written; ``None`` if it is not known."""
    if node.version is not None:
        return node.version
    # A graph inside a node imports nothing itself: there the version is not known.
    return None if node.graph is None else node.graph.opset_imports.get(node.domain)


def attribute(node: Node, name: str, default: Any) -> Any:
    """Return the value of an attribute, or the default if it is not written."""
    attr = node.attributes.get(name)
    return default if attr is None else attr.value


def constant(node: Node, index: int) -> Array | None:
    """Return the constant at an input; ``None`` if it is left out or computed."""
    return dialect.constant_value(node.inputs[index]) if index < len(node.inputs) else None


def is_given(node: Node, index: int) -> bool:
    """Return whether an input is connected."""
    return index < len(node.inputs) and node.inputs[index] is not None


def holds_floats(node: Node, positions: Sequence[int] | None = None) -> bool:
    """Return whether inputs are known to hold floating point numbers, which do not wrap."""
    kept = range(len(node.inputs)) if positions is None else positions
    values = [node.inputs[i] for i in kept if is_given(node, i)]
    return bool(values) and all(
        value is not None and value.dtype is not None and value.dtype.is_floating_point()
        for value in values
    )


def is_inference(node: Node) -> bool:
    """Return whether a node with a training mode is certain not to train."""
    if attribute(node, "training_mode", 0):
        return False
    if node.op_type != "Dropout":
        return True
    version = version_of(node)
    if version is not None and version < 7:
        return bool(attribute(node, "is_test", 0))
    if not is_given(node, 2):
        return True
    known = constant(node, 2)
    return known is not None and not known.any()
