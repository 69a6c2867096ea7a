"""How long a proof may take."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

DEFAULT_SECONDS = 5.0
"""What a proof may take where its caller does not say."""


class Deadline:
    """A moment after which nothing new is begun.

    What is at work then ends first: one step of a bisection over a million points at most.

    Attributes:
        seconds: How long after its making the moment is.
    """

    def __init__(
        self, seconds: float = math.inf, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Start the clock.

        Args:
            seconds: Infinity for none; nothing is begun with 0.
            clock: What tells the time, in seconds.
        """
        self.seconds = seconds
        self._clock = clock
        self._end = clock() + seconds

    def passed(self) -> bool:
        """Return whether the moment has come."""
        return self._clock() >= self._end
