"""From a module and samples, or a file, to an exported program."""

from __future__ import annotations

import contextlib
import pickle
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qonnx_hub_adapters.dependencies import first_line, quiet
from qonnx_hub_adapters.torch_common.modules import classes_from
from qonnx_hub_ir.errors import SourceError, UsageError

SUFFIX = ".pt2"

_RUN_AS_THEY_ARE = ("opaque_obj_", "custom_obj_", "aotinductor")
"""In names of a program's file: Python's pickles, TorchScript's, shared libraries."""


def is_program(source: object) -> bool:
    """Return whether the source is a torch.export.ExportedProgram, without importing torch."""
    return "ExportedProgram" in classes_from(source, "torch.export")


def is_program_file(source: object) -> bool:
    """Return whether the source is the path of a saved program. Nothing is read."""
    return isinstance(source, (str, Path)) and Path(source).suffix.lower() == SUFFIX


def read_program(path: str | Path, torch: Any, *, allow_code: bool = False) -> Any:
    """Return the ExportedProgram of a file that ``torch.export.save`` wrote.

    Args:
        path: The file.
        torch: The framework.
        allow_code: Read pickles that may run code.

    Raises:
        SourceError: It is missing, cut off, or holds something else, or code.
    """
    if not Path(path).is_file():
        raise SourceError(f"'{path}' does not exist, or is no file")
    if not zipfile.is_zipfile(path):
        raise SourceError(f"'{path}' is no file of torch.export.save, or it is cut off")
    guard = contextlib.nullcontext() if allow_code else _tensors_only(str(path), torch)
    try:
        with quiet(), guard:
            return torch.export.load(str(path))
    except pickle.UnpicklingError as error:
        raise _holds_code(path, first_line(error)) from error
    except SourceError:
        raise
    except Exception as error:  # the reader raises whatever the bytes lead it into
        raise SourceError(
            f"'{path}' cannot be read as an exported program: {first_line(error)}"
        ) from error


def _holds_code(path: str | Path, reason: str) -> SourceError:
    return SourceError(
        f"'{path}' holds code ({reason}); it is run with --allow-code only (allow_code=True "
        "in Python); trust it first"
    )


@contextlib.contextmanager
def _tensors_only(path: str, torch: Any) -> Iterator[None]:
    """Let torch read tensors and plain values only, whatever a file makes it ask for.

    ``torch.export.load`` reads some pickles without a check, and others so where the check
    fails; it is the one to be held, for it alone knows which parts of a file it reads.

    Raises:
        SourceError: Parts are run as they are: pickled objects, compiled models.
    """
    with zipfile.ZipFile(path) as archive:
        # Names as torch sees them: its search does not tell upper from lower case.
        names = [info.orig_filename for info in archive.infolist()]
    for name in names:
        if any(part in name.lower() for part in _RUN_AS_THEY_ARE):
            raise _holds_code(path, f"'{name}'")
    load = torch.load
    torch.load = lambda *args, **named: load(*args, **{**named, "weights_only": True})
    try:
        yield
    finally:
        torch.load = load


def samples_of(module: Any, args: Sequence[Any], torch: Any) -> tuple[Any, ...]:
    """Return the sample inputs as tensors.

    A graph out of ``torch.export`` knows the shapes of its inputs; other modules need samples.

    Raises:
        UsageError: There are none, or they are no arrays.
    """
    if args:
        return tuple(_tensor(value, torch) for value in args)
    known = traced_inputs(module, torch)
    sizes = [(None,) if value is None else tuple(value.shape) for value in known]
    if not known or not all(isinstance(size, int) for shape in sizes for size in shape):
        raise UsageError(
            f"a {type(module).__name__} is traced on a sample: give args=(x,), or on the "
            "command line --input-shape 1,3,32,32"
        )
    return tuple(torch.zeros(tuple(v.shape), dtype=v.dtype) for v in known)


def _tensor(value: Any, torch: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().clone()
    if value is None:
        raise UsageError(
            "a sample input is None: give tensors only; an argument of forward that is left "
            "out at its end takes its default"
        )
    try:
        return torch.from_numpy(np.array(value))
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"a sample input is neither an array nor a tensor: {error}"
        ) from error


def traced_inputs(module: Any, torch: Any) -> list[Any]:
    """Return the tensors without numbers that stand for a traced graph's inputs.

    ``None`` stands for an input that is no tensor; of other modules there are none.
    """
    if not isinstance(module, torch.fx.GraphModule):
        return []
    values = [n.meta.get("val") for n in module.graph.nodes if n.op == "placeholder"]
    return [value if isinstance(value, torch.Tensor) else None for value in values]


def export(module: Any, args: Sequence[Any], torch: Any) -> Any:
    """Return the ExportedProgram of a frozen module.

    Raises:
        SourceError: It fails on the sample, or ``torch.export`` cannot follow it; the message
            names the innermost module.
    """
    entered: list[str] = []  # and not left
    with contextlib.ExitStack() as hooks:
        for name, child in module.named_modules():
            if not name:
                continue

            def enter(_m: Any, _a: Any, name: str = name) -> None:
                entered.append(name)

            def leave(_m: Any, _a: Any, _o: Any) -> None:
                entered.pop()

            hooks.enter_context(child.register_forward_pre_hook(enter))
            hooks.enter_context(child.register_forward_hook(leave))
        try:
            with quiet(), torch.no_grad():
                return torch.export.export(module, tuple(args), strict=False)
        except Exception as error:  # whatever the user's forward or the tracer raises
            where = f" in module '{entered[-1]}'" if entered else ""
            raise SourceError(
                f"torch.export cannot follow the model{where}: {first_line(error)}"
            ) from error
