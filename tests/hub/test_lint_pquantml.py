"""Files of PQuantML's exporter: what it lost is named, with what to do about it."""

from __future__ import annotations

import onnx
import pytest
from onnx import helper
from typer.testing import CliRunner

import qonnx_hub as qh
from qonnx_hub.cli import app
from qonnx_hub_ir.errors import SourceError
from tests.support import DOMAIN, model_of


def exported(mode, stem="dense_in"):
    """Return a quantizer as PQuantML writes it: parameters are named after its stem."""
    parts = [f"{stem}_{part}" for part in ("scale", "zero_point", "bit_width")]
    node = helper.make_node(
        *("Quant", ["x", *parts], [f"{stem}_quantized"], "q"),
        domain=DOMAIN,
        signed=1,
        narrow=0,
        rounding_mode=mode,
    )
    numbers = dict(zip(parts, (0.25, 0, 6), strict=True))
    return model_of([node], {"x": (1, 4)}, [f"{stem}_quantized"], numbers)


@pytest.mark.parametrize("target", ["qonnx", "finn", "hls4ml"])
@pytest.mark.parametrize(
    ("mode", "cause", "remedy"),
    [
        ("ROUND", "for RND, RND_ZERO and RND_INF too", "HALF_UP"),
        ("FLOOR", "for RND_MIN_INF too", "HALF_DOWN"),
        ("TRUNCATE", "writes it for TRN_ZERO", "DOWN"),
    ],
)
def test_a_rounding_mode_that_stands_for_several_is_named(target, mode, cause, remedy):
    found = qh.lint(exported(mode), target).findings
    named = [one for one in found if cause in one.reason]
    assert len(named) == 1
    assert remedy in named[0].remedy


def test_bits_that_were_merged_and_wrapping_are_named_once():
    found = qh.lint(exported("ROUND"), "qonnx")
    reasons = " ".join(one.reason for one in found.findings)
    assert reasons.count("merges those of channels or weights into one") == 1
    assert reasons.count("drops the overflow mode WRAP") == 1
    assert found, "what is only worth knowing is no error"


def test_a_mode_that_nobody_knows_is_an_error_of_the_file(tmp_path):
    onnx.save(exported("TRUNCATE"), tmp_path / "net.onnx")
    ran = CliRunner().invoke(app, ["lint", str(tmp_path / "net.onnx"), "--target", "qonnx"])
    assert ran.exit_code == 1
    assert "1 error" in ran.output
    with pytest.raises(SourceError, match="TRUNCATE of PQuantML is DOWN"):
        qh.load(tmp_path / "net.onnx")


def test_files_of_others_are_left_alone():
    other = exported("ROUND")
    other.graph.node[0].output[0] = other.graph.output[0].name = "y"
    assert not [one for one in qh.lint(other, "qonnx").findings if "PQuantML" in one.reason]
