"""LiteRT (.tflite) through litert-torch; files run in the LiteRT interpreter with XNNPACK."""

import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mobilezoo.artifacts import Artifact, InputSpec, versions
from mobilezoo.errors import ExportError, require
from mobilezoo_export.app import finish_litert, keep_litert_output_name, notes_text
from mobilezoo_export.contract import Exporter, ExportSpec, Runner
from mobilezoo_export.quantize.calibration import calibration_batches
from mobilezoo_export.quantize.litert import quantise
from mobilezoo_export.quiet import quiet

if TYPE_CHECKING:
    from torch import nn

PASSES = (
    "canonical",
    "noop",
    "attention",
    "groupnorm",
    "splits",
    "upsample_last",
    "pools",
    "layout",
    "swaps",
    "concat",
)

_last: tuple[tuple[Any, ...], bytes] | None = None
"""(network, state of its weights, shape, options) and the float file that was made of them last."""


class LiteRTExporter(Exporter):
    target = "litert"
    suffix = ".tflite"
    extra = "litert"
    modules = ("litert_torch", "ai_edge_litert", "ai_edge_quantizer")
    packages = ("torch", "litert-torch", "litert-converter", "ai-edge-litert", "ai-edge-quantizer")
    precisions = ("fp32", "fp16", "int8", "int8-dynamic")
    calibrated = ("int8",)

    def check(self, model: "nn.Module", spec: ExportSpec) -> str | None:
        if spec.options.int8_io and spec.options.image:
            return "int8_io and image are two kinds of input: choose one"
        return super().check(model, spec)

    def export(
        self, model: "nn.Module", spec: ExportSpec, path: Path, calibration: Sequence[np.ndarray] = ()
    ) -> list[str]:
        with quiet():
            path.write_bytes(self._converted(model, spec))
            # Before quantising: the quantiser's files hold buffers that the schema's classes would lose.
            finish_litert(path, notes_text(spec, spec.options.layout))
            if spec.precision != "fp32":
                batches = calibration_batches(calibration, spec) if spec.precision in self.calibrated else []
                fed = [self._as_fed(batch, spec) for batch in batches]
                quantise(path, path, spec.precision, fed, spec.options.int8_io, spec.float_groups)
                keep_litert_output_name(path)
        return []

    def _converted(self, model: "nn.Module", spec: ExportSpec) -> bytes:
        """The float file; the last one is kept, since every precision starts from it."""
        import litert_torch
        import torch

        from mobilezoo_export.app_model import FromBytes
        from mobilezoo_export.passes import run_passes
        from mobilezoo_export.passes.graph import trace

        global _last

        def asked() -> tuple[Any, ...]:
            weights = [(tensor.data_ptr(), tensor._version) for tensor in (*model.parameters(), *model.buffers())]
            return weakref.ref(model), weights, spec.shape, spec.options

        if _last is None or _last[0] != asked():
            with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
                example = torch.zeros(self.input_spec(spec).shape)
                graph = trace(_channels_last_input(model) if spec.options.layout == "NHWC" else model, example)
                run_passes(graph, example, PASSES)
                whole = _frozen(FromBytes(graph) if spec.options.image else graph)
                file = Path(folder) / "float.tflite"
                litert_torch.convert(whole, (example.to(getattr(torch, spec.dtype)),)).export(str(file))
                _last = asked(), file.read_bytes()  # tracing counts as a change of the weights
        return _last[1]

    def _as_fed(self, batch: np.ndarray, spec: ExportSpec) -> np.ndarray:
        laid_out = batch.transpose(0, 2, 3, 1) if spec.options.layout == "NHWC" else batch
        return np.ascontiguousarray(laid_out, dtype=spec.dtype)

    def input_spec(self, spec: ExportSpec) -> InputSpec:
        if spec.options.layout == "NCHW":
            return InputSpec(shape=spec.shape, dtype=self._dtype(spec))
        n, c, h, w = spec.shape
        return InputSpec(shape=(n, h, w, c), layout="NHWC", dtype=self._dtype(spec))

    def _dtype(self, spec: ExportSpec) -> Literal["float32", "uint8", "int8"]:
        return "int8" if spec.options.int8_io and spec.precision == "int8" else spec.dtype


def _channels_last_input(model: "nn.Module") -> "nn.Module":
    """The model behind one permute, which meets the first convolution's own and vanishes."""
    import torch
    from torch import nn

    class ChannelsLastInput(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model
            self.training = False

        def forward(self, image_nhwc: torch.Tensor) -> Any:
            return self.model(image_nhwc.permute(0, 3, 1, 2))

    return ChannelsLastInput()


def _frozen(graph: "nn.Module") -> "nn.Module":
    """Marked as not training; traced modules refuse `eval()`."""
    graph.training = False
    return graph


class LiteRTRunner(Runner):
    """One LiteRT interpreter (XNNPACK delegate, CPU)."""

    def __init__(self, path: Path, threads: int = 1, record: Artifact | None = None) -> None:
        require("ai_edge_litert", "litert")
        with quiet():
            from ai_edge_litert.interpreter import Interpreter

            try:
                self.interpreter = Interpreter(model_path=str(path), num_threads=threads)
                self.interpreter.allocate_tensors()
            except (ValueError, RuntimeError) as error:
                first = str(error).splitlines()[0]
                raise ExportError(f"{path.name!r} cannot be read as a LiteRT file: {first}") from error
        self._in = self.interpreter.get_input_details()[0]
        self._out = self.interpreter.get_output_details()[0]
        self._shape = tuple(int(size) for size in self._in["shape"])
        self.input = record.input if record else _guess_input(self._shape)

    @property
    def runtime(self) -> str:
        return f"LiteRT {versions(['ai-edge-litert']).get('ai-edge-litert', '')} (XNNPACK)"

    def obtained(self) -> dict[str, str]:
        # The only place where the interpreter tells what a delegate took: one DELEGATE node per partition.
        partitions = sum(op["op_name"] == "DELEGATE" for op in self.interpreter._get_ops_details())
        return {"delegate": "XNNPACK" if partitions else "none", "partitions": str(partitions)}

    def prepare(self, batch: np.ndarray) -> None:
        values = self.as_fed(batch)
        laid_out = values.transpose(0, 2, 3, 1) if self.input.layout == "NHWC" else values
        if laid_out.shape != self._shape:
            self.interpreter.resize_tensor_input(self._in["index"], laid_out.shape)
            self.interpreter.allocate_tensors()
            self._shape = laid_out.shape
        self.interpreter.set_tensor(self._in["index"], _quantised(laid_out, self._in))

    def invoke(self) -> None:
        self.interpreter.invoke()

    def output(self) -> np.ndarray:
        raw = self.interpreter.get_tensor(self._out["index"])
        scale, zero_point = self._out["quantization"]
        return (raw.astype(np.float32) - zero_point) * scale if raw.dtype != np.float32 else raw


def _quantised(values: np.ndarray, detail: dict[str, Any]) -> np.ndarray:
    """Float values as the input tensor's type."""
    dtype = np.dtype(detail["dtype"])
    if dtype == values.dtype:
        return np.ascontiguousarray(values)
    scale, zero_point = detail["quantization"]
    limits = np.iinfo(dtype)
    return np.clip(np.round(values / scale) + zero_point, limits.min, limits.max).astype(dtype)


def _guess_input(shape: tuple[int, ...]) -> InputSpec:
    """Images have few channels: the smaller of the two candidate axes is theirs."""
    return InputSpec(shape=shape, layout="NHWC" if shape[-1] <= shape[1] else "NCHW")
