"""Files of weights: what ``torch.save`` wrote, read without running code out of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qonnx_hub_adapters.dependencies import first_line, quiet
from qonnx_hub_adapters.torch_common.modules import private_copy
from qonnx_hub_ir.errors import SourceError

_STATE_KEYS = ("state_dict", "model_state_dict", "model")
"""Where checkpoints keep the state of the model among other things."""


def read_state(path: str, torch: Any) -> dict[str, Any]:
    """Return the state dict of a file, bare or among other things.

    Raises:
        SourceError: The file is missing, cut off, or holds something else.
    """
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise SourceError(f"'{path}' cannot be read: {error.strerror or error}") from error
    except Exception as error:  # the unpickler raises whatever the bytes lead it into
        raise SourceError(
            f"'{path}' is no file of tensors alone, or it is cut off ({first_line(error)}); "
            "write one with torch.save(model.state_dict(), path)"
        ) from error
    for key in _STATE_KEYS:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not found:
        raise SourceError(f"'{path}' holds a {type(found).__name__}, no state dict")
    return without_wrapper({str(name): value for name, value in found.items()})


def without_wrapper(state: dict[str, Any]) -> dict[str, Any]:
    """Return a state dict without the prefix that DataParallel gives to all names."""
    if not all(name.startswith("module.") for name in state):
        return state
    return {name.removeprefix("module."): value for name, value in state.items()}


def with_weights(module: Any, path: str, torch: Any) -> Any:
    """Return a copy of the module with the weights of a file.

    Raises:
        SourceError: The file cannot be read, or does not fit the module.
    """
    state, own = read_state(path, torch), private_copy(module)
    try:
        with quiet():
            own.load_state_dict(state)
    except (RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise SourceError(f"'{path}' does not fit the module: {reason}") from error
    return own
