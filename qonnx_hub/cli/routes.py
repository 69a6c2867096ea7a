"""``qonnx-hub routes``."""

from __future__ import annotations

from qonnx_hub.cli.options import From, Json, Page, Samples, Seed, Source, console, write_json


def command(
    source: Source,
    from_: From = None,
    samples: Samples = None,
    seed: Seed = 0,
    report: Page = None,
    json: Json = None,
) -> None:
    """Try every form and profile: what is exact, what is refused and why, and the command."""
    from qonnx_hub import api

    found = api.routes(source, from_=from_, samples=samples, seed=seed)
    found.show(console(json))
    write_json(found.document(), json)
    if report is not None:
        found.to_html(report)
