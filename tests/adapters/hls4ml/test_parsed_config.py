"""hls4ml's own parser, and the qonnx package's cleanup, on what is written."""

from __future__ import annotations

import functools

import onnx
import pytest

from tests.adapters.hls4ml import nets
from tests.adapters.hls4ml.constructs import IMAGES, ROWS
from tests.adapters.hls4ml.harness import export, merged
from tests.support import SHARED, needs_shared


def sources():
    """Return whole networks, and all single constructs as two networks."""
    return {
        "qkeras_cnn": nets.qkeras_cnn(),
        "brevitas_cnn": nets.brevitas_cnn(),
        "residual_net": nets.residual_net(),
        "rows": merged({name: build() for name, (build, _) in ROWS.items()}),
        "images": merged({name: build() for name, (build, _) in IMAGES.items()}),
    }


NAMES = ("qkeras_cnn", "brevitas_cnn", "residual_net", "rows", "images")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Return what gives the folder of a source, written once."""

    @functools.cache
    def folder(name):
        return export(sources()[name], tmp_path_factory.mktemp(name) / "out")

    return folder


def shape_of(model: onnx.ModelProto) -> list[tuple[str, str, list[str], list[str]]]:
    return [(n.op_type, n.name, list(n.input), list(n.output)) for n in model.graph.node]


def assert_cleanup_changes_nothing(path) -> None:
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.util.cleanup import cleanup_model

    before = onnx.load(path)
    after = cleanup_model(ModelWrapper(str(path))).model
    assert len(before.graph.node) > 2
    assert shape_of(after) == shape_of(before)
    for kind in ("input", "output"):
        ends = [[v.name for v in getattr(m.graph, kind)] for m in (before, after)]
        assert ends[0] == ends[1]


@pytest.mark.parametrize("name", NAMES)
def test_cleanup_changes_no_name_and_no_order(folders, name):
    folder = folders(name)
    assert_cleanup_changes_nothing(folder / "model.onnx")


@needs_shared
@pytest.mark.parametrize("name", ["TFC_1W1A", "qkeras_jettagging", "kwsmlp_w3a3"])
def test_cleanup_changes_no_published_network(tmp_path, name):
    folder = export(str(SHARED / "models" / "zoo" / f"{name}.onnx"), tmp_path / "out")
    assert_cleanup_changes_nothing(folder / "model.onnx")


@pytest.mark.parametrize("name", NAMES)
def test_every_key_names_a_layer_and_every_layer_has_a_key(folders, name):
    import hls4ml

    folder = folders(name)
    config = hls4ml.converters.parse_yaml_config(str(folder / "hls4ml_config.yml"))
    keys = set(config["HLSConfig"]["LayerName"])
    layers, _, _ = hls4ml.converters.parse_onnx_model(onnx.load(folder / "model.onnx"))
    known = {layer["name"] for layer in layers}
    assert keys <= known
    stored = {v.name for v in onnx.load(folder / "model.onnx").graph.initializer}
    computed = {
        layer["name"]
        for layer in layers
        if layer["class_name"] != "Constant" and layer.get("inputs", ["x"])[0] not in stored
    }
    assert keys == computed


@pytest.mark.parametrize("name", ["qkeras_cnn", "rows"])
def test_every_type_that_is_used_was_said(folders, name):
    import os

    import hls4ml

    folder = folders(name)
    config = hls4ml.converters.parse_yaml_config(str(folder / "hls4ml_config.yml"))
    # A fallback that no type of the model is: where it shows up, an entry was missing.
    config["HLSConfig"]["Model"]["Precision"] = "fixed<61,31>"
    here = os.getcwd()
    os.chdir(folder)
    try:
        model = hls4ml.converters.convert_from_config(config)
    finally:
        os.chdir(here)
    fallen = [
        (layer.name, key)
        for layer in model.get_layers()
        for key, kind in layer.types.items()
        if str(kind.precision).startswith("fixed<61,31")
    ]
    assert fallen == []
