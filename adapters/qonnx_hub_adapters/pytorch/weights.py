"""Files of weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qonnx_hub_adapters.pytorch.framework import first_line
from qonnx_hub_ir.errors import SourceError


def load_weights(module: Any, path: str, torch: Any) -> None:
    """Put the weights of a file into a module.

    Args:
        module: Our own copy.
        path: A file with a state dict, bare or under "state_dict" or "model_state_dict".
        torch: The framework.

    Raises:
        SourceError: The file cannot be read, or does not fit the module.
    """
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise SourceError(f"'{path}' cannot be read: {error}") from error
    except Exception as error:  # the unpickler raises whatever the bytes lead it into
        raise SourceError(
            f"'{path}' is no file of plain tensors, or it is cut off: {first_line(error)}"
        ) from error
    for key in ("state_dict", "model_state_dict"):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not found:
        raise SourceError(f"'{path}' holds a {type(found).__name__}, no state dict")
    state = {str(name): value for name, value in found.items()}
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): value for name, value in state.items()}
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(line.strip() for line in str(error).splitlines()[1:])
        raise SourceError(f"'{path}' does not fit the model: {reason}") from error
