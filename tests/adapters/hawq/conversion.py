"""What the tests of conversions share."""

from __future__ import annotations

import torch

from qonnx_hub.executor.session import Session
from qonnx_hub_adapters.hawq.importer import HawqImporter
from qonnx_hub_adapters.protocol import ImportOptions


def load(module, *args, **options):
    return HawqImporter().load(module, ImportOptions(args=args, extra=options))


def run(model, x):
    return Session(model).run({model.graph.inputs[0].name: x.numpy()}, all_tensors=True)


def snapshot(module):
    """Every attribute, buffer and flag of a module, as comparable data."""
    found = {}
    for name, part in module.named_modules():
        for key, value in part.__dict__.items():
            if key in {"_parameters", "_buffers", "_modules"}:
                for inner, one in value.items():
                    data = one.detach().numpy().tobytes() if torch.is_tensor(one) else id(one)
                    found[name, key, inner] = (id(one), data)
            else:
                found[name, key] = (id(value), repr(value))
    return found
