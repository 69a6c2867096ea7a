"""A program that runs TFLite files in ai-edge-litert's interpreter, alone in its process.

The interpreter ends its process on some files, so nothing else may live there. It reads the
bytes of a file, then inputs, from standard input, and writes answers to standard output, each
with its length in front. It imports nothing of this project.
"""

from __future__ import annotations

import contextlib
import io
import os
import struct
import sys
from typing import Any, BinaryIO

import numpy as np

_MOST_BYTES = 8 << 30
_MOST_SECONDS = 600


def _limited() -> None:
    try:
        import resource
    except ImportError:  # no such limits on this system
        return
    for what, most in (
        (resource.RLIMIT_AS, _MOST_BYTES),
        (resource.RLIMIT_CPU, _MOST_SECONDS),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(what)[1]
        bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
        with contextlib.suppress(OSError, ValueError):  # macOS knows the name, and refuses
            resource.setrlimit(what, (bound, hard))


def _read(stream: BinaryIO) -> bytes:
    head = stream.read(8)
    return stream.read(struct.unpack("<Q", head)[0]) if len(head) == 8 else b""


def _write(stream: BinaryIO, kind: bytes, content: bytes) -> None:
    stream.write(struct.pack("<Q", 1 + len(content)) + kind + content)
    stream.flush()


def _session(content: bytes, kernels: str) -> Any:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    kind = {
        "ref": OpResolverType.BUILTIN_REF,
        "opt": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        "xnn": OpResolverType.BUILTIN,
    }[kernels]
    session = Interpreter(
        model_content=content, experimental_op_resolver_type=kind, num_threads=1
    )
    session.allocate_tensors()
    return session


def _answer(session: Any, message: bytes) -> bytes:
    given = np.load(io.BytesIO(message), allow_pickle=False)
    places = session.get_input_details()
    arrays = [given[f"x{i}"] for i in range(len(places))]
    changed = [
        (place["index"], x.shape)
        for place, x in zip(places, arrays, strict=True)
        if tuple(place["shape"]) != x.shape
    ]
    for index, shape in changed:
        session.resize_tensor_input(index, list(shape))
    if changed:
        session.allocate_tensors()
    # Variables keep what the run before left in them.
    session.reset_all_variables()
    for place, x in zip(places, arrays, strict=True):
        session.set_tensor(place["index"], np.ascontiguousarray(x))
    session.invoke()
    made = [session.get_tensor(place["index"]) for place in session.get_output_details()]
    stream = io.BytesIO()
    np.savez(stream, **{f"y{i}": y for i, y in enumerate(made)})
    return stream.getvalue()


def main(kernels: str) -> None:
    """Answer until there is nothing more to read."""
    _limited()
    # What the interpreter prints must not come between the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    questions = sys.stdin.buffer
    session = None
    while message := _read(questions):
        try:
            if session is None:
                session = _session(message, kernels)
                content = b""
            else:
                content = _answer(session, message)
        except (RuntimeError, ValueError, KeyError, MemoryError, ImportError) as error:
            _write(answers, b"e", f"{type(error).__name__}: {error}".encode())
            continue
        _write(answers, b"a", content)


if __name__ == "__main__":
    main(sys.argv[1])
