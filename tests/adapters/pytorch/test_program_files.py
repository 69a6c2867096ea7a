"""Files of programs: no way of torch's to read one runs code that nobody asked for."""

import io
import json
import os
import pickle
import zipfile

import pytest
import torch
from torch import nn

import qonnx_hub as qh
from qonnx_hub_ir import SourceError

OPAQUE = "data/constants/opaque_obj_0"


class Code:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def program(path):
    torch.export.save(torch.export.export(nn.Linear(3, 2).eval(), (torch.zeros(1, 3),)), path)
    with zipfile.ZipFile(path) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def saved(thing, **settings):
    written = io.BytesIO()
    torch.save(thing, written, **settings)
    return written.getvalue()


def object_of_python(parts, code):
    known = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True}
    config = {"config": {"evil": {**known, "tensor_meta": None}}}
    parts["data/constants/model_constants_config.json"] = json.dumps(config).encode()
    parts[OPAQUE] = pickle.dumps(code)


def object_of_python_in_capitals(parts, code):
    object_of_python(parts, code)
    parts[OPAQUE.upper()] = parts.pop(OPAQUE)


def pickled_weight(parts, code):
    name = "data/weights/model_weights_config.json"
    config = json.loads(parts[name])
    config["config"]["weight"]["use_pickle"] = True
    parts[name] = json.dumps(config).encode()
    place = f"data/weights/{config['config']['weight']['path_name']}"
    parts[place] = saved(code, _use_new_zipfile_serialization=False)


def sample_in_capitals(parts, code):
    del parts["data/sample_inputs/model.pt"]
    parts["data/sample_inputs/model.PT"] = saved(code, _use_new_zipfile_serialization=False)


def sample_that_only_the_safe_reader_stumbles_over(parts, code):
    # An OrderedDict given the state (None, {}): pickle takes it, torch's own reader ends with
    # a TypeError, after which torch.export reads the part once more without a check.
    start = b"\x80\x02ccollections\nOrderedDict\n)RN}\x86b0"
    written = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(saved({}))) as blank,
        zipfile.ZipFile(written, "w") as archive,
    ):
        for name in blank.namelist():
            own = start + pickle.dumps(code, 2)[2:]
            archive.writestr(name, own if name.endswith(".pkl") else blank.read(name))
    parts["data/sample_inputs/model.pt"] = written.getvalue()


WAYS = [
    object_of_python,
    object_of_python_in_capitals,
    pickled_weight,
    sample_in_capitals,
    sample_that_only_the_safe_reader_stumbles_over,
]


def planted(way, tmp_path):
    path, folder = tmp_path / "net.pt2", tmp_path / "ran"
    parts = program(path)
    way(parts, Code(str(folder)))
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(f"net/{name}", content)
    return path, folder


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_code_in_a_program_is_not_run(way, tmp_path):
    path, folder = planted(way, tmp_path)
    with pytest.raises(SourceError, match=r"net\.pt2.* (holds code|cannot be read)"):
        qh.load(path)
    assert not folder.exists()


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_the_code_is_run_where_the_caller_says_so(way, tmp_path):
    path, folder = planted(way, tmp_path)
    with pytest.raises(SourceError):
        qh.load(path, allow_code=True)
    assert folder.exists()


def test_a_compiled_model_is_refused_by_its_name(tmp_path):
    def compiled(parts, _code):
        parts["data/aotinductor/model/net.so"] = b"\x7fELF"

    path, _ = planted(compiled, tmp_path)
    with pytest.raises(SourceError, match=r"holds code \('net/data/aotinductor/.*net\.so'"):
        qh.load(path)


def test_torch_reads_as_before_afterwards(tmp_path):
    reader = torch.load
    path = tmp_path / "net.pt2"
    program(path)
    qh.load(path)
    assert torch.load is reader
