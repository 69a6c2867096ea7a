"""What a user can ask of a check."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from qonnx_hub.equivalence.acceptance import Acceptance
from qonnx_hub.equivalence.comparison.compare import Tolerance
from qonnx_hub.io.cluster import Cluster
from qonnx_hub.io.preprocessing import Preprocessing
from qonnx_hub_ir.choices import Level
from qonnx_hub_ir.quantizers import Array

PROOF_SECONDS = 10.0
"""How long a proof is looked for where nobody says otherwise."""

LEVELS: tuple[str, ...] = get_args(Level)


@dataclass(frozen=True, slots=True)
class CheckOptions:
    """How a check is done.

    Attributes:
        tolerance: What counts as within bounds.
        level: "output"; "layer": inner values as well, the first that differs, and why; or
            "proof".
        inputs: Input name -> array; generated where there are none.
        samples: Samples to generate.
        seed: Seed of the generated values.
        ranges: Input name -> (lowest, highest) generated value.
        boundary: Steer further inputs to the thresholds of inner quantizers.
        effort: "quick", "normal" or "thorough": how much is searched for inputs that reach.
        mapping: Tensor or layer of the reference -> tensor of the other side.
        labels: The right class of every sample.
        score: Count predictions.
        acceptance: How predictions are counted, and which bounds decide.
        preprocess: What is done to the inputs given, before a model takes them.
        golden: Folder for the reference's answers.
        workers: Processes to spread the batches over.
        executor: Spreads the batches instead: a pool, or the workers of dask.
        backend: Where the second side runs: "numpy", "ort" or "ort-optimized"; "tflite",
            "tflite:opt" or "tflite:xnn" run the TFLite file among the two on ai-edge-litert's
            reference kernels, its optimized ones or XNNPACK.
        args: Sample inputs, for live models that must be traced.
        strict: Allow nothing that the order of float32 sums explains.
        ignore_outputs: Outputs of either side that need no counterpart, and are not compared.
        proof_seconds: How long a proof may be looked for before samples are run; 0 looks for
            none.
        allow_code: Run code that files hold: Lambda layers, pickles, a SavedModel.
        weights: Path of the reference's weights file, where they are kept apart.
        folded: Why parameters need not be the same on both sides, where a change that rounds
            was made on purpose; empty where none was.
        python: An interpreter that has hls4ml, for folders that it compiles.
        samples_only: Compare what samples give, and ask no layer directly: the same graphs
            were compared elsewhere.
    """

    tolerance: Tolerance = field(default_factory=Tolerance)
    level: str = "layer"
    inputs: Mapping[str, Array] | None = None
    samples: int | None = None
    seed: int = 0
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    boundary: bool = True
    effort: str = "normal"
    mapping: Mapping[str, str] | None = None
    labels: Array | None = None
    score: bool = False
    acceptance: Acceptance = field(default_factory=Acceptance)
    preprocess: Preprocessing | None = None
    golden: str | Path | None = None
    workers: int = 0
    executor: Executor | Cluster | None = None
    backend: str = "numpy"
    args: tuple[Any, ...] = ()
    strict: bool = False
    ignore_outputs: tuple[str, ...] = ()
    proof_seconds: float = PROOF_SECONDS
    allow_code: bool = False
    weights: str | None = None
    folded: str = ""
    samples_only: bool = False
    python: str | None = None
