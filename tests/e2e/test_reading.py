"""Files that onnxruntime loads are read."""

from pathlib import Path

import pytest

from tests.e2e.reading import read_all
from tests.support import SHARED, needs_shared

pytest.importorskip("onnxruntime")


@needs_shared
@pytest.mark.parametrize("folder", ["models", "qdq"])
def test_every_public_file_that_onnxruntime_loads_is_read(folder: str) -> None:
    lost = [one for one in read_all([SHARED / folder]) if one.is_lost]
    assert [f"{one.path.name}: {one.refusal}" for one in lost] == []


def test_a_file_that_both_refuse_is_not_lost(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"\x0a\xff\xff")
    (found,) = read_all([tmp_path])
    assert found.refusal
    assert not found.is_lost
