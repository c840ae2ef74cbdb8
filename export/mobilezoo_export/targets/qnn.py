"""Qualcomm's Hexagon NPU: an ONNX file whose network is compiled to a QNN context binary (EPContext).

ONNX Runtime's QNN provider compiles offline for one chip; the file is then run as it is on Qualcomm's emulation of the
HTP. Both are what `mobilezoo device setup npu` installs.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from mobilezoo.artifacts import Artifact
from mobilezoo.errors import ExportError
from mobilezoo.workers import Worker, WorkerEndedError
from mobilezoo_export.contract import Exporter, Runner
from mobilezoo_export.htp.layout import ENVIRONMENT_OF_WORKER, command_of, find_emulation, provider_options
from mobilezoo_export.metadata import KEY, metadata_text
from mobilezoo_export.records import ExportSpec, Reading
from mobilezoo_export.targets.onnx import write_onnx
from mobilezoo_export.unit_runner import UnitRunner

if TYPE_CHECKING:
    from torch import nn

CONTEXT = "EPContext"
BORDERS = ("QuantizeLinear", "DequantizeLinear")
"""Operators that turn float inputs and outputs into integers, on the CPU."""
ACTIVATIONS = {"int8": "uint8", "w8a16": "uint16"}
ARCH, SOC = "htp_arch", "soc_model"
"""Keys of the file's metadata."""
COMPILE_LIMIT_S = 1200.0


class QnnExporter(Exporter):
    """Writes .qnn.onnx files: ONNX, quantized for int8 and w8a16, then compiled for one chip."""

    target = "qnn"
    suffix = ".qnn.onnx"
    extra = "onnx"
    modules = ("onnx", "onnxscript", "onnxruntime")
    packages = ("torch", "onnx", "onnxscript", "onnxruntime")
    precisions = ("fp16", "int8", "w8a16")
    calibrated = ("int8", "w8a16")
    proof_images = 8
    timed_by = "its times are those of the chip alone"

    def open(self, path: Path, threads: int, record: Artifact | None) -> Runner:
        properties = _properties(path)
        arch, soc = properties.get(ARCH, ""), properties.get(SOC, "")
        if not soc.isdecimal() or not arch.isdecimal():
            raise ExportError(f"{path.name!r} is no qnn file of `mobilezoo export`: it names no chip")
        where = f"the emulated NPU (v{arch}, soc_model {soc})"
        provider = {"provider": provider_options(arch, int(soc))}
        return UnitRunner(where, command_of(find_emulation()), ENVIRONMENT_OF_WORKER, path, record, provider)

    def reading(self, path: Path) -> Reading:
        import onnx

        return Reading(Counter(node.op_type for node in onnx.load(path, load_external_data=False).graph.node))

    def read_metadata_text(self, path: Path) -> str:
        return _properties(path).get(KEY, "")

    def require(self) -> None:
        super().require()
        find_emulation()

    def unsupported_reason(self, model: "nn.Module", spec: ExportSpec) -> str | None:
        if spec.precision == "fp32":
            return "the HTP computes floats in half precision: use fp16"
        if spec.options.image:
            return "QNN turns uint8 pixels into 0 or 1 where they become floats: leave image out, normalize in the app"
        if spec.options.flexible != "none":
            return "a QNN context has fixed sizes: leave flexible out, and export one file per resolution"
        return super().unsupported_reason(model, spec)

    def export(
        self, model: "nn.Module", spec: ExportSpec, path: Path, calibration: Sequence[np.ndarray] = ()
    ) -> list[str]:
        floats = spec.model_copy(update={"precision": "fp32"}) if spec.precision == "fp16" else spec
        with TemporaryDirectory() as name:
            plain, made = Path(name) / "plain.onnx", Path(name) / "made.onnx"
            write_onnx(model, floats, plain, calibration, ACTIVATIONS.get(spec.precision))
            reasons = _compile(plain, made, spec)
            properties = _properties(plain) | {KEY: metadata_text(spec, "NCHW")}
            properties |= {ARCH: spec.options.htp_arch, SOC: str(spec.options.soc_model)}
            return _finished(made, path, properties, reasons, spec)


def _properties(path: Path) -> dict[str, str]:
    import onnx

    try:
        return {p.key: p.value for p in onnx.load(path, load_external_data=False).metadata_props}
    except Exception as error:  # protobuf raises errors of its own
        raise ExportError(f"{path.name!r} cannot be read as ONNX: it is damaged") from error


def _compile(plain: Path, made: Path, spec: ExportSpec) -> list[str]:
    """Compile in the emulation's own process; returns which operators QNN refused. Raises ExportError."""
    provider = provider_options(spec.options.htp_arch, spec.options.soc_model)
    where = f"for the HTP v{spec.options.htp_arch} (soc_model {spec.options.soc_model})"
    try:
        with Worker(command_of(find_emulation()), {**ENVIRONMENT_OF_WORKER, "TMPDIR": str(plain.parent)}) as worker:
            request = {"op": "compile", "path": str(plain), "out": str(made), "provider": provider}
            reply = worker.call(request, COMPILE_LIMIT_S)
    except WorkerEndedError as error:
        raise ExportError(f"{spec.model} is not compiled {where}: the compiler {error}") from None
    if "error" in reply:
        raise ExportError(f"{spec.model} is not compiled {where}: {reply['error']}")
    return [str(reason) for reason in reply["reasons"]]


def _finished(
    made: Path, path: Path, properties: dict[str, str], reasons: Sequence[str], spec: ExportSpec
) -> list[str]:
    """Write the compiled file with its metadata; returns warnings. Raises ExportError where nothing was compiled."""
    import onnx

    proto: Any = onnx.load(made)
    del proto.metadata_props[:]
    for key, value in properties.items():
        proto.metadata_props.add(key=key, value=value)
    found = Counter(str(node.op_type) for node in proto.graph.node)
    contexts = found.pop(CONTEXT, 0)
    why = f" ({'; '.join(dict.fromkeys(reasons))})" if reasons else ""
    if not contexts:
        raise ExportError(f"{spec.model}: the HTP takes no part of the network{why}")
    onnx.save(proto, path)
    left = {name: count for name, count in found.items() if name not in BORDERS}
    if contexts == 1 and not left:
        return []
    listed = ", ".join(f"{count} {name}" for name, count in left.items()) or "no operators"
    return [f"{contexts} QNN contexts, {listed} on the CPU{why}"]
