"""Certificates: accepted for equal files, rejected for others; the verifier stands alone."""

from __future__ import annotations

import ast
import copy
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import helper, numpy_helper
from onnx.helper import make_node
from typer.testing import CliRunner

import qonnx_hub.verifier
from qonnx_hub.api import load
from qonnx_hub.cli import app
from qonnx_hub.equivalence.proof.document import certify
from qonnx_hub.verifier import RejectedError, digest, verify
from qonnx_hub_adapters.protocol import export_options
from qonnx_hub_adapters.qcdq.exporter import QcdqExporter
from qonnx_hub_adapters.qonnx.exporter import QonnxExporter
from qonnx_hub_ir.errors import NotExactError, NotProvenError
from tests.support import DOMAIN, SHARED, corpus, model_of, needs_shared, quant_node

FLOAT = np.float32
VERIFIER = Path(qonnx_hub.verifier.__file__)
FORMS = {"qonnx": (QonnxExporter, {}), "qcdq": (QcdqExporter, {})}
FORMS |= {"float": (QcdqExporter, {"encoding": "float"})}


def converted(path, form, folder):
    """Return the path of a conversion; ``None`` where the form cannot say the model."""
    exporter, options = FORMS[form]
    try:
        made = exporter().export(load(path), export_options(**options)).model
    except NotExactError:
        return None
    target = Path(folder) / f"{form}.onnx"
    onnx.save(onnx_ir.to_proto(made), target)
    return target


def saved(model, folder, name="a.onnx"):
    path = Path(folder) / name
    onnx.save(model, path)
    return path


def net(**changes):
    """Return a small net of most things: channels, rounding, zero points, a dense layer."""
    rng = np.random.default_rng(7)
    held = {
        "s": np.array([[0.25, 0.5, 0.1]], dtype=FLOAT),
        "z": FLOAT(0),
        "b": FLOAT(4),
        "s2": FLOAT(0.125),
        "z2": FLOAT(3),
        "w": rng.normal(size=(3, 2)).astype(FLOAT),
        "sw": FLOAT(0.05),
        "bias": np.array([0.5, -1.0], dtype=FLOAT),
        "s3": FLOAT(0.2),
        **changes,
    }
    nodes = [
        quant_node("x", "q", "s", "z", "b", rounding_mode="FLOOR"),
        quant_node("w", "wq", "sw", "z", "b"),
        make_node("Gemm", ["q", "wq", "bias"], ["g"]),
        make_node("Relu", ["g"], ["r"]),
        quant_node("r", "p", "s2", "z2", "b", signed=0),
        make_node("BipolarQuant", ["p", "s3"], ["y"], domain=DOMAIN),
    ]
    return model_of(nodes, {"x": (2, 3)}, ["y"], held)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    path = saved(net(), folder)
    other = converted(path, "float", folder)
    return path, other, certify(path, other)


def files_of(certificate, a, b):
    """Return a certificate whose hashes fit two files."""
    return copy.deepcopy(certificate) | {"files": {"a": digest(a), "b": digest(b)}}


@pytest.mark.parametrize("form", FORMS)
def test_a_conversion_is_certified_and_the_certificate_holds(form, tmp_path):
    path = saved(net(), tmp_path)
    other = converted(path, form, tmp_path)
    certificate = json.loads(json.dumps(certify(path, other)))
    assert verify(certificate, path, other).startswith("every output is equal")


@needs_shared
@pytest.mark.parametrize("form", ["qonnx", "qcdq"])
@pytest.mark.parametrize("path", corpus("qonnx")[::7] + corpus("qcdq")[::9], ids=str)
def test_a_shared_models_certificate_holds(path, form, tmp_path):
    path = Path(path) / "model.onnx"
    other = converted(path, form, tmp_path)
    if other is not None:
        assert verify(certify(path, other), path, other)


@needs_shared
@pytest.mark.parametrize("form", ["qonnx", "qcdq"])
@pytest.mark.parametrize(
    "name", ["zoo/TFC_2W2A", "hls4ml_examples/separable_conv_model_ch_last"]
)
def test_a_public_models_certificate_holds(name, form, tmp_path):
    path = SHARED / "models" / f"{name}.onnx"
    other = converted(path, form, tmp_path)
    assert verify(certify(path, other), path, other)


def test_thresholds_are_certified(tmp_path):
    held = {"s": FLOAT(0.5), "z": FLOAT(0), "b": FLOAT(3)}
    path = saved(model_of([quant_node("x", "y")], {"x": (1, 4)}, ["y"], held), tmp_path)
    from qonnx_hub_ir.passes import QuantToMultithreshold

    model = load(path)
    assert QuantToMultithreshold()(model).modified
    other = saved(onnx_ir.to_proto(model), tmp_path, "b.onnx")
    said = verify(certify(path, other), path, other)
    assert "no NaN reaches" in said


def test_files_that_differ_are_not_certified(tmp_path):
    path = saved(net(), tmp_path)
    other = converted(saved(net(s3=FLOAT(0.3)), tmp_path, "c.onnx"), "float", tmp_path)
    with pytest.raises(NotProvenError, match="not proven"):
        certify(path, other)


# Certificates that are spoiled themselves.


def rows_of(certificate):
    return [row for claim in certificate["functions"] for row in claim["table"]["rows"]]


def no_output(c):
    c["outputs"] = []


def another_input(c):
    c["inputs"] = [["x", "q"]]


def another_format(c):
    c["format"] = "qonnx-hub certificate 0"


def another_hash(c):
    c["files"]["b"] = c["files"]["a"]


def a_threshold_moved(c):
    rows_of(c)[0]["starts"][1] += 1


def a_threshold_left_out(c):
    for part in rows_of(c)[0].values():
        del part[1]


def a_threshold_too_many(c):
    row = rows_of(c)[0]
    row["starts"].insert(1, row["starts"][0] + 5)
    row["levels"].insert(1, row["levels"][0])


def a_level_changed(c):
    rows_of(c)[0]["levels"][1] += 0.25


def the_lowest_part_cut(c):
    rows_of(c)[0]["starts"][0] += 1


def thresholds_out_of_order(c):
    starts = rows_of(c)[0]["starts"]
    starts[1], starts[2] = starts[2], starts[1]


def a_channel_swapped(c):
    channels = next(
        f["table"]["channels"] for f in c["functions"] if len(f["table"]["rows"]) > 1
    )
    channels[0], channels[1] = channels[1], channels[0]


def a_channel_missing(c):
    channels = next(
        f["table"]["channels"] for f in c["functions"] if len(f["table"]["rows"]) > 1
    )
    channels.pop()


def another_source(c):
    c["functions"][-1]["one"]["source"] = "q"


def no_function(c):
    c["functions"] = []


def a_function_of_nothing(c):
    c["functions"][0]["other"]["target"] = "nowhere"


def a_function_twice(c):
    c["functions"].append(c["functions"][0])


def values_crossed(c):
    first, second = c["values"][-2:]
    first[0], second[0] = second[0], first[0]


def an_unknown_rule(c):
    c["values"][0][2] = "because"


def no_operators_said(c):
    c["assumptions"]["operators"] = []


def no_assumptions(c):
    del c["assumptions"]


SPOILED = (
    *(no_output, another_input, another_format, another_hash, a_threshold_moved),
    *(a_threshold_left_out, a_threshold_too_many, a_level_changed, the_lowest_part_cut),
    *(thresholds_out_of_order, a_channel_swapped, a_channel_missing, another_source),
    *(no_function, a_function_of_nothing, a_function_twice, values_crossed),
    *(an_unknown_rule, no_operators_said, no_assumptions),
)


@pytest.mark.parametrize("spoil", SPOILED, ids=lambda spoil: spoil.__name__)
def test_a_spoiled_certificate_is_rejected(spoil, pair):
    a, b, certificate = pair
    assert verify(certificate, a, b)
    spoiled = copy.deepcopy(certificate)
    spoil(spoiled)
    with pytest.raises(RejectedError):
        verify(spoiled, a, b)


def test_a_certificate_that_is_silent_about_nan_is_rejected(tmp_path):
    path = saved(net(), tmp_path)
    other = converted(path, "qcdq", tmp_path)
    certificate = certify(path, other)
    assert "y" not in certificate["assumptions"]["nan"] != []
    certificate["assumptions"]["nan"] = []
    with pytest.raises(RejectedError, match="not among the assumptions"):
        verify(certificate, path, other)


# True certificates, of files with one fault.


def floats(model):
    return [t for t in model.graph.initializer if numpy_helper.to_array(t).dtype == FLOAT]


def store(tensor, array):
    tensor.CopyFrom(numpy_helper.from_array(array.astype(FLOAT), tensor.name))


def spoil_number(model, rng):
    """Change one stored number: by an ulp, a sign, or a lot."""
    tensors = floats(model)
    tensor = tensors[rng.integers(len(tensors))]
    array = numpy_helper.to_array(tensor).copy()
    flat = array.reshape(-1)
    place, kind = rng.integers(flat.size), rng.integers(3)
    old = flat[place]
    flat[place] = (np.nextafter(old, FLOAT(9e9)), -old if old else 1, old * 2 + 1)[kind]
    store(tensor, array)


def spoil_attribute(model, rng):
    """Change one attribute of a node."""
    nodes = [n for n in model.graph.node if n.op_type in CHANGES]
    if not nodes:
        spoil_number(model, rng)
        return
    node = nodes[rng.integers(len(nodes))]
    name, value = CHANGES[node.op_type]
    kept = [a for a in node.attribute if a.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])


CHANGES = {
    "Quant": ("rounding_mode", "HALF_DOWN"),
    "Gemm": ("transB", 1),
    "Concat": ("axis", 0),
}


def spoil_operator(model, rng):
    """Put another operator in the place of one."""
    nodes = [n for n in model.graph.node if n.op_type in OTHERS]
    if not nodes:
        spoil_number(model, rng)
        return
    node = nodes[rng.integers(len(nodes))]
    node.op_type = OTHERS[node.op_type]


OTHERS = {
    "Relu": "Neg",
    "Add": "Sub",
    "Sub": "Add",
    "Mul": "Div",
    "Div": "Mul",
    "Floor": "Ceil",
}
OTHERS |= {"Round": "Floor", "Ceil": "Floor", "GreaterOrEqual": "Greater", "Min": "Max"}


def spoil_wire(model, rng):
    """Leave a node out."""
    nodes = [
        (i, n)
        for i, n in enumerate(model.graph.node)
        if n.op_type in {"Relu", "Round", "Floor", "Clip", "Quant", "Neg"} and n.input[0]
    ]
    if not nodes:
        spoil_number(model, rng)
        return
    index, node = nodes[rng.integers(len(nodes))]
    model.graph.node[index].CopyFrom(make_node("Identity", node.input[:1], node.output))


FAULTS = (spoil_number, spoil_number, spoil_attribute, spoil_operator, spoil_wire)


def differs_somewhere(a, b):
    """Return whether the project's own proof, not the verifier's, finds no equality."""
    from qonnx_hub.equivalence.proof.prove import prove_models

    return not prove_models(load(a), load(b), search=False).proven


@pytest.mark.parametrize("form", FORMS)
def test_true_certificates_of_faulty_files_are_rejected(form, tmp_path):
    path = saved(net(), tmp_path)
    other = converted(path, form, tmp_path)
    certificate, good = certify(path, other), onnx.load(other)
    rejected = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        bad = onnx.ModelProto()
        bad.CopyFrom(good)
        FAULTS[seed % len(FAULTS)](bad, rng)
        if bad == good:
            continue
        faulty = saved(bad, tmp_path, "faulty.onnx")
        forged = files_of(certificate, path, faulty)
        try:
            verify(forged, path, faulty)
        except RejectedError:
            rejected += 1
        else:
            # What changes nothing may stay certified: the project's own proof agrees.
            assert not differs_somewhere(path, faulty), seed
    assert rejected >= 45


@needs_shared
@pytest.mark.parametrize("path", corpus("qonnx")[3::11], ids=str)
def test_true_certificates_of_faulty_conversions_are_rejected(path, tmp_path):
    path = Path(path) / "model.onnx"
    other = converted(path, "float", tmp_path)
    if other is None:
        return
    certificate, good = certify(path, other), onnx.load(other)
    for seed in range(8):
        bad = onnx.ModelProto()
        bad.CopyFrom(good)
        FAULTS[seed % len(FAULTS)](bad, np.random.default_rng(seed))
        faulty = saved(bad, tmp_path, "faulty.onnx")
        try:
            verify(files_of(certificate, path, faulty), path, faulty)
        except RejectedError:
            continue
        assert not differs_somewhere(path, faulty), seed


# The verifier itself.


def test_the_verifier_is_one_module_of_less_than_600_lines():
    assert len(VERIFIER.read_text(encoding="utf-8").splitlines()) < 600


def test_the_verifier_imports_numpy_onnx_and_the_standard_library():
    tree = ast.parse(VERIFIER.read_text(encoding="utf-8"))
    named = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [alias.name for alias in node.names]
        )
    }
    assert named - set(sys.stdlib_module_names) == {"numpy", "onnx"}


def without(name):
    """Return the verifier's module, one function of which is left out."""
    tree = ast.parse(VERIFIER.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            node.body[:] = [
                n for n in node.body if not isinstance(n, ast.FunctionDef) or n.name != name
            ] or [ast.Pass()]
    space = {"__name__": "spoiled"}
    exec(compile(ast.fix_missing_locations(tree), "spoiled", "exec"), space)
    return space


FUNCTIONS = [
    node.name
    for node in ast.walk(ast.parse(VERIFIER.read_text(encoding="utf-8")))
    if isinstance(node, ast.FunctionDef)
]


def small(folder, name, nodes, shape, held):
    path = saved(model_of(nodes, {"x": shape}, ["y"], held), folder, f"{name}.onnx")
    return path, Path(folder) / f"{name}_other.onnx"


@pytest.fixture(scope="module")
def certified(tmp_path_factory):
    """Return certificates that, together, need every function."""
    folder = tmp_path_factory.mktemp("certified")
    flat = {"s": FLOAT(0.5), "z": FLOAT(0), "b": FLOAT(3)}
    small_float = {
        "s": FLOAT(1),
        "e": FLOAT(2),
        "m": FLOAT(1),
        "bias": FLOAT(1),
        "max": FLOAT(6),
    }
    truncated = flat | {"i": FLOAT(8), "t": FLOAT(8), "o": FLOAT(4)}
    image = flat | {"w": np.ones((2, 3, 3, 4), dtype=FLOAT)}
    kernel = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    last = "qonnx.custom_op.channels_last"
    nodes = {
        "net": None,
        "float_quant": make_node(
            "FloatQuant", ["x", "s", "e", "m", "bias", "max"], ["y"], domain=DOMAIN
        ),
        "trunc": make_node("Trunc", ["x", "s", "z", "i", "t", "o"], ["y"], domain=DOMAIN),
        "last": make_node("Conv", ["q", "w"], ["y"], domain=last, **kernel),
    }
    held = {"float_quant": small_float, "trunc": truncated, "last": image}
    found = []
    for name, node in nodes.items():
        path = folder / f"{name}.onnx"
        if node is None:
            onnx.save(net(), path)
        else:
            before = [quant_node("x", "q")] if name == "last" else []
            shape = (1, 5, 5, 4) if name == "last" else (1, 4)
            onnx.save(model_of([*before, node], {"x": shape}, ["y"], held[name]), path)
        for form in ("qcdq", "float"):
            (folder / name / form).mkdir(parents=True)
            other = converted(path, form, folder / name / form)
            if other is not None:
                found.append((certify(path, other), path, other))
    return found


def accepts(name, certified):
    """Return whether the verifier without one function accepts all certificates."""
    try:
        module = without(name)
        return all(module["verify"](*files) for files in certified)
    except Exception:
        return False


def test_the_whole_verifier_accepts_these_certificates(certified):
    assert accepts("", certified)


@pytest.mark.parametrize("name", sorted(set(FUNCTIONS) - {"main"}))
def test_no_function_of_the_verifier_is_idle(name, certified):
    assert not accepts(name, certified)


def run_alone(*arguments):
    return subprocess.run(
        [sys.executable, "-I", str(VERIFIER), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_verifier_runs_alone(pair, tmp_path):
    a, b, certificate = pair
    place = tmp_path / "certificate.json"
    place.write_text(json.dumps(certificate))
    done = run_alone(place, a, b)
    assert (done.returncode, done.stdout[:6]) == (0, "holds:")
    turned = run_alone(place, b, a)
    assert (turned.returncode, turned.stdout[:9]) == (1, "rejected:")


def test_the_command_line_certifies_and_verifies(pair, tmp_path):
    a, b, _ = pair
    place = tmp_path / "certificate.json"
    runner = CliRunner()
    written = runner.invoke(app, ["certify", str(a), str(b), "-o", str(place)])
    assert written.exit_code == 0, written.output
    assert runner.invoke(app, ["verify", str(place), str(a), str(b)]).exit_code == 0
    assert runner.invoke(app, ["verify", str(place), str(b), str(a)]).exit_code == 1


def test_the_command_line_writes_no_certificate_of_what_differs(tmp_path):
    a, b = saved(net(), tmp_path), saved(net(s3=FLOAT(0.3)), tmp_path, "b.onnx")
    place = tmp_path / "certificate.json"
    done = CliRunner().invoke(app, ["certify", str(a), str(b), "-o", str(place)])
    assert (done.exit_code, place.exists()) == (1, False)


def with_unknown(mode="a", name=""):
    nodes = [
        quant_node("x", "q"),
        make_node("Fancy", ["q", "k"], ["u"], name, domain="com.example", mode=mode),
        quant_node("u", "y"),
    ]
    held = {"s": FLOAT(0.25), "z": FLOAT(0), "b": FLOAT(4), "k": FLOAT([0.0, 1.0])}
    return model_of(nodes, {"x": (1, 2)}, ["y"], held, domains=(DOMAIN, "com.example"))


def test_an_unknown_operator_is_certified_as_a_function_and_named(tmp_path):
    a, b = saved(with_unknown(), tmp_path), saved(with_unknown(name="n"), tmp_path, "b.onnx")
    target = tmp_path / "certificate.json"
    run = CliRunner()
    made = run.invoke(app, ["certify", str(a), str(b), "-o", str(target)])
    assert made.exit_code == 0, made.output
    assert "taken for granted: Fancy" in made.output
    held = json.loads(target.read_text())
    assert "Fancy" in held["assumptions"]["operators"]
    assert run.invoke(app, ["verify", str(target), str(a), str(b)]).exit_code == 0
    # What is assumed has to be said, and an attribute is part of the function.
    with pytest.raises(RejectedError, match="not among the assumptions: Fancy"):
        verify(held | {"assumptions": held["assumptions"] | {"operators": ["Quant"]}}, a, b)
    other = saved(with_unknown("b"), tmp_path, "c.onnx")
    assert run.invoke(app, ["certify", str(a), str(other)]).exit_code == 1
    forged = held | {"files": {"a": digest(a), "b": digest(other)}}
    with pytest.raises(RejectedError, match="not shown to equal"):
        verify(forged, a, other)
