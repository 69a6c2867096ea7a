"""Published models and exports of other tools, against answers recorded from their tools."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import qonnx_hub as qh
from qonnx_hub_ir.errors import HubError
from tests.support import INFINITE, SHARED, corpus, needs_shared, shared_models

pytestmark = needs_shared

# Every product and sum of these nets is exact in float32: scales are powers of two, and
# nothing but quantized and elementwise arithmetic follows. Recorded with qonnx 1.0.0.
EXACT = {
    "TFC_1W1A",
    "TFC_2W2A",
    "bnn_model_fc_1layer",
    "separable_conv_model_ch_last",
    "eltwise_chanlast_testcase",
}

# Its output is quantized, its scales are no powers of two: where a convolution's sum lies
# within the last bits of a rounding tie, the order of summation decides. Recorded with another
# order, so single values may be one output step away.
MAY_FLIP = {"espcn_nn_resize_quant": 2e-5}


def _runs(path: Path) -> tuple[np.ndarray, np.ndarray]:
    recorded = np.load(path.with_suffix(".io.npz"))
    session = qh.Session(qh.load(path))
    name = session.input_names[0]
    answers = [next(iter(session.run({name: x}).values())) for x in recorded["x"]]
    return np.stack(answers), recorded["y"]


@pytest.mark.parametrize(
    "path",
    [p for p in shared_models() if p.with_suffix(".io.npz").exists()],
    ids=lambda p: p.stem,
)
def test_a_published_model_gives_the_recorded_answer(path: Path) -> None:
    ours, recorded = _runs(path)
    assert recorded.size > 0
    if path.stem in EXACT:
        np.testing.assert_array_equal(ours, recorded)
        return
    error = np.abs(ours - recorded)
    beyond = error > 1e-5 * np.abs(recorded).max()
    if path.stem in MAY_FLIP:
        step = 1 / 255
        assert beyond.mean() <= MAY_FLIP[path.stem]
        assert error.max() <= step * (1 + 1e-5)
        return
    assert not beyond.any()


@pytest.mark.parametrize("path", shared_models(), ids=lambda p: p.stem)
def test_samples_computed_together_or_apart_are_the_same(path: Path) -> None:
    session = qh.Session(qh.load(path))
    (value,) = session._model.graph.inputs
    assert value.shape is not None
    shape = tuple(int(d) for d in value.shape)
    if np.prod(shape) > 200_000:
        pytest.skip("large images: covered by the smaller models")
    rng = np.random.default_rng(0)
    feed = rng.uniform(-1, 1, (3 * shape[0], *shape[1:])).astype(np.float32)
    together = next(iter(session.run({session.input_names[0]: feed}).values()))
    apart = [
        next(iter(session.run({session.input_names[0]: feed[k : k + shape[0]]}).values()))
        for k in range(0, len(feed), shape[0])
    ]
    expected = np.concatenate(apart)
    assert together.shape == expected.shape
    # A matrix product may sum in another order for another batch; on quantized outputs that
    # can flip a tie, hence the share.
    close = np.isclose(together, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    assert close.mean() >= 1 - 2e-5


@pytest.mark.parametrize("folder", corpus("qonnx"), ids=lambda p: p.name)
def test_a_brevitas_export_gives_the_answer_of_torch(folder: Path) -> None:
    recorded = np.load(folder / "io.npz")
    session = qh.Session(qh.load(folder / "model.onnx"))
    feeds = [recorded[f"x{i}"] for i in range(len(session.input_names))]
    expected = recorded["y0"]
    for batch, answer in enumerate(expected):
        given = {n: f[batch] for n, f in zip(session.input_names, feeds, strict=True)}
        ours = next(iter(session.run(given).values()))
        # 2e-6 of the largest value: the noise of another order of summation.
        bound = 2e-6 * np.nanmax(np.abs(answer), initial=0.0)
        np.testing.assert_allclose(ours, answer, rtol=0, atol=bound, equal_nan=True)


def test_a_model_that_the_reference_tool_cannot_execute_runs() -> None:
    (path,) = [p for p in shared_models() if p.stem == "branched_model_ch_last"]
    session = qh.Session(qh.load(path))
    x = np.random.default_rng(0).uniform(0, 1, (1, 256, 256, 3)).astype(np.float32)
    y = session.run({session.input_names[0]: x})["global_out"]
    assert y.shape == (1, 256, 256, 2)
    assert np.isfinite(y).all()
    assert np.unique(y).size > 10


def foreign(name: str) -> Path:
    file = SHARED / "models" / "dialects" / f"{name}.onnx"
    if not file.exists():
        pytest.skip("the folder of models lacks this file")
    return file


@pytest.mark.parametrize("name", ["deeploy_add_rq", "deeploy_conv2d_rq"])
def test_a_requantization_by_shift_is_read(name: str) -> None:
    operators = {node.op_type for node in qh.load(foreign(name)).graph}
    assert "Quant" in operators
    assert "RequantShift" not in operators


def test_an_unknown_operator_is_kept_and_refused_by_name_when_it_is_run() -> None:
    model = qh.load(foreign("deeploy_hardswish_rq"))
    assert "iHardswish" in {node.op_type for node in model.graph}
    with pytest.raises(HubError, match=r"iHardswish_0.*no kernel for this operator"):
        qh.Session(model)


@pytest.mark.parametrize("writer", ["ts", "dyn"])
def test_a_file_with_an_infinite_scale_is_refused(writer: str) -> None:
    folder = SHARED / "corpus" / "brevitas" / f"{INFINITE}__qonnx_{writer}"
    with pytest.raises(HubError, match="scale must be finite, it is inf"):
        qh.load(folder / "model.onnx")
