"""Arrays by name, in files."""

from __future__ import annotations

import io
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qonnx_hub.io.atomic import replacing
from qonnx_hub_ir.errors import SourceError, UsageError
from qonnx_hub_ir.limits import require_memory

_NO_ARRAYS = (
    *(ValueError, OSError, EOFError, AttributeError, KeyError, NotImplementedError),
    *(RuntimeError, zipfile.BadZipFile, zlib.error, struct.error),
)
"""What numpy and zipfile raise where a file is cut off, packed otherwise or locked."""


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of an .npz file by name, or that of an .npy file by the file's.

    Raises:
        UsageError: The file is missing, is neither, holds nothing, or unpacks to more than
            may be read.
    """
    if not path.exists():
        raise UsageError(f"'{path}' does not exist")
    try:
        if zipfile.is_zipfile(path):
            _require_sizes(path)
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return {path.stem: found}
        with found as archive:
            arrays = {name: archive[name] for name in archive.files}
    except _NO_ARRAYS as error:
        # What numpy takes for pickled data is told as such, with advice to trust it.
        why = "" if isinstance(error, ValueError) else f": {error}"
        raise UsageError(
            f"'{path}' is not an .npz or .npy file of plain arrays{why}"
        ) from error
    if not arrays:
        raise UsageError(f"'{path}' holds no arrays")
    return arrays


def _require_sizes(path: Path) -> None:
    """Refuse an archive that unpacks to more than may be, or whose arrays are not that large.

    Raises:
        UsageError: It does.
        ValueError: An array's header tells of another size than its member has.
    """
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        try:
            require_memory(sum(info.file_size for info in members), f"'{path}', unpacked,")
        except SourceError as error:
            raise UsageError(str(error)) from None
        for info in members:
            with archive.open(info) as stream:
                version = np.lib.format.read_magic(stream)
                read = np.lib.format.read_array_header_2_0
                if version == (1, 0):
                    read = np.lib.format.read_array_header_1_0
                shape, _, dtype = read(stream)
                size = math.prod(shape) * dtype.itemsize
                if stream.tell() + size != info.file_size and not dtype.hasobject:
                    raise ValueError(
                        f"'{info.filename}' tells of {size} bytes and holds "
                        f"{info.file_size - stream.tell()}"
                    )


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
