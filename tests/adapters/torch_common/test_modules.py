"""What needs no torch: names of inputs and outputs, kinds of modules, answers in pieces."""

from __future__ import annotations

import numpy as np
import pytest

from qonnx_hub_adapters.hawq.options import HawqOptions
from qonnx_hub_adapters.pytorch.importer import PyTorchOptions
from qonnx_hub_adapters.torch_common.modules import (
    answer_in_pieces,
    classes_from,
    input_names,
    is_module,
    output_names,
    unwrapped,
)
from qonnx_hub_adapters.torch_common.weights import without_wrapper
from qonnx_hub_ir.errors import UsageError

Module = type("Module", (), {"__module__": "torch.nn.modules.module"})
Layer = type("Layer", (Module,), {"__module__": "brevitas.nn"})


class Net:
    def forward(self, image, scale, *, training=False):
        return image * scale


class Open:
    def forward(self, *values):
        return values


def test_inputs_are_called_like_the_parameters_of_forward():
    assert input_names(Net(), 2) == ["image", "scale"]
    assert input_names(Net(), 1) == ["image"]


def test_inputs_without_a_parameter_of_their_own_are_numbered():
    assert input_names(Open(), 1) == ["input"]
    assert input_names(Open(), 2) == ["input_0", "input_1"]


def test_one_output_has_no_number():
    assert output_names(1) == ["output"]
    assert output_names(2) == ["output_0", "output_1"]


def test_modules_are_recognized_by_name_and_package():
    assert is_module(Layer())
    assert not is_module(Net())
    assert classes_from(Layer(), "brevitas") == {"Layer"}
    assert classes_from(Layer(), "brev", "torchvision") == set()


def test_wrappers_are_taken_off():
    inner = Net()
    wrapper = type("DataParallel", (), {})
    outer = wrapper()
    outer.module = wrapper()
    outer.module.module = inner
    assert unwrapped(outer) is inner


@pytest.mark.parametrize(
    ("samples", "unit", "sizes"),
    [(6, 2, [2, 2, 2]), (6, 0, [6]), (5, 2, [5]), (2, 2, [2]), (1, 2, [1])],
)
def test_more_samples_than_traced_are_run_in_pieces(samples, unit, sizes):
    x, single = np.arange(samples, dtype=np.float32), np.float32(3).reshape(())
    seen = []

    def forward(arrays):
        seen.append(len(arrays[0]))
        return [arrays[0] + arrays[1]]

    answer = answer_in_pieces(forward, [x, single], unit)
    assert seen == sizes
    assert answer["output"].tolist() == (x + 3).tolist()


def test_the_prefix_of_a_wrapper_is_removed_where_every_name_has_it():
    assert without_wrapper({"module.a": 1, "module.b": 2}) == {"a": 1, "b": 2}
    assert without_wrapper({"module.a": 1, "b": 2}) == {"module.a": 1, "b": 2}


@pytest.mark.parametrize("kind", [HawqOptions, PyTorchOptions])
def test_a_mode_that_does_not_exist_is_refused(kind):
    assert kind("quant").mode == "quant"
    with pytest.raises(UsageError, match="unknown mode 'fast'; there are: exact, quant"):
        kind("fast")
