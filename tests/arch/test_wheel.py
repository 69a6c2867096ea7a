"""What the wheel installs; runs where the session is held to the installed packages."""

from __future__ import annotations

import os
from importlib import metadata
from pathlib import Path

import pytest

import qonnx_hub
import qonnx_hub_adapters
import qonnx_hub_ir

pytestmark = pytest.mark.skipif(
    os.environ.get("QONNX_HUB_REQUIRE_INSTALLED") != "1",
    reason="the packages under test are the source tree, not an installed wheel",
)


@pytest.mark.parametrize("package", [qonnx_hub, qonnx_hub_adapters, qonnx_hub_ir])
def test_the_package_under_test_is_the_installed_one(package):
    assert Path(package.__file__).parents[1].name == "site-packages"


def test_the_wheel_installs_three_packages_and_nothing_else():
    files = metadata.files("qonnx-hub") or []
    tops = {file.parts[0] for file in files if file.parts[0] != ".."}
    about = f"qonnx_hub-{metadata.version('qonnx-hub')}.dist-info"
    assert tops == {"qonnx_hub", "qonnx_hub_adapters", "qonnx_hub_ir", about}


def test_the_wheel_carries_every_module_of_the_source_tree(room_files, repository):
    installed = {str(file) for file in metadata.files("qonnx-hub") or []}
    sources = {file.relative_to(repository).as_posix() for file in room_files}
    names = {name.removeprefix("ir/").removeprefix("adapters/") for name in sources}
    assert names - installed == set()


@pytest.mark.parametrize("name", ["qonnx_hub", "qonnx_hub_adapters", "qonnx_hub_ir"])
def test_the_wheel_says_that_the_packages_are_typed(name):
    assert f"{name}/py.typed" in {str(file) for file in metadata.files("qonnx-hub") or []}


def test_the_wheel_carries_its_license():
    names = {file.name for file in metadata.files("qonnx-hub") or []}
    assert "LICENSE" in names


def test_the_version_is_the_one_that_the_package_reports():
    assert metadata.version("qonnx-hub") == qonnx_hub.__version__
