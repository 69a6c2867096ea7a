"""The integers of quantized weights: as arrays, as .npz, as a C header."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx_ir import Model, Node

from qonnx_hub.io.arrays import write_arrays
from qonnx_hub.io.atomic import write_text
from qonnx_hub_ir import dialect
from qonnx_hub_ir.errors import UsageError
from qonnx_hub_ir.graph.queries import every_quantizer, known
from qonnx_hub_ir.quantizers import Array, IntQuant
from qonnx_hub_ir.semantics import quantize_to_integers

_C_TYPES = {1: "int8_t", 2: "int16_t", 4: "int32_t", 8: "int64_t"}

_PER_LINE = 16

_WORDS = (
    "alignas alignof and and_eq asm auto bitand bitor bool break case catch char class compl "
    "concept const const_cast consteval constexpr constinit continue co_await co_return "
    "co_yield decltype default delete do double dynamic_cast else enum explicit export extern "
    "false float for friend goto if inline int long main mutable namespace new noexcept not "
    "not_eq nullptr operator or or_eq private protected public register reinterpret_cast "
    "requires restrict return short signed sizeof static static_assert static_cast struct "
    "switch template this thread_local throw true try typedef typeid typename typeof "
    "typeof_unqual union unsigned using virtual void volatile wchar_t while xor xor_eq "
    "int8_t int16_t int32_t int64_t uint8_t uint16_t uint32_t uint64_t linux unix i386"
)
_RESERVED = frozenset(_WORDS.split())
"""Words of C and C++ that name nothing else, types of <stdint.h>, and macros of compilers."""

_MACRO = re.compile(r"(U?INT|PTRDIFF_|SIG_ATOMIC_|SIZE_|W(CHAR|INT)_)\w*(MIN|MAX|C|WIDTH)")
"""Macros of <stdint.h>."""


@dataclass(frozen=True, slots=True, eq=False)
class IntegerWeight:
    """A quantized weight: ``value = (integer - zero_point) * scale``.

    Attributes:
        name: Name of the stored weight, or of the quantized one where that is not unique.
        integers: The codes, in the narrowest integer type of numpy that holds the bit width.
        scale: float32, of one element or broadcasting to the integers.
        zero_point: float32, likewise.
        bits: Bit width; the largest where channels differ.
        signed: Whether the codes are signed; bipolar ones are -1 and +1.
    """

    name: str
    integers: Array
    scale: Array
    zero_point: Array
    bits: int
    signed: bool

    @property
    def zeros(self) -> int:
        """How many weights are zero."""
        return int(np.count_nonzero(self.integers == self.zero_point))


def integer_weights(model: Model) -> list[IntegerWeight]:
    """Return the codes of every weight that an integer quantizer reads.

    Weights that are not finite have none, nor do those with parameters that are computed at
    run time or with fractional or more than 63 bits: they are left out.
    """
    nodes = every_quantizer(model)
    stored = Counter(str(n.inputs[0].name) for n in nodes if n.inputs[0] is not None)
    found = []
    for node in nodes:
        source, quant, codes = node.inputs[0], known(node), stored_codes(node)
        if source is None or quant is None or codes is None:
            continue
        name = str(source.name)
        if stored[name] > 1:
            name = str(node.outputs[0].name)
        bits, signed = 1, True
        zero = np.zeros((), dtype=np.float32)
        if isinstance(quant, IntQuant):
            bits, signed = int(np.max(np.asarray(quant.bits))), quant.signed
            zero = np.asarray(quant.zero_point, dtype=np.float32)
        width = next((width for width in (8, 16, 32) if bits <= width), 0)
        if width:
            codes = codes.astype(np.dtype(f"{'int' if signed else 'uint'}{width}"))
        scale = np.asarray(quant.scale, dtype=np.float32)
        found.append(IntegerWeight(name, codes, scale, zero, bits, signed))
    return found


def stored_codes(node: Node) -> Array | None:
    """Return the codes of the stored weight that a quantizer reads.

    ``None`` where it reads no constant, or one that has no codes: see :func:`integer_weights`.
    """
    values, quant = dialect.constant_value(node.inputs[0]), known(node)
    if values is None or quant is None:
        return None
    try:
        return quantize_to_integers(np.asarray(values), quant)
    except ValueError:
        # Not finite, or too many bits.
        return None


def write_integers(weights: Sequence[IntegerWeight], path: str | Path) -> None:
    """Write integers with scales, zero points and bit widths.

    Args:
        weights: The weights.
        path: An .npz file, with arrays NAME.integers, NAME.scale, NAME.zero_point, NAME.bits;
            or a C header (.h).

    Raises:
        UsageError: Another kind of file, one that cannot be written, or nothing to write.
    """
    target = Path(path)
    kind = target.suffix.lower()
    if kind not in {".npz", ".h"}:
        raise UsageError(f"'{target}': integers are written to a file named .npz or .h")
    if not weights:
        raise UsageError(f"'{target}' is not written: the model has no integer weights")
    if kind == ".h":
        write_text(target, _header(weights, target.stem))
        return
    arrays: dict[str, Array] = {}
    for weight in weights:
        for field in ("integers", "scale", "zero_point"):
            arrays[f"{weight.name}.{field}"] = getattr(weight, field)
        arrays[f"{weight.name}.bits"] = np.array(weight.bits, dtype=np.int64)
    write_arrays(target, arrays)


def _header(weights: Sequence[IntegerWeight], stem: str) -> str:
    import jinja2

    guard = f"{_identifier(stem).upper()}_H"
    found = []
    taken = {*_RESERVED, guard}
    for weight in weights:
        text = _identifier(weight.name)
        numbered = (f"{text}_{count}" for count in itertools.count(2))
        name = next(
            n for n in itertools.chain((text,), numbered) if taken.isdisjoint(_defined(n))
        )
        taken.update(_defined(name))
        found.append({"name": name, "weight": weight, "arrays": [*_arrays(weight, name)]})
    # Identifiers are made above, titles in the template: neither can end a comment or a line.
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("qonnx_hub.analysis"),
        autoescape=False,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["title"] = _title
    return environment.get_template("weights.h").render(guard=guard, weights=found)


def _title(name: str) -> str:
    """Return a weight's name as a comment can hold it."""
    return re.sub(r"[^\w .:/\[\]-]", "_", name, flags=re.ASCII)


def _arrays(weight: IntegerWeight, name: str) -> Iterator[tuple[str, str, str, list[str]]]:
    """Give type, name, shape and lines of numbers of everything that is known of a weight."""
    integers = weight.integers
    prefix = "" if integers.dtype.kind == "i" else "u"
    # The literal 9223372036854775808 does not exist before its minus sign is applied.
    numbers = ["INT64_MIN" if n == -(2**63) else str(n) for n in integers.reshape(-1).tolist()]
    kind = f"{prefix}{_C_TYPES[integers.dtype.itemsize]}"
    yield kind, f"{name}[{len(numbers)}]", "", _lines(numbers)
    for field, values in (("scale", weight.scale), ("zero_point", weight.zero_point)):
        # Nine digits give back the same float32.
        texts = [f"{float(v):.9g}" for v in values.reshape(-1)]
        numbers = [f"{n}f" if any(c in n for c in ".en") else f"{n}.0f" for n in texts]
        shape = " x ".join(map(str, values.shape)) if values.size > 1 else ""
        yield "float", f"{name}_{field}[{len(numbers)}]", shape, _lines(numbers)


def _lines(numbers: Sequence[str]) -> list[str]:
    return [", ".join(numbers[k : k + _PER_LINE]) for k in range(0, len(numbers), _PER_LINE)]


def _defined(name: str) -> tuple[str, ...]:
    """Return every name that the header defines for a weight."""
    return (name, *(f"{name}_{rest}" for rest in ("BITS", "SIZE", "scale", "zero_point")))


def _identifier(name: str) -> str:
    text = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_") or "weight"
    is_taken = text[0].isdigit() or text in _RESERVED or _MACRO.fullmatch(text)
    return f"w_{text}" if is_taken else text
