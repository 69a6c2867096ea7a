"""What a pass promises about the values of a model: its effect.

A pass says it as a class attribute ``effect``, or as a property where it depends on options;
one that says nothing promises :attr:`Effect.EXACT`.
"""

from __future__ import annotations

from enum import Enum


class Effect(str, Enum):
    """What becomes of a model's outputs.

    Attributes:
        EXACT: Every output keeps its values (-0.0 is 0.0).
        ROUNDING: The same function of real numbers; float arithmetic rounds elsewhere.
        SIGNATURE: The values stay; names, shapes or layouts of inputs or outputs change.
        VALUES: The pass is asked to change the values.
    """

    EXACT = "exact"
    ROUNDING = "rounding"
    SIGNATURE = "signature"
    VALUES = "values"

    def __str__(self) -> str:
        """Return the word."""
        return self.value


def effect_of(step: object) -> Effect:
    """Return what a pass, or a class of passes, promises."""
    effect = getattr(step, "effect", Effect.EXACT)
    return effect if isinstance(effect, Effect) else Effect.EXACT
