"""ONNX through torch's dynamo exporter; files run in ONNX Runtime."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mobilezoo.artifacts import Artifact, InputSpec
from mobilezoo.errors import ExportError, require
from mobilezoo_export.app import INPUT, KEY, OUTPUT, notes_text
from mobilezoo_export.contract import Exporter, ExportSpec, Runner
from mobilezoo_export.quantize.calibration import calibration_batches
from mobilezoo_export.quantize.onnx import to_float16, to_int8
from mobilezoo_export.quiet import quiet

if TYPE_CHECKING:
    from torch import nn


class OnnxExporter(Exporter):
    target = "onnx"
    suffix = ".onnx"
    extra = "onnx"
    modules = ("onnx", "onnxscript", "onnxruntime")
    packages = ("torch", "onnx", "onnxscript", "onnxruntime")
    precisions = ("fp32", "fp16", "int8")
    calibrated = ("int8",)

    def export(
        self, model: "nn.Module", spec: ExportSpec, path: Path, calibration: Sequence[np.ndarray] = ()
    ) -> list[str]:
        import onnx
        import torch

        from mobilezoo_export.app_model import FromBytes
        from mobilezoo_export.flexible import dynamic_shapes, example_of

        with quiet(), torch.no_grad():
            program = torch.onnx.export(
                FromBytes(model) if spec.options.image else model,
                (example_of(spec).to(getattr(torch, spec.dtype)),),
                dynamo=True,
                dynamic_shapes=dynamic_shapes(spec),
                opset_version=spec.options.opset,
                input_names=[INPUT],
                output_names=[OUTPUT],
                verbose=False,
                # Weights stay inside: one file is one artefact.
                external_data=False,
            )
            assert program is not None
            proto = program.model_proto
            plain: Any = _without_traces(proto)
            plain.metadata_props.add(key=KEY, value=notes_text(spec, "NCHW"))
            if spec.precision == "int8":
                batches = [batch.astype(spec.dtype) for batch in calibration_batches(calibration, spec)]
                to_int8(plain, batches, path, spec.options.onnx_activations == "uint8", spec.float_groups)
            else:
                onnx.save(to_float16(plain) if spec.precision == "fp16" else plain, path)
        return []


def _without_traces(proto: "object") -> "object":
    """Drop the exporter's notes (stack traces with local paths): they differ between machines."""
    graph = proto.graph  # type: ignore[attr-defined]
    for item in (*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer, graph):
        if hasattr(item, "metadata_props"):
            del item.metadata_props[:]
        item.doc_string = ""
    return proto


class OnnxRunner(Runner):
    """One ONNX Runtime session on the CPU."""

    def __init__(self, path: Path, threads: int = 1, record: Artifact | None = None) -> None:
        require("onnxruntime", "onnx")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise ExportError(f"{path.name!r} cannot be read as ONNX: {str(error).splitlines()[0]}") from error
        info = self.session.get_inputs()[0]
        self.input = record.input if record else InputSpec(shape=_sizes(info.shape))
        self._binding = self.session.io_binding()
        self._names = info.name, self.session.get_outputs()[0].name
        self._held: np.ndarray | None = None

    @property
    def runtime(self) -> str:
        import onnxruntime

        return f"ONNX Runtime {onnxruntime.__version__} (CPU)"

    def obtained(self) -> dict[str, str]:
        return {"delegate": ",".join(self.session.get_providers())}

    def prepare(self, batch: np.ndarray) -> None:
        self._held = np.ascontiguousarray(self.as_fed(batch))
        self._binding.bind_cpu_input(self._names[0], self._held)
        self._binding.bind_output(self._names[1], "cpu")

    def invoke(self) -> None:
        self.session.run_with_iobinding(self._binding)

    def output(self) -> np.ndarray:
        return np.asarray(self._binding.copy_outputs_to_cpu()[0], dtype=np.float32)


def _sizes(shape: Sequence[int | str]) -> tuple[int, ...]:
    """A file's input shape; sizes that it leaves open are those of one image of 224 pixels."""
    return tuple(size if isinstance(size, int) else usual for size, usual in zip(shape, (1, 3, 224, 224), strict=True))
