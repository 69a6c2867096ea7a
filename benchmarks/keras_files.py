"""Published Keras files: what is in them, how fast they are read, what Keras answers.

    python -m benchmarks.keras_files FOLDER... > docs/keras_files.csv

Keras' own answer is compared where TensorFlow, and the generation that wrote the file, are
installed; elsewhere that column is empty.
"""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import qonnx_hub as qh
from qonnx_hub_adapters.keras_files.importer import KerasFileImporter
from qonnx_hub_adapters.protocol import ImportOptions
from qonnx_hub_ir import dialect
from qonnx_hub_ir.graph.queries import dims

COLUMNS = ("file", "nodes", "quantizers", "weights", "read_ms", "largest_difference")
SAMPLES = 4


def sources(folders: list[str]) -> Iterator[tuple[Path, str | None]]:
    """Give files of models, with the weights that lie beside an architecture."""
    found = sorted(path for folder in folders for path in Path(folder).rglob("*"))
    for path in found:
        beside = path.with_name(f"{path.stem}_weights.h5")
        if path.suffix == ".json" and beside in found:
            yield path, str(beside)
        elif path.suffix in (".h5", ".keras") and not path.stem.endswith("_weights"):
            yield path, None


def difference(path: Path, options: ImportOptions) -> str:
    """Return the largest difference from Keras, relative to values above 1; "" without it."""
    importer = KerasFileImporter()
    file = importer.prepare(str(path), options)
    model = importer.load(file, options)
    random = np.random.default_rng(0)
    feeds = {
        str(value.name): random.uniform(-1, 1, (SAMPLES, *(dims(value) or [1])[1:])).astype(
            "f4"
        )
        for value in model.graph.inputs
    }
    wanted = importer.run_source(file, feeds)
    if wanted is None:
        return ""
    pairs = zip(qh.run(model, feeds).values(), wanted.values(), strict=True)
    off = max(float(np.max(np.abs(a - b) / np.maximum(1, np.abs(b)))) for a, b in pairs)
    return f"{off:.1e}"


def row(path: Path, weights: str | None) -> tuple[object, ...]:
    """Return the figures of a file, in the order of the columns."""
    qh.load(str(path), from_="keras", weights=weights)
    begin = time.perf_counter()
    model = qh.load(str(path), from_="keras", weights=weights)
    took = (time.perf_counter() - begin) * 1000
    quantizers = sum(dialect.is_quantizer(node) for node in model.graph)
    arrays = (value.const_value for value in model.graph.initializers.values())
    count = sum(array.size for array in arrays if array is not None and array.size > 1)
    options = ImportOptions(weights=weights)
    nodes = len(model.graph)
    return path.name, nodes, quantizers, count, round(took), difference(path, options)


def main() -> None:
    """Print the figures of all files in the folders."""
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow(COLUMNS)
    for path, weights in sources(sys.argv[1:]):
        out.writerow(row(path, weights))


if __name__ == "__main__":
    main()
