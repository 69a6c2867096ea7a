"""hls4ml converts a self-contained file to the layers it makes of the plain one."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import onnx
import onnx_ir
import pytest

import qonnx_hub as qh
from tests.adapters.qonnx.kit import self_contained
from tests.support import SHARED, needs_shared

pytestmark = needs_shared
pytest.importorskip("hls4ml")


def layers_of(proto: onnx.ModelProto, folder: Path) -> list[tuple[str, str, str]]:
    with warnings.catch_warnings():
        # What other packages warn about is not ours to mend.
        warnings.simplefilter("ignore")
        import hls4ml
        from qonnx.core.modelwrapper import ModelWrapper
        from qonnx.transformation.gemm_to_matmul import GemmToMatMul
        from qonnx.util.cleanup import cleanup_model

        model = cleanup_model(cleanup_model(ModelWrapper(proto)).transform(GemmToMatMul()))
        options: dict[str, Any] = {"backend": "Vitis"}
        config = hls4ml.utils.config.config_from_onnx_model(
            model, granularity="name", default_precision="fixed<16,6>", **options
        )
        found = hls4ml.converters.convert_from_onnx_model(
            model, output_dir=str(folder), hls_config=config, **options
        )
        return [
            (layer.name, layer.class_name, str(layer.get_output_variable().type.precision))
            for layer in found.get_layers()
        ]


def test_hls4ml_makes_the_same_layers(tmp_path: Path) -> None:
    path = SHARED / "models" / "zoo" / "qkeras_jettagging.onnx"
    plain = qh.convert(path, None, "qonnx", check=False).model
    assert plain is not None
    file = self_contained(path)
    assert file.functions
    expected = layers_of(onnx_ir.to_proto(plain), tmp_path / "plain")
    assert len(expected) > 5
    assert layers_of(file, tmp_path / "contained") == expected
