"""The files beside the model: config, report, and the script that builds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from onnx_ir import Value

from qonnx_hub_adapters.hls4ml.builder import result_places
from qonnx_hub_adapters.hls4ml.file_names import CONFIG, MODEL, REPORT, SCRIPT, TENSORS
from qonnx_hub_adapters.hls4ml.lowering import Lowered
from qonnx_hub_adapters.hls4ml.options import Hls4mlOptions
from qonnx_hub_adapters.hls4ml.pending_affine import Term
from qonnx_hub_adapters.hls4ml.tensor_map import StoredTensor, to_text
from qonnx_hub_adapters.hls4ml.yaml_text import to_yaml

_SCRIPT = '''\
"""Convert, compile and build with hls4ml 1.3 and g++.

python build.py [--synthesize]
python build.py --predict INPUTS.npz [ANSWERS.npz]
python build.py --trace INPUTS.npz [TRACE.npz]

INPUTS has the names and shapes of the source's inputs or of model.onnx. The second line writes
what hls4ml answers, by the names and in the shapes of the source's outputs; in Python:
"from build import predict", then predict(x). The third records what every layer computes, for
"qonnx-hub check" to compare. ANSWERS and TRACE are answers.npz and trace.npz in this folder if
they are not named; the inputs of model.onnx are written beside TRACE.
"""

import json, os, sys, zipfile

words = sys.argv[1:] if __name__ == "__main__" else []  # imported, they are another program's
if "-h" in words or "--help" in words:
    print(__doc__)
    sys.exit(0)
asked = [word for word in ("--predict", "--trace") if word in words]
files = [os.path.abspath(path) for path in words if not path.startswith("-")]
unknown = [w for w in words if w.startswith("-") and w not in (*asked, "--synthesize")]
if unknown:
    sys.exit(f"{unknown[0]} is no option: -h shows them")
if asked and not files:
    sys.exit(f"{asked[0]} needs the inputs: python build.py {asked[0]} INPUTS.npz")
started = os.getcwd()
os.chdir(os.path.dirname(os.path.abspath(__file__)))
try:
    import hls4ml
except ImportError:
    if __name__ != "__main__":
        raise
    sys.exit("build.py needs hls4ml, and g++: pip install 'hls4ml>=1.3'")
import numpy as np

with open("report.json", encoding="utf-8") as file:
    report = json.load(file)


def stored(port, given):
    """Return an input in the layout of model.onnx."""
    names = [name for name in (port["source"], port["name"]) if name in given]
    if not names:
        sys.exit(f"the inputs have no '{port['source']}'; there are: {', '.join(given)}")
    x = np.asarray(given[names[0]])
    sizes, source, own = (list(s[1:]) for s in (x.shape, port["source_shape"], port["shape"]))
    if names[0] == port["source"] and sizes == source:
        x = x.transpose(np.argsort(port["axes"])) if port["axes"] else x
    elif sizes != own:
        sys.exit(f"a sample of '{names[0]}' has the shape {sizes}; wanted: {source} or {own}")
    return np.ascontiguousarray(x.reshape(len(x), *own), dtype=np.float32)


def predict(x):
    """Return hls4ml's answers to data in the source's own layout, by the outputs' names.

    Takes the array of the only input, or arrays by name; the first axis counts samples.
    """
    ports = report["inputs"]
    given = x if hasattr(x, "keys") else {ports[0]["source"]: x}
    feeds = [stored(port, given) for port in ports]
    y = model.predict(feeds[0] if len(feeds) == 1 else feeds)
    results, answers = y if isinstance(y, list) else [y], {}
    for port in report["outputs"]:
        answer = results[port["result"]].reshape(len(feeds[0]), *port["shape"][1:])
        answers[port["source"]] = answer.transpose(port["axes"]) if port["axes"] else answer
    return answers


def save(path, arrays):
    """Write arrays by any name: np.savez takes some for its own parameters."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asarray(array), allow_pickle=False)


def record(model, inputs, path):
    """Write what every layer computes, and the inputs beside it.

    Where a layer is left to the host, results are no outputs of model.onnx.
    """
    with np.load(inputs) as given:
        feeds = {port["name"]: stored(port, given) for port in report["inputs"]}
    xs = list(feeds.values())
    y, layers = model.trace(xs[0] if len(xs) == 1 else xs)
    results = y if isinstance(y, list) else [y]
    if not any(entry.get("Skip") for entry in config["HLSConfig"]["LayerName"].values()):
        for port in report["outputs"]:
            layers[port["name"]] = results[port["result"]].reshape(len(xs[0]), -1)
    save(path, layers)
    save(os.path.join(os.path.dirname(path), "trace_inputs.npz"), feeds)


config = hls4ml.converters.parse_yaml_config("hls4ml_config.yml")
if "--trace" in asked:
    for layer in config["HLSConfig"]["LayerName"].values():
        layer["Trace"] = True
model = hls4ml.converters.convert_from_config(config)
if "--trace" in asked:
    record(model, files[0], files[1] if len(files) > 1 else os.path.abspath("trace.npz"))
else:
    model.compile()  # model.predict(x) takes x as model.onnx does, predict(x) as the source
if "--predict" in asked:
    with np.load(files[0]) as given:
        answers = predict(given)
    save(files[1] if len(files) > 1 else "answers.npz", answers)
if "--synthesize" in words:
    model.build()
os.chdir(started)
'''


def project_config(options: Hls4mlOptions, hls: Mapping[str, Any]) -> dict[str, Any]:
    """Return the whole config: what hls4ml's command line and Python API both read."""
    config: dict[str, Any] = {
        "OnnxModel": MODEL,
        "OutputDir": "hls4ml_prj",
        "ProjectName": options.project,
        "Backend": options.backend,
        "IOType": options.io_type,
        "ClockPeriod": options.clock_period,
    }
    if options.device():
        config["Part"] = options.device()
    config["HLSConfig"] = hls
    return config


def report(lowered: Lowered, hls: Mapping[str, Any], notes: Sequence[str]) -> dict[str, Any]:
    """Return what was written, as data.

    The axes of an input or output say where each axis of the source is stored; there are none
    where the source's elements are stored in one row. The result of an output is its place
    among what hls4ml's ``predict`` returns.

    Args:
        lowered: The lowered graph, with its final names, and what became of the source.
        hls: The config, for the types.
        notes: Sentences for the user.
    """
    graph, layers = lowered.model.graph, hls["LayerName"]
    inputs, outputs = (
        [
            _port(name, term, value, layers)
            for (name, term), value in zip(given.items(), values, strict=True)
        ]
        for given, values in ((lowered.inputs, graph.inputs), (lowered.outputs, graph.outputs))
    )
    for output, place in zip(outputs, result_places(graph), strict=True):
        output["result"] = place
    return {
        "inputs": inputs,
        "outputs": outputs,
        "reordered": lowered.reordered,
        "quantizers": [asdict(record) for record in lowered.records],
        "notes": list(notes),
    }


def _port(name: str, term: Term, value: Value, layers: Mapping[str, Any]) -> dict[str, Any]:
    maker = value.producer()
    layer = layers.get(str(value.name if maker is None else maker.name), {})
    return {
        "source": name,
        "source_shape": list(term.shape),
        "name": str(value.name),
        "shape": list(term.stored_shape()),
        "axes": None if term.flat else list(term.axes),
        "type": str(layer.get("Precision", {}).get("result", "")),
    }


def script() -> bytes:
    """Return the script that builds a folder."""
    return _SCRIPT.encode()


def files(
    config: Mapping[str, Any], written: Mapping[str, Any], tensors: Sequence[StoredTensor]
) -> dict[str, bytes]:
    """Return the files beside the model by name."""
    return {
        CONFIG: to_yaml(config).encode(),
        REPORT: (json.dumps(written, indent=2) + "\n").encode(),
        SCRIPT: script(),
        TENSORS: to_text(tensors).encode(),
    }
