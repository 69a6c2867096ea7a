"""``qonnx-download-model``: published models by the qonnx package's keys."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qonnx_hub import zoo
from qonnx_hub.compat.arguments import Listing, run_tool
from qonnx_hub.compat.cleanup import cleanup
from qonnx_hub.io.atomic import replacing
from qonnx_hub_ir.errors import UsageError

_ACCUMULATORS = ("16b", "15b", "14b", "13b", "12b")

KEYS: Mapping[str, str] = {
    "FINN-CNV_W2A2": "CNV_2W2A",
    "FINN-CNV_W1A2": "CNV_1W2A",
    "FINN-CNV_W1A1": "CNV_1W1A",
    "FINN-TFC_W1A1": "TFC_1W1A",
    "FINN-TFC_W1A2": "TFC_1W2A",
    "FINN-TFC_W2A2": "TFC_2W2A",
    "RadioML_VGG10": (
        "https://github.com/Xilinx/brevitas-radioml-challenge-21/raw/"
        "9eef6a2417d6a0c078bfcc3a4dc95033739c5550/sandbox/notebooks/models/"
        "pretrained_VGG10_w8a8_20_export.onnx"
    ),
    "Conv_bias_example": "https://zenodo.org/record/7626922/files/super_resolution.onnx",
    "MobileNetv1-w4a4": "mobilenet_4W4A",
    **{f"rn18_w4a4_a2q_{b}": f"quant_resnet18_w4a4_a2q_{b}" for b in _ACCUMULATORS},
    **{f"rn18_w4a4_a2q_plus_{b}": f"quant_resnet18_w4a4_a2q_plus_{b}" for b in _ACCUMULATORS},
}
"""Key -> name in the zoo, or the address of what is not there."""


def download_model(
    test_model: str,
    *,
    dl_dir: str = "/tmp",
    do_cleanup: bool = False,
    return_modelwrapper: bool = False,
) -> Any:
    """Return the path of a published model, fetched where it is not there yet.

    Args:
        test_model: Its key; "list" lists them.
        dl_dir: Folder for KEY.onnx.
        do_cleanup: Also write KEY_clean.onnx, and return that.
        return_modelwrapper: Return the model in a wrapper.

    Raises:
        UsageError: No such key.
        SourceError: It cannot be fetched, or is not the published file.
        MissingDependencyError: A download needs pooch, which is not installed.
    """
    if test_model == "list":
        raise Listing("\n".join(KEYS))
    if test_model not in KEYS:
        raise UsageError(f"no model has the key '{test_model}'; there are: {', '.join(KEYS)}")
    path = Path(dl_dir) / f"{test_model}.onnx"
    if not path.is_file():
        found = zoo.fetch(_entry(test_model), allow_unverified=True)
        with replacing(path) as temporary:
            shutil.copyfile(found, temporary)
    if do_cleanup:
        target = path.with_name(f"{test_model}_clean.onnx")
        cleanup(str(path), out_file=str(target))
        path = target
    if not return_modelwrapper:
        return str(path)
    # Imported here because it loads the qonnx package where that is installed.
    from qonnx_hub.compat.model_wrapper import wrapper_class

    return wrapper_class()(str(path))


def _entry(key: str) -> zoo.Entry:
    known = KEYS[key]
    if "://" not in known:
        return zoo.find(known)
    said = dict.fromkeys(("dataset", "topology", "input_bits", "weight_bits"), "")
    more = dict.fromkeys(("activation_bits", "accuracy", "preprocessing"), "")
    return zoo.Entry(name=key, url=known, sha256="", **said, **more)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool."""
    return run_tool(download_model, argv)


if __name__ == "__main__":
    sys.exit(main())
