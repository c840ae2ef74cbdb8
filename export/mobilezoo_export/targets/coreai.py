"""Apple's Core AI (an `.aimodel` folder) through coreai-torch; files are computed by the program check.

No Mac and no device ran them: `mobilezoo_export.aimodel` reads the saved program and computes it in PyTorch.
"""

import json
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mobilezoo.artifacts import Artifact
from mobilezoo.errors import ExportError, first_line, require
from mobilezoo.files import versions
from mobilezoo.reading import mapping, read_json
from mobilezoo_export.contract import Exporter, Runner
from mobilezoo_export.feeding import image_input
from mobilezoo_export.metadata import INPUT, KEY, OUTPUT, PIXELS, metadata_text, read_metadata
from mobilezoo_export.quiet import quiet
from mobilezoo_export.records import ExportSpec, Reading, TensorSpec

if TYPE_CHECKING:
    from torch import nn

    from mobilezoo_export.aimodel.reading import Value
    from mobilezoo_export.anatomy.graph import Graph

METADATA = "metadata.json"
CUSTOM = "creatorDefinedMetadata"
LARGEST_METADATA = 1 << 24
POOLING = ("padding", "ceil_mode", "count_include_pad")
"""Arguments of `aten.avg_pool2d` after the stride."""
UNKNOWN = re.compile(r"unsupported ATen ops: ([\w., ]+?)\. ")
"""Where coreai-torch's message names operators."""


class CoreAIExporter(Exporter):
    """Writes .aimodel folders: a program of `torch.export`, then coreai-torch."""

    target = "coreai"
    suffix = ".aimodel"
    extra = "coreai"
    modules = ("coreai_torch",)
    packages = ("torch", "coreai-torch", "coreai-core")
    precisions = ("fp32", "fp16", "int8")
    timed_by = "they are timed on a Mac or an iPhone alone, which mobilezoo does not drive for them"

    def open(self, path: Path, threads: int, record: Artifact | None) -> Runner:
        return CoreAIRunner(path, threads=threads, record=record)

    def reading(self, path: Path) -> Reading:
        from mobilezoo_export.aimodel.program import operators
        from mobilezoo_export.aimodel.reading import main_graph, read_graphs

        graphs = read_graphs(path)
        values = [value for item in main_graph(graphs, path).operations for value in item.results]
        return Reading(Counter(operators(graphs, path)), ranks=[len(value.shape) for value in values])

    def graph(self, path: Path) -> "Graph":
        from mobilezoo_export.anatomy.coreai import read_graph

        return read_graph(path)

    def read_metadata_text(self, path: Path) -> str:
        about = mapping(read_json(path / METADATA, LARGEST_METADATA), METADATA)
        return str(mapping(about.get(CUSTOM, {}), CUSTOM).get(KEY, ""))

    def unsupported_reason(self, model: "nn.Module", spec: ExportSpec) -> str | None:
        if spec.options.flexible != "none":
            return "coreai files have fixed sizes: leave flexible out, and export one file per size"
        if _averages_without_padding(model):
            return "coreai-torch spells average pooling as if padding counted, and this network's does not count it"
        return super().unsupported_reason(model, spec)

    def export(
        self, model: "nn.Module", spec: ExportSpec, path: Path, calibration: Sequence[np.ndarray] = ()
    ) -> list[str]:
        with quiet():
            asset = _converted(model, spec).save_asset(path)
            asset.update_metadata(lambda about: _describe(about, spec))
            _sort_keys(path / METADATA)
            return _second_opinion(path, spec)


def _converted(model: "nn.Module", spec: ExportSpec) -> Any:
    """Convert a traced network. Raises ExportError that names operators which coreai-torch lacks."""
    import coreai_torch
    import torch

    from mobilezoo_export.flexible import program_of
    from mobilezoo_export.quantize.coreai import reduced

    with torch.no_grad():
        network = model if spec.precision == "fp32" else reduced(model, spec.precision, spec.float_segments)
        program = program_of(network, spec).run_decompositions(coreai_torch.get_decomp_table())
        _drop_same_strides(program.graph_module)
        # Its other mode writes this machine's paths into the file.
        converter = coreai_torch.TorchConverter(mode=coreai_torch.TorchConverter.Mode.RELEASE)
        try:
            with _same_names():
                converter.add_exported_program(program, input_names=[INPUT], output_names=[OUTPUT])
                return converter.to_coreai()
        except ValueError as error:
            raise ExportError(f"{spec.model}: {_refusal(error)}") from error


def _averages_without_padding(model: "nn.Module") -> bool:
    """Whether a network has average pooling with `count_include_pad=False` and padding."""
    graph = getattr(model, "graph", None)
    for node in graph.nodes if graph is not None else ():
        if str(node.target) == "aten.avg_pool2d.default":
            given = dict(zip(POOLING, node.args[3:], strict=False)) | node.kwargs
            if any(given.get("padding", ())) and not given.get("count_include_pad", True):
                return True
    return False


def _refusal(error: ValueError) -> str:
    if named := UNKNOWN.search(str(error)):
        return f"coreai-torch does not know {named[1]}: other targets may"
    return f"coreai-torch refuses the network: {first_line(error, 300)}"


@contextmanager
def _same_names() -> Iterator[None]:
    """Let private graphs have the same names each time: coreai-core draws their endings."""
    from coreai.authoring import func, graph_builder

    modules = [module for module in (func, graph_builder) if hasattr(module, "choice")]
    originals, drawn = [module.choice for module in modules], random.Random(0)
    for module in modules:
        module.choice = drawn.choice
    try:
        yield
    finally:
        for module, original in zip(modules, originals, strict=True):
            module.choice = original


def _drop_same_strides(graph_module: Any) -> None:
    """Remove `as_strided` to the shape that a value has already: coreai-torch lacks the operator."""
    for node in list(graph_module.graph.nodes):
        if str(node.target) == "aten.as_strided.default":
            value = node.args[0].meta["val"]
            moved = [
                size > 1 and old != new
                for size, old, new in zip(value.shape, value.stride(), node.args[2], strict=False)
            ]
            if list(value.shape) == list(node.args[1]) and not any(moved) and len(node.args) == 3:
                node.replace_all_uses_with(node.args[0])
                graph_module.graph.erase_node(node)
    graph_module.recompile()


def _second_opinion(path: Path, spec: ExportSpec) -> list[str]:
    """Run a file in Core AI's own runtime on this machine; returns warnings. Raises ExportError where it differs."""
    from mobilezoo_export.aimodel.own_runtime import disagreement

    try:
        reason = disagreement(path, spec.precision)
    except ExportError:
        raise
    except Exception as error:  # the runtime is a preview, and its errors are of many kinds
        return [f"coreai {spec.precision}: Core AI's runtime on this machine does not run it: {first_line(error, 200)}"]
    if reason:
        reason = reason.replace("PyTorch", "the program check")
        raise ExportError(f"{spec.model}: in Core AI's runtime the coreai {spec.precision} file {reason}")
    return []


def _describe(about: Any, spec: ExportSpec) -> None:
    """Write what an app needs; the date is left out, so that the same network gives the same bytes."""
    about.creation_date = None
    about.model_description = f"{spec.model} {spec.precision}: {spec.answers}"
    about.set_custom(KEY, metadata_text(spec, "NCHW"))


def _sort_keys(file: Path) -> None:
    """Write the metadata in one order: coreai-core's changes from call to call."""
    about = read_json(file, LARGEST_METADATA)
    file.write_text(json.dumps(about, ensure_ascii=False, indent=2, sort_keys=True) + "\n", encoding="utf-8")


class CoreAIRunner(Runner):
    """The program check: the saved program, computed in PyTorch."""

    measurable = False

    def __init__(self, path: Path, threads: int = 1, record: Artifact | None = None) -> None:
        require("coreai", "coreai")
        from mobilezoo_export.aimodel.program import SavedProgram

        with quiet():
            self._program = SavedProgram(path)
        takes_pixels = record is None and _takes_pixels(path)
        self.inputs = tuple(_tensor(value, takes_pixels) for value in self._program.inputs)
        self.outputs = tuple(map(_tensor, self._program.outputs))
        self.input = record.input if record else image_input(self.inputs, "NCHW")
        self._held: list[np.ndarray] = []
        self._results: list[np.ndarray] = []

    @property
    def runtime(self) -> str:
        return f"program check (coreai-core {versions(['coreai-core']).get('coreai-core', '')} reader, PyTorch)"

    def feed(self, values: Sequence[np.ndarray]) -> None:
        self._held = [np.asarray(value, dtype=one.dtype) for value, one in zip(values, self.inputs, strict=True)]

    def invoke(self) -> None:
        self._results = self._program.run(*self._held)

    def output(self) -> np.ndarray:
        return np.asarray(self._results[self.output_index], dtype=np.float32)


def _takes_pixels(path: Path) -> bool:
    """Whether the metadata inside states an image of pixels 0..255."""
    return mapping(read_metadata(path).get("input", {}), METADATA).get("values") == PIXELS


def _tensor(value: "Value", pixels: bool = False) -> TensorSpec:
    if None in value.shape:
        raise ExportError(f"the input or output {value.name!r} has open sizes: only fixed ones are computed here")
    shape = tuple(size or 0 for size in value.shape)
    return TensorSpec(name=value.name, shape=shape, dtype=value.dtype, pixels=pixels)
