"""What is known and said about PyTorch where it is not installed."""

import subprocess
import sys

import pytest

from qonnx_hub.io import registry
from qonnx_hub_adapters.dependencies import is_installed
from qonnx_hub_adapters.protocol import ImportOptions
from qonnx_hub_adapters.pytorch.importer import PyTorchImporter
from qonnx_hub_ir import MissingDependencyError


def test_asking_whether_a_source_is_read_imports_no_torch():
    code = (
        "import sys; from qonnx_hub_adapters.pytorch.importer import PyTorchImporter; "
        "i = PyTorchImporter(); assert i.accepts('a.pt2'); assert not i.accepts(3); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)}
    )


def test_the_importer_is_found_by_name():
    assert isinstance(registry.find_importer(None, "pytorch"), PyTorchImporter)


def test_pytorch_is_asked_after_those_with_layers_of_their_own():
    names = registry.importers().names()
    assert names.index("pytorch") > names.index("hawq")


@pytest.mark.skipif(is_installed("torch"), reason="torch is installed")
def test_a_missing_torch_says_what_to_install():
    with pytest.raises(MissingDependencyError, match=r"qonnx-hub\[pytorch\]"):
        PyTorchImporter().load("net.pt2", ImportOptions())
