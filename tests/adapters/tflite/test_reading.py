"""What is read, and what is refused: files of others, with the codes that TFLite gave."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import qonnx_hub as qh
from qonnx_hub.api import load_to_run
from qonnx_hub_adapters.tflite.reader import read_net
from qonnx_hub_ir.errors import SourceError
from tests.adapters.tflite.shared_files import FOLDER, path_of, recorded, rows

EXACT = [row["file"] for row in rows("exact")] or ["absent"]
REFUSED = rows("refused")


@pytest.mark.parametrize("name", EXACT)
def test_a_run_gives_the_codes_of_the_reference_kernels(name: str):
    path = path_of(name)
    given, expected = recorded(name)
    inputs = [value.name for value in load_to_run(str(path)).graph.inputs]
    made = qh.run(str(path), {n: x[0] for n, x in zip(inputs, given, strict=True)})
    for value, codes in zip(made.values(), expected, strict=True):
        assert value.dtype == codes.dtype
        np.testing.assert_array_equal(value, codes[0])


def test_inputs_and_outputs_keep_their_integer_types():
    model = qh.load(str(path_of("mlperf_kws_int8")))
    assert [value.dtype.name for value in model.graph.inputs] == ["INT8"]
    assert [value.dtype.name for value in model.graph.outputs] == ["INT8"]


def test_damaged_and_unread_files_are_refused_in_one_line():
    if not REFUSED:
        pytest.skip("the files are not here")
    for row in REFUSED:
        with pytest.raises(SourceError) as refusal:
            qh.load(str(FOLDER / f"{row['file']}.tflite"))
        assert len(str(refusal.value).splitlines()) == 1
        if row["say"] not in ("", "-"):
            assert row["say"] in str(refusal.value)


def is_refused(data: bytes) -> bool:
    try:
        read_net(data)
    except SourceError:
        return True
    return False


def test_a_file_cut_anywhere_is_refused_or_read_and_never_fails_otherwise():
    data = path_of("op_add_int8_11").read_bytes()
    assert sum(is_refused(data[:length]) for length in range(0, len(data), 7)) > 0


def test_a_byte_changed_anywhere_is_refused_or_read_and_never_fails_otherwise():
    data = bytearray(path_of("op_softmax_int8_11").read_bytes())
    generator, refused = np.random.default_rng(0), 0
    for place in range(0, len(data), 2):
        changed = bytearray(data)
        changed[place] = generator.integers(256)
        refused += is_refused(bytes(changed))
    assert refused > 0


def test_reading_and_running_needs_no_framework():
    path = path_of("mlperf_kws_int8")
    code = (
        "import sys; import qonnx_hub as qh;"
        f"qh.load({str(path)!r});"
        "names = ('tensorflow', 'flatbuffers', 'ai_edge_litert');"
        "print([name for name in names if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
