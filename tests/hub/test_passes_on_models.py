"""Passes on whole models: outputs stay, a second run finds nothing, names survive."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import pytest
from onnx_ir.passes import InPlacePass

import qonnx_hub as qh
from benchmarks import nets
from qonnx_hub_ir.errors import PassError
from qonnx_hub_ir.passes import (
    ChangeBatch,
    ExtractBias,
    FoldBatchnorm,
    GemmToMatmul,
    LowerConvToMatmul,
    MatmulToGemm,
    Streamline,
    ToChannelsFirst,
    ToChannelsLast,
)
from qonnx_hub_ir.validity import verify
from tests.support import corpus, shared_models

NETS = {
    "resnet8": nets.resnet8,
    "cnv": nets.cnv,
    "mobilenet": lambda: nets.mobilenet_v1(0.25, 32),
    "tfc": nets.tfc,
}

EXACT: Mapping[str, tuple[InPlacePass, ...]] = {
    "gemm_to_matmul": (GemmToMatmul(),),
    "gemm_to_matmul_and_back": (GemmToMatmul(), MatmulToGemm()),
    "matmul_to_gemm": (MatmulToGemm(),),
    "fold_batchnorm": (FoldBatchnorm(),),
    "extract_bias": (ExtractBias(),),
    "streamline_exact": (Streamline(exact=True),),
}
"""What keeps every bit on this project's executor, whose sums of one length have one order."""

ROUNDED: Mapping[str, tuple[InPlacePass, ...]] = {
    "fold_batchnorm_weights": (FoldBatchnorm(weights=True),),
    "lower_conv_to_matmul": (LowerConvToMatmul(),),
    "channels_last": (ToChannelsLast(inputs=False, outputs=False),),
    "channels_first": (ToChannelsFirst(inputs=False, outputs=False),),
    "streamline": (Streamline(),),
    "streamline_all": (FoldBatchnorm(), LowerConvToMatmul(), Streamline()),
}
"""What adds float products in another order, or rounds a scale at another place."""

TOLERANCE = 1e-5
"""Of the largest output: a hundred roundings of float32."""

FLIPS = 2e-3
"""Share of the values of large outputs that may be steps away: a sum that lay within a few
roundings of a tie is on the other side of it, and layers below go on from there."""


def _sources() -> list[Any]:
    files = [*shared_models(), *(folder / "model.onnx" for folder in corpus("qonnx"))]
    made = [pytest.param(build, id=name) for name, build in NETS.items()]
    return made + [
        pytest.param(path, id=path.parent.name if path.stem == "model" else path.stem)
        for path in files
    ]


def _load(source: Any) -> onnx_ir.Model:
    return qh.load(source) if isinstance(source, Path) else qh.load(source())


def _shape(value: onnx_ir.Value) -> list[int]:
    return [d if isinstance(d, int) else 2 for d in value.shape or ()]


def _feeds(model: onnx_ir.Model, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    feeds = {}
    for value in model.graph.inputs:
        assert value.dtype is not None
        numbers = random.uniform(-2, 2, _shape(value))
        if not value.dtype.is_floating_point():
            numbers = random.integers(0, 2, _shape(value))
        feeds[str(value.name)] = numbers.astype(value.dtype.numpy())
    return feeds


def _run(model: onnx_ir.Model, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return dict(qh.Session(model).run(feeds))


def _passed(model: onnx_ir.Model, steps: tuple[InPlacePass, ...]) -> onnx_ir.Model | None:
    """The model after the passes, each of which must then find nothing more to do.

    Nothing is returned where no pass says that it changed anything: then nothing may be
    changed.
    """
    copy = model.clone()
    modified = False
    for step in steps:
        modified |= step(copy).modified
        assert verify(copy) == []
        assert not step(copy).modified, step
    assert [v.name for v in copy.graph.inputs] == [v.name for v in model.graph.inputs]
    assert [v.name for v in copy.graph.outputs] == [v.name for v in model.graph.outputs]
    names = [node.name for node in copy.graph]
    assert len(set(names)) == len(names)
    if not modified:
        assert _bytes(copy) == _bytes(model)
    return copy if modified else None


def _bytes(model: onnx_ir.Model) -> bytes:
    return bytes(onnx_ir.to_proto(model).SerializeToString(deterministic=True))


def _assert_near(found: np.ndarray, wanted: np.ndarray) -> None:
    beyond = np.abs(found - wanted) > TOLERANCE * np.abs(wanted).max(initial=0.0)
    assert beyond.mean() <= (FLIPS if wanted.size > 10_000 else 0)


@pytest.mark.parametrize("source", _sources())
def test_the_outputs_of_a_model_stay(source: Any) -> None:
    model = _load(source)
    feeds = _feeds(model)
    wanted = _run(model, feeds)
    assert wanted
    for steps in (*EXACT.values(), *ROUNDED.values()):
        passed = _passed(model, steps)
        found = {} if passed is None else _run(passed, feeds)
        for name, array in found.items():
            if steps in EXACT.values():
                np.testing.assert_array_equal(array, wanted[name], err_msg=str(steps))
            _assert_near(array, wanted[name])


def _is_cube(value: onnx_ir.Value) -> bool:
    return len(_shape(value)) > 2 and len(set(_shape(value)[1:])) == 1


def _turned(array: np.ndarray, before: list[int], after: list[int]) -> np.ndarray:
    """Turn an array as the shape of its value was turned."""
    if before == after:
        return array
    last = (0, *range(2, array.ndim), 1)
    perm = last if [before[axis] for axis in last] == after else tuple(np.argsort(last))
    return array.transpose(perm)


EXACT_IN_ANY_LAYOUT = {
    *("branched_model_ch_last", "cnv", "eltwise_chanlast_testcase", "espcn_nn_resize_quant"),
    *("mobilenet", "residual_block_clean", "resnet8", "separable_conv_model_ch_last"),
}
"""No product behind a Flatten of an image, or one of exact sums: nothing is added in another
order."""


@pytest.mark.parametrize("source", _sources())
def test_a_model_goes_through_both_layouts_and_back(
    source: Any, request: pytest.FixtureRequest
) -> None:
    model = _load(source)
    feeds = _feeds(model)
    wanted = _run(model, feeds)
    exact = request.node.callspec.id in EXACT_IN_ANY_LAYOUT
    if any(_is_cube(v) for v in (*model.graph.inputs, *model.graph.outputs)):
        pytest.skip("its shape does not tell whether it was turned")
    steps = (ToChannelsLast(), ToChannelsFirst(), ToChannelsLast())
    copy = model.clone()
    for step in steps:
        step(copy)
        assert verify(copy) == []
        assert not step(copy).modified
        ends = zip(model.graph.inputs, copy.graph.inputs, strict=True)
        turned = {
            str(a.name): _turned(feeds[str(a.name)], _shape(a), _shape(b)) for a, b in ends
        }
        found = _run(copy, turned)
        for a, b in zip(model.graph.outputs, copy.graph.outputs, strict=True):
            assert a.name == b.name
            array = found[str(a.name)]
            back = _turned(array, list(array.shape), list(wanted[str(a.name)].shape))
            if exact:
                np.testing.assert_array_equal(back, wanted[str(a.name)])
                assert "Transpose" not in {node.op_type for node in copy.graph}
            _assert_near(back, wanted[str(a.name)])


REFUSED_BATCH = {
    "scalebias__qonnx_ts": "ends on another axis",
    "scalebias__qonnx_dyn": "ends on another axis",
    "mha_default__qonnx_ts": "is lost at",
    "mha_unpacked_po2__qonnx_ts": "is lost at",
    "mha_unpacked_po2__qonnx_dyn": "is lost at",
    "lstm_weight_only__qonnx_ts": "one sequence",
}
"""Files whose first axis is no batch, or that write the batch into shapes of inner values."""


@pytest.mark.parametrize("source", _sources())
def test_every_sample_of_another_batch_gets_its_own_answer(
    source: Any, request: pytest.FixtureRequest
) -> None:
    model = _load(source)
    name = request.node.callspec.id
    first = _shape(model.graph.inputs[0])[0]
    if name in REFUSED_BATCH:
        with pytest.raises(PassError, match=REFUSED_BATCH[name]):
            ChangeBatch(3 * first)(model)
        return
    samples = [_feeds(model, seed) for seed in range(3)]
    session = qh.Session(model)
    answers = [session.run(sample) for sample in samples]
    together = {key: np.concatenate([s[key] for s in samples]) for key in samples[0]}
    for batch in (len(together[next(iter(together))]), "batch"):
        copy = model.clone()
        assert ChangeBatch(batch)(copy).modified
        assert not ChangeBatch(batch)(copy).modified
        assert verify(copy) == []
        assert copy.graph.outputs[0].shape is not None
        assert copy.graph.outputs[0].shape[0] == batch
        for key, array in _run(copy, together).items():
            _assert_near(array, np.concatenate([answer[key] for answer in answers]))
