"""Work on the workers of a dask scheduler: the same answers, whoever is killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import qonnx_hub as qh
from qonnx_hub.cli import app
from qonnx_hub.cli.many import Where, convert_many
from qonnx_hub.conversion.options import ConvertOptions
from qonnx_hub.io.cluster import connected
from qonnx_hub_ir.errors import UsageError
from tests.support import model_of, quant_node

distributed = pytest.importorskip("distributed")

CONSTANTS = {"s": 0.25, "z": 0.0, "b": 4.0}


def write(path: Path, mode: str = "ROUND") -> Path:
    model = model_of(
        [quant_node("x", "y", rounding_mode=mode)], {"x": (1, 3)}, ["y"], CONSTANTS
    )
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("code")
    (folder / "killer.py").write_text(
        "import os\n\ndef model():\n    os.kill(os.getpid(), 9)\n"
    )
    options = {"processes": True, "threads_per_worker": 1, "dashboard_address": None}
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        with distributed.LocalCluster(n_workers=2, **options) as found:
            yield found


def numbers(result: Any) -> list[Any]:
    return [row.to_dict()["accumulated"] for row in result.layer_rows]


@pytest.fixture
def pair(nets: Any, surgery: Any) -> tuple[Any, Any]:
    model = nets["mlp"]()
    other = surgery.copied(model)
    surgery.change_constant(other, "act2.scale", lambda s: s * 1.01)
    return model, other


OPTIONS = {"samples": 6000, "boundary": False}


def test_a_check_gives_the_same_numbers(cluster: Any, pair: tuple[Any, Any]) -> None:
    alone = qh.check(*pair, **OPTIONS)
    with connected(cluster.scheduler_address) as workers:
        spread = qh.check(*pair, **OPTIONS, executor=workers)
    assert numbers(spread) == numbers(alone)
    assert spread.findings == alone.findings


def test_a_killed_worker_loses_nothing(cluster: Any, pair: tuple[Any, Any]) -> None:
    alone = qh.check(*pair, **OPTIONS)
    with connected(cluster.scheduler_address) as workers:
        pids = list(workers.client.run(os.getpid).values())
        killed: list[int] = []

        def kill_one(done: int, total: int) -> None:
            if not killed:
                killed.append(pids[0])
                os.kill(pids[0], signal.SIGKILL)

        spread = qh.check(*pair, **OPTIONS, executor=workers, progress=kill_one)
    assert killed
    assert numbers(spread) == numbers(alone)


def test_models_are_converted_by_workers(cluster: Any, tmp_path: Path) -> None:
    models = [write(tmp_path / f"{n}.onnx", n) for n in ("ROUND", "FLOOR")]
    where = Where(dask=cluster.scheduler_address)
    options = ConvertOptions(to="qcdq")
    found = list(convert_many([*map(str, models)], str(tmp_path / "out"), options, where))
    assert [outcome.exit_code for outcome in found] == [0, 0]
    for path in models:
        qh.convert(path, tmp_path / "single.onnx", "qcdq")
        single = (tmp_path / "single.onnx").read_bytes()
        assert (tmp_path / "out" / path.name).read_bytes() == single


def test_a_model_that_kills_its_workers_stops_no_other(cluster: Any, tmp_path: Path) -> None:
    sources = ["killer:model", str(write(tmp_path / "m.onnx"))]
    where = Where(dask=cluster.scheduler_address)
    found = list(convert_many(sources, str(tmp_path / "out"), ConvertOptions(), where))
    assert [outcome.exit_code for outcome in found] == [3, 0]


def test_the_command_line_takes_an_address(cluster: Any, tmp_path: Path) -> None:
    path = str(write(tmp_path / "m.onnx"))
    words = ["check", path, path, "--dask", cluster.scheduler_address, "--proof-seconds", "0"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0
    assert "EQUAL" in done.stdout


def test_an_address_without_a_scheduler_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qonnx_hub.io.cluster._SECONDS", 1)
    with (
        pytest.raises(UsageError, match="no scheduler answers"),
        connected("tcp://127.0.0.1:9"),
    ):
        pass


def test_workers_of_other_versions_are_refused(
    cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qonnx_hub.io.cluster.__version__", "0.0.0")
    with (
        pytest.raises(UsageError, match=r"qonnx_hub .* \(here 0\.0\.0\)"),
        connected(cluster.scheduler_address),
    ):
        pass
