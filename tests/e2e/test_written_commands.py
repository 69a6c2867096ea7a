"""Every command that README and pages show runs; every one in a sentence names what exists."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import typer.main

from docs.pages import call, in_folder
from qonnx_hub.cli import app
from qonnx_hub_adapters.dependencies import is_installed
from tests.adapters.keras_files.kit import bits, layer, sequential, write_h5
from tests.adapters.keras_files.test_shared_models import write_keras
from tests.report_schemas import net

pytest.importorskip(
    "onnxruntime"
)  # what is shown is shown with it; once in a whole run is enough

ROOT = Path(__file__).resolve().parents[2]
TEXTS = [*ROOT.glob("*.md"), *sorted((ROOT / "docs").rglob("*.md"))]
NEEDS = {"@ort": "onnxruntime", "--backend tflite": "ai_edge_litert", "module:build": "torch"}
"""Parts of a command, and what must be installed for it."""

ANSWERS = (" lint ", "check net.tflite")
"""Parts of commands that may end with 1."""

LINE = re.compile(r"^    (qonnx-hub .*)$", re.MULTILINE)
SPAN = re.compile(r"`(qonnx-hub [^`]+)`")


def shown(text: str) -> Iterator[str]:
    """Give the commands of indented blocks, one by one."""
    for line in LINE.findall(text):
        for part in line.partition("   # ")[0].split("&&"):
            yield part.strip()


COMMANDS = [
    pytest.param(one, id=f"{path.stem}-{number}")
    for path in TEXTS
    for number, one in enumerate(shown(path.read_text(encoding="utf-8")))
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that commands name; ``changed.onnx`` alone is another function."""
    folder = tmp_path_factory.mktemp("files")
    for name in ("model", "m", "a", "b"):
        onnx.save(net(), folder / f"{name}.onnx")
    onnx.save(net(0.5), folder / "changed.onnx")
    np.savez(folder / "x.npz", x=np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3))
    kernel = np.array([[0.3, -0.9], [0.5, 0.125], [-0.26, 0.74]], dtype=np.float32)
    given = {"units": 2, "activation": "linear", "use_bias": False}
    config = sequential(layer("QDense", "fc", **given, kernel_quantizer=bits(4)), shape=[3])
    (folder / "net.json").write_text(json.dumps(config))
    write_h5(folder / "net.h5", config, {"fc": [kernel]})
    shutil.copy(folder / "net.h5", folder / "w.h5")
    for name in ("net", "jets"):
        write_keras(folder / f"{name}.keras", config, {"layers/q_dense": kernel})
    (folder / "package").mkdir()
    (folder / "package" / "__init__.py").write_text("")
    (folder / "package" / "module.py").write_text(
        "import torch\n\n\ndef build():\n    return torch.nn.Conv2d(3, 2, 3)\n"
    )
    with in_folder(folder):
        for before in (
            "convert model.onnx -o out.onnx --to qcdq",
            "convert model.onnx -o net.tflite --to tflite --allow-lossy --no-check",
            "convert net.keras -o net.onnx",
            "certify a.onnx b.onnx -o certificate.json",
        ):
            code, said = call(["qonnx-hub", *before.split()])
            assert code == 0, said
    shutil.copy(folder / "net.onnx", folder / "jets.onnx")
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_is_shown_runs(
    command: str, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part, module in NEEDS.items():
        if part in command and not is_installed(module):
            pytest.skip(f"{part} needs {module}")
    folder = shutil.copytree(files, tmp_path / "files")
    monkeypatch.syspath_prepend(str(folder))
    if " reduce " in command:
        shutil.copy(folder / "changed.onnx", folder / "b.onnx")
    with in_folder(folder):
        code, said = call(shlex.split(command))
    # What a lint finds, or where kernels of TFLite part, is an answer as well.
    answers = {0, 1} if any(part in command for part in ANSWERS) else {0}
    assert code in answers, said


SENTENCES = [
    pytest.param(one, id=f"{path.stem}-{number}")
    for path in TEXTS
    for number, one in enumerate(SPAN.findall(path.read_text(encoding="utf-8")))
]


@pytest.mark.parametrize("command", SENTENCES)
def test_a_command_in_a_sentence_names_a_verb_and_options_that_exist(command: str) -> None:
    group = typer.main.get_command(app)
    found, words = group, command.split()[1:]
    while words and re.match("[a-z]", words[0]) and hasattr(found, "get_command"):
        below = found.get_command(None, words.pop(0))  # type: ignore[arg-type]
        assert below is not None, command
        found = below
    known = {
        name for option in found.params for name in (*option.opts, *option.secondary_opts)
    }
    given = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
    if "compat" not in command:  # the tools of qonnx read their words by themselves
        assert given - {"-h"} <= known, command
