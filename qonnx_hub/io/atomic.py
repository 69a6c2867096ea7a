"""Files are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from qonnx_hub_ir.errors import UsageError


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; on success it takes the place of ``path``.

    Of a link the target is replaced, and a file that is replaced hands on its mode. An
    exception inside the block leaves ``path`` as it was and removes the temporary file.

    Raises:
        UsageError: The folder does not exist or cannot be written; the path is no file.
    """
    try:
        target = _file_to_write(path)
        temporary = _beside(target)
        temporary.touch(exist_ok=False)
    except OSError as error:
        raise _not_written(path, error) from error
    try:
        yield temporary
        if target.exists():
            temporary.chmod(stat.S_IMODE(target.stat().st_mode))
        temporary.replace(target)
    except OSError as error:
        raise _not_written(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def _file_to_write(path: str | Path) -> Path:
    """Return the file that a path stands for; what is there must be one."""
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise UsageError(f"'{path}' is a folder; name a file to write")
    if target.exists() and not target.is_file():
        raise UsageError(f"'{path}' is a device or a pipe; name a file to write")
    return target


def _beside(target: Path) -> Path:
    """Return a path in the folder of another that nothing has yet."""
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")


def _not_written(path: str | Path, error: OSError) -> UsageError:
    return UsageError(f"'{path}' cannot be written: {error.strerror}")


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
    fresh = _beside(target)
    try:
        fresh.mkdir()
    except OSError as error:
        raise _not_written(path, error) from error
    try:
        for name, content in files.items():
            (fresh / name).write_bytes(content)
        (fresh / MARKER).write_text("\n".join(sorted(files)) + "\n", encoding="utf-8")
        _take_place(fresh, target, kept)
    except OSError as error:
        raise _not_written(path, error) from error
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


def write_text(path: str | Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with replacing(path) as temporary:
        # Paths that are no text have no other spelling.
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
