"""The models that a build of FINN keeps, one after each of its steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx_ir import Model

from qonnx_hub_adapters.finn.hardware import in_known_operators, is_hardware, names_places
from qonnx_hub_adapters.protocol import ImportOptions
from qonnx_hub_adapters.qonnx.importer import QonnxImporter
from qonnx_hub_ir.errors import SourceError

STEPS = (
    *("step_qonnx_to_finn", "step_tidy_up", "step_streamline", "step_convert_to_hw"),
    *("step_minimize_bit_width_initial", "step_create_dataflow_partition"),
    *("step_specialize_layers", "step_target_fps_parallelization"),
    *("step_apply_folding_config", "step_minimize_bit_width", "step_transpose_decomposition"),
    *("step_generate_estimate_reports", "step_assign_ddr_weight_offsets", "step_hw_codegen"),
    *("step_generate_hardware", "step_hw_ipgen", "step_set_fifo_depths"),
    *("step_create_stitched_ip", "step_measure_rtlsim_performance"),
    *("step_out_of_context_synthesis", "step_prepare_synthesis", "step_synthesize_bitfile"),
    *("step_make_driver", "step_deployment_package"),
)
"""FINN's own steps, in the order in which it takes them."""

PARENT = "dataflow_parent.onnx"
"""What stays outside of the hardware, with one node in the hardware's place."""


@dataclass(frozen=True, slots=True)
class BuildStage:
    """A model that FINN kept, said with operators that anybody runs.

    Attributes:
        name: The step that made it.
        model: It as IR.
        nodes: Its nodes as they lie in the file: label, what it reads, what it makes.
        opaque: Hardware layers of which it is not known what they compute, in words.
        gives_places: Whether it ends in the places of the largest values, instead of these.
    """

    name: str
    model: Model
    nodes: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...]
    opaque: tuple[str, ...] = ()
    gives_places: bool = False


def stage_files(folder: str | Path) -> tuple[Path, ...]:
    """Return the files of a build in the order of its steps; none where it is no such folder.

    Steps of the user's own come in the order in which they were written.
    """
    place = Path(folder)
    try:
        found = [path for path in place.glob("*.onnx") if path.name != PARENT]
        found.sort(key=lambda path: path.stat().st_mtime_ns)
    except (OSError, ValueError):
        return ()
    if not any(path.stem in STEPS for path in found):
        return ()
    known = {path: k for k, path in enumerate(found)}
    # A step of the user's own stays behind the one before it.
    places: dict[Path, tuple[int, int]] = {}
    last = -1
    for path in found:
        last = STEPS.index(path.stem) if path.stem in STEPS else last
        places[path] = (last, known[path])
    return tuple(sorted(found, key=places.__getitem__))


def read_stage(path: Path) -> BuildStage:
    """Return one stage; hardware that FINN cut out of a model is put back into its place.

    Raises:
        SourceError: It cannot be read.
        HubError: It is not valid.
    """
    try:
        message = onnx.load(path)
        parent = path.with_name(PARENT)
        if parent.is_file() and _is_inside(message, outer := onnx.load(parent)):
            message = _put_back(outer, message)
    except Exception as error:  # the parser raises its own exception types
        raise SourceError(f"'{path}' cannot be read: {error}") from error
    known, opaque = in_known_operators(message)
    nodes = tuple(
        (f"{node.op_type} '{node.name}'", tuple(node.input), tuple(node.output))
        for node in message.graph.node
    )
    makers = {name: node.op_type for node in message.graph.node for name in node.output}
    places = names_places(makers.get(message.graph.output[0].name, ""))
    model = QonnxImporter().load(known, ImportOptions())
    return BuildStage(path.stem, model, nodes, opaque, places)


def _partitions(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    return (node for node in model.graph.node if node.op_type == "StreamingDataflowPartition")


def _is_inside(model: onnx.ModelProto, parent: onnx.ModelProto) -> bool:
    """Return whether a model is the hardware alone, which has a place in its parent."""
    holes = list(_partitions(parent))
    hardware = [node for node in model.graph.node if is_hardware(node)]
    return len(holes) == 1 and len(hardware) == len(model.graph.node)


def _put_back(parent: onnx.ModelProto, inside: onnx.ModelProto) -> onnx.ModelProto:
    """Return the parent with the hardware in the place of the node that stands for it."""
    part = onnx.compose.add_prefix(inside, "flow/")
    [hole] = _partitions(parent)
    pairs = (*zip(part.graph.input, hole.input), *zip(part.graph.output, hole.output))  # noqa: B905
    names = {value.name: name for value, name in pairs}
    for node in part.graph.node:
        for held in (node.input, node.output):
            held[:] = [names.get(name, name) for name in held]
    place = list(parent.graph.node).index(hole)
    nodes = [*parent.graph.node[:place], *part.graph.node, *parent.graph.node[place + 1 :]]
    whole = onnx.ModelProto()
    whole.CopyFrom(parent)
    del whole.graph.node[:]
    whole.graph.node.extend(nodes)
    whole.graph.initializer.extend(part.graph.initializer)
    whole.graph.value_info.extend(part.graph.value_info)
    domains = {entry.domain for entry in whole.opset_import}
    whole.opset_import.extend(e for e in part.opset_import if e.domain not in domains)
    return whole
