"""ExecuTorch (.pte) with the XNNPACK delegate; files run in ExecuTorch's Python runtime."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mobilezoo.artifacts import Artifact
from mobilezoo.errors import ExportError, first_line, require
from mobilezoo.files import versions
from mobilezoo_export import coverage
from mobilezoo_export.contract import Exporter, Runner
from mobilezoo_export.conventions import executorch_methods
from mobilezoo_export.feeding import image_input
from mobilezoo_export.metadata import KEY, metadata_text
from mobilezoo_export.quantize.calibration import calibration_batches
from mobilezoo_export.quiet import quiet
from mobilezoo_export.records import ExportSpec, OperatorProfile, Reading, Runtime, TensorSpec

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.fx import GraphModule

    from mobilezoo_export.anatomy.graph import Graph

PASSES = (
    "canonical",
    "noop",
    "attention",
    "groupnorm",
    "layernorm",
    "hardsigmoid",
    "logs",
    "means",
    "taps",
    "splits",
    "upsample",
    "products",
    "softmax",
    "concat",
)
NEEDED = ("canonical", "noop")
"""Passes that others rest on."""
FLEXIBLE_PASSES = ("layernorm", "hardsigmoid", "logs")
"""Passes for flexible files: those that write no sizes."""
TYPES = {
    0: "uint8",
    1: "int8",
    2: "int16",
    3: "int32",
    4: "int64",
    5: "float16",
    6: "float32",
    7: "float64",
    11: "bool",
}
"""ExecuTorch's scalar types by number."""


class ExecuTorchExporter(Exporter):
    """Writes .pte files, delegated to XNNPACK."""

    target = "executorch"
    suffix = ".pte"
    extra = "executorch"
    modules = ("executorch",)
    packages = ("torch", "executorch")
    passes = tuple(name for name in PASSES if name not in NEEDED)
    precisions = ("fp32", "fp16", "int8")
    calibrated = ("int8",)
    limits = coverage.EXECUTORCH
    runtime = Runtime(
        "ExecuTorch", "XNNPACK", ("executorch", "executorch.runtime", "torch"), "executorch", "executorch"
    )

    def open(self, path: Path, threads: int, record: Artifact | None) -> Runner:
        return ExecuTorchRunner(path, threads=threads, record=record)

    def reading(self, path: Path) -> Reading:
        return coverage.read_executorch(path)

    def graph(self, path: Path) -> "Graph":
        from mobilezoo_export.anatomy.executorch import read_graph

        return read_graph(path)

    def profile_operators(self, path: Path, threads: int) -> OperatorProfile:
        from mobilezoo_export.profilers.executorch import profile_executorch

        if threads != 1:
            raise ExportError("per-operator times of ExecuTorch are taken on one thread: leave --threads out")
        return profile_executorch(path, self.open(path, threads, None))

    def read_metadata_text(self, path: Path) -> str:
        from executorch.runtime import Runtime

        program = Runtime.get().load_program(path)
        if KEY not in program.method_names:
            return ""
        method = program.load_method(KEY)
        return str(method.execute([])[0]) if method is not None else ""

    def export(
        self, model: "nn.Module", spec: ExportSpec, path: Path, calibration: Sequence[np.ndarray] = ()
    ) -> list[str]:
        import torch

        with quiet(), torch.no_grad():
            from mobilezoo_export.flexible import dynamic_shapes
            from mobilezoo_export.io_wrappers import Uint8Input
            from mobilezoo_export.quantize.executorch import HalfInside, to_int8

            sizes = dynamic_shapes(spec)
            model, example, _changed = _rewritten(model, spec)
            if spec.precision == "int8":
                batches = calibration_batches(calibration, spec)
                model = to_int8(model, example, batches, spec.float_segments, sizes)
            elif spec.precision == "fp16":
                model = HalfInside(copy.deepcopy(model).half())
            if spec.options.image:
                model, example = Uint8Input(model), example.to(torch.uint8)
            path.write_bytes(lower(model, example, spec))
        return []

    def changing_passes(self, model: "nn.Module", spec: ExportSpec) -> tuple[str, ...]:
        changed = _rewritten(model, spec)[2]
        return tuple(name for name, places in changed.items() if places and name in self.passes)


def _rewritten(model: "nn.Module", spec: ExportSpec) -> "tuple[GraphModule, torch.Tensor, dict[str, int]]":
    """The graph that is lowered, an input for it, and what each pass changed."""
    from mobilezoo_export.flexible import dynamic_shapes, example_of, flexible_graph
    from mobilezoo_export.passes import run_passes
    from mobilezoo_export.passes.graph import trace

    example, sizes = example_of(spec), dynamic_shapes(spec)
    graph = flexible_graph(model, spec) if sizes else trace(model, example)
    passes = [name for name in (FLEXIBLE_PASSES if sizes else PASSES) if name not in spec.options.without]
    return graph, example, run_passes(graph, example, passes)


def lower(model: "nn.Module", example: Any, spec: ExportSpec) -> bytes:
    """Lower a network to an ExecuTorch program, delegated to XNNPACK where it takes the operators.

    Args:
        model: traceable network in eval mode.
        example: (N, C, H, W) input to trace with.
        spec: source of the metadata, and of the open axes of flexible files.

    Returns:
        Bytes of the `.pte` file.
    """
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower

    from mobilezoo_export.flexible import dynamic_shapes

    sizes = dynamic_shapes(spec)
    lowered = to_edge_transform_and_lower(
        torch.export.export(model, (example,), dynamic_shapes=sizes),
        # The check of the program reads computed sizes as numbers, which fixes them.
        compile_config=EdgeCompileConfig(_check_ir_validity=False) if sizes else None,
        partitioner=[XnnpackPartitioner()],
        constant_methods={KEY: metadata_text(spec, "NCHW"), **executorch_methods(spec)},
    )
    return bytes(lowered.to_executorch().buffer)


class ExecuTorchRunner(Runner):
    """One loaded `forward` method."""

    def __init__(self, path: Path, threads: int = 1, record: Artifact | None = None) -> None:
        require("executorch", "executorch")
        with quiet():
            from executorch.runtime import Runtime, Verification

            _limit_threads(threads)
            try:
                # The runtime ends the whole process on a file that is no program at all.
                _check_magic(path)
                self._program = Runtime.get().load_program(path, verification=Verification.InternalConsistency)
                self._method = self._program.load_method("forward")
            except (RuntimeError, ValueError, OSError) as error:
                raise ExportError(
                    f"{path.name!r} cannot be read as an ExecuTorch program: {first_line(error)}"
                ) from error
        meta = self._method.metadata
        self.inputs = tuple(_tensor(path, f"input {i}", meta.input_tensor_meta, i) for i in range(meta.num_inputs()))
        self.outputs = tuple(
            _tensor(path, f"output {i}", meta.output_tensor_meta, i) for i in range(meta.num_outputs())
        )
        self.input = record.input if record else image_input(self.inputs, "NCHW")
        self._held: list[Any] = []
        self._result: Any = None

    @property
    def runtime(self) -> str:
        return f"ExecuTorch {versions(['executorch']).get('executorch', '')} (XNNPACK)"

    def feed(self, values: Sequence[np.ndarray]) -> None:
        import torch

        self._held = [torch.from_numpy(np.ascontiguousarray(value)) for value in values]

    def invoke(self) -> None:
        self._result = self._method.execute(self._held)

    def output(self) -> np.ndarray:
        return np.asarray(self._result[self.output_index].float().numpy())


def _tensor(path: Path, name: str, meta_of: Any, index: int) -> TensorSpec:
    try:
        meta = meta_of(index)
        dtype = TYPES[int(meta.dtype())]
    except (RuntimeError, KeyError) as error:
        raise ExportError(f"{path.name!r}: {name} is no tensor of a type that is known here") from error
    return TensorSpec(name=name, shape=tuple(int(size) for size in meta.sizes()), dtype=dtype)


def _check_magic(path: Path) -> None:
    with path.open("rb") as handle:
        head = handle.read(8)
    if head[4:6] != b"ET":
        raise ValueError("the file identifier is missing")


def _limit_threads(threads: int) -> None:
    """Size the process-wide pool that XNNPACK uses."""
    from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool

    _unsafe_reset_threadpool(threads)
