"""Core ML (.mlpackage, ML Program) through torch.export; files run in Core ML on macOS, else in the program check."""

import platform
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mobilezoo.artifacts import Artifact
from mobilezoo.errors import ExportError, first_line, require
from mobilezoo.files import versions
from mobilezoo.reading import read_json
from mobilezoo_export import coverage, packs
from mobilezoo_export.contract import Exporter, Runner
from mobilezoo_export.conventions import describe_coreml
from mobilezoo_export.feeding import image_input
from mobilezoo_export.metadata import INPUT, KEY, OUTPUT, metadata_text
from mobilezoo_export.quantize.calibration import calibration_batches
from mobilezoo_export.quiet import quiet
from mobilezoo_export.records import ExportSpec, FileMetadata, Reading, TensorSpec

if TYPE_CHECKING:
    from torch import nn

    from mobilezoo_export.anatomy.graph import Graph

ARRAYS = {65552: "float16", 65568: "float32", 65600: "float64", 131104: "int32", 131080: "int8"}
"""Core ML's `ArrayFeatureType.ArrayDataType` by number."""
GREYSCALE = (10, 40)
"""Core ML's `ImageFeatureType.ColorSpace` of one channel: 8 bits, 16-bit floats."""
TARGETS = ("iOS15", "iOS16", "iOS17", "iOS18")
IMAGES = (1, 3)
"""Numbers of channels that a Core ML image input can have."""


class CoreMLExporter(Exporter):
    """Writes .mlpackage folders: coremltools' torch.export front end, then its weight compression."""

    target = "coreml"
    suffix = ".mlpackage"
    extra = "coreml"
    modules = ("coremltools",)
    packages = ("torch", "coremltools")
    precisions = ("fp32", "fp16", "int8", "pal4", "pal6", "w8a8")
    calibrated = ("w8a8",)
    limits = coverage.COREML
    timed_by = "--device mac times Core ML files on macOS"

    def open(self, path: Path, threads: int, record: Artifact | None) -> Runner:
        return CoreMLRunner(path, threads=threads, record=record)

    def reading(self, path: Path) -> Reading:
        return coverage.read_coreml(path)

    def graph(self, path: Path) -> "Graph":
        from mobilezoo_export.anatomy.coreml import read_graph

        return read_graph(path)

    def read_metadata_text(self, path: Path) -> str:
        import coremltools as ct

        return str(ct.utils.load_spec(str(path)).description.metadata.userDefined.get(KEY, ""))

    def read_file_metadata(self, path: Path) -> FileMetadata:
        return packs.from_coreml(path)

    def unsupported_reason(self, model: "nn.Module", spec: ExportSpec) -> str | None:
        if spec.options.coreml_target not in TARGETS:
            return f"unknown Core ML deployment target {spec.options.coreml_target!r}: use {', '.join(TARGETS)}"
        if spec.precision == "w8a8" and spec.options.coreml_target < "iOS17":
            return "Core ML runs int8 activations from iOS17 on: pass coreml_target=iOS17"
        if spec.options.classifier and not spec.options.softmax:
            return "a Core ML classifier gives probabilities: set softmax=true as well"
        if spec.options.classifier and len(set(spec.labels)) != len(spec.labels or "-"):
            return (
                f"a Core ML classifier needs one name per class, got {len(spec.labels)} names: export trained weights"
            )
        if spec.options.image and spec.in_chans not in IMAGES:
            return f"Core ML images are grey or RGB, not of {spec.in_chans} channels: leave image out"
        if spec.options.image and spec.options.flexible in ("batch", "both"):
            return "Core ML takes images one by one: use flexible=resolution, or leave image out"
        if spec.options.flexible in ("resolution", "both") and _resizes_nearest(model):
            return "Core ML has no nearest upsampling to a size that is not fixed: export one file per resolution"
        return super().unsupported_reason(model, spec)

    def export(
        self, model: "nn.Module", spec: ExportSpec, path: Path, calibration: Sequence[np.ndarray] = ()
    ) -> list[str]:
        import torch

        from mobilezoo_export.flexible import program_of
        from mobilezoo_export.quantize.coreml import compress

        with quiet(), torch.no_grad():
            import coremltools as ct

            program = program_of(model, spec).run_decompositions({})
            converted = ct.convert(
                program,
                convert_to="mlprogram",
                inputs=_inputs(spec),
                outputs=None if spec.options.classifier else [ct.TensorType(name=OUTPUT)],
                classifier_config=ct.ClassifierConfig(list(spec.labels)) if spec.options.classifier else None,
                compute_precision=ct.precision.FLOAT32 if spec.precision == "fp32" else ct.precision.FLOAT16,
                minimum_deployment_target=getattr(ct.target, spec.options.coreml_target),
                skip_model_load=True,
            )
            if spec.precision not in ("fp32", "fp16"):
                batches = calibration_batches(calibration, spec) if spec.precision in self.calibrated else []
                converted = compress(converted, spec.precision, batches, spec.float_segments)
            converted.user_defined_metadata[KEY] = metadata_text(spec, "NCHW")
            describe_coreml(converted, spec)
            converted.save(str(path))
            _drop_strays(path)
        return []


def _drop_strays(package: Path) -> None:
    """Delete files that the manifest does not list: coremltools also saves a table for ExecuTorch's debugger."""
    manifest = package / "Manifest.json"
    items = read_json(manifest)["itemInfoEntries"].values()
    listed = [package / "Data" / item["path"] for item in items]
    for file in [path for path in package.rglob("*") if path.is_file() and path != manifest]:
        if not any(file == item or item in file.parents for item in listed):
            file.unlink()


def _resizes_nearest(model: "nn.Module") -> bool:
    graph = getattr(model, "graph", None)
    return graph is not None and any("upsample_nearest" in str(node.target) for node in graph.nodes)


def _inputs(spec: ExportSpec) -> list[Any]:
    """Return what coremltools cannot read from the program: name, image type, and default values of open sizes."""
    import coremltools as ct

    from mobilezoo_export.flexible import bounds

    limits = bounds(spec)
    sizes = [
        ct.RangeDim(limits[axis][0], limits[axis][-1], default=size) if axis in limits else size
        for axis, size in enumerate(spec.shape)
    ]
    if not spec.options.image:
        return [ct.TensorType(name=INPUT, shape=sizes)]
    colors = ct.colorlayout.GRAYSCALE if spec.in_chans == 1 else ct.colorlayout.RGB
    return [ct.ImageType(name=INPUT, shape=sizes, color_layout=colors)]


class CoreMLRunner(Runner):
    """Core ML's own prediction on macOS; elsewhere the program check, which computes the saved program in PyTorch."""

    def __init__(self, path: Path, threads: int = 1, record: Artifact | None = None) -> None:
        require("coremltools", "coreml")
        self._on_mac = platform.system() == "Darwin"
        self.measurable = self._on_mac
        with quiet():
            self._program = _load_on_mac(path) if self._on_mac else _load_for_check(path)
        self.inputs, self.outputs = declared(path)
        self.input = record.input if record else image_input(self.inputs, "NCHW")
        self._held = np.empty(0)
        self._result = np.empty(0)

    @property
    def runtime(self) -> str:
        if self._on_mac:
            return f"Core ML (macOS {platform.mac_ver()[0]})"
        return f"program check (coremltools {versions(['coremltools']).get('coremltools', '')} loader, PyTorch)"

    def feed(self, values: Sequence[np.ndarray]) -> None:
        if len(values) != 1:
            raise ExportError(f"the Core ML file takes {len(values)} inputs: only files with one are run here")
        self._held = np.asarray(values[0], dtype=np.float32)

    def invoke(self) -> None:
        self._result = self._program.run(self._held, output=self.output_index)

    def output(self) -> np.ndarray:
        return np.asarray(self._result, dtype=np.float32)


def declared(path: Path) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Read inputs and outputs of a package's description; of a classifier's outputs, the probabilities alone."""
    import coremltools as ct

    described = ct.utils.load_spec(str(path)).description
    read = [f for f in described.output if described.predictedProbabilitiesName in ("", f.name)]
    return tuple(map(_tensor, described.input)), tuple(map(_tensor, read))


def _tensor(feature: Any) -> TensorSpec:
    """Convert a feature's description; images are NCHW pixels 0..255 here, open sizes have their default."""
    kind = feature.type
    if kind.WhichOneof("Type") == "imageType":
        image = kind.imageType
        channels = 1 if image.colorSpace in GREYSCALE else 3
        pixels_shape = (1, channels, int(image.height), int(image.width))
        return TensorSpec(name=feature.name, shape=pixels_shape, dtype="float32", pixels=True)
    array = kind.multiArrayType
    shape = tuple(int(size) for size in array.shape)
    return TensorSpec(name=feature.name, shape=shape, dtype=ARRAYS.get(array.dataType, "float32"))


class _Prediction:
    """A compiled model on macOS, with the interface of `mil.program.Program`."""

    def __init__(self, path: Path) -> None:
        import coremltools as ct

        from mobilezoo_export.mil.program import usual_shape

        self.model = ct.models.MLModel(str(path))
        described = self.model.get_spec().description
        self._input, probabilities = described.input[0].name, described.predictedProbabilitiesName
        self._outputs = [probabilities] if probabilities else [feature.name for feature in described.output]
        self._labels = packs.from_coreml(path).labels
        kind = described.input[0].type
        self._image = kind.WhichOneof("Type") == "imageType"
        self.input_shape = usual_shape(kind)

    def run(self, image: np.ndarray, output: int = 0) -> np.ndarray:
        from PIL import Image

        pixels = image[0].transpose(1, 2, 0).squeeze(-1) if image.shape[1] == 1 else image[0].transpose(1, 2, 0)
        fed = Image.fromarray(pixels.astype(np.uint8)) if self._image else image
        answer = self.model.predict({self._input: fed})[self._outputs[output]]
        return np.asarray([[answer[label] for label in self._labels]] if isinstance(answer, dict) else answer)


def _load_on_mac(path: Path) -> Any:
    try:
        return _Prediction(path)
    except Exception as error:
        raise ExportError(f"{path.name!r} cannot be read as a Core ML package: {first_line(error)}") from error


def _load_for_check(path: Path) -> Any:
    from mobilezoo_export.mil.program import load_program

    return load_program(path)
