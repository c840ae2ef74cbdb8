"""ONNX through torch's dynamo exporter; files run in ONNX Runtime."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mobilezoo.artifacts import Artifact
from mobilezoo.errors import ExportError, first_line, require
from mobilezoo_export import coverage, packs
from mobilezoo_export.contract import Exporter, Runner
from mobilezoo_export.conventions import describe_onnx
from mobilezoo_export.feeding import dequantized, image_input, sized
from mobilezoo_export.metadata import INPUT, KEY, OUTPUT, metadata_text
from mobilezoo_export.quantize.calibration import calibration_batches
from mobilezoo_export.quantize.onnx import to_float16, to_int8
from mobilezoo_export.quiet import quiet
from mobilezoo_export.records import ExportSpec, FileMetadata, OperatorProfile, Reading, Runtime, TensorSpec
from mobilezoo_export.scales import BYTES, end_scales, has_wide_activations

if TYPE_CHECKING:
    from torch import nn

    from mobilezoo_export.anatomy.graph import Graph


WIDE = "uint16"
"""Type of w8a16's activations: NPUs take 16 bits without a sign."""
WIDE_OPSET = 21
"""First operator set whose QuantizeLinear has 16 bits."""


class OnnxExporter(Exporter):
    """Writes .onnx files: torch's dynamo exporter, then ONNX Runtime's quantizer for int8 and w8a16."""

    target = "onnx"
    suffix = ".onnx"
    extra = "onnx"
    modules = ("onnx", "onnxscript", "onnxruntime")
    packages = ("torch", "onnx", "onnxscript", "onnxruntime")
    precisions = ("fp32", "fp16", "int8", "w8a16")
    calibrated = ("int8", "w8a16")
    limits = coverage.ONNX
    runtime = Runtime("ONNX Runtime", "CPUExecutionProvider", ("onnxruntime",), "onnxruntime", "onnx")

    def open(self, path: Path, threads: int, record: Artifact | None) -> Runner:
        return OnnxRunner(path, threads=threads, record=record)

    def open_exact(self, path: Path, threads: int, record: Artifact | None) -> Runner:
        return OnnxRunner(path, threads=threads, record=record, exact=True)

    def reading(self, path: Path) -> Reading:
        return coverage.read_onnx(path)

    def graph(self, path: Path) -> "Graph":
        from mobilezoo_export.anatomy.onnx import read_graph

        return read_graph(path)

    def read_metadata_text(self, path: Path) -> str:
        import onnx

        properties = onnx.load(path, load_external_data=False).metadata_props
        return {p.key: p.value for p in properties}.get(KEY, "")

    def profile_operators(self, path: Path, threads: int) -> OperatorProfile:
        from mobilezoo_export.profilers.onnx import profile_onnx

        return profile_onnx(path, self.open(path, threads, None), threads)

    def read_file_metadata(self, path: Path) -> FileMetadata:
        return packs.from_onnx(path)

    def write_fixed(self, path: Path, shape: tuple[int, ...], out: Path) -> None:
        import onnx

        proto = onnx.load(path)
        held = {tensor.name for tensor in proto.graph.initializer}  # old files list their weights as inputs too
        value = next(value for value in proto.graph.input if value.name not in held)
        for axis, size in zip(value.type.tensor_type.shape.dim, shape, strict=True):
            axis.dim_value = size
        onnx.save(proto, out)

    def export(
        self, model: "nn.Module", spec: ExportSpec, path: Path, calibration: Sequence[np.ndarray] = ()
    ) -> list[str]:
        activations = {"int8": spec.options.onnx_activations, "w8a16": WIDE}.get(spec.precision)
        write_onnx(model, spec, path, calibration, activations)
        return []


def write_onnx(
    model: "nn.Module", spec: ExportSpec, path: Path, calibration: Sequence[np.ndarray], activations: str | None
) -> None:
    """Write an ONNX file.

    Args:
        model: traced, folded graph that takes `spec.shape`.
        spec: input, precision and options of the file.
        path: file to write.
        calibration: preprocessed float32 NCHW batches; read where there are quantized activations.
        activations: type of quantized activations; None: a file of floats, in half precision for fp16.
    """
    import onnx
    import torch

    from mobilezoo_export.flexible import dynamic_shapes, example_of
    from mobilezoo_export.io_wrappers import Uint8Input

    with quiet(), torch.no_grad():
        program = torch.onnx.export(
            Uint8Input(model) if spec.options.image else model,
            (example_of(spec).to(getattr(torch, spec.dtype)),),
            dynamo=True,
            dynamic_shapes=dynamic_shapes(spec),
            opset_version=max(spec.options.opset, WIDE_OPSET) if activations == WIDE else spec.options.opset,
            input_names=[INPUT],
            output_names=[OUTPUT],
            verbose=False,
            # Weights stay inside: one file is one artifact.
            external_data=False,
        )
        assert program is not None
        proto = program.model_proto
        plain: Any = _without_traces(proto)
        plain.metadata_props.add(key=KEY, value=metadata_text(spec, "NCHW"))
        describe_onnx(plain, spec)
        if activations:
            batches = [batch.astype(spec.dtype) for batch in calibration_batches(calibration, spec)]
            to_int8(plain, batches, path, activations, spec.float_segments)
        else:
            onnx.save(to_float16(plain) if spec.precision == "fp16" else plain, path)


def _without_traces(proto: "object") -> "object":
    """Remove the exporter's metadata (stack traces with local paths), which differs between machines."""
    graph = proto.graph  # type: ignore[attr-defined]
    for item in (*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer, graph):
        if hasattr(item, "metadata_props"):
            del item.metadata_props[:]
        item.doc_string = ""
    return proto


@cache
def saturates() -> bool:
    """Whether integer kernels of this processor cut sums of two products at 16 bits: x86 without VNNI.

    ONNX Runtime computes int8 networks wrongly there (7.7 dB of signal to error on a small trained one, 39 dB with
    VNNI), and no ARM core does so: https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
    """
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    count, ends = 64, [("a", TensorProto.UINT8, [1, 64]), ("y", TensorProto.INT32, [1, 16])]
    weights = numpy_helper.from_array(np.full((count, 16), 127, np.int8), "b")
    values = [helper.make_tensor_value_info(*end) for end in ends]
    product = helper.make_node("MatMulInteger", ["a", "b"], ["y"])
    graph = helper.make_graph([product], "sums", values[:1], values[1:], [weights])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    (sums,) = session.run(None, {"a": np.full((1, count), 255, np.uint8)})
    return bool((np.asarray(sums) != count * 255 * 127).any())


class OnnxRunner(Runner):
    """One ONNX Runtime session on the CPU."""

    def __init__(self, path: Path, threads: int = 1, record: Artifact | None = None, exact: bool = False) -> None:
        require("onnxruntime", "onnx")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._wide = has_wide_activations(path)
        self._in_float = exact and saturates() and b"DequantizeLinear" in path.read_bytes()
        if self._in_float:
            options.add_session_config_entry("session.disable_quant_qdq", "1")
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise ExportError(f"{path.name!r} cannot be read as ONNX: {first_line(error)}") from error
        self.inputs = tuple(_declared(value) for value in self.session.get_inputs())
        self.outputs = tuple(_output(value) for value in self.session.get_outputs())
        if record is None and {tensor.dtype for tensor in (*self.inputs, *self.outputs)} & set(BYTES):
            scales = end_scales(path)
            self.inputs, self.outputs = (
                tuple(t.model_copy(update={"quantization": scales.get(t.name)}) for t in tensors)
                for tensors in (self.inputs, self.outputs)
            )
        self.input = record.input if record else image_input(self.inputs, "NCHW")
        self._binding = self.session.io_binding()
        self._held: list[np.ndarray] = []

    @property
    def runtime(self) -> str:
        import onnxruntime

        how = ""
        if self._wide:
            how = ", 16-bit activations computed in float32: it has no kernels for them"
        elif self._in_float:
            how = ", int8 computed in float32: integer sums saturate here"
        return f"ONNX Runtime {onnxruntime.__version__} (CPU{how})"

    def runtime_info(self) -> dict[str, str]:
        return {"delegate": ",".join(self.session.get_providers())}

    def feed(self, values: Sequence[np.ndarray]) -> None:
        self._held = [np.ascontiguousarray(value) for value in values]
        for tensor, value in zip(self.inputs, self._held, strict=True):
            self._binding.bind_cpu_input(tensor.name, value)
        for tensor in self.outputs:
            self._binding.bind_output(tensor.name, "cpu")

    def invoke(self) -> None:
        self.session.run_with_iobinding(self._binding)

    def output(self) -> np.ndarray:
        values = np.asarray(self._binding.copy_outputs_to_cpu()[self.output_index])
        return dequantized(values, self.outputs[self.output_index].quantization)


def _declared(value: Any) -> TensorSpec:
    """Convert the session's description of an input; open sizes get their usual value."""
    open_axes = tuple(axis for axis, size in enumerate(value.shape) if not isinstance(size, int) or size < 0)
    channels_last = len(value.shape) == 4 and value.shape[3] in (1, 3, 4)
    shape = sized(value.shape, open_axes, "NHWC" if channels_last else "NCHW")
    return TensorSpec(name=value.name, shape=shape, dtype=_numpy_type(value), open_axes=open_axes)


def _output(value: Any) -> TensorSpec:
    """Convert the session's description of an output; open sizes become 1."""
    open_axes = tuple(axis for axis, size in enumerate(value.shape) if not isinstance(size, int))
    shape = tuple(size if isinstance(size, int) else 1 for size in value.shape)
    return TensorSpec(name=value.name, shape=shape, dtype=_numpy_type(value), open_axes=open_axes)


def _numpy_type(value: Any) -> str:
    kind = str(value.type).removeprefix("tensor(").removesuffix(")")
    return {"float": "float32", "double": "float64"}.get(kind, kind)
