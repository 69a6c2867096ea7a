"""What a case is, the inputs that all cases share, and how answers are compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from onnx_ir import Model

from qonnx_hub.equivalence.inputs.generate import generate_inputs
from qonnx_hub.executor.session import Session
from qonnx_hub_adapters.brevitas.importer import BrevitasImporter
from qonnx_hub_adapters.protocol import ImportOptions

Arrays = list[np.ndarray[Any, Any]]

TOLERANCE = 2e-6
"""Relative to the largest magnitude of an output: another order of float32 summation."""


@dataclass(frozen=True)
class Case:
    """One conversion.

    Attributes:
        name: Its name in the test report.
        build: Makes the module; its weights come from the seed set before.
        shapes: Shapes of the inputs.
        quantizers: Quantizer nodes that the IR must hold; ``None`` where that is not said.
        exact: Whether every sum is exact in any order, so that answers must be equal.
        tolerance: Otherwise: the difference allowed, relative to the largest magnitude.
        flips: Share of values that may lie beyond it: a sum that is rounded otherwise puts an
            inner value on the other side of a rounding tie.
        calibrate: Whether to run data through the module in training mode first.
        indices: Inputs are whole numbers below this.
    """

    name: str
    build: Callable[[], Any]
    shapes: tuple[tuple[int, ...], ...] = ((2, 16),)
    quantizers: int | None = None
    exact: bool = False
    tolerance: float = TOLERANCE
    flips: float = 0.0
    calibrate: bool = True
    indices: int = 0


def samples_of(case: Case, seed: int = 1) -> list[Any]:
    """Torch tensors of the case's shapes."""
    generator = torch.Generator().manual_seed(seed)
    if case.indices:
        return [torch.randint(0, case.indices, s, generator=generator) for s in case.shapes]
    return [torch.randn(shape, generator=generator) for shape in case.shapes]


def make(case: Case) -> Any:
    """The case's module, with statistics, for inference."""
    torch.manual_seed(0)
    module = case.build()
    if case.calibrate:
        module.train()
        for part in module.modules():
            if isinstance(part, torch.nn.modules.batchnorm._BatchNorm):
                # The mean over all batches: a few of them are enough to keep a net alive.
                part.momentum = None
        with torch.no_grad():
            for step in range(3):
                module(*samples_of(case, 10 + step))
            for part in module.modules():
                if isinstance(part, torch.nn.modules.batchnorm._BatchNorm):
                    # The mean of a few whole sums is one of them too often: at such a tie the
                    # last bit of the norm decides a binary quantizer.
                    part.running_mean.add_(0.1)
    return module.eval()


def load(module: Any, *args: Any, **extra: Any) -> Model:
    return BrevitasImporter().load(module, ImportOptions(args=args, extra=extra))


def feeds_for(case: Case, ir: Model) -> list[Arrays]:
    """Inputs: random and critical values of the first quantizers, saturating ones, zeros."""
    if case.indices:
        return [[sample.numpy() for sample in samples_of(case, seed)] for seed in (1, 2)]
    unit = case.shapes[0][0]
    generated = generate_inputs(ir, 6 * unit, seed=3)
    rows = [
        [value[start : start + unit] for value in generated.values()]
        for start in range(0, 6 * unit, unit)
    ]
    random = [sample.numpy() for sample in samples_of(case, 5)]
    rows.append(random)
    rows.append([np.float32(100) * value for value in random])
    rows.append([np.round(value * 16, 0) / np.float32(16) for value in random])
    rows.append([np.zeros_like(value) for value in random])
    return rows


def flat(value: Any) -> Arrays:
    if value is None:
        return []
    if hasattr(value, "value"):
        return [value.value.detach().numpy()]
    if isinstance(value, dict):
        return flat(list(value.values()))
    if isinstance(value, (tuple, list)):
        return [one for item in value for one in flat(item)]
    return [value.detach().numpy()]


def ask_torch(module: Any, feeds: Arrays) -> Arrays:
    """The framework's own answer."""
    with torch.no_grad():
        return flat(module(*[torch.from_numpy(value) for value in feeds]))


def ask_executor(session: Session, ir: Model, feeds: Arrays) -> Arrays:
    names = [str(value.name) for value in ir.graph.inputs]
    return list(session.run(dict(zip(names, feeds, strict=True))).values())


def differences(expected: Arrays, got: Arrays) -> tuple[np.ndarray[Any, Any], float]:
    """Differences relative to the largest magnitude, and how many values were compared."""
    assert len(expected) == len(got) > 0
    found = []
    for a, b in zip(expected, got, strict=True):
        assert a.shape == b.shape
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        largest = float(np.max(np.abs(a[np.isfinite(a)]), initial=0.0)) or 1.0
        gap = np.abs(np.where(same, 0, a.astype(np.float64)) - np.where(same, 0, b))
        found.append((gap / largest).reshape(-1))
    joined = np.concatenate(found)
    return joined, joined.size


def state_of(module: Any) -> dict[str, Any]:
    """Everything about a module that a conversion may not change."""
    held: dict[str, Any] = {}
    for name, tensor in module.state_dict().items():
        held[f"state {name}"] = tensor.numpy().tobytes()
    for name, parameter in module.named_parameters():
        held[f"gradient {name}"] = (parameter.requires_grad, id(parameter))
    for name, part in module.named_modules(remove_duplicate=False):
        held[f"module {name}"] = (id(part), part.training, getattr(part, "export_mode", None))
        held[f"handler {name}"] = getattr(part, "export_handler", None)
        held[f"attributes {name}"] = sorted(vars(part))
        held[f"hooks {name}"] = (len(part._forward_hooks), len(part._forward_pre_hooks))
        for key in ("_cached_act", "_cached_weight", "_cached_bias", "_fast_cell"):
            held[f"{key} {name}"] = id(getattr(part, key, None))
    return held
