"""What every verb has: options of its own, errors in its JSON, and how much it says."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from qonnx_hub.cli.errors import recorded
from qonnx_hub.cli.loudness import Quiet, Verbose, choose, speaking


def verb(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command as the command line offers it, with the options that all have."""
    inner = recorded(command)

    @functools.wraps(command)
    def run(*, verbose: bool, quiet: bool, **options: Any) -> None:
        with speaking(choose(verbose=verbose, quiet=quiet)):
            inner(**options)

    # Read once, here and by the library of the command line.
    own = inspect.signature(command, eval_str=True)
    kind = inspect.Parameter.KEYWORD_ONLY
    more = [
        inspect.Parameter("verbose", kind, default=False, annotation=Verbose),
        inspect.Parameter("quiet", kind, default=False, annotation=Quiet),
    ]
    signature = own.replace(parameters=[*own.parameters.values(), *more])
    run.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
    vars(run)["__signature__"] = signature
    del vars(run)["__wrapped__"]
    return run
