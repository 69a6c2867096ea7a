"""Published models by name: from a mirror, or by download, never unverified in silence."""

from __future__ import annotations

import functools
import hashlib
import http.server
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from qonnx_hub import zoo
from qonnx_hub_ir.errors import MissingDependencyError, SourceError, UsageError
from tests.support import SHARED, model_of, needs_shared

MODELS = SHARED / "models" / "zoo"


def small_model(path: Path, gain: float = 2.0) -> str:
    """Write y = gain * x, and return the hash of the file."""
    node = helper.make_node("Mul", ["x", "gain"], ["y"])
    onnx.save(model_of([node], {"x": (1, 3)}, ["y"], {"gain": gain}), path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A mirror with a model "doubler", known with its hash, and one "blank", without."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    digest = small_model(folder / "doubler.onnx")
    small_model(folder / "blank.onnx")
    pattern = zoo.entries()[0]
    base = "https://example.org/models/a"
    known = tuple(
        replace(pattern, name=name, url=f"{base}/{name.lower()}.onnx", sha256=sha)
        for name, sha in (("Doubler", digest), ("blank", ""))
    )
    monkeypatch.setattr(zoo, "entries", lambda: known)
    monkeypatch.delenv(zoo.MIRROR_VARIABLE, raising=False)
    return folder


# The list


def test_names_are_unique_without_regard_to_case():
    names = [entry.name.lower() for entry in zoo.entries()]
    assert len(set(names)) == len(names) > 10


@pytest.mark.parametrize("entry", zoo.entries(), ids=lambda entry: entry.name)
def test_an_entry_says_where_a_file_is_and_what_goes_in(entry):
    assert entry.url.startswith("https://")
    assert entry.file.endswith(".onnx")
    assert entry.preprocessing.endswith(".")
    assert entry.dataset
    assert entry.topology
    assert len(entry.sha256) in (0, 64)
    # A branch moves; a hash belongs to one commit or release.
    assert not entry.sha256 or "/main/" not in entry.url


# The tables of the zoo's READMEs.
PUBLISHED = {
    "TFC_1W1A": "93.17",
    "TFC_1W2A": "94.79",
    "TFC_2W2A": "96.60",
    "CNV_1W1A": "84.22",
    "CNV_1W2A": "87.80",
    "CNV_2W2A": "89.03",
    "mobilenet_4W4A": "71.14",
    "kwsmlp_w3a3": "87.89",
    "unsw_nb15_mlp_w2a2": "91.90",
    "qkeras_jettagging": "76.2",
    "quant_resnet18_w4a4_a2q_12b": "83.9",
    "quant_resnet18_w4a4_a2q_plus_13b": "92.8",
}


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_the_accuracy_is_the_published_one(name):
    assert zoo.find(name).accuracy.startswith(f"{PUBLISHED[name]} %")


def test_a_name_is_found_in_any_case():
    assert zoo.find("tfc_1w1a").name == "TFC_1W1A"


def test_an_unknown_name_is_answered_with_near_ones():
    with pytest.raises(UsageError, match="no 'kws_w3a3'; near names: kwsmlp_w3a3"):
        zoo.find("kws_w3a3")


# Mirrors


def test_a_file_of_the_mirror_is_verified_and_returned(mirror: Path):
    assert zoo.get("doubler", mirror=mirror) == mirror / "doubler.onnx"


def test_the_environment_names_a_mirror(mirror: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(zoo.MIRROR_VARIABLE, str(mirror))
    assert zoo.get("doubler") == mirror / "doubler.onnx"
    assert zoo.available() == ["Doubler", "blank"]


def test_a_clone_of_the_repository_is_a_mirror(mirror: Path, tmp_path: Path):
    below = tmp_path / "clone" / "models" / "a"
    below.mkdir(parents=True)
    shutil.copy(mirror / "doubler.onnx", below)
    assert zoo.get("doubler", mirror=tmp_path / "clone") == below / "doubler.onnx"


def test_a_file_with_another_hash_is_refused(mirror: Path):
    small_model(mirror / "doubler.onnx", gain=3.0)
    with pytest.raises(SourceError, match=r"is not the published Doubler: its sha256 is"):
        zoo.get("doubler", mirror=mirror)


def test_a_file_without_a_recorded_hash_needs_permission(mirror: Path):
    with pytest.raises(UsageError, match="--allow-unverified"):
        zoo.get("blank", mirror=mirror)
    found = zoo.get("blank", mirror=mirror, allow_unverified=True)
    assert found == mirror / "blank.onnx"


def test_a_file_that_the_mirror_lacks_is_not_downloaded_instead(mirror: Path):
    (mirror / "doubler.onnx").unlink()
    with pytest.raises(SourceError, match=r"has no doubler\.onnx"):
        zoo.get("doubler", mirror=mirror)


def test_a_mirror_that_is_no_folder_is_refused(tmp_path: Path):
    with pytest.raises(UsageError, match="is no folder"):
        zoo.get("TFC_1W1A", mirror=tmp_path / "missing")


# Checks


def record(folder: Path, outputs: np.ndarray) -> None:
    inputs = np.arange(6, dtype=np.float32).reshape(2, 1, 3)
    np.savez(folder / "doubler.io.npz", x=inputs, y=outputs)


DOUBLED = 2 * np.arange(6, dtype=np.float32).reshape(2, 1, 3)


def test_a_model_that_computes_what_was_recorded_passes(mirror: Path):
    record(mirror, DOUBLED)
    found = zoo.check("doubler", mirror=mirror)
    assert found
    assert (found.published, found.equal) == (True, True)
    assert (found.samples, found.values, found.different) == (2, 6, 0)


def test_a_model_that_computes_something_else_fails(mirror: Path):
    record(mirror, DOUBLED + np.float32(0.5))
    found = zoo.check("doubler", mirror=mirror)
    assert not found
    assert (found.different, found.largest) == (6, 0.5)


def test_a_file_that_is_not_the_published_one_fails(mirror: Path):
    small_model(mirror / "doubler.onnx", gain=3.0)
    found = zoo.check("doubler", mirror=mirror)
    assert (bool(found), found.published, found.equal) == (False, False, None)


def test_without_recorded_outputs_the_hash_decides(mirror: Path):
    found = zoo.check("doubler", mirror=mirror)
    assert (bool(found), found.samples, found.equal) == (True, 0, None)
    assert zoo.check("blank", mirror=mirror).published is None


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": DOUBLED}, "does not hold the arrays x and y"),
        ({"x": DOUBLED, "y": DOUBLED[:1]}, "2 inputs and 1 outputs"),
    ],
)
def test_a_broken_record_is_refused(mirror: Path, arrays, message):
    np.savez(mirror / "doubler.io.npz", **arrays)
    with pytest.raises(SourceError, match=message):
        zoo.check("doubler", mirror=mirror)


@needs_shared
@pytest.mark.parametrize("name", ["TFC_1W1A", "TFC_2W2A", "kwsmlp_w3a3", "qkeras_jettagging"])
def test_a_published_model_computes_what_the_qonnx_package_recorded(name):
    found = zoo.check(name, mirror=MODELS)
    assert found.published
    assert found.equal
    assert found.samples > 0


# Downloads


@pytest.fixture
def server(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Serve the mirror's folder, and return the list of what was asked for."""
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            asked.append(self.path)

    handler = functools.partial(Handler, directory=str(mirror))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        host = f"http://127.0.0.1:{running.server_port}"
        known = tuple(replace(e, url=f"{host}/{e.file}") for e in zoo.entries())
        monkeypatch.setattr(zoo, "entries", lambda: known)
        yield asked
        running.shutdown()


def test_a_model_is_downloaded_once(mirror: Path, server: list[str], tmp_path: Path):
    pytest.importorskip("pooch")
    first = zoo.get("doubler", cache_folder=tmp_path / "kept")
    second = zoo.get("doubler", cache_folder=tmp_path / "kept")
    assert first == second == tmp_path / "kept" / "doubler.onnx"
    assert first.read_bytes() == (mirror / "doubler.onnx").read_bytes()
    assert server == ["/doubler.onnx"]


def test_a_download_with_another_hash_is_refused_and_not_kept(
    mirror: Path, server: list[str], tmp_path: Path
):
    pytest.importorskip("pooch")
    small_model(mirror / "doubler.onnx", gain=3.0)
    with pytest.raises(SourceError, match=r"Doubler cannot be fetched from http"):
        zoo.get("doubler", cache_folder=tmp_path / "kept")
    assert not list((tmp_path / "kept").glob("*.onnx"))


def test_a_download_that_fails_is_one_clear_error(
    mirror: Path, server: list[str], tmp_path: Path
):
    pytest.importorskip("pooch")
    (mirror / "doubler.onnx").unlink()
    with pytest.raises(SourceError, match=r"cannot be fetched from http.*404"):
        zoo.get("doubler", cache_folder=tmp_path / "kept")


def test_without_pooch_a_download_says_what_to_install(
    mirror: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("qonnx_hub_adapters.dependencies.is_installed", lambda module: False)
    with pytest.raises(MissingDependencyError, match=r"pip install 'qonnx-hub\[zoo\]'"):
        zoo.get("doubler")
