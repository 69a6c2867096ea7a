"""Report pages in a real browser, wide and narrow, light and dark; commands at a terminal.

Run by ``tox run -e pages``. Screenshots go to the folder ``QONNX_HUB_SCREENSHOTS``, if set.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from benchmarks import nets
from qonnx_hub.cli import main
from tests.e2e.screens import COMMANDS, make_files
from tests.e2e.test_help import run
from tests.e2e.test_screens import ESCAPES

pty = pytest.importorskip("pty")

pytestmark = pytest.mark.skipif(
    "QONNX_HUB_BROWSER" not in os.environ, reason="tox run -e pages opens pages in a browser"
)

WIDTHS = (1280, 390)
_LOOKS = Path(__file__).with_name("looks.js")
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
LONG = "model/block_12/depthwise_separable_convolution/" + "batch_normalization" * 3

PAGES = {
    "check of TFC, a scale changed": "check tfc.onnx tfc_bad.onnx",
    "check of TFC, equal": "check tfc.onnx tfc.onnx",
    "check of MobileNet, a scale changed": "check mobilenet.onnx mobilenet_bad.onnx",
    "check of a U-Net, a scale changed": "check unet.onnx unet_bad.onnx",
    "many sides": "check tfc.onnx tfc_bad.onnx tfc.onnx",
    "conversion": "convert mobilenet.onnx -o out.onnx --to qcdq --force",
    "a folder": "convert tfc.onnx mobilenet.onnx text.onnx -o outs --no-check",
    "inspection": "inspect mobilenet.onnx",
    "cost": "cost mobilenet.onnx",
    "routes": "routes tfc.onnx",
    "names": "check names.onnx names_bad.onnx",
}


def _changed(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with the scale of one activation two percent larger."""
    found = onnx.ModelProto()
    found.CopyFrom(model)
    held = {tensor.name: tensor for tensor in found.graph.initializer}
    quantizers = [
        n for n in found.graph.node if n.op_type == "Quant" and n.input[0] not in held
    ]
    node = quantizers[len(quantizers) // 3]
    scale = numpy_helper.to_array(held[node.input[1]]) * np.float32(1.02)
    found.graph.initializer.append(numpy_helper.from_array(scale, "another_scale"))
    node.input[1] = "another_scale"
    return found


def _long_names() -> onnx.ModelProto:
    """Return TFC with long names, and with markup in them."""
    model = nets.tfc()
    for k, node in enumerate(model.graph.node):
        node.name = f"<b>{k}</b>{LONG}"
        if node.op_type == "MatMul":
            old, node.output[0] = node.output[0], f"{LONG}/{k}<script>"
            for other in model.graph.node:
                other.input[:] = [
                    node.output[0] if name == old else name for name in other.input
                ]
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("pages")
    for name, model in {
        "tfc": nets.tfc(),
        "mobilenet": nets.mobilenet_v1(0.25, 32),
        "unet": nets.unet(4, 32),
        "names": _long_names(),
    }.items():
        onnx.save(model, found / f"{name}.onnx")
        onnx.save(_changed(model), found / f"{name}_bad.onnx")
    (found / "text.onnx").write_text("no model\n")
    return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    path = next(filter(None, map(shutil.which, _BROWSERS)), None)
    assert path is not None, "no Chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield found
        found.close()


@pytest.fixture(scope="module")
def written(folder: Path) -> dict[str, Path]:
    """Return the pages, written by the command line."""
    found = {}
    before = Path.cwd()
    os.chdir(folder)
    try:
        for k, (name, command) in enumerate(PAGES.items()):
            code, text = run(*shlex.split(command), "--report", f"{k}.html")
            assert code in {0, 1, 3}, text
            assert Path(f"{k}.html").exists(), text
            found[name] = folder / f"{k}.html"
    finally:
        os.chdir(before)
    return found


def _opened(browser: Any, path: Path, width: int, scheme: str) -> tuple[Any, list[str]]:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on(
        "request",
        lambda request: said.append(request.url) if "file:" not in request.url else 0,
    )
    page.goto(path.as_uri())
    return page, said


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_cut_off_or_hard_to_read(
    browser: Any, written: dict[str, Path], name: str, width: int, scheme: str
) -> None:
    page, said = _opened(browser, written[name], width, scheme)
    found = page.evaluate(_LOOKS.read_text("utf-8"))
    kept = os.environ.get("QONNX_HUB_SCREENSHOTS")
    if kept:
        page.screenshot(path=f"{kept}/{name}, {width}, {scheme}.png", full_page=True)
    page.close()
    assert found == []
    # Nothing is fetched, no script but the page's own is tried.
    assert said == []
    assert written[name].stat().st_size < 500_000


def test_what_is_cut_off_or_pale_would_be_found(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "bad.html"
    path.write_text(
        "<!doctype html><body style='background:#fff'><p style='width:900px'>wide</p>"
        "<p style='width:50px;overflow:hidden;white-space:nowrap'>clipped words</p>"
        "<p style='color:#999'>pale</p>"
    )
    page, _ = _opened(browser, path, 390, "light")
    found = " ".join(page.evaluate(_LOOKS.read_text("utf-8")))
    page.close()
    for words in ("px wide", "beyond the edge", "clipped", "contrast 2.85"):
        assert words in found


def test_the_filter_leaves_what_differs_and_a_title_sorts(
    browser: Any, written: dict[str, Path]
) -> None:
    page, _ = _opened(browser, written["check of MobileNet, a scale changed"], 1280, "light")
    layers = page.locator(
        "section", has=page.get_by_role("heading", name="Layers", exact=True)
    )
    everything, bad = layers.locator("tbody tr").count(), layers.locator("tr.bad").count()
    assert 0 < bad < everything
    assert layers.locator("tbody tr:visible").count() == everything
    layers.get_by_label("only what differs").check()
    assert layers.locator("tbody tr:visible").count() == bad
    layers.get_by_role("button", name="max abs").first.click()
    shown = [
        float(text) for text in layers.locator("tr.bad td:nth-child(3)").all_inner_texts()
    ]
    assert shown == sorted(shown, reverse=True)
    layers.get_by_role("button", name="max abs").first.click()
    again = [
        float(text) for text in layers.locator("tr.bad td:nth-child(3)").all_inner_texts()
    ]
    assert again == sorted(shown)
    page.close()


def test_a_cause_and_a_box_of_the_graph_lead_to_their_row(
    browser: Any, written: dict[str, Path]
) -> None:
    page, _ = _opened(browser, written["check of MobileNet, a scale changed"], 390, "light")
    link = page.locator("ol a").first
    link.click()
    assert page.locator("tr:target td").first.inner_text() == link.inner_text()
    page.locator("g.box.near").first.click()
    assert page.locator("tr:target td").first.inner_text() == link.inner_text()
    page.close()


def _at_terminal(folder: Path, words: list[str], columns: int = 120) -> tuple[int, str]:
    """Run a command in a child of this process, at a terminal; return exit code and screen.

    Everything is imported already: a fresh interpreter each would take minutes.
    """
    child, master = pty.fork()
    if child == 0:
        os.chdir(folder)
        os.environ |= {"TERM": "xterm-256color", "COLUMNS": str(columns)}
        sys.argv = ["qonnx-hub", *words]
        sys.stdin, sys.stdout, sys.stderr = map(os.fdopen, range(3), ("r", "w", "w"))
        code = 70
        try:
            main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 0
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    shown = b""
    with contextlib.suppress(OSError):  # the terminal is closed with its last process
        while part := os.read(master, 65536):
            shown += part
    os.close(master)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status, shown.decode("utf-8", errors="replace")


def test_every_command_answers_at_a_terminal(tmp_path: Path) -> None:
    make_files(tmp_path)
    wrong = []
    for command, code, words in COMMANDS:
        status, text = _at_terminal(tmp_path, shlex.split(command))
        # What a terminal of this width breaks is one text again.
        shown = "".join(re.sub(ESCAPES, "", text).split()).replace(
            "\N{BOX DRAWINGS LIGHT VERTICAL}", ""
        )
        if status != code or "".join(words.split()) not in shown or "Traceback" in text:
            wrong.append((command, status, text[-600:]))
    assert wrong == []
