"""hls4ml on a folder, for an interpreter that has hls4ml and need have nothing of ours.

Usage: driver.py FOLDER PROJECT; the project is compiled with a trace of every layer, once for
the same model, config and version of hls4ml. One line of JSON is written when that is done,
and one for every line that is read: the name of an .npz file with the inputs "0", "1" ... in
the layout of model.onnx, which is written over with results and layers.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

BUILT = "built.json"


def fingerprint(folder: Path, version: str) -> str:
    """Return a hash of all that the compiled library follows from."""
    found = hashlib.sha256(version.encode())
    for path in (folder / "model.onnx", folder / "hls4ml_config.yml", Path(__file__)):
        found.update(hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()


def read_config(hls4ml: Any, folder: Path, project: Path) -> dict[str, Any]:
    """Return the config of a folder, to be built elsewhere and with a trace."""
    config: dict[str, Any] = hls4ml.converters.parse_yaml_config(
        str(folder / "hls4ml_config.yml")
    )
    config["OnnxModel"], config["OutputDir"] = str(folder / "model.onnx"), str(project)
    for layer in config["HLSConfig"].get("LayerName", {}).values():
        layer["Trace"] = True
    return config


def compiled(hls4ml: Any, folder: Path, project: Path) -> Any:
    """Return the model with its library loaded, compiled where no such library is there."""
    key, note = fingerprint(folder, hls4ml.__version__), project / BUILT
    config = read_config(hls4ml, folder, project)
    model = hls4ml.converters.convert_from_config(config)
    known = json.loads(note.read_text()) if note.is_file() else {}
    library = project / str(known.get("library", ""))
    if known.get("key") == key and library.is_file():
        model._top_function_lib = ctypes.cdll.LoadLibrary(str(library))
    else:
        note.unlink(missing_ok=True)
        if shutil.which("g++") is None:
            raise FileNotFoundError("there is no g++, which compiles what hls4ml writes")
        model.config.trace_output = True
        model.compile()
        library = Path(model._top_function_lib._name).relative_to(project)
        note.write_text(json.dumps({"key": key, "library": str(library)}))
    # A trace would compile once more.
    model.compile = lambda: None
    return model


def described(model: Any, version: str) -> dict[str, Any]:
    """Return what a reader must know: the traced layers, their types, what is left out."""
    types = {}
    for layer in model.get_layers():
        named = {
            "accum": layer.get_attr("accum_t"),
            "result": layer.get_output_variable().type,
        }
        types[layer.name] = {name: str(t.precision) for name, t in named.items() if t}
    entries = (model.config.config["HLSConfig"].get("LayerName") or {}).items()
    skipped = [name for name, entry in entries if entry.get("Skip")]
    return {"version": version, "types": types, "skipped": skipped}


def answer(model: Any, path: str) -> dict[str, Any]:
    """Trace the inputs of a file and write results and layers in their place."""
    import numpy as np

    with np.load(path) as given:
        feeds = [np.ascontiguousarray(given[str(k)]) for k in range(len(given.files))]
    y, layers = model.trace(feeds[0] if len(feeds) == 1 else feeds)
    results = y if isinstance(y, list) else [y]
    arrays: dict[str, Any] = {f"y{k}": np.asarray(one) for k, one in enumerate(results)}
    arrays.update((f"l{k}", np.asarray(one)) for k, one in enumerate(layers.values()))
    np.savez(path, **arrays)
    return {"results": len(results), "layers": list(layers)}


def main(folder: Path, project: Path) -> None:
    """Compile, then answer until there is nothing more to read."""
    # What hls4ml and the compiler print must not come between the answers.
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(**words: Any) -> None:
        channel.write(json.dumps(words) + "\n")
        channel.flush()

    try:
        hls4ml = importlib.import_module("hls4ml")
    except ImportError as error:
        say(missing=f"{sys.executable} has no hls4ml ({error})")
        return
    try:
        model = compiled(hls4ml, folder, project)
        say(**described(model, hls4ml.__version__))
    except FileNotFoundError as error:
        say(missing=str(error))
        return
    except Exception as error:  # whatever hls4ml raises is the answer
        say(error=f"{type(error).__name__}: {error}")
        return
    for line in sys.stdin:
        try:
            say(**answer(model, json.loads(line)))
        except Exception as error:  # noqa: PERF203  (likewise)
            say(error=f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
