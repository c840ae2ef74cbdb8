"""ExecuTorch (.pte) with the XNNPACK delegate; files run in ExecuTorch's Python runtime."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mobilezoo.artifacts import Artifact, InputSpec, versions
from mobilezoo.errors import ExportError, require
from mobilezoo_export.app import KEY, notes_text
from mobilezoo_export.contract import Exporter, ExportSpec, Runner
from mobilezoo_export.quantize.calibration import calibration_batches
from mobilezoo_export.quiet import quiet

if TYPE_CHECKING:
    from torch import nn

PASSES = (
    "canonical",
    "noop",
    "attention",
    "groupnorm",
    "layernorm",
    "hardsigmoid",
    "logs",
    "means",
    "splits",
    "upsample",
    "products",
    "softmax",
    "concat",
)


FLEXIBLE_PASSES = ("layernorm", "hardsigmoid", "logs")
"""Those that write no sizes."""


class ExecuTorchExporter(Exporter):
    target = "executorch"
    suffix = ".pte"
    extra = "executorch"
    modules = ("executorch",)
    packages = ("torch", "executorch")
    precisions = ("fp32", "fp16", "int8")
    calibrated = ("int8",)

    def export(
        self, model: "nn.Module", spec: ExportSpec, path: Path, calibration: Sequence[np.ndarray] = ()
    ) -> list[str]:
        import torch

        with quiet(), torch.no_grad():
            from mobilezoo_export.app_model import FromBytes
            from mobilezoo_export.flexible import dynamic_shapes, example_of, flexible_graph
            from mobilezoo_export.passes import run_passes
            from mobilezoo_export.passes.graph import trace
            from mobilezoo_export.quantize.executorch import HalfInside, to_int8

            example, sizes = example_of(spec), dynamic_shapes(spec)
            model = flexible_graph(model, spec) if sizes else trace(model, example)
            run_passes(model, example, FLEXIBLE_PASSES if sizes else PASSES)
            if spec.precision == "int8":
                batches = calibration_batches(calibration, spec)
                model = to_int8(model, example, batches, spec.float_groups, sizes)
            elif spec.precision == "fp16":
                model = HalfInside(copy.deepcopy(model).half())
            if spec.options.image:
                model, example = FromBytes(model), example.to(torch.uint8)
            path.write_bytes(lower(model, example, spec))
        return []


def lower(model: "nn.Module", example: Any, spec: ExportSpec) -> bytes:
    """The program of a traceable network, its operators handed to XNNPACK where it takes them."""
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
        constant_methods={KEY: notes_text(spec, "NCHW")},
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
                first = str(error).splitlines()[0]
                raise ExportError(f"{path.name!r} cannot be read as an ExecuTorch program: {first}") from error
        shape = self._method.metadata.input_tensor_meta(0).sizes()
        self.input = record.input if record else InputSpec(shape=tuple(int(size) for size in shape))
        self._held: list[Any] = []
        self._result: Any = None

    @property
    def runtime(self) -> str:
        return f"ExecuTorch {versions(['executorch']).get('executorch', '')} (XNNPACK)"

    def prepare(self, batch: np.ndarray) -> None:
        import torch

        self._held = [torch.from_numpy(self.as_fed(batch))]

    def invoke(self) -> None:
        self._result = self._method.execute(self._held)

    def output(self) -> np.ndarray:
        return np.asarray(self._result[0].float().numpy())


def _check_magic(path: Path) -> None:
    with path.open("rb") as handle:
        head = handle.read(8)
    if head[4:6] != b"ET":
        raise ValueError("the file identifier is missing")


def _limit_threads(threads: int) -> None:
    """Size the process-wide pool that XNNPACK uses."""
    from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool

    _unsafe_reset_threadpool(threads)
