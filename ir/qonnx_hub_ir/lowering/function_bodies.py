"""The quantizers in standard operators, as bodies of model-local ONNX functions.

The steps are those of :mod:`qonnx_hub_ir.lowering.quantizer_steps`; here they become lines
of ONNX's textual syntax, with all parameters and attributes read at run time. Zero points of 0
are added too, and -0.0 + 0.0 is +0.0. A body holds no more than the nodes of a file need
(:class:`~qonnx_hub_ir.lowering.quantizer_steps.Variant`), for every line is run for every
element.

Only what both onnxruntime and onnx.reference run alike is used: no overloads (the reference
knows one function per name), no optional inputs, no strings of different lengths side by side.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from qonnx_hub_ir import dialect
from qonnx_hub_ir.lowering.quantizer_steps import (
    StepWriter,
    Variant,
    write_rounding,
    write_steps,
)
from qonnx_hub_ir.quantizers import Rounding

OPSET = 19
"""Lowest standard opset whose operators the bodies use: the first to compare strings."""

PORTABLE_ROUNDINGS = tuple(mode for mode in Rounding if dialect.is_known_to_qonnx(mode))
"""The rounding modes that a function can have."""


def text_of(variant: Variant) -> str:
    """Return the function in ONNX's textual syntax."""
    count = len(dialect.PARAMETERS[variant.op_type])
    count -= variant.op_type == "Trunc" and variant.version == 1
    quant = dialect.make_quantizer(variant.op_type, {}, [None] * count, "")
    inputs = ("x", *dialect.parameter_fields(quant))
    writer = _LineWriter(variant)
    write_steps(writer, variant)
    body = "\n".join(writer.lines)
    if variant.narrow_floats:
        body = f"t_x = Cast <to = 1> (x)\n{body}\ny = CastLike (t_y, x)"
    else:
        body = body.replace("t_x", "x").replace("t_y", "y")
    attributes = dialect.attributes_of(quant)
    return function_text(dialect.DOMAIN, variant.op_type, attributes, inputs, body)


def function_text(
    domain: str, op_type: str, attributes: Iterable[str], inputs: Iterable[str], body: str
) -> str:
    """Return a function with one output ``y`` in ONNX's textual syntax."""
    declared = ", ".join(attributes)
    return (
        f'<domain: "{domain}", opset_import: ["": {OPSET}]>\n'
        f"{op_type} {f'<{declared}> ' if declared else ''}({', '.join(inputs)}) => (y)\n"
        f"{{\n{body}\n}}"
    )


_LIMITS = {"largest": "3.4028235e38", "tiny": "1.17549435e-38"}

_FLAGS = """
signed_i = Constant <value_int: int = @signed> ()
narrow_i = Constant <value_int: int = @narrow> ()
is_signed = CastLike (signed_i, t_x)
is_narrow = CastLike (narrow_i, t_x)
"""

_SPECIAL = """
saturates_i = Constant <value_int: int = @saturation> ()
saturates = Cast <to = 9> (saturates_i)
inf_i = Constant <value_int: int = @has_inf> ()
inf_b = Cast <to = 9> (inf_i)
inf_f = Constant <value = float {inf}> ()
nan_f = Constant <value = float {nan}> ()
special_f = Where (inf_b, inf_f, nan_f)
special = CastLike (special_f, t_x)
"""


class _LineWriter(StepWriter[str]):
    """Writes the steps of a quantizer as lines; values are names."""

    def __init__(self, variant: Variant) -> None:
        self.lines: list[str] = []
        self.x = "t_x"
        self._roundings = variant.roundings
        self._constants: set[str] = set()
        if variant.op_type != "BipolarQuant":
            common = {"zero": 0.0, "one": 1.0, "two": 2.0}
            self.lines += [f"{n}_f = {_constant(v)}" for n, v in common.items()]
            self.lines += [f"{name} = CastLike ({name}_f, t_x)" for name in common]
            self._constants.update(common)

    def parameter(self, field: str, name: str, *, double: bool = False) -> str:
        """Read an input in the computing type, or in double precision."""
        if double:
            return self._line(name, f"Cast <to = 11> ({field})")
        return self.cast(name, field)

    def flags(self) -> tuple[str, str]:
        """Read the attributes ``signed`` and ``narrow``."""
        self.lines.append(_FLAGS)
        return "is_signed", "is_narrow"

    def number(self, name: str, value: float, label: str = "") -> str:
        """Write a constant once, in the computing type."""
        return self._number(name, _constant(value))

    def type_limit(self, name: str) -> str:
        """Write a limit of float32, the only type that a function for minifloats takes."""
        return self._number(name, f"Constant <value = float {{{_LIMITS[name]}}}> ()")

    def double(self, name: str, value: float) -> str:
        """Write a constant once, in double precision."""
        if name not in self._constants:
            self._constants.add(name)
            self._line(name, f"Constant <value = double {{{float(value)!r}}}> ()")
        return name

    def _number(self, name: str, constant: str) -> str:
        if name not in self._constants:
            self._constants.add(name)
            self.cast(name, self._line(f"{name}_f", constant))
        return name

    def _line(self, name: str, expression: str) -> str:
        self.lines.append(f"{name} = {expression}")
        return name

    def cast(self, name: str, value: str, label: str = "") -> str:
        """Write a value in the computing type."""
        return self.add(name, "CastLike", value, "t_x")

    def add(self, name: str, op_type: str, *operands: str) -> str:
        """Write one operator."""
        return self._line(name, f"{op_type} ({', '.join(operands)})")

    def exponent_of_ratio(self, above: str, below: str) -> str:
        """Write the rounded binary logarithm of a ratio."""
        ratio = self.add("ratio", "Div", above, below)
        ln2 = self.cast("ln2", self.double("ln2_d", math.log(2)))
        log2 = self.add("log2", "Div", self.add("log", "Log", ratio), ln2)
        return self.add("dropped", "Round", log2)

    def special(self) -> str:
        """Choose infinity or NaN by the attribute ``has_inf``."""
        self.lines.append(_SPECIAL)
        return "special"

    def unless_saturating(self, name: str, clipped: str, overflowed: str) -> str:
        """Choose by the attribute ``saturation``."""
        return self.add(name, "Where", "saturates", clipped, overflowed)

    def rounded(self, t: str, name: str) -> str:
        """Round by every mode in use, and choose the one that the node names."""
        modes = self._roundings
        if len(modes) == 1:
            return write_rounding(self, modes[0], t, name)
        rounded = [write_rounding(self, mode, t, f"by_{mode}") for mode in modes]
        names = ", ".join(f'"{mode}"' for mode in modes)
        # Strings of one array have one length, which the reference asks of what it compares.
        self.lines += [
            "mode_name = Constant <value_string: string = @rounding_mode> ()",
            "from_0 = Constant <value_ints = [0]> ()",
            "from_1 = Constant <value_ints = [1]> ()",
            f"from_end = Constant <value_ints = [{len(modes) + 1}]> ()",
            "mode_row = Reshape (mode_name, from_1)",
            f"known_names = Constant <value_strings = [{names}]> ()",
            "all_names = Concat <axis = 0> (mode_row, known_names)",
            "own_name = Slice (all_names, from_0, from_1)",
            "mode_names = Slice (all_names, from_1, from_end)",
            "is_mode = Equal (own_name, mode_names)",
        ]
        chosen = rounded[0]
        for index, mode in enumerate(modes[1:], start=1):
            target = name if index == len(modes) - 1 else f"chosen_{index}"
            self._line(f"index_{index}", f"Constant <value_int = {index}> ()")
            picked = self.add(f"is_{mode}", "Gather", "is_mode", f"index_{index}")
            chosen = self.add(target, "Where", picked, rounded[index], chosen)
        return chosen


def _constant(value: float) -> str:
    return f"Constant <value_float = {float(value)!r}> ()"
