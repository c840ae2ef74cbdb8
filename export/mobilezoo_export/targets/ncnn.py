"""ncnn (a folder of `.param` and `.bin`) through pnnx; files run in ncnn's Python runtime."""

import math
import subprocess
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mobilezoo.artifacts import Artifact
from mobilezoo.errors import ConfigError, ExportError, first_line, require
from mobilezoo.files import versions
from mobilezoo.reading import parse_json, read_text
from mobilezoo.workers import bound, how_it_ended
from mobilezoo_export.contract import Exporter, Runner
from mobilezoo_export.feeding import image_input
from mobilezoo_export.half_precision import LARGEST
from mobilezoo_export.metadata import INPUT, OUTPUT, PIXELS, metadata_text
from mobilezoo_export.ncnn_param import Layer, ends_of, read_layers, write_layers
from mobilezoo_export.quiet import quiet
from mobilezoo_export.records import ExportSpec, Reading, Runtime, TensorSpec

if TYPE_CHECKING:
    from torch import nn

PARAM, WEIGHTS, METADATA = "model.ncnn.param", "model.ncnn.bin", "metadata.json"
"""Names of the parts, those that pnnx and its users give."""
NAMES = {"in0": INPUT, "out0": OUTPUT}
"""pnnx's names of a network's ends; blobs that nothing reads are left beside them."""
LARGEST_METADATA = 1 << 22
LARGEST_SIDE, LARGEST_INPUT = 1 << 14, 1 << 26
PNNX_LIMIT_S = 900.0


class NcnnExporter(Exporter):
    """Writes .ncnn folders: a traced program, then pnnx."""

    target = "ncnn"
    suffix = ".ncnn"
    extra = "ncnn"
    modules = ("ncnn", "pnnx")
    packages = ("torch", "pnnx", "ncnn")
    precisions = ("fp32", "fp16")
    half_arithmetic = ("fp32", "fp16")
    runtime = Runtime("ncnn", "CPU", ("ncnn",), "ncnn", "ncnn")

    def open(self, path: Path, threads: int, record: Artifact | None) -> Runner:
        return NcnnRunner(path, threads=threads, record=record)

    def reading(self, path: Path) -> Reading:
        return Reading(Counter(layer.type for layer in read_layers(path / PARAM)))

    def read_metadata_text(self, path: Path) -> str:
        file = path / METADATA
        return read_text(file, LARGEST_METADATA) if file.is_file() else ""

    def unsupported_reason(self, model: "nn.Module", spec: ExportSpec) -> str | None:
        if spec.precision == "int8":
            return (
                "int8 files of ncnn are made by its tools ncnn2table and ncnn2int8, which no Python package holds: "
                "export fp32 or fp16, and run them on that file"
            )
        if spec.batch != 1:
            return f"ncnn takes images one by one, not {spec.batch}: leave batch out"
        if spec.options.flexible != "none":
            return "pnnx writes the sizes into the file: leave flexible out, and export one file per resolution"
        return super().unsupported_reason(model, spec)

    def export(
        self, model: "nn.Module", spec: ExportSpec, path: Path, calibration: Sequence[np.ndarray] = ()
    ) -> list[str]:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            _trace(model, spec, folder / "model.pt")
            _run_pnnx(folder, spec)
            layers = read_layers(folder / PARAM)
            if unknown := unknown_layers(layers):
                raise ExportError(f"{spec.model}: pnnx writes {unknown}, which ncnn does not have")
            path.mkdir()
            write_layers(path / PARAM, layers, NAMES)
            (path / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes())
        (path / METADATA).write_text(metadata_text(spec, "NCHW") + "\n", encoding="utf-8")
        return [_beyond(spec)] if spec.beyond_half else []


def _beyond(spec: ExportSpec) -> str:
    first, more = spec.beyond_half[0], len(spec.beyond_half) - 1
    others = f" and {more} more" if more else ""
    return (
        f"{first}{others}, half precision ends at {LARGEST:.0f}: set use_fp16_arithmetic = false in the app's "
        "ncnn::Option"
    )


def _trace(model: "nn.Module", spec: ExportSpec, file: Path) -> None:
    """Write the TorchScript that pnnx reads; its input are float pixels for files that take an image."""
    import torch

    with quiet(), torch.no_grad():
        example = torch.zeros(spec.shape)
        torch.jit.save(torch.jit.trace(model, (example,), check_trace=False), str(file))


def _run_pnnx(folder: Path, spec: ExportSpec) -> None:
    """Convert `model.pt` beside itself. Raises ExportError with what pnnx wrote last."""
    import pnnx

    shape = ",".join(map(str, spec.shape))
    half = int(spec.precision == "fp16")
    command = [str(Path(pnnx.__file__).parent / "pnnx"), "model.pt", f"inputshape=[{shape}]f32", f"fp16={half}"]
    try:
        done = subprocess.run(
            bound(command), cwd=folder, capture_output=True, text=True, errors="replace", timeout=PNNX_LIMIT_S
        )
    except subprocess.TimeoutExpired:
        raise ExportError(f"{spec.model}: pnnx {how_it_ended(0, PNNX_LIMIT_S)}") from None
    if done.returncode != 0 or not all((folder / part).is_file() for part in (PARAM, WEIGHTS)):
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        last = f": {first_line(lines[-1])}" if lines else ""
        raise ExportError(f"{spec.model}: pnnx {how_it_ended(done.returncode)} and wrote no model{last}")


def unknown_layers(layers: Sequence[Layer]) -> str:
    """Types of layers that the installed ncnn cannot load, with their number; empty where it has all."""
    import ncnn

    found = Counter(layer.type for layer in layers)
    return ", ".join(f"{count} {kind}" for kind, count in found.items() if ncnn.layer_to_index(kind) < 0)


class NcnnRunner(Runner):
    """One ncnn network on the CPU: float32, or half precision for fp16 files where the processor has it."""

    def __init__(self, path: Path, threads: int = 1, record: Artifact | None = None) -> None:
        require("ncnn", "ncnn")
        import ncnn

        if not path.is_dir():
            raise ExportError(f"{path.name!r} cannot be read as an ncnn model: it is no folder with {PARAM}")
        layers = read_layers(path / PARAM)
        if unknown := unknown_layers(layers):
            raise ExportError(f"{path.name!r} cannot be run: ncnn {ncnn.__version__} has no layer {unknown}")
        taken, given = ends_of(path / PARAM, layers)
        self._given = (OUTPUT,) if OUTPUT in given else given
        if len(taken) != 1:
            raise ExportError(f"{path.name!r} takes {len(taken)} inputs: only files with one are run here")
        known = _Known(record.input.shape, record.precision, False) if record else _declared(path)
        self.inputs = (TensorSpec(name=taken[0], shape=known.shape, dtype="float32", pixels=known.pixels),)
        self._net = _loaded(path, threads, known.precision == "fp16")
        self._held, self._result = ncnn.Mat(), np.empty(0)
        self.input = record.input if record else image_input(self.inputs, "NCHW")
        if record is None:
            self.outputs = self._computed()

    @property
    def runtime(self) -> str:
        return f"ncnn {versions(['ncnn']).get('ncnn', '')} (CPU)"

    def runtime_info(self) -> dict[str, str]:
        return {"delegate": "CPU"}

    def feed(self, values: Sequence[np.ndarray]) -> None:
        import ncnn

        (value,) = values
        self._held = ncnn.Mat(np.ascontiguousarray(value[0], dtype=np.float32)).clone()

    def invoke(self) -> None:
        self._result = self._extract(self.output_index)

    def output(self) -> np.ndarray:
        return np.asarray(self._result, dtype=np.float32)[None]

    def _extract(self, index: int) -> np.ndarray:
        extractor = self._net.create_extractor()
        extractor.input(self.inputs[0].name, self._held)
        status, found = extractor.extract(self._given[index])
        if status != 0 or found.empty():
            raise ExportError(f"ncnn computes no {self._given[index]!r} (status {status})")
        return np.array(found)

    def _computed(self) -> tuple[TensorSpec, ...]:
        """Shapes of the outputs, which the file does not state: those of zeros."""
        self.feed([np.zeros(self.inputs[0].shape, np.float32)])
        found = [self._extract(index).shape for index in range(len(self._given))]
        pairs = zip(self._given, found, strict=True)
        return tuple(TensorSpec(name=name, shape=(1, *shape), dtype="float32") for name, shape in pairs)


class _Known(NamedTuple):
    """What ncnn's own parts do not state."""

    shape: tuple[int, ...]
    precision: str
    pixels: bool


def _declared(path: Path) -> _Known:
    """Read the metadata beside the parts. Raises ExportError where it is missing or damaged."""
    try:
        about = parse_json(read_text(path / METADATA, LARGEST_METADATA), METADATA)
        height, width = map(int, about["input"]["resolution"])
        shape = (1, len(about["input"]["mean"]), height, width)
        if not all(0 < size <= LARGEST_SIDE for size in shape) or math.prod(shape) > LARGEST_INPUT:
            raise ValueError(f"a size of {'×'.join(map(str, shape))}")
        return _Known(shape, str(about["precision"]), about["input"]["values"] == PIXELS)
    except (ConfigError, KeyError, TypeError, ValueError) as error:
        raise ExportError(
            f"{path.name!r} has no readable {METADATA} of `mobilezoo export` ({first_line(error)}): the size of its "
            "input is stated nowhere else"
        ) from None


def _loaded(path: Path, threads: int, half: bool) -> Any:
    """A loaded network. Raises ExportError for parts that ncnn refuses."""
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = threads
    net.opt.use_vulkan_compute = net.opt.use_bf16_storage = False
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = half
    with quiet():
        for part, load in ((PARAM, net.load_param), (WEIGHTS, net.load_model)):
            if not (path / part).is_file() or load(str(path / part)) != 0:
                raise ExportError(f"{path.name!r} cannot be read as an ncnn model: {part} is missing or damaged")
    return net
