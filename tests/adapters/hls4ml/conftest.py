"""hls4ml, and a compiler that is fast where only bits matter."""

from __future__ import annotations

import os
import shutil

import pytest

from qonnx_hub_adapters.dependencies import is_installed

HAS_HLS4ML = is_installed("hls4ml") and shutil.which("g++") is not None
# These need hls4ml itself, and a compiler.
BOUND = {
    *("test_acceptance.py", "test_compiled_constructs.py", "test_parsed_config.py"),
    *("test_traces.py", "test_static_quantization.py", "test_hgq_files.py"),
    *("test_folder_as_side.py", "test_random_nets.py"),
}
FRAMEWORK_WARNINGS = [
    r"ignore::UserWarning",
    r"ignore:.*:DeprecationWarning",
    r"ignore:.*:FutureWarning",
    r"ignore:.*:RuntimeWarning:(hls4ml|qonnx)\b.*",
]


def pytest_configure() -> None:
    if not HAS_HLS4ML and os.environ.get("QONNX_HUB_REQUIRE_HLS4ML") == "1":
        raise pytest.UsageError("QONNX_HUB_REQUIRE_HLS4ML=1, but hls4ml or g++ is missing")


def pytest_ignore_collect(collection_path) -> bool | None:
    return True if not HAS_HLS4ML and collection_path.name in BOUND else None


def pytest_collection_modifyitems(items) -> None:
    for item in items:
        if item.path.name in BOUND and item.path.parent.name == "hls4ml":
            # What hls4ml warns about inside its own code is not ours to mend.
            for text in FRAMEWORK_WARNINGS:
                item.add_marker(pytest.mark.filterwarnings(text))


@pytest.fixture(autouse=True)
def fast_compiler(request, tmp_path_factory, monkeypatch):
    """Compile without optimization: the bits are the same, and most of the time is saved."""
    if request.path.name not in BOUND or not HAS_HLS4ML:
        return
    folder = tmp_path_factory.mktemp("compiler")
    script = folder / "g++"
    script.write_text(
        "#!/bin/bash\n"
        'arguments=(); for one in "$@"; do [ "$one" = "-O3" ] && one="-O0"; '
        'arguments+=("$one"); done\n'
        f'exec {shutil.which("g++")} "${{arguments[@]}}"\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
