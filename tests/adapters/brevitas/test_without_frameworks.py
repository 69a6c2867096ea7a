"""What holds where neither torch nor Brevitas is installed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from qonnx_hub_adapters import dependencies
from qonnx_hub_adapters.adapter_options import read_own_options
from qonnx_hub_adapters.brevitas.assembly import source_path
from qonnx_hub_adapters.brevitas.importer import BrevitasImporter, BrevitasOptions
from qonnx_hub_adapters.protocol import ImportOptions, Prepares, ShowsLayers
from qonnx_hub_ir.errors import MissingDependencyError, SourceError, UsageError


def class_named(name: str, module: str, *bases: type) -> type:
    return type(name, bases, {"__module__": module})


Module = class_named("Module", "torch.nn.modules.module")


class Holder(Module):
    """Looks like a torch module: its own module and its parts."""

    def __init__(self, *parts):
        self.parts = parts

    def modules(self):
        yield self
        yield from self.parts


class Layer(class_named("QuantLinear", "brevitas.nn.quant_linear", Module)):
    """A layer of somebody's own, on one of Brevitas'."""


def test_modules_are_recognized_by_the_names_of_their_classes():
    importer = BrevitasImporter()
    assert importer.accepts(Holder(Module(), Layer()))
    assert not importer.accepts(Holder(Module()))


@pytest.mark.parametrize("source", ["m.onnx", "m.pt", "module:function", 3, None, Layer])
def test_other_sources_are_left_to_others(source):
    assert not BrevitasImporter().accepts(source)
    with pytest.raises(SourceError, match="no torch module with Brevitas layers"):
        BrevitasImporter().prepare(source, ImportOptions())


def test_a_missing_framework_says_what_to_install(monkeypatch):
    monkeypatch.setattr(dependencies, "is_installed", lambda name: False)
    with pytest.raises(MissingDependencyError) as caught:
        BrevitasImporter().load(Holder(Layer()), ImportOptions(args=(0,)))
    assert "adapter 'brevitas' needs torch" in str(caught.value)
    assert "pip install 'qonnx-hub[brevitas]'" in str(caught.value)


def test_asking_whether_a_source_is_accepted_imports_no_framework():
    program = (
        "import sys\n"
        "from qonnx_hub_adapters.brevitas.importer import BrevitasImporter, BrevitasOptions\n"
        "assert not BrevitasImporter().accepts('m.pt')\n"
        "assert not {'torch', 'brevitas'} & set(sys.modules), sorted(sys.modules)\n"
    )
    paths = [path for path in sys.path if path]
    environment = {"PYTHONPATH": ":".join(paths)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def own_options(**given):
    return read_own_options(BrevitasOptions, "brevitas", ImportOptions(extra=given))


def test_options_are_read_by_name():
    assert own_options() == BrevitasOptions(dynamo=False)
    assert own_options(dynamo=True) == BrevitasOptions(dynamo=True)
    with pytest.raises(UsageError, match="adapter 'brevitas' has no option mode, x; it has"):
        own_options(x=1, mode=2)


def test_the_importer_prepares_sources_and_shows_their_layers():
    assert isinstance(BrevitasImporter(), Prepares)
    assert isinstance(BrevitasImporter(), ShowsLayers)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("/module/module.0/act_quant/Mark", "0.act_quant"),
        ("/module/module.1/module.1.0/Conv", "1.0"),
        ("/module/features/features.3/conv/Conv_1", "features.3.conv"),
        ("/module/Concat", ""),
        ("node_conv2d", ""),
    ],
)
def test_a_path_is_read_out_of_the_names_of_the_exporter(name, path):
    assert source_path(name) == path
