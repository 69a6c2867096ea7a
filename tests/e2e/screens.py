"""Sixty commands and forty lines of Python of a first day, with what each must show.

They are those of a newcomer's log: README and first files, typing errors, folders, records,
reports. Every command says its exit code and words on its screen; every line of Python stands
with what it must come to.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import helper

from tests.report_schemas import net
from tests.support import model_of, quant_node

MARKUP = "w[/red]é"
"""A name that is markup to rich, and does not fit ASCII."""


def make_files(folder: Path) -> None:
    """Write the models and the data that commands and lines name."""
    onnx.save(net(), folder / "a.onnx")
    onnx.save(net(0.5), folder / "b.onnx")
    weight = np.linspace(-3, 3, 12, dtype=np.float32).reshape(3, 4)
    nodes = [
        quant_node("x", "xq"),
        quant_node("w", MARKUP, narrow=1),
        helper.make_node("MatMul", ["xq", MARKUP], ["y"], MARKUP),
    ]
    constants = {"s": 0.25, "z": 0.0, "b": 4.0, "w": weight}
    onnx.save(model_of(nodes, {"x": ("N", 3)}, ["y"], constants), folder / "names.onnx")
    x = np.linspace(-1, 1, 24, dtype=np.float32).reshape(8, 3)
    np.save(folder / "x.npy", x)
    np.savez(folder / "x.npz", x=x)
    np.save(folder / "labels.npy", np.arange(8) % 4)
    np.save(folder / "bytes.npy", (np.arange(24).reshape(8, 3) * 10).astype(np.uint8))
    (folder / "text.onnx").write_text("no model\n")


COMMANDS: tuple[tuple[str, int, str], ...] = (
    ("--version", 0, "qonnx-hub"),
    ("--help", 0, "Exit codes"),
    ("-h", 0, "convert"),
    ("convert -h", 0, "Examples:"),
    ("check --help", 0, "--min-agreement"),
    ("formats", 0, "qcdq"),
    ("formats qcdq", 0, "encoding"),
    ("inspect a.onnx", 0, "opset 19"),
    ("inspect a.onnx --ranges", 0, "accumulator"),
    ("inspect a.onnx --weights", 0, "wq"),
    ("inspect names.onnx", 0, "w[/red]"),
    ("inspect a.onnx --json -", 0, '"schema": "qonnx-hub/inspect/1"'),
    ("inspect a.onnx --export-ints ints.h", 0, "integers of"),
    ("convert a.onnx q.onnx --to qcdq", 0, "3 of 3 quantizers exact"),
    ("convert a.onnx q.onnx --to qcdq", 2, "'q.onnx' exists"),
    ("convert a.onnx -o q2.onnx --to qdq", 2, "--encoding qdq"),
    ("convert a.onnx -o q2.onnx --to finn", 2, "--profile finn"),
    ("convert a.onnx -o q2.onnx --profile hls4ml", 2, "--to hls4ml"),
    ("convert a.onnx -o q2.onnx --option foo=1", 2, "has no option foo"),
    ("convert a.onnx -o q2.onnx --opset 99", 2, "opset 99"),
    ("convert a.onnx -o a.onnx", 2, "would write over it"),
    ("convert missing.onnx -o q2.onnx", 3, "does not exist"),
    ("convert missing.h5 -o q2.onnx", 3, "does not exist"),
    ("convert text.onnx -o q2.onnx", 3, "text.onnx"),
    ("convert a.onnx", 2, "-o PATH"),
    ("chekc a.onnx b.onnx", 2, "check"),
    ("convert names.onnx -o names_q.onnx --to qcdq", 0, "w[/red]"),
    ("convert a.onnx -o self.onnx --self-contained", 0, "exact"),
    ("convert a.onnx -o folder --to hls4ml", 0, "hls4ml"),
    ("convert a.onnx b.onnx -o many --to qcdq --jobs 1", 0, "b.onnx"),
    ("convert a.onnx -q -o quiet.onnx", 0, ""),
    ("convert a.onnx -v -o loud.onnx", 0, "reading a.onnx"),
    ("check a.onnx q.onnx", 0, "PROVEN"),
    ("check a.onnx b.onnx", 1, "first divergence"),
    ("check a.onnx b.onnx --level output", 1, "DIFFERENT"),
    ("check a.onnx q.onnx --level proof", 0, "proof: complete"),
    ("check a.onnx q.onnx --level prof", 2, "'proof'"),
    ("check a.onnx b.onnx --inputs x.npy", 1, "given"),
    ("check a.onnx b.onnx --data x.npy --labels labels.npy", 1, "accuracy"),
    ("check a.onnx b.onnx --data x.npy --min-agreement 0", 0, "the bounds alone decide"),
    ("check a.onnx q.onnx --data bytes.npy", 2, "takes float32"),
    ("check a.onnx q.onnx --data bytes.npy --preprocess scale=1/255", 0, "8 samples"),
    ("check a.onnx q.onnx self.onnx", 0, "2 of 2 sides agree"),
    ("check a.onnx b.onnx --report page.html --save-failing f.npz", 1, "cause:"),
    ("check a.onnx b.onnx -q", 1, ""),
    ("reduce a.onnx b.onnx -o bug", 0, "still differ"),
    ("check bug/a.onnx bug/b.onnx --inputs bug/input.npz", 1, "DIFFERENT"),
    ("diff a.onnx b.onnx", 1, "scale"),
    ("diff a.onnx a.onnx", 0, "no difference"),
    ("run a.onnx -o y.npz --inputs x.npy", 0, "y: float32[8, 4]"),
    ("run a.onnx -o y.npz --samples 4 --save-inputs in.npz", 0, "y: float32[4, 4]"),
    ("lint a.onnx --target hls", 2, "did you mean 'hls4ml'?"),
    ("lint a.onnx --target ort", 1, "--to qcdq"),
    ("lint q.onnx --target ort", 0, "takes it as it is"),
    ("cost a.onnx q.onnx", 0, "MACs"),
    ("transform a.onnx -p foldbatchnorm -o t.onnx", 2, "did you mean 'fold_batchnorm'?"),
    ("transform a.onnx -p cleanup -o t.onnx", 0, "no pass found anything to change"),
    ("routes a.onnx", 0, "routes open"),
    ("bench a.onnx --batch 1 --backend numpy --seconds 0", 0, "numpy"),
    ("extract a.onnx -o head.onnx --to m", 0, "head.onnx"),
    ("convert a.py:make -o q2.onnx", 3, "write a:make"),
    ("check a.onnx b.onnx --atol y=9 --rtol 9 --level output", 0, "within the tolerance"),
    ("transform --list fold_batchnorm", 0, "fold_batchnorm: Replace"),
    ("transform --list foldbatchnorm", 2, "did you mean 'fold_batchnorm'?"),
    ("check a.onnx b.onnx --gen-script - --atol 1", 0, "qh.check("),
    ("zoo list", 0, "name"),
)

LINES: tuple[tuple[str, str], ...] = (
    ("model = qh.load('a.onnx')", "type(model).__name__ == 'Model'"),
    ("y = qh.run('a.onnx', x)", "y['y'].shape == (8, 4)"),
    ("y = qh.run('a.onnx', 'x.npy')", "y['y'].shape == (8, 4)"),
    ("y = qh.run('a.onnx', {'x': x})", "y['y'].dtype.name == 'float32'"),
    ("s = qh.Session('a.onnx')", "list(s.run(x)) == ['y']"),
    ("r = qh.check('a.onnx', 'b.onnx')", "not r and str(r.verdict) == 'DIFFERENT'"),
    ("text = repr(r)", "'\\n' not in text and len(text) < 400"),
    ("text = r.table()", "'first divergence' in text"),
    ("text = r.summary()", "text.startswith('DIFFERENT')"),
    ("page = r._repr_html_()", "'<table>' in page"),
    ("rows = r.rows()", "rows[-1]['what'] == 'output'"),
    ("text = r.to_json()", "json.loads(text)['schema'] == 'qonnx-hub/check/1'"),
    ("r.to_html('page.html')", "Path('page.html').stat().st_size < 500_000"),
    ("r = qh.check('a.onnx', 'b.onnx', x)", "r.samples == 8"),
    ("r = qh.check('a.onnx', 'a.onnx', progress=False)", "str(r.verdict) == 'PROVEN'"),
    ("qh.testing.assert_equivalent('a.onnx', 'a.onnx')", "True"),
    ("e = caught(qh.testing.assert_equivalent, 'a.onnx', 'b.onnx')", "'DIFFERENT' in str(e)"),
    ("e = caught(qh.load, 'missing.onnx')", "isinstance(e, qh.HubError)"),
    ("e = caught(qh.convert, 'a.onnx', to='qcqd')", "'qcdq' in str(e)"),
    ("e = caught(qh.check, 'a.onnx', 'b.onnx', level='prof')", "'proof' in str(e)"),
    ("e = caught(qh.run, 'a.onnx', {'wrong': x})", "isinstance(e, qh.UsageError)"),
    ("c = qh.convert('a.onnx', 'api.onnx', to='qcdq')", "c and Path('api.onnx').exists()"),
    ("text = repr(c)", "'\\n' not in text"),
    ("q = qh.load('api.onnx')", "len(list(q.graph)) > 0"),
    ("c = qh.convert(model, to='qonnx')", "c.path is None"),
    ("i = qh.inspect('a.onnx', ranges=True)", "'accumulator' in i.table(200)"),
    ("k = qh.cost('a.onnx')", "k.rows()[0]['macs'] == 12"),
    ("d = qh.diff('a.onnx', 'b.onnx')", "d and 'scale' in d.table(200)"),
    ("n = qh.lint('a.onnx', 'ort')", "not n and n.errors[0].remedy"),
    ("t = qh.transform('a.onnx', ['cleanup'])", "t.model is not None"),
    ("o = qh.routes('a.onnx', samples=4)", "any(x.form == 'qcdq' for x in o.routes)"),
    ("b = qh.bench('a.onnx', batches=(1,), backends=['numpy'], seconds=0)", "b.rows()"),
    ("u = qh.reduce('a.onnx', 'b.onnx')", "u.a.nodes == 1"),
    ("m = qh.check_many('a.onnx', ['api.onnx', 'b.onnx'])", "m.groups == (1, 1, 2)"),
    ("g = qh.check('a.onnx', 'b.onnx', x, min_agreement=0)", "g and g.accepted"),
    ("p = qh.check('a.onnx', 'api.onnx', bytes_, preprocess='scale=1/255')", "p"),
    ("part = qh.passes.extract_model(model, outputs=['m'])", "len(list(part.graph)) == 3"),
    ("names = qh.passes.names()", "'fold_batchnorm' in names"),
    ("found = qh.zoo.entries()", "len(found) > 10"),
    ("every = dir(qh)", "'HubError' in every and 'testing' in every"),
)
