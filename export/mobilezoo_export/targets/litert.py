"""LiteRT (.tflite) through litert-torch; files run in the LiteRT interpreter with XNNPACK."""

import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mobilezoo.artifacts import Artifact, InputSpec, Quantization
from mobilezoo.errors import ExportError, first_line, require
from mobilezoo.files import versions
from mobilezoo_export import coverage, litert_file, packs
from mobilezoo_export.contract import Exporter, Runner
from mobilezoo_export.feeding import dequantized, image_input, sized
from mobilezoo_export.half_precision import half_exceeded
from mobilezoo_export.litert_spelling import respell
from mobilezoo_export.metadata import metadata_text
from mobilezoo_export.quantize.calibration import calibration_batches
from mobilezoo_export.quantize.litert import quantize
from mobilezoo_export.quiet import quiet
from mobilezoo_export.records import (
    Borders,
    ExportSpec,
    FileMetadata,
    OperatorProfile,
    Reading,
    Runtime,
    TensorSpec,
)
from mobilezoo_export.tflite_metadata import finish_file, pack_metadata

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
    "elu",
    "splits",
    "upsample_last",
    "pools",
    "taps",
    "layout",
    "swaps",
    "concat",
    "pads",
    "half_pads",
)

NEEDED = ("canonical", "noop")
"""Passes that others rest on."""
FOR_CPUS = ("taps",)
"""Passes that suit XNNPACK's kernels; files with integer borders are for accelerators, and go without."""
FOR_HALF = ("half_pads",)
"""Passes for what XNNPACK does not merge in half precision."""
FOR_FIXED = ("pads", "half_pads")
"""Passes that write sizes where a file of convolutions holds none."""
RESPELLED = ("fp32", "fp16", "fp16-weights", "int8")
"""Precisions whose matrix products compute in float."""
BORDER_METADATA, CHANNEL_METADATA = 1000, 100
"""Most bytes that metadata on integer inputs and outputs adds: in all, and per channel."""

FORMS = 2
"""Float files of one network that are kept: fp16 has passes of its own."""
Weights = tuple[Any, list[tuple[int, int]]]
_last: tuple[Weights, list[tuple[Any, bytes]]] | None = None
"""(network, state of its weights), and the float files that were made of them, each with (shape, options, passes)."""


class LiteRTExporter(Exporter):
    """Writes .tflite files: litert-torch, then ai-edge-quantizer for reduced precision."""

    target = "litert"
    suffix = ".tflite"
    extra = "litert"
    modules = ("litert_torch", "ai_edge_litert", "ai_edge_quantizer")
    packages = ("torch", "litert-torch", "litert-converter", "ai-edge-litert", "ai-edge-quantizer")
    passes = tuple(name for name in PASSES if name not in NEEDED)
    precisions = ("fp32", "fp16", "fp16-weights", "int8", "int8-dynamic", "w8a16")
    half_arithmetic = ("fp16", "int8")
    calibrated = ("int8", "w8a16")
    limits = coverage.LITERT
    runtime = Runtime("LiteRT", "XNNPACK", ("ai_edge_litert", "ai_edge_litert.interpreter"), "ai-edge-litert", "litert")

    def open(self, path: Path, threads: int, record: Artifact | None) -> Runner:
        return LiteRTRunner(path, threads=threads, record=record)

    def is_half_on_arm(self, path: Path) -> bool:
        return litert_file.computes_in_half(path) and litert_file.has_float_parts(path)

    def reading(self, path: Path) -> Reading:
        return coverage.read_litert(path)

    def graph(self, path: Path) -> "Graph":
        from mobilezoo_export.anatomy.litert import read_graph

        return read_graph(path)

    def read_metadata_text(self, path: Path) -> str:
        return litert_file.read_metadata_text(path)

    def profile_operators(self, path: Path, threads: int) -> OperatorProfile:
        from mobilezoo_export.profilers.litert import profile_litert

        return profile_litert(path, self.open(path, threads, None), threads)

    def read_file_metadata(self, path: Path) -> FileMetadata:
        return packs.from_litert(path)

    def write_fixed(self, path: Path, shape: tuple[int, ...], out: Path) -> None:
        runner = LiteRTRunner(path)
        litert_file.write_fixed(path, runner.shapes_at(shape), out)

    def unsupported_reason(self, model: "nn.Module", spec: ExportSpec) -> str | None:
        if spec.options.int8_io and spec.options.image:
            return "int8_io and image are two kinds of input: choose one"
        return super().unsupported_reason(model, spec)

    def export(
        self, model: "nn.Module", spec: ExportSpec, path: Path, calibration: Sequence[np.ndarray] = ()
    ) -> list[str]:
        with quiet():
            path.write_bytes(self._converted(model, spec))
            half = self._has_half(spec) and not spec.beyond_half
            if spec.precision in RESPELLED and not spec.options.int8_io:
                respell(path, half)
            # Before quantizing: the quantizer's files hold buffers that the schema's classes would lose.
            text = metadata_text(spec, spec.options.layout)
            room = " " * (BORDER_METADATA + CHANNEL_METADATA * spec.in_chans if _integers(spec) else 0)
            litert_file.name_and_note(path, text + room, pack_metadata(spec), half)
            if spec.precision != "fp32":
                batches = calibration_batches(calibration, spec) if spec.precision in self.calibrated else []
                fed = [self._to_input(batch, spec) for batch in batches]
                quantize(path, path, spec.precision, fed, spec.options.int8_io, spec.float_segments)
                litert_file.keep_output_name(path)
            if _integers(spec):
                litert_file.rewrite_metadata(path, metadata_text(spec, spec.options.layout, self.borders(path)))
            finish_file(path, spec.labels)
        if not (self._has_half(spec) and spec.beyond_half):
            return []
        fp16 = "this file computes in float32 with fp16 weights"
        return [f"{half_exceeded(spec)}: {fp16 if spec.precision == 'fp16' else 'float parts stay float32'}"]

    def _has_half(self, spec: ExportSpec) -> bool:
        """Whether the runtime may compute the file, or its float parts, in half precision."""
        return spec.precision in self.half_arithmetic and not spec.options.int8_io

    def _converted(self, model: "nn.Module", spec: ExportSpec) -> bytes:
        """Convert to a float32 file; the last ones are cached: all precisions but fp16 start from the same."""
        import litert_torch
        import torch

        from mobilezoo_export.io_wrappers import Uint8Input

        global _last

        def weights() -> Weights:
            return weakref.ref(model), [(x.data_ptr(), x._version) for x in (*model.parameters(), *model.buffers())]

        form = spec.shape, spec.options, self._passes(spec)
        known = _last[1] if _last is not None and _last[0] == weights() else []
        made = next((file for other, file in known if other == form), None)
        if made is None:
            with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
                graph, example, _changed = self._rewritten(model, spec)
                whole = _frozen(Uint8Input(graph) if spec.options.image else graph)
                file = Path(folder) / "float.tflite"
                litert_torch.convert(whole, (example.to(getattr(torch, spec.dtype)),)).export(str(file))
                made = file.read_bytes()
                # Tracing counts as a change of the weights, which those that are known already have not seen.
                _last = weights(), [*known[1 - FORMS :], (form, made)]
        return made

    def _rewritten(self, model: "nn.Module", spec: ExportSpec) -> "tuple[GraphModule, torch.Tensor, dict[str, int]]":
        """The graph that is converted, an input for it, and what each pass changed."""
        import torch

        from mobilezoo_export.passes import run_passes
        from mobilezoo_export.passes.graph import trace

        example = torch.zeros(self.input_spec(spec).shape)
        graph = trace(_channels_last_input(model) if spec.options.layout == "NHWC" else model, example)
        return graph, example, run_passes(graph, example, self._passes(spec))

    def _passes(self, spec: ExportSpec) -> list[str]:
        """The passes that suit a file, in order."""
        without = set(spec.options.without)
        if spec.options.int8_io:
            without.update(FOR_CPUS)
        if spec.precision != "fp16":
            without.update(FOR_HALF)
        if spec.options.flexible != "none":
            without.update(FOR_FIXED)
        return [name for name in PASSES if name not in without]

    def changing_passes(self, model: "nn.Module", spec: ExportSpec) -> tuple[str, ...]:
        changed = self._rewritten(model, spec)[2]
        return tuple(name for name, places in changed.items() if places and name in self.passes)

    def _to_input(self, batch: np.ndarray, spec: ExportSpec) -> np.ndarray:
        laid_out = batch.transpose(0, 2, 3, 1) if spec.options.layout == "NHWC" else batch
        return np.ascontiguousarray(laid_out, dtype=spec.dtype)

    def input_spec(self, spec: ExportSpec) -> InputSpec:
        if spec.options.layout == "NCHW":
            return InputSpec(shape=spec.shape, dtype=self._dtype(spec))
        n, c, h, w = spec.shape
        return InputSpec(shape=(n, h, w, c), layout="NHWC", dtype=self._dtype(spec))

    def _dtype(self, spec: ExportSpec) -> Literal["float32", "uint8", "int8", "int16"]:
        if not _integers(spec):
            return spec.dtype
        return "int16" if spec.precision == "w8a16" else "int8"

    def borders(self, path: Path) -> Borders:
        return litert_file.borders_of(path)


def _integers(spec: ExportSpec) -> bool:
    """Whether input and output of the file are integers."""
    return spec.options.int8_io and spec.precision in ("int8", "w8a16")


def _channels_last_input(model: "nn.Module") -> "nn.Module":
    """Prepend a permute to NCHW, which cancels against the first convolution's own."""
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
    """Mark a traced module as not training; it refuses `eval()`."""
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
                raise ExportError(f"{path.name!r} cannot be read as a LiteRT file: {first_line(error)}") from error
        self._in, self._out = self.interpreter.get_input_details(), self.interpreter.get_output_details()
        self.inputs = tuple(_tensor(detail) for detail in self._in)
        self.outputs = tuple(_tensor(detail) for detail in self._out)
        self.input = record.input if record else image_input(self.inputs, "NHWC")
        self._shapes = [tuple(int(size) for size in detail["shape"]) for detail in self._in]

    @property
    def runtime(self) -> str:
        kernels = "XNNPACK" if self._partitions() else "its own kernels: XNNPACK takes none of it"
        return f"LiteRT {versions(['ai-edge-litert']).get('ai-edge-litert', '')} ({kernels})"

    def runtime_info(self) -> dict[str, str]:
        partitions = self._partitions()
        return {"delegate": "XNNPACK" if partitions else "none", "partitions": str(partitions)}

    def _partitions(self) -> int:
        # The interpreter's only report of what a delegate took: one DELEGATE node per partition.
        return sum(op["op_name"] == "DELEGATE" for op in self.interpreter._get_ops_details())

    def feed(self, values: Sequence[np.ndarray]) -> None:
        shapes = [value.shape for value in values]
        if shapes != self._shapes:
            for detail, shape in zip(self._in, shapes, strict=True):
                self.interpreter.resize_tensor_input(detail["index"], shape)
            self.interpreter.allocate_tensors()
            self._shapes = shapes
        for detail, value in zip(self._in, values, strict=True):
            self.interpreter.set_tensor(detail["index"], value)

    def shapes_at(self, shape: tuple[int, ...]) -> dict[int, tuple[int, ...]]:
        """Tensor of the main graph → its shape where the one input has `shape`."""
        self.interpreter.resize_tensor_input(self._in[0]["index"], shape)
        self.interpreter.allocate_tensors()
        return {
            int(detail["index"]): tuple(int(size) for size in detail["shape"])
            for detail in self.interpreter.get_tensor_details()
        }

    def invoke(self) -> None:
        self.interpreter.invoke()

    def output(self) -> np.ndarray:
        index = self.output_index
        return dequantized(self.interpreter.get_tensor(self._out[index]["index"]), self.outputs[index].quantization)


def _tensor(detail: dict[str, Any]) -> TensorSpec:
    """Convert the interpreter's description of a tensor; open sizes get their usual value."""
    dtype, (scale, zero_point) = np.dtype(detail["dtype"]).name, detail["quantization"]
    how = Quantization.parse({"dtype": dtype, "scale": scale, "zero_point": zero_point}, "file") if scale else None
    open_axes = tuple(int(axis) for axis in np.flatnonzero(np.asarray(detail["shape_signature"]) < 0))
    shape = sized(detail["shape"].tolist(), open_axes, "NHWC")
    return TensorSpec(name=detail["name"], shape=shape, dtype=dtype, quantization=how, open_axes=open_axes)
