"""Which error ends in which exit code, and what is printed of it."""

from __future__ import annotations

import functools
import os
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from qonnx_hub_ir.errors import (
    ConversionError,
    HubError,
    MissingDependencyError,
    NotExactError,
    UsageError,
    reasons_of,
)

DIFFERENT = 1
USAGE = 2
UNREADABLE = 3
NOT_EXACT = 4
NOT_INSTALLED = 5
DEFECT = 70


EXIT_CODES: Mapping[type[BaseException], int] = {
    MissingDependencyError: NOT_INSTALLED,
    NotExactError: NOT_EXACT,
    UsageError: USAGE,
    ConversionError: DIFFERENT,
    HubError: UNREADABLE,
    OSError: USAGE,
    MemoryError: UNREADABLE,
}
"""Error -> exit code, the first that fits; that of every other error is ``DEFECT``."""

_REPORT = (
    "qonnx-hub: this is a defect of qonnx-hub; please report it with the model and the "
    "command, and with what --traceback prints"
)


def exit_code(error: BaseException) -> int:
    """Return the documented exit code of an error."""
    codes = (code for kind, code in EXIT_CODES.items() if isinstance(error, kind))
    return next(codes, DEFECT)


def message_of(error: BaseException) -> str:
    """Return what a user reads of an error; what is no error of ours takes two lines."""
    # Imported here because it loads ONNX, which --help does not need.
    from qonnx_hub_ir.places import place_of

    if isinstance(error, HubError):
        return f"qonnx-hub: {error}"
    if isinstance(error, OSError):
        place = f"'{error.filename}'" if error.filename else "the output"
        return f"qonnx-hub: {place} cannot be read or written: {error.strerror or error}"
    what = " ".join(str(error).split()) or "no further words"
    where = f" at {place}" if (place := place_of(error)) else ""
    if isinstance(error, MemoryError):
        return f"qonnx-hub: memory ran out{where}: {what}"
    frames = traceback.extract_tb(error.__traceback__)
    line = f" (in {frames[-1].name}, line {frames[-1].lineno})" if frames else ""
    return f"qonnx-hub: {type(error).__name__}{where}: {what[:500]}{line}\n{_REPORT}"


WRITTEN = (
    *("output", "out", "part_before", "part_behind"),
    "save_inputs",
    "json",
    "report",
    "junit",
    "sarif",
    "write_baseline",
    "save_failing",
    "save_golden",
    "export_ints",
    "plot",
)
"""Parameters of commands that name what is written."""


def _keep_what_is_read(options: Mapping[str, Any]) -> None:
    """Refuse to write over a file that the same command reads, or to write one twice.

    Weights that lie beside a model are read as well.

    Raises:
        UsageError: Such a file; ``--force``, where a command has it, allows it.
    """
    if options.get("force"):
        return
    given = [v for k, v in options.items() if k not in WRITTEN]
    items = [one for v in given for one in (v if isinstance(v, (list, tuple)) else [v])]
    read = [one for one in items if isinstance(one, (str, os.PathLike)) and _is_file(one)]
    targets = [
        one
        for one in (options.get(name) for name in WRITTEN)
        if isinstance(one, (str, os.PathLike)) and one != "-"
    ]
    for place, target in enumerate(targets):
        if any(os.path.realpath(target) == os.path.realpath(one) for one in targets[:place]):
            raise UsageError(f"'{os.fspath(target)}' would be written twice; name two files")
    targets = [one for one in targets if _is_file(one)]
    if targets and read:
        # Imported here because it loads ONNX, which --help does not need.
        from qonnx_hub_adapters.external_data import data_files

        graphs = [one for one in read if os.fspath(one).lower().endswith(".onnx")]
        read += [
            data for one in graphs for data in data_files(os.fspath(one)) if _is_file(data)
        ]
    for target in targets:
        if any(os.path.samefile(target, one) for one in read):
            hint = ", or add --force" if "force" in options else ""
            raise UsageError(
                f"'{os.fspath(target)}' is read by this command, which would write over it; "
                f"name another file{hint}"
            )


def _is_file(path: str | os.PathLike[str]) -> bool:
    try:
        return os.path.isfile(path)
    except (OSError, ValueError):
        return False


def recorded(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command whose errors are written to the place of ``--json`` as well."""

    @functools.wraps(command)
    def run(*args: Any, **options: Any) -> None:
        from qonnx_hub.cli.options import write_json

        # Not inside: the error is not written over what is read, either.
        _keep_what_is_read(options)
        try:
            command(*args, **options)
        except HubError as error:
            found = {"kind": type(error).__name__, "message": str(error)}
            reasons = [str(reason) for reason in reasons_of(error)]
            record = {**found, "exit_code": exit_code(error), "reasons": reasons}
            write_json({"schema": "qonnx-hub/error/1", "error": record}, options.get("json"))
            raise
        except EOFError as error:
            # The library of the command line takes it for the end of the user's input.
            raise RuntimeError(f"something ends too early: {error}") from error

    return run
