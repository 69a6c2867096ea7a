"""The recorded HAWQ models beside the project, where they are present."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tests.support import SHARED

FOLDER = SHARED / "corpus" / "hawq"
NAMES = sorted(path.parent.name for path in FOLDER.glob("*/state.pt"))


def recorded(name: str) -> dict[str, Any]:
    with np.load(FOLDER / name / "io.npz") as archive:
        return {key: archive[key] for key in archive.files}


def state_path(name: str) -> Path:
    return FOLDER / name / "state.pt"


def fresh(name: str, layers: Any) -> nn.Module:
    """The topology of a model, with random weights."""
    spec = importlib.util.spec_from_file_location("hawq_corpus_models", FOLDER / "models.py")
    models = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(models)
    models.use(layers)
    module, _ = models.MODELS[name](torch.Generator().manual_seed(0))
    return module


def build(name: str, layers: Any) -> nn.Module:
    """A model of the corpus with its numbers and flags."""
    module = fresh(name, layers)
    state = torch.load(state_path(name), weights_only=True)["state_dict"]
    for key, value in state.items():
        owner, _, attribute = key.rpartition(".")
        buffers = module.get_submodule(owner)._buffers
        if attribute in buffers:
            buffers[attribute] = value.clone()
    module.load_state_dict(state, strict=False)
    meta = json.loads((FOLDER / name / "meta.json").read_text(encoding="utf-8"))
    for layer, flags in meta["layers"].items():
        for flag, value in flags.items():
            if flag != "class":
                setattr(module.get_submodule(layer), flag, value)
    values = recorded(name)
    for layer, part in module.named_modules():
        if hasattr(part, "bn") and hasattr(part, "fix_BN"):
            restore_variance(part, values[f"{layer}.convbn_scaling_factor"])
    return module.eval()


def restore_variance(layer: Any, scale: np.ndarray) -> None:
    """Move variances by a few float32 so that this machine gets the recorded scales.

    torch's square root is not rounded correctly on every processor: on the one that recorded
    the models it was one float32 beside for some channels. Everything after it is compared bit
    for bit.
    """
    bn, given = layer.bn, layer.bn.running_var.clone()
    chosen, missing = given.clone(), torch.ones(given.shape, dtype=torch.bool)
    for distance in (0, 1, -1, 2, -2, 3, -3, 4, -4):
        candidate = given.clone()
        for _ in range(abs(distance)):
            candidate = torch.nextafter(candidate, torch.full_like(given, 9.0 * distance))
        bn.running_var = candidate
        fits = missing & (folded_scale(layer) == torch.from_numpy(scale))
        chosen[fits] = candidate[fits]
        missing &= ~fits
    assert not missing.any(), "no variance near the recorded one gives the recorded scale"
    bn.running_var = chosen


def folded_scale(layer: Any) -> torch.Tensor:
    """The scale of the folded weights: largest magnitude over largest integer."""
    factor = layer.bn.weight / torch.sqrt(layer.bn.running_var + layer.bn.eps)
    folded = (layer.conv.weight * factor.view(-1, 1, 1, 1)).detach()
    return folded.abs().amax(dim=(1, 2, 3)) / (2 ** (layer.weight_bit - 1) - 1)
