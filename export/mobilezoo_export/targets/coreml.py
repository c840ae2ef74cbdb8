"""Core ML (.mlpackage, ML Program) through torch.export. Files run on macOS only."""

import platform
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mobilezoo.artifacts import Artifact, InputSpec
from mobilezoo.errors import ExportError, require
from mobilezoo_export.contract import Exporter, ExportSpec, Runner
from mobilezoo_export.quiet import quiet

if TYPE_CHECKING:
    from torch import nn

TARGETS = ("iOS15", "iOS16", "iOS17", "iOS18")


class CoreMLExporter(Exporter):
    target = "coreml"
    suffix = ".mlpackage"
    extra = "coreml"
    modules = ("coremltools",)
    packages = ("torch", "coremltools")
    precisions = ("fp32",)

    def check(self, model: "nn.Module", spec: ExportSpec) -> str | None:
        if spec.options.coreml_target not in TARGETS:
            return f"unknown Core ML deployment target {spec.options.coreml_target!r}: use {', '.join(TARGETS)}"
        return super().check(model, spec)

    def export(
        self, model: "nn.Module", spec: ExportSpec, path: Path, calibration: Sequence[np.ndarray] = ()
    ) -> list[str]:
        import torch

        with quiet(), torch.no_grad():
            import coremltools as ct

            program = torch.export.export(model, (torch.zeros(spec.shape),)).run_decompositions({})
            converted = ct.convert(
                program,
                convert_to="mlprogram",
                outputs=[ct.TensorType(name="logits")],
                compute_precision=ct.precision.FLOAT32,
                minimum_deployment_target=getattr(ct.target, spec.options.coreml_target),
                skip_model_load=True,
            )
            converted.save(str(path))
        return []

    def not_run(self, spec: ExportSpec) -> str | None:
        return None if _on_mac() else "not run here: Core ML runs on macOS only"


class CoreMLRunner(Runner):
    """Core ML's own prediction (macOS)."""

    def __init__(self, path: Path, threads: int = 1, record: Artifact | None = None) -> None:
        require("coremltools", "coreml")
        if not _on_mac():
            raise ExportError(f"{path.name!r} cannot be run here: Core ML runs on macOS only")
        with quiet():
            import coremltools as ct

            try:
                self.model = ct.models.MLModel(str(path))
            except Exception as error:
                first = str(error).splitlines()[0]
                raise ExportError(f"{path.name!r} cannot be read as a Core ML package: {first}") from error
        described = self.model.get_spec().description
        self._names = described.input[0].name, described.output[0].name
        shape = tuple(int(size) for size in described.input[0].type.multiArrayType.shape)
        self.input = record.input if record else InputSpec(shape=shape)
        self._held: dict[str, Any] = {}
        self._result: dict[str, Any] = {}

    @property
    def runtime(self) -> str:
        return f"Core ML (macOS {platform.mac_ver()[0]})"

    def prepare(self, batch: np.ndarray) -> None:
        self._held = {self._names[0]: batch}

    def invoke(self) -> None:
        self._result = self.model.predict(self._held)

    def output(self) -> np.ndarray:
        return np.asarray(self._result[self._names[1]], dtype=np.float32)


def _on_mac() -> bool:
    return platform.system() == "Darwin"
