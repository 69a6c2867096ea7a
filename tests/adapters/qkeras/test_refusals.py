"""What cannot be said exactly is refused by name, and the model stays as it was."""

from __future__ import annotations

import numpy as np
import pytest

from qonnx_hub_ir.errors import SourceError, UnsupportedGraphError
from tests.adapters.qkeras.helpers import ask_keras, convert, state
from tests.adapters.qkeras.kit import GENERATION, set_weights

X = [np.linspace(-2, 2, 12, dtype=np.float32).reshape(2, 6)]


def refused(kit, quantizer, *words: str, kind=UnsupportedGraphError) -> None:
    """A dense layer and an activation named "odd" are refused with these words, untouched."""
    model = kit.model(
        (6,),
        kit.q.QDense(6, kernel_quantizer="quantized_bits(4,0)", name="fine"),
        kit.q.QActivation(quantizer, name="odd"),
    )
    set_weights(model)
    before, answer = state(model), None
    if not isinstance(quantizer, kit.q.bernoulli):
        answer = [value.tobytes() for value in ask_keras(model, X)]
        before = state(model)
    with pytest.raises(kind) as caught:
        convert(model)
    for word in ("odd", *words):
        assert word in str(caught.value)
    assert state(model) == before
    if answer is not None:
        assert [value.tobytes() for value in ask_keras(model, X)] == answer


@pytest.mark.parametrize("alpha", ["auto", "auto_po2"])
def test_a_scale_computed_from_the_activations_is_refused(kit, alpha) -> None:
    refused(kit, kit.q.quantized_bits(4, 0, alpha=alpha), "quantized_bits", "whole batch")


@pytest.mark.parametrize("name", ["binary", "ternary", "stochastic_ternary"])
def test_an_automatic_scale_of_any_quantizer_on_an_activation_is_refused(kit, name) -> None:
    refused(kit, getattr(kit.q, name)(alpha="auto"), name, "whole batch")


def test_bernoulli_is_refused_because_it_is_random_at_inference(kit) -> None:
    refused(kit, kit.q.bernoulli(alpha=1.0), "bernoulli", "random")


def test_a_class_derived_from_a_quantizer_is_refused(kit) -> None:
    class Louder(kit.q.quantized_bits):
        def __call__(self, x):
            return 2 * super().__call__(x)

    refused(kit, Louder(4, 0, alpha=1), "Louder", "quantized_bits")


def test_an_object_of_the_users_own_in_the_place_of_a_quantizer_is_refused(kit) -> None:
    class Mine:
        def __call__(self, x):
            return x + 1

    refused(kit, Mine(), "Mine", "not a quantizer of QKeras")


def test_a_function_of_the_users_own_on_a_bias_is_refused(kit) -> None:
    def coarse(x):
        return kit.keras.activations.relu(x)

    model = kit.model((6,), kit.q.QDense(5, bias_quantizer=coarse, name="layer"))
    set_weights(model)
    with pytest.raises(UnsupportedGraphError, match="coarse"):
        convert(model)


def test_every_refused_quantizer_of_a_model_is_listed(kit) -> None:
    model = kit.model(
        (6,),
        kit.q.QActivation(kit.q.quantized_bits(4, 0, alpha="auto"), name="first"),
        kit.q.QActivation(kit.q.ternary(alpha="auto"), name="second"),
    )
    with pytest.raises(UnsupportedGraphError) as caught:
        convert(model)
    assert [gap.node for gap in caught.value.gaps] == ["first", "second"]


def test_bernoulli_on_a_kernel_is_refused(kit) -> None:
    model = kit.model((6,), kit.q.QDense(5, kernel_quantizer="bernoulli()", name="layer"))
    with pytest.raises(UnsupportedGraphError, match="layer"):
        convert(model)


def test_a_layer_that_keeps_its_state_between_calls_is_refused(kit) -> None:
    start = kit.keras.Input(batch_shape=(2, 3, 4))
    layer = kit.q.QSimpleRNN(3, kernel_quantizer="quantized_bits(4)", stateful=True)
    model = kit.keras.Model(start, layer(start))
    with pytest.raises(UnsupportedGraphError, match="between calls"):
        convert(model)


def test_weights_that_become_nan_are_refused(kit) -> None:
    quantizer = kit.q.quantized_bits(1, 0, 1, alpha="auto")
    dense = kit.q.QDense(5, kernel_quantizer=quantizer, name="layer")
    model = kit.model((6,), dense)
    set_weights(model)
    with np.errstate(all="ignore"), pytest.raises(SourceError, match=r"layer.*not finite"):
        convert(model)


def test_a_model_that_does_not_say_its_inputs_asks_for_samples(kit) -> None:
    model = subclassed(kit)
    with pytest.raises(SourceError, match="args="):
        convert(model)


def test_a_subclassed_model_is_converted_with_samples(kit) -> None:
    model = subclassed(kit)
    ir = convert(model, args=(X[0],))
    assert [node.op_type for node in ir.graph] == ["Relu", "Quant"]


def subclassed(kit):
    class Net(kit.keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.act = kit.q.QActivation("quantized_relu(4)")

        def call(self, x, training=False):
            return self.act(x)

    net = Net()
    net(X[0])
    return net


def test_a_failure_in_the_middle_leaves_the_model_as_it_was(kit, monkeypatch) -> None:
    from qonnx_hub_adapters.qkeras import tracing

    def broken(*_, **__):
        raise RuntimeError("broken on purpose")

    model = kit.model(
        (6,),
        kit.q.QDense(4, kernel_quantizer="quantized_bits(4,0,alpha='auto')"),
        kit.q.QActivation("quantized_relu(4)"),
    )
    set_weights(model)
    answer = [value.tobytes() for value in ask_keras(model, X)]
    before = state(model)
    monkeypatch.setattr(tracing, "_still", broken)
    with pytest.raises(SourceError, match="broken on purpose"):
        convert(model)
    assert state(model) == before
    assert [value.tobytes() for value in ask_keras(model, X)] == answer


def test_a_model_can_be_trained_after_its_conversion(kit) -> None:
    model = kit.model(
        (6,),
        kit.q.QDense(4, kernel_quantizer="quantized_bits(4,0,alpha=1)"),
        # Without a ReLU: one that is dead for the inputs at hand has no gradient.
        kit.q.QActivation("quantized_bits(8, 3, alpha=1)"),
    )
    set_weights(model)
    convert(model)
    model.compile("sgd", "mse")
    before = [w.copy() for w in model.get_weights()]
    target = np.ones((2, 4), dtype=np.float32)
    model.fit(X[0], target, epochs=1, verbose=0)
    assert any(
        not np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True)
    )


def test_an_adaptive_activation_keeps_its_integer_bits(kit) -> None:
    layer = kit.q.QAdaptiveActivation("quantized_bits", 6, current_step=1)
    model = kit.model((6,), layer)
    layer.quantizer.integer.assign(np.full(layer.quantizer.integer.shape, 3, dtype=np.int32))
    convert(model)
    assert np.all(np.asarray(layer.quantizer.integer) == 3)


@pytest.mark.skipif(GENERATION != 2, reason="float64 is a setting of Keras 2's backend here")
def test_another_float_type_is_refused(kit) -> None:
    model = kit.model((6,), kit.q.QActivation("quantized_relu(4)"))
    kit.keras.backend.set_floatx("float64")
    try:
        with pytest.raises(SourceError, match="float64"):
            convert(model)
    finally:
        kit.keras.backend.set_floatx("float32")
