"""`.pt2`: what torch.export saves, run by PyTorch itself."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mobilezoo.artifacts import Artifact
from mobilezoo.errors import ExportError
from mobilezoo_export.contract import Exporter, Runner
from mobilezoo_export.feeding import image_input
from mobilezoo_export.io_wrappers import Uint8Input
from mobilezoo_export.metadata import metadata_text
from mobilezoo_export.records import ExportSpec, Reading, Runtime, TensorSpec


class Pt2Exporter(Exporter):
    target, suffix, extra = "pt2", ".pt2", ""
    modules, packages, precisions = ("torch",), ("torch",), ("fp32",)
    runtime = Runtime("PyTorch", "eager", ("torch",), "torch", "")

    def export(
        self, model: nn.Module, spec: ExportSpec, path: Path, calibration: Sequence[np.ndarray] = ()
    ) -> list[str]:
        example = torch.zeros(spec.shape, dtype=getattr(torch, spec.dtype))
        program = torch.export.export(Uint8Input(model) if spec.options.image else model, (example,))
        with path.open("wb") as file:
            torch.export.save(program, file, extra_files={"mobilezoo": metadata_text(spec, "NCHW")})
        return []

    def open(self, path: Path, threads: int, record: Artifact | None) -> Runner:
        return Pt2Runner(path, threads, record)

    def reading(self, path: Path) -> Reading:
        nodes = _load(path)[0].graph.nodes
        return Reading(Counter(str(node.target) for node in nodes if node.op == "call_function"))

    def read_metadata_text(self, path: Path) -> str:
        return _load(path)[1]


class Pt2Runner(Runner):
    runtime = f"PyTorch {torch.__version__}"

    def __init__(self, path: Path, threads: int, record: Artifact | None) -> None:
        torch.set_num_threads(threads)
        program = _load(path)[0]
        self.module, (name,) = program.module(), program.graph_signature.user_inputs
        value = next(node for node in program.graph.nodes if node.name == name).meta["val"]
        self.inputs = (TensorSpec(name=name, shape=tuple(value.shape), dtype=str(value.dtype).split(".")[1]),)
        self.input = record.input if record else image_input(self.inputs, "NCHW")

    def feed(self, values: Sequence[np.ndarray]) -> None:
        self.batch = torch.from_numpy(values[0])

    def invoke(self) -> None:
        with torch.no_grad():
            self.answer = self.module(self.batch)

    def output(self) -> np.ndarray:
        return self.answer.numpy()

    def runtime_info(self) -> dict[str, str]:
        return {"delegate": "eager"}


def _load(path: Path) -> tuple[Any, str]:
    """The program of a file, and its metadata. Raises ExportError."""
    extra = {"mobilezoo": ""}
    try:
        return torch.export.load(path, extra_files=extra), extra["mobilezoo"]
    except Exception as error:
        raise ExportError(f"{path.name!r} cannot be read as PT2: {str(error).splitlines()[0]}") from error
