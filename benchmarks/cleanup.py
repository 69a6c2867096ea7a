"""How many nodes cleaning leaves, beside qonnx-cleanup and onnxsim, and whether outputs stay.

    python -m benchmarks.cleanup models/*.onnx

A line per file: nodes of the source, of our cleanup, of the other tools where they are
installed and read the file, and how many values of the outputs changed ("-" where an operator
has no kernel). Ends with 1 where a tool leaves fewer nodes than we do, or a value changed.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx

import qonnx_hub as qh
from qonnx_hub.compat.cleanup import cleanup_model
from qonnx_hub_ir.errors import ExecutionError

_COLUMNS = f"{'file':40}{'source':>8}{'ours':>8}{'qonnx':>8}{'onnxsim':>8}{'changed':>9}"


def by_qonnx(path: Path) -> onnx.ModelProto:
    """Return what the qonnx package's cleanup makes of a file."""
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.util.cleanup import cleanup_model as peer

    return peer(ModelWrapper(str(path))).model


def by_onnxsim(path: Path) -> onnx.ModelProto:
    """Return what onnxsim makes of a file."""
    import onnxsim

    model = onnx.load(str(path))
    known = {one.domain for one in model.opset_import}
    for domain in sorted({node.domain for node in model.graph.node} - known):
        # It refuses files without the import, which some exporters leave out.
        model.opset_import.append(onnx.helper.make_opsetid(domain, 1))
    made, _ = onnxsim.simplify(model)
    return made


def ours(path: Path) -> onnx.ModelProto:
    """Return what our cleanup makes of a file."""
    return cleanup_model(onnx.load(str(path)))


def count(tool: Callable[[Path], onnx.ModelProto], path: Path) -> tuple[int | None, str]:
    """Return how many nodes a tool leaves; ``None``, and why, where it does not run."""
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return len(tool(path).graph.node), ""
    except Exception as error:  # tools of others may raise anything
        return None, f"{type(error).__name__}: {error}".splitlines()[0]


def changed(path: Path, samples: int) -> int:
    """Return how many values of all outputs differ after our cleanup."""
    before, after = qh.load(str(path)), qh.load(ours(path))
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(samples):
        feeds = {}
        for value in before.graph.inputs:
            sizes = [size if isinstance(size, int) else 1 for size in value.shape or ()]
            array = rng.normal(size=sizes) * 4
            feeds[str(value.name)] = array.astype(value.dtype.numpy())
        names = [str(value.name) for value in after.graph.inputs]
        renamed = dict(zip(names, feeds.values(), strict=True))
        pairs = zip(
            qh.run(before, feeds).values(), qh.run(after, renamed).values(), strict=True
        )
        found += sum(int(np.sum(~((a == b) | ((a != a) & (b != b))))) for a, b in pairs)
    return found


def line(path: Path, samples: int) -> bool:
    """Print the line of a file; return whether nothing is worse."""
    source = len(onnx.load(str(path), load_external_data=False).graph.node)
    mine, why = count(ours, path)
    if mine is None:
        print(f"{path.stem[:39]:40}{source:8} {why}", flush=True)
        return False
    peers = {name: count(tool, path) for name, tool in _PEERS.items()}
    cells = "".join(f"{'-' if n is None else n:>8}" for n, _ in peers.values())
    try:
        differing: int | str = changed(path, samples)
    except ExecutionError as error:
        differing = "-"
        print(f"    {error}".replace("\n", " "))
    print(f"{path.stem[:39]:40}{source:8}{mine:8}{cells}{differing:>9}", flush=True)
    for name, (_, reason) in peers.items():
        if reason:
            print(f"    {name}: {reason[:150]}")
    return differing in (0, "-") and all(n is None or mine <= n for n, _ in peers.values())


_PEERS: dict[str, Callable[[Path], onnx.ModelProto]] = {
    "qonnx": by_qonnx,
    "onnxsim": by_onnxsim,
}


def main() -> int:
    """Print the table; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path, help="ONNX files")
    parser.add_argument("--samples", type=int, default=2, help="inputs per file")
    given = parser.parse_args()
    print(_COLUMNS)
    held = [line(path, given.samples) for path in given.files]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
