"""Bit widths that users give beside a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qonnx_hub_adapters.dependencies import require
from qonnx_hub_ir.errors import SourceError, UsageError

BitConfig = Mapping[str, Mapping[str, Any]]
_NAMES = frozenset({"activation_bit", "weight_bit", "bias_bit", "quant_mode"})


def read_bits(given: Mapping[str, Any] | str | None, acts: frozenset[str]) -> BitConfig:
    """Return settings of layers by name: layer -> attribute -> value.

    Args:
        given: A HAWQ bit_config (layer -> bits, or (bits, "hook")), settings by layer, or the
            path of a yaml file that has them, alone or in a section ``model``.
        acts: Names of the layers that are QuantActs.

    Raises:
        UsageError: An entry that is no bit width.
        SourceError: A file that cannot be read.
    """
    if given is None:
        return {}
    entries = _read_yaml(given) if isinstance(given, (str, Path)) else given
    return {str(name): _entry(str(name), value, acts) for name, value in entries.items()}


def _entry(name: str, value: Any, acts: frozenset[str]) -> dict[str, Any]:
    if isinstance(value, Mapping):
        unknown = sorted(set(value) - _NAMES)
        if unknown:
            raise UsageError(
                f"bits of layer '{name}': unknown {', '.join(unknown)}; "
                f"known are {', '.join(sorted(_NAMES))}"
            )
        return dict(value)
    bits = value[0] if isinstance(value, (tuple, list)) and value else value
    if not isinstance(bits, int) or isinstance(bits, bool):
        raise UsageError(f"bits of layer '{name}': {value!r} is no bit width")
    if name not in acts:
        return {"weight_bit": bits}
    # HAWQ's training script makes activations of four bits asymmetric, and only those.
    return {"activation_bit": bits, **({"quant_mode": "asymmetric"} if bits == 4 else {})}


def _read_yaml(path: str | Path) -> Mapping[str, Any]:
    yaml = require("yaml", needed_by="a bit configuration in yaml", extra="hawq")
    try:
        with Path(path).open(encoding="utf-8") as stream:
            found = yaml.safe_load(stream)
    except OSError as error:
        raise SourceError(f"'{path}' cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise SourceError(f"'{path}' is no yaml file: {error}") from error
    if not isinstance(found, Mapping):
        raise SourceError(f"'{path}' holds no settings by layer")
    section = found.get("model", found)
    if not isinstance(section, Mapping):
        raise SourceError(f"'{path}': its section 'model' holds no settings by layer")
    return section
