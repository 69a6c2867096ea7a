"""Live models: prepared once, compared with their own answer, their layers named."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from onnx import helper

import qonnx_hub as qh
from qonnx_hub.api import ConversionError
from qonnx_hub.io import registry
from qonnx_hub_adapters.onnx_reader import read_model
from qonnx_hub_adapters.protocol import AdapterInfo
from qonnx_hub_ir.errors import SourceError
from tests.support import model_of, quant_node

X = np.linspace(-2, 2, 32, dtype=np.float32).reshape(8, 4)


@dataclass(frozen=True)
class Net:
    """A quantizer of four bits, said to have one scale and computing with another."""

    said: float
    own: float


@dataclass(frozen=True)
class Sampled:
    """A net and what was given beside it."""

    net: Net
    args: tuple[Any, ...]


class FakeImporter:
    """Reads nets that need a sample."""

    info = AdapterInfo(name="fake", summary="for tests")

    def accepts(self, source: object) -> bool:
        return isinstance(source, (Net, Sampled))

    def prepare(self, source: Any, options: Any) -> Sampled:
        if isinstance(source, Sampled):
            return source
        if not options.args:
            raise SourceError("a sample is needed")
        return Sampled(source, options.args)

    def load(self, source: Any, options: Any) -> Any:
        net = self.prepare(source, options).net
        constants = {"s": net.said, "z": 0.0, "b": 4.0}
        return read_model(model_of([quant_node("x", "y")], {"x": ("N", 4)}, ["y"], constants))

    def run_source(self, source: Any, feeds: Any) -> Any:
        assert isinstance(source, Sampled), "the hub lost the sample"
        scale = np.float32(source.net.own)
        return {"y": np.clip(np.rint(feeds["x"] / scale), -8, 7).astype(np.float32) * scale}

    def run_layers(self, source: Any, feeds: Any) -> Any:
        return self.run_source(source, feeds)


@pytest.fixture(autouse=True)
def fake(monkeypatch):
    # By hand: pytest imports this module under a name of its own.
    original = registry.Registry.get

    def get(self: registry.Registry, name: str) -> Any:
        return FakeImporter() if name == "fake" else original(self, name)

    monkeypatch.setattr(registry, "IMPORTERS", {"fake": "", **registry.IMPORTERS})
    monkeypatch.setattr(registry.Registry, "get", get)


def test_a_sample_reaches_the_importer_and_the_models_own_answer():
    assert qh.load(Net(0.25, 0.25), args=(X,)) is not None
    report = qh.convert(Net(0.25, 0.25), args=(X,))
    assert report.own
    assert report.own.outputs[0].count > 0
    with pytest.raises(SourceError, match="a sample is needed"):
        qh.load(Net(0.25, 0.25))


def test_a_model_that_is_read_wrong_is_refused_with_its_first_layer():
    wrong = Net(said=0.25, own=0.5)
    words = "computes other values than the model.*first layer that differs is 'y'"
    with pytest.raises(ConversionError, match=words):
        qh.load(wrong, args=(X,))
    with pytest.raises(ConversionError, match=words):
        qh.convert(wrong, args=(X,))
    assert qh.load(wrong, args=(X,), verify=False) is not None


def test_inputs_whose_first_axes_are_not_all_samples_are_run_at_once():
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], "product")]
    model = model_of(nodes, {"x": (2, 3), "w": (3, 4)}, ["y"])
    report = qh.convert(model)
    assert (report.verdict, report.check.samples) == ("PROVEN", 1)
    assert report.check.outputs[0].shape == (2, 4)


def test_a_live_model_is_checked_with_its_sample():
    answer = FakeImporter().run_source(Sampled(Net(0.25, 0.25), (X,)), {"x": X})
    assert qh.check(Net(0.25, 0.25), {"y": answer["y"]}, {"x": X}, args=(X,))
    assert not qh.check(Net(0.25, 0.5), {"y": answer["y"]}, {"x": X}, args=(X,))
    ir = qh.load(Net(0.25, 0.25), args=(X,))
    assert qh.check(Net(0.25, 0.25), ir, args=(X,))
    # What is checked is the model, not what was read of it.
    assert not qh.check(Net(0.25, 0.5), ir, args=(X,))
