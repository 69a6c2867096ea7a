"""Names of models are data: whatever they hold, each kind of file stays what it is."""

from __future__ import annotations

import functools
import html.parser
import json
import re
import subprocess
from inspect import signature
from pathlib import Path
from shutil import which
from unittest import mock
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

import qonnx_hub as qh
from qonnx_hub.analysis.weight_export import IntegerWeight, write_integers
from qonnx_hub.equivalence.reports.junit import junit_xml
from qonnx_hub.io.arrays import read_arrays, write_arrays
from qonnx_hub.io.terminal import visible
from qonnx_hub.reporting.tables import Table
from qonnx_hub_adapters.hls4ml.project import script
from qonnx_hub_adapters.hls4ml.yaml_text import from_yaml, to_yaml
from tests.support import model_of

_HOSTILE = (
    *("int", "main", "a", "a_scale", "a_BITS", "INT64_MIN", "UINT8_MAX", "linux", "OUT_H"),
    *("*/ int x; /*", "a*\\\n/ code /*", "??/\n", "<script>alert(1)</script>", "&amp;", '"'),
    *("file", "allow_pickle", "a/b:0", "naïve", "\x1b[31m", "\x00", "\u202e", "[/red]"),
    *("yes", "NO", "null", "~", "1e-05", ".inf", "- a", "a: b", "a #b", "!!python/object:os"),
    *("'", "''' + x", "{{ x }}", "{% x %}", "${x}", "`x`", "]]>", "\u2028", "\x85", ""),
)
NAMES = st.one_of(st.sampled_from(_HOSTILE), st.text(max_size=12))
WORDS = NAMES.filter(lambda name: not re.search(r"[\ud800-\udfff]", name))
FEW = settings(max_examples=60, deadline=None)

_LINE = re.compile(
    r"#ifndef \w+|#endif|#include <stdint\.h>|#define \w+( \d+)?|\};|"
    r"static const (u?int(8|16|32|64)_t|float) [A-Za-z]\w*\[\d+\] = \{|[-\d., ef+]+"
)


def _weights(names: list[str]) -> list[IntegerWeight]:
    ones = np.ones(1, np.float32)
    return [IntegerWeight(n, np.arange(3, dtype=np.int8), ones, ones, 4, True) for n in names]


@FEW
@given(names=st.lists(WORDS, min_size=1, max_size=6))
def test_a_header_holds_definitions_and_comments_alone(tmp_path_factory, names) -> None:
    path = tmp_path_factory.mktemp("h") / "out.h"
    write_integers(_weights(names), path)
    text = path.read_text("ascii")
    assert not re.search(r"\\\n|\?\?/", text)  # lines that go on, in C's two spellings
    code = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    lines = [line.strip() for line in code.splitlines() if line.strip()]
    assert all(_LINE.fullmatch(line) for line in lines)
    defined = re.findall(r"#define (\w+)|_t (\w+)\[|float (\w+)\[", code)
    found = ["".join(groups) for groups in defined]
    assert len(found) == len(set(found)) == 1 + 5 * len(names)


@pytest.mark.skipif(which("cc") is None, reason="needs a C compiler")
def test_a_compiler_takes_a_header_of_hostile_names(tmp_path: Path) -> None:
    path = tmp_path / "out.h"
    write_integers(_weights(list(_HOSTILE)), path)
    (tmp_path / "main.c").write_text('#include "out.h"\nint main(void) { return a[0]; }\n')
    command = ["cc", "-std=gnu11", "-fsyntax-only", "-Wall", "-Werror", "-Wno-unused"]
    said = subprocess.run(
        [*command, "main.c"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert said.returncode == 0, said.stderr


def _table(cell: str) -> Table:
    return Table(["head"], [[cell]])


class _Tags(html.parser.HTMLParser):
    """Collects tags and texts."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@FEW
@given(name=WORDS)
def test_a_table_in_html_holds_a_name_as_text(name: str) -> None:
    reader = _Tags()
    reader.feed(_table(name).to_html())
    assert reader.tags <= {"table", "caption", "thead", "tbody", "tr", "th", "td", "p"}
    assert name in "".join(reader.texts)


PLAIN = st.one_of(
    WORDS,
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
)
CONFIGS = st.dictionaries(
    WORDS,
    st.one_of(PLAIN, st.lists(PLAIN, max_size=3), st.dictionaries(WORDS, PLAIN, max_size=3)),
    min_size=1,
    max_size=4,
)


@FEW
@given(data=CONFIGS)
def test_what_is_written_as_yaml_is_read_again(data) -> None:
    def without_yaml(name: str, *rest: object):
        raise ImportError(name)

    with mock.patch("importlib.import_module", without_yaml):
        assert _typed(from_yaml(to_yaml(data))) == _typed(data)


@FEW
@given(data=CONFIGS)
def test_what_is_written_as_yaml_is_read_by_pyyaml(data) -> None:
    yaml = pytest.importorskip("yaml")
    assert _typed(yaml.safe_load(to_yaml(data))) == _typed(data)


def _typed(data: object) -> str:
    return json.dumps(data, sort_keys=False)


@FEW
@given(text=st.one_of(NAMES, st.text(st.characters(max_codepoint=0xA0), max_size=20)))
def test_a_terminal_gets_no_character_that_steers_it(text: str) -> None:
    shown = visible(text)
    steering = [
        *range(0x20),
        *range(0x7F, 0xA0),
        *range(0x202A, 0x202F),
        *range(0x2066, 0x206A),
    ]
    assert not {chr(code) for code in steering} - {"\n", "\t"} & set(shown)
    plain = all(ord(c) not in steering for c in text)
    assert not plain or shown == text


@FEW
@given(names=st.lists(WORDS.filter(lambda n: "\x00" not in n), min_size=1, unique=True))
def test_arrays_of_any_name_are_written_and_read(tmp_path_factory, names) -> None:
    path = tmp_path_factory.mktemp("n") / "x.npz"
    arrays = {name: np.full(1, k, np.float32) for k, name in enumerate(names)}
    write_arrays(path, arrays)
    found = read_arrays(path)
    assert {name: array.tolist() for name, array in found.items()} == {
        name: array.tolist() for name, array in arrays.items()
    }


@functools.cache
def _result() -> qh.CheckResult:
    model = model_of([helper.make_node("Relu", ["x"], ["y"])], {"x": (2,)}, ["y"])
    return qh.check(model, model, samples=4)


@FEW
@given(name=WORDS)
def test_a_list_of_test_cases_is_xml_whatever_a_model_is_called(name: str) -> None:
    root = ElementTree.fromstring(junit_xml({name: _result()}))
    assert sum(one.tag == "testcase" for one in root.iter()) == 2  # the output, the verdict


def test_the_script_of_a_folder_is_one_text_for_all_models() -> None:
    compile(script(), "build.py", "exec")
    assert not signature(script).parameters  # so no name of a model can be in it
