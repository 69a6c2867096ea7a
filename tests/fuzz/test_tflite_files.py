"""Spoiled bytes of TFLite files: refused in one line, or read and run without a raw error.

``QONNX_HUB_TFLITE_FUZZ`` says how many spoiled files; 600 by default.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable

import numpy as np
import pytest

from qonnx_hub_adapters.tflite.float_rules import float_form
from qonnx_hub_adapters.tflite.interpreter import run_net
from qonnx_hub_adapters.tflite.net import TfliteNet
from qonnx_hub_adapters.tflite.net_writer import write_net
from qonnx_hub_adapters.tflite.reader import read_net
from qonnx_hub_ir.errors import HubError
from tests.adapters.tflite.random_nets import TRIED, Case

FILES = int(os.environ.get("QONNX_HUB_TFLITE_FUZZ", "600"))
MOST_TO_RUN = 1 << 16
NUMBERS = (0, 1, 2, 3, 127, 128, 255, 256, 1 << 16, (1 << 31) - 1, -1, -2, -(1 << 31))

Rng = np.random.Generator


def flipped(data: bytearray, rng: Rng) -> None:
    for _ in range(int(rng.integers(1, 9))):
        data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))


def overwritten(data: bytearray, rng: Rng) -> None:
    at = int(rng.integers(0, (len(data) - 4) // 4)) * 4
    struct.pack_into("<i", data, at, int(rng.choice(NUMBERS)))


def cut(data: bytearray, rng: Rng) -> None:
    del data[int(rng.integers(len(data))) :]


def moved(data: bytearray, rng: Rng) -> None:
    size = int(rng.integers(1, 64))
    start, to = (int(rng.integers(max(len(data) - size, 1))) for _ in range(2))
    data[to : to + size] = data[start : start + size]


def removed(data: bytearray, rng: Rng) -> None:
    at = int(rng.integers(len(data)))
    del data[at : at + int(rng.integers(1, 16))]


SPOILED: tuple[Callable[[bytearray, Rng], None], ...] = (
    flipped,
    overwritten,
    overwritten,
    cut,
    moved,
    removed,
)


def fits(net: TfliteNet) -> bool:
    return sum(int(np.prod(t.shape, dtype=np.int64)) for t in net.tensors) <= MOST_TO_RUN


def try_file(data: bytes) -> str:
    """Read, write as float layers and run a file; the error that says no, or what was done."""
    try:
        net = read_net(data)
        if not fits(net):
            return "read"
        float_form(net)
        feeds = {
            name: np.zeros(net.tensors[i].shape, dtype=net.tensors[i].dtype)
            for i, name in zip(net.inputs, net.input_names, strict=True)
        }
        with np.errstate(all="ignore"):
            run_net(net, feeds)
    except HubError as error:
        return str(error)
    return "run"


@pytest.mark.parametrize("part", range(6))
def test_spoiled_bytes_are_refused_in_one_line_or_run(part: int):
    ends = {"run": 0, "refused": 0}
    for seed in range(part, FILES, 6):
        rng = np.random.default_rng([seed, 22])
        write, name, type_ = TRIED[seed % len(TRIED)]
        case = Case(type_, [seed, 1, 1])
        write(case, name)
        data = bytearray(write_net(case.finished()[0]))
        for _ in range(int(rng.integers(1, 3))):
            SPOILED[int(rng.integers(len(SPOILED)))](data, rng)
            if len(data) < 16:
                break
        try:
            said = try_file(bytes(data))
        except Exception as error:
            raise AssertionError(f"seed {seed}, {name} {type_}: {error!r}") from error
        assert "\n" not in said
        ends["run" if said in ("run", "read") else "refused"] += 1
    assert min(ends.values()) > 0
