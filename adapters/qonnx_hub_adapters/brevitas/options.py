"""The adapter's own options."""

from __future__ import annotations

from dataclasses import dataclass

from qonnx_hub_adapters.adapter_options import read_own_options
from qonnx_hub_adapters.protocol import ImportOptions
from qonnx_hub_ir.errors import UsageError


@dataclass(frozen=True, slots=True)
class Settings:
    """How to read a Brevitas model.

    Attributes:
        dynamo: Trace with torch.export instead of TorchScript.
    """

    dynamo: bool = False


def read_settings(options: ImportOptions) -> Settings:
    """Return the adapter's options out of those of the call.

    Raises:
        UsageError: An option that does not exist, or a value that is none of its own.
    """
    settings = read_own_options(Settings, "brevitas", options)
    if not isinstance(settings.dynamo, bool):
        raise UsageError(f"option 'dynamo' is true or false, not {settings.dynamo!r}")
    return settings
