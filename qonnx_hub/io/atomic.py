"""The one writer: what is written takes the place of what was there whole, or not at all.

Whenever the process ends, be it killed, a path holds what was there before or what was to be
written. A file is written beside its place and renamed into it. A folder changes places with
the one that was there, in one step where the system has such a step (Linux). Several files
that belong together cannot do that: while they are exchanged none of them is there.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import secrets
import shutil
import stat
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from qonnx_hub_ir.errors import UsageError


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; on success it takes the place of ``path``.

    Of a link the target is replaced, and a file that is replaced hands on its mode. An
    exception inside the block leaves ``path`` as it was and removes the temporary file.

    Raises:
        UsageError: The folder does not exist or cannot be written; the path is no file, or
            one that nobody may write.
    """
    with replacing_all([path]) as [temporary]:
        yield temporary


@contextlib.contextmanager
def replacing_all(paths: Sequence[str | Path]) -> Iterator[list[Path]]:
    """Give a temporary path beside each of several; on success they take their places.

    Files that belong together never lie beside older ones: those are moved out of the way
    before the first new one is there.

    Args:
        paths: The files.

    Raises:
        UsageError: As in :func:`replacing`, for any of them; two paths are one file.
    """
    targets: list[Path] = []
    temporaries: list[Path] = []
    path = paths[0]
    try:
        for path in paths:
            targets.append(_file_to_write(path))
            if targets[-1] in targets[:-1]:
                raise UsageError(f"'{path}' would be written twice; name two files")
            temporary = _beside(targets[-1])
            temporary.touch(_mode(targets[-1]), exist_ok=False)
            temporaries.append(temporary)
        path = paths[0]
        yield temporaries
        for temporary, target in zip(temporaries, targets, strict=True):
            if target.exists():
                temporary.chmod(_mode(target))
        if len(targets) == 1:
            temporaries[0].replace(targets[0])
        else:
            _exchange_files(temporaries, targets)
    except OSError as error:
        raise _not_written(path, error) from error
    finally:
        remove(temporaries)


def remove(files: Iterable[Path]) -> None:
    """Remove what is not needed any more; what cannot be removed stays."""
    for file in files:
        with contextlib.suppress(OSError):
            file.unlink()


def _exchange_files(temporaries: Sequence[Path], targets: Sequence[Path]) -> None:
    aside = {target: _beside(target) for target in targets if target.exists()}
    try:
        for target, old in aside.items():
            target.rename(old)
        for temporary, target in zip(temporaries, targets, strict=True):
            temporary.replace(target)
    except OSError:
        for target in targets:
            if target not in aside:
                target.unlink(missing_ok=True)
            elif aside[target].exists():
                aside[target].replace(target)
        raise
    remove(aside.values())


def free_file(target: Path) -> Path:
    """Make an empty file beside another, for what that one refers to, and return it.

    Its name is the first of ``NAME.data``, ``NAME.1.data`` ... that nothing has, and nobody
    else can be given the same one. Its mode is that of ``target``.

    Raises:
        OSError: The folder cannot be written.
    """
    for number in itertools.count():
        path = target.with_name(f"{target.name}{f'.{number}' if number else ''}.data")
        if os.path.lexists(path):
            continue
        with contextlib.suppress(FileExistsError):
            path.touch(_mode(target), exist_ok=False)
            if target.exists():
                path.chmod(_mode(target))
            return path
    raise AssertionError  # there is no last number


def _file_to_write(path: str | Path) -> Path:
    """Return the file that a path stands for; what is there must be one, and writable."""
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise UsageError(f"'{path}' is a folder; name a file to write")
    if target.is_symlink():
        raise UsageError(f"'{path}' is a link in a circle; name a file to write")
    if target.exists() and not target.is_file():
        raise UsageError(f"'{path}' is a device or a pipe; name a file to write")
    # Root may write all; that a file is protected is meant for root, too.
    if target.exists() and not (_mode(target) & 0o222 and os.access(target, os.W_OK)):
        raise UsageError(f"'{path}' is write-protected; name another file, or allow writing")
    return target


def _mode(target: Path) -> int:
    """Return the mode of a file; that of a new one, less what the process masks, if none."""
    return stat.S_IMODE(target.stat().st_mode) if target.exists() else 0o666


def _beside(target: Path) -> Path:
    """Return a path in the folder of another that nothing has yet."""
    return target.with_name(f".qonnx_hub.{secrets.token_hex(8)}.tmp")


def _not_written(path: str | Path, error: OSError) -> UsageError:
    return UsageError(f"'{path}' cannot be written: {error.strerror or error}")


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
    with replacing_folder(path, MARKER) as fresh:
        for name, content in files.items():
            (fresh / name).write_bytes(content)
        (fresh / MARKER).write_text("\n".join(sorted(files)) + "\n", encoding="utf-8")


@contextlib.contextmanager
def replacing_folder(
    path: str | Path, marker: str, own: Collection[str] = ()
) -> Iterator[Path]:
    """Give a temporary folder; on success it takes the place of ``path``.

    A folder that was written before is replaced; what others have put into it since stays.
    Where the system cannot let two folders change places, a kill between two renames leaves
    the older one beside its place, under a hidden name.

    Args:
        path: The folder.
        marker: A file that lies in each folder of this kind, by which an older one is known.
        own: Beginnings of the names of the other files; without, the marker lists them.

    Raises:
        UsageError: The path is a file, a folder with content that is not the project's, or
            cannot be written.
    """
    target = Path(os.path.realpath(path))
    fresh = _beside(target)
    try:
        _foreign_entries(target, path, marker, own)
        fresh.mkdir()
        yield fresh
        if target.exists():
            fresh.chmod(_mode(target))
        kept = _foreign_entries(target, path, marker, own)
        _take_place(fresh, target, [name for name in kept if not (fresh / name).exists()])
    except OSError as error:
        raise _not_written(path, error) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _foreign_entries(
    target: Path, path: str | Path, marker: str, own: Collection[str]
) -> list[str]:
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
    if marker not in names:
        raise UsageError(
            f"the folder '{path}' holds files that were not written by this project, such as "
            f"'{names[0]}'; name a new or an empty folder"
        )
    if own:
        return [name for name in names if not name.startswith((marker, *own))]
    listed = {marker, *(target / marker).read_text(encoding="utf-8").split("\n")}
    return [name for name in names if name not in listed]


def _take_place(fresh: Path, target: Path, kept: Sequence[str]) -> None:
    """Let a folder take its place, with entries of the one that is there."""
    if not target.exists():
        fresh.rename(target)
        return
    for name in kept:
        source = target / name
        # At both places, until the older one is removed.
        if source.is_dir() and not source.is_symlink():
            shutil.copytree(source, fresh / name, symlinks=True, copy_function=_link)
        else:
            _link(source, fresh / name)
    if _changed_places(fresh, target):
        return
    old = _beside(target)
    target.rename(old)
    try:
        fresh.rename(target)
    except OSError:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _link(source: str | Path, place: str | Path) -> None:
    try:
        os.link(source, place, follow_symlinks=False)
    except (OSError, NotImplementedError):  # not every file system has links, nor every system
        shutil.copy2(source, place, follow_symlinks=False)


_HERE, _EXCHANGE = -100, 2
"""What Linux calls AT_FDCWD and RENAME_EXCHANGE."""


def _changed_places(one: Path, other: Path) -> bool:
    """Let two folders change places in one step; return whether the system did that."""
    if sys.platform != "linux":
        return False
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):  # a C library without it
        return False
    sys.audit("os.rename", one, other, -1, -1)
    paths = os.fsencode(one), os.fsencode(other)
    return bool(rename(_HERE, paths[0], _HERE, paths[1], _EXCHANGE) == 0)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with replacing(path) as temporary:
        # Paths that are no text have no other spelling.
        # Lines end alike on every system: the same report is the same bytes.
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")
