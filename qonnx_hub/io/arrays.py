"""Arrays by name, in files."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Mapping, Sequence
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


def read_feeds(given: Any, names: Sequence[str]) -> dict[str, Any]:
    """Return inputs by name, however they are given.

    Args:
        given: Input name -> array; an array alone, for a model with one input; or the path of
            an .npz or .npy file.
        names: The model's inputs, where they are known.

    Raises:
        UsageError: A single array for several inputs, or a file that holds no arrays.
    """
    if isinstance(given, (str, os.PathLike)):
        given = read_arrays(Path(given))
    if isinstance(given, Mapping):
        return fit_names(dict(given), names)
    if len(names) > 1:
        raise UsageError(
            f"one array is given for {len(names)} inputs; give each by its name: "
            f"{', '.join(names)}"
        )
    return {names[0] if names else "data": np.asanyarray(given)}


def fit_names(arrays: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Return the arrays under the model's input names.

    Names that fit are taken as they are, and arrays without an input of their name are left
    out; a single array fits a single input whatever its name.
    """
    if all(name in arrays for name in names):
        return {name: arrays[name] for name in names}
    if len(names) == 1 and len(arrays) == 1:
        return {names[0]: next(iter(arrays.values()))}
    return arrays


def npy_bytes(array: NDArray[Any]) -> bytes:
    """Return what an .npy file of an array holds; arrays of objects are refused."""
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(array, order="C"), allow_pickle=False)
    return file.getvalue()


def npz_bytes(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Return what an .npz file of arrays holds, under any names."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, array in arrays.items():
            archive.writestr(f"{name}.npy", npy_bytes(array))
    return stream.getvalue()


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
