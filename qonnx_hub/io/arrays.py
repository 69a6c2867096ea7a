"""Arrays by name, in files."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qonnx_hub.io.atomic import replacing
from qonnx_hub_ir.errors import UsageError


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of an .npz file by name, or that of an .npy file by the file's.

    Raises:
        UsageError: The file is missing, is neither, or holds nothing.
    """
    if not path.exists():
        raise UsageError(f"'{path}' does not exist")
    try:
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return {path.stem: found}
        with found as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        # What numpy takes for pickled data is told as such, with advice to trust it.
        why = "" if isinstance(error, ValueError) else f": {error}"
        raise UsageError(
            f"'{path}' is not an .npz or .npy file of plain arrays{why}"
        ) from error
    if not arrays:
        raise UsageError(f"'{path}' holds no arrays")
    return arrays


def write_arrays(path: str | Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays by name as an .npz file, whole or not at all.

    Any name will do: ``numpy.savez`` takes some, such as "file", for its own parameters.

    Raises:
        UsageError: The path cannot be written to.
    """
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, np.asanyarray(array), allow_pickle=False)
