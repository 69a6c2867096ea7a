"""Reads live Keras models, with or without QKeras layers, and their files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx_ir import Model

from qonnx_hub_adapters.protocol import (
    AdapterInfo,
    Feature,
    Feeds,
    ImportOptions,
    Outputs,
    Support,
)
from qonnx_hub_adapters.qkeras import model_files
from qonnx_hub_adapters.qkeras.assembly import assemble
from qonnx_hub_adapters.qkeras.framework import (
    NEEDED,
    Framework,
    as_given,
    framework_of,
    internal_sigmoid,
    keras_base,
    require_installed,
)
from qonnx_hub_adapters.qkeras.naming import names_of_ends
from qonnx_hub_adapters.qkeras.patching import find_layers, find_sites, preserved
from qonnx_hub_adapters.qkeras.recording import record, signature_of
from qonnx_hub_adapters.qkeras.tracing import trace
from qonnx_hub_ir.errors import Gap, SourceError, UnsupportedGraphError
from qonnx_hub_ir.graph.names import free_name

INFO = AdapterInfo(
    name="qkeras",
    summary="Keras models with QKeras layers (qkeras on Keras 2, qkeras-v3 on Keras 3)",
    weights=True,
    extra="qkeras",
    requires=NEEDED,
    suffixes=(*model_files.SUFFIXES, ".json"),
    support={
        **dict.fromkeys(
            (
                *(Feature.BITS_2_TO_8, Feature.BITS_9_TO_16, Feature.UNSIGNED_1_BIT),
                *(Feature.BIPOLAR, Feature.NARROW, Feature.PER_CHANNEL),
            ),
            Support.EXACT,
        ),
        Feature.BITS_17_TO_32: Support.BOUNDED,
        Feature.DYNAMIC: Support.REFUSED,
    },
)

_STATEFUL = "stateful=True keeps the state between calls; a graph answers each call alone"


class QkerasImporter:
    """Keras -> IR."""

    info = INFO

    def accepts(self, source: object) -> bool:
        """Return whether the source is a live Keras model or a file of one."""
        is_live = isinstance(source, model_files.OpenedFile) or bool(keras_base(source))
        return is_live or model_files.is_keras_file(source)

    def prepare(self, source: object, options: ImportOptions) -> Any:
        """Return a file with the live model that it holds, which is loaded once.

        Raises:
            MissingDependencyError: TensorFlow, tf2onnx or qkeras is not installed.
            SourceError: It cannot be read, or holds code that nobody allowed to run.
        """
        if isinstance(source, model_files.OpenedFile) or keras_base(source):
            return source
        require_installed()
        return model_files.open_file(str(source), options)

    def load(self, source: object, options: ImportOptions) -> Model:
        """Return the source as a verified IR model. A live model is not changed.

        Raises:
            MissingDependencyError: TensorFlow, tf2onnx or qkeras is not installed.
            SourceError: It cannot be read, traced or converted.
            UnsupportedGraphError: Quantizers without an exact form; all of them are listed.
        """
        require_installed()
        given: Any = self.prepare(source, options)
        if isinstance(given, model_files.OpenedFile):
            return _converted(given.model, options, given.framework)
        return _converted(given, options, framework_of(given))

    def runtime(self, source: object) -> str:
        """Return the Keras that answers for a source."""
        model = source.model if isinstance(source, model_files.OpenedFile) else source
        return f"in Keras {framework_of(model).generation}"

    def run_source(self, source: object, feeds: Feeds) -> Outputs | None:
        """Return the model's own answer at inference; ``None`` for paths."""
        model: Any = source
        if isinstance(source, model_files.OpenedFile):
            model = source.model
        elif not keras_base(source):
            return None
        framework = framework_of(model)
        sites, _ = find_sites(model, internal_sigmoid(framework.qkeras))
        tensors = [framework.tf.constant(value) for value in feeds.values()]
        with preserved(model, sites, framework):
            result = model(as_given(model, tensors, framework.tf), training=False)
        flat = framework.tf.nest.flatten(result)
        names = output_names(model, len(flat))
        return {
            name: np.asarray(value.numpy()) for name, value in zip(names, flat, strict=True)
        }


def _converted(model: Any, options: ImportOptions, framework: Framework) -> Model:
    floatx = framework.keras.backend.floatx()
    if floatx != "float32":
        raise SourceError(f"Keras computes in {floatx}; only float32 models can be converted")
    sites, gaps = find_sites(model, internal_sigmoid(framework.qkeras))
    gaps.extend(
        Gap(path, type(layer).__name__, _STATEFUL, "build the model with stateful=False")
        for path, layer in find_layers(model)
        if getattr(layer, "stateful", False) is True and "cell" in vars(layer)
    )
    if gaps:
        raise UnsupportedGraphError(
            f"model '{model.name}' has layers that cannot be converted:", gaps
        )
    signature = signature_of(model, options.args, framework)
    with preserved(model, sites, framework):
        recorded = record(model, sites, signature, framework)
        traced = trace(model, sites, recorded, signature, framework)
    return assemble(
        traced,
        sites,
        recorded,
        inputs=input_names(model, len(signature)),
        outputs=output_names(model, traced.outputs),
        name=str(model.name),
        layers=[str(layer.name) for _, layer in find_layers(model)],
        generation=framework.generation,
    )


def input_names(model: Any, count: int) -> list[str]:
    """Return the names of the model's inputs, one per tensor: keys, or those of layers."""
    names = getattr(model, "input_names", None) or [
        str(one.name).partition(":")[0] for one in getattr(model, "inputs", None) or []
    ]
    return _unique(_keys(model, "inputs") or list(map(str, names)), count, "input")


def output_names(model: Any, count: int) -> list[str]:
    """Return the names of the model's outputs, one per tensor: keys, or those of layers."""
    names = getattr(model, "output_names", None) or []
    return _unique(_keys(model, "outputs") or list(map(str, names)), count, "output")


def _keys(model: Any, ends: str) -> list[str]:
    """Return the keys of a dict of inputs or outputs, one per tensor; else nothing."""
    for attribute in (f"_{ends}_struct", f"_nested_{ends}"):
        held = getattr(model, attribute, None)
        if isinstance(held, Mapping):
            return names_of_ends(held)
    return []


def _unique(names: list[str], count: int, stem: str) -> list[str]:
    if len(names) != count:
        names = [stem] if count == 1 else [f"{stem}_{index}" for index in range(count)]
    taken: set[str] = set()
    return [free_name(name, taken) for name in names]
