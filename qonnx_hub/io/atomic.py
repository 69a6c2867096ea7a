"""Files are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from qonnx_hub_ir.errors import UsageError


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; on success it takes the place of ``path``.

    An exception inside the block leaves ``path`` as it was and removes the temporary file.

    Raises:
        UsageError: The folder does not exist or cannot be written.
    """
    target = Path(path)
    if target.is_dir():
        raise UsageError(f"'{target}' is a folder; name a file to write")
    try:
        handle, name = tempfile.mkstemp(
            prefix=f".{target.name}.", suffix=".tmp", dir=target.parent
        )
    except OSError as error:
        raise UsageError(f"'{target}' cannot be written: {error.strerror}") from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(target)
    except OSError as error:
        raise UsageError(f"'{target}' cannot be written: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)


MARKER = ".qonnx_hub"
"""A file in every folder that the project wrote, with the names of the other ones."""


def write_folder(path: str | Path, files: Mapping[str, bytes]) -> None:
    """Write a folder of files, whole or not at all.

    A folder that was written before is replaced; what others have put into it since stays.

    Args:
        path: The folder.
        files: Name -> content.

    Raises:
        UsageError: The path is a file, a folder with content that is not the project's, or
            cannot be written.
    """
    target = Path(os.path.abspath(path))
    kept = _foreign_entries(target, path)
    try:
        fresh = Path(
            tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
        )
    except OSError as error:
        raise UsageError(f"'{path}' cannot be written: {error.strerror}") from error
    try:
        for name, content in files.items():
            (fresh / name).write_bytes(content)
        (fresh / MARKER).write_text("\n".join(sorted(files)) + "\n", encoding="utf-8")
        fresh.chmod(0o777 & ~_umask())
        _take_place(fresh, target, kept)
    except OSError as error:
        raise UsageError(f"'{path}' cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _foreign_entries(target: Path, path: str | Path) -> list[str]:
    """Return what lies in a folder beside the project's files.

    Raises:
        UsageError: The folder is not the project's.
    """
    if not target.exists():
        return []
    if not target.is_dir():
        raise UsageError(f"'{path}' is a file; name a folder to write")
    names = sorted(entry.name for entry in target.iterdir())
    if not names:
        return []
    if MARKER not in names:
        raise UsageError(
            f"the folder '{path}' holds files that were not written by this project, such as "
            f"'{names[0]}'; name a new or an empty folder"
        )
    own = {MARKER, *(target / MARKER).read_text(encoding="utf-8").split("\n")}
    return [name for name in names if name not in own]


def _take_place(fresh: Path, target: Path, kept: list[str]) -> None:
    if not target.exists():
        fresh.rename(target)
        return
    old = fresh.with_suffix(".old")
    target.rename(old)
    try:
        fresh.rename(target)
    except OSError:
        old.rename(target)
        raise
    for name in kept:
        (old / name).rename(target / name)
    shutil.rmtree(old, ignore_errors=True)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def write_text(path: str | Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with replacing(path) as temporary:
        # Paths that are no text have no other spelling.
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
