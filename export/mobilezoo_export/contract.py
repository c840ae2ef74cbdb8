"""What an exporter and a runner are, and the records that go in and come out.

Shapes: a batch is float32 NCHW, preprocessed as the model expects; logits are float32 (batch, classes). Exporters turn
that into whatever the file wants (NHWC, uint8, int8), runners do the same for its inputs.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

from pydantic import Field, field_validator

from mobilezoo.artifacts import Artifact, InputSpec, Output, Preprocessing, Quantization
from mobilezoo.config import Record, listed
from mobilezoo.errors import ExportError, require

if TYPE_CHECKING:
    import numpy as np
    from torch import nn


class ExportOptions(Record):
    """Choices that change the file but not what it computes."""

    layout: Literal["NHWC", "NCHW"] = Field(default="NHWC", description="input layout of LiteRT files")
    opset: int = Field(default=20, ge=18, le=23, description="ONNX operator set")
    onnx_activations: Literal["int8", "uint8"] = Field(
        default="int8", description="activation type of int8 ONNX files; uint8 (u8s8) is faster on most x86 CPUs"
    )
    image: bool = Field(default=False, description="uint8 pixels as input (Core ML: an image), normalized in the file")
    softmax: bool = Field(default=False, description="probabilities instead of logits")
    int8_io: bool = Field(
        default=False, description="int8 LiteRT files take and give int8; float only what int8 cannot do"
    )
    classifier: bool = Field(
        default=False, description="Core ML files answer with the class's name and every name's probability"
    )
    flexible: Literal["none", "batch", "resolution", "both"] = Field(
        default="none", description="files that take other batch sizes (1 to 16), resolutions (half to double), or both"
    )
    coreml_target: str = Field(default="iOS16", description="oldest system a Core ML file must run on")
    passes: tuple[str, ...] = Field(
        default=(),
        description="further graph passes, by name or package.module:function, after the common ones",
    )

    @field_validator("passes", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        return listed(value)

    @field_validator("passes")
    @classmethod
    def _known_passes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            return value  # the table of passes imports torch
        from mobilezoo_export.passes import PASSES

        return tuple(PASSES.known(name) for name in value)


class ExportSpec(Record):
    """One file to be made: which model, at which input, in which precision."""

    model: str
    """Name that becomes the file's name."""
    resolution: tuple[int, int]
    """(height, width) in pixels."""
    preprocessing: Preprocessing
    in_chans: int = 3
    batch: int = Field(default=1, gt=0, description="fixed batch size of the file")
    precision: str = "fp32"
    float_segments: tuple[int, ...] = ()
    """Segments of an int8 file that stay float, see `quantize.mixed`."""
    labels: tuple[str, ...] = ()
    checkpoint: str | None = None
    """Where the weights came from, for the record."""
    checkpoint_key: str | None = None
    """Where in that file they are, if it had to be said."""
    options: ExportOptions = ExportOptions()

    @property
    def dtype(self) -> Literal["float32", "uint8"]:
        """Type of the values that are fed."""
        return "uint8" if self.options.image else "float32"

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of an input batch, NCHW."""
        return self.batch, self.in_chans, *self.resolution


class MixedPrecision(Record):
    """What a search kept in float, and why."""

    float_segments: tuple[int, ...]
    top1_float: float
    top1_int8: float
    """With everything in int8."""
    top1: float
    """Of the file that was kept."""
    gains_db: dict[int, float]
    """By how much each segment, left in float alone, raises the signal-to-error ratio; empty where none had to be."""
    tried: int
    """Files made."""

    @property
    def drop(self) -> float:
        return self.top1_float - self.top1


class ExportResult(Record):
    """How one target and precision ended."""

    target: str
    precision: str
    status: Literal["exported", "kept", "refused", "failed"]
    """kept: a file of that name exists; refused: the target cannot do it; failed: the toolchain or the parity did."""
    path: str | None = None
    artifact: Artifact | None = None
    reason: str = ""
    warnings: tuple[str, ...] = ()
    mixed: MixedPrecision | None = None
    """What a search for a mixed file found."""
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        return self.status in ("exported", "kept")


class TensorSpec(Record):
    """An input or output as the file itself declares it."""

    name: str
    shape: tuple[int, ...]
    """Sizes that are left open stand at their usual value."""
    dtype: str
    """NumPy's name."""
    quantization: Quantization | None = None
    open_axes: tuple[int, ...] = ()
    """Axes whose size the file leaves open."""
    pixels: bool = False
    """The format itself says that this is an image of pixels 0..255 (Core ML)."""


class Borders(NamedTuple):
    """How a file's integers stand for numbers, where it takes or gives some."""

    input: Quantization | None = None
    output: Quantization | None = None


class Runner(ABC):
    """An exported file, loaded in its own runtime. `feed` (or `prepare`), then `invoke`, is what latency measures."""

    input: InputSpec
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    output_index: int = 0
    """Which of `outputs` is read."""
    pixels: Preprocessing | None = None
    """Set where the file takes raw pixels: batches, which come normalized, are turned back into them."""
    measurable: bool = True
    """Whether the time of `invoke` says anything about a device; false for Core ML's program check."""

    @abstractmethod
    def feed(self, values: "Sequence[np.ndarray]") -> None:
        """Take a value for every input, each in the file's own shape and type."""

    def prepare(self, batch: "np.ndarray") -> None:
        """Take one float32 NCHW batch of exactly the file's batch size; converts layout and type once."""
        from mobilezoo_export.feeding import as_input

        self.feed([as_input(self.to_input(batch), self.input, self.inputs)])

    @abstractmethod
    def invoke(self) -> None:
        """Run the prepared batch once."""

    @abstractmethod
    def output(self) -> "np.ndarray":
        """Logits of the last `invoke`, float32."""

    @property
    @abstractmethod
    def runtime(self) -> str:
        """Name and version of what computes."""

    def to_input(self, batch: "np.ndarray") -> "np.ndarray":
        """A normalized batch in the values that the file takes: float32, or uint8 pixels."""
        if self.pixels is None:
            return batch
        from mobilezoo_export.pixels import to_pixels

        return to_pixels(batch, self.pixels)

    def runtime_info(self) -> dict[str, str]:
        """What the runtime really uses (`delegate`, `partitions`, ...), as far as it tells; latency records keep it."""
        return {}

    def run(self, batch: "np.ndarray") -> "np.ndarray":
        """Logits (n, classes) of any number of float32 NCHW images."""
        import numpy as np

        size, pieces = self.input.shape[0], []
        for start in range(0, len(batch), size):
            piece = batch[start : start + size]
            missing = size - len(piece)
            # The file's batch is fixed: the last piece is filled up with copies and cut afterwards.
            padded = np.concatenate([piece, np.repeat(piece[-1:], missing, axis=0)]) if missing else piece
            self.prepare(np.ascontiguousarray(padded, dtype=np.float32))
            self.invoke()
            answer = np.array(self.output(), dtype=np.float32)
            answer = answer[None] if size == 1 and answer.ndim < 2 else answer  # some leave the batch axis out
            if len(answer) != size:
                raise ExportError(f"{size} images give answers of shape {answer.shape}: one row for each is read here")
            pieces.append(answer[: len(piece)])
        return np.concatenate(pieces)


class Runtime(NamedTuple):
    """What times a target's files on this machine."""

    title: str
    delegate: str
    """What the runner must report having used."""
    modules: tuple[str, ...]
    """Imported before a file is loaded, so that its loading time is not Python's; the first must be installed."""
    package: str
    """Distribution whose version results are filed under."""
    extra: str


class Told(NamedTuple):
    """What a file without a record of ours says of itself."""

    preprocessing: Preprocessing | None = None
    labels: tuple[str, ...] = ()
    output: Output | None = None
    """None: see `endings`."""


class Reading(NamedTuple):
    """Operators of a file, as its runtime loads it."""

    ops: Counter[str]
    partitions: int | None = None
    """Parts that the delegate takes; None where the runtime does not tell."""
    outside: Counter[str] | None = None
    """Operators outside of the partitions."""
    ranks: Sequence[int | None] = ()
    """Of all tensors; None where a size is dynamic."""


class Rule(NamedTuple):
    """Operators that phones' accelerators are known to refuse or to be slow at."""

    ops: tuple[str, ...]
    why: str
    source: str


class Limits(NamedTuple):
    """What is known of a format's delegates."""

    rules: tuple[Rule, ...] = ()
    deepest: int | None = None
    """Largest rank of a tensor that they take."""
    too_deep: str = ""
    delegate: str = ""
    """Source of what the delegate takes."""


class Exporter(ABC):
    """One target: how its files are written, run, timed and read.

    Common work (fusing, tracing, parity, naming, atomic writes) is done once around it.
    """

    target: ClassVar[str]
    suffix: ClassVar[str]
    extra: ClassVar[str]
    """Extra of this distribution that installs the toolchain."""
    modules: ClassVar[tuple[str, ...]]
    """Modules that must be importable."""
    packages: ClassVar[tuple[str, ...]]
    """Distributions whose versions the record keeps."""
    precisions: ClassVar[tuple[str, ...]]
    calibrated: ClassVar[tuple[str, ...]] = ()
    """Precisions that need calibration images."""
    runtime: ClassVar[Runtime | None] = None
    """What times its files on this machine, if anything does."""
    timed_by: ClassVar[str] = ""
    """Where else its files are timed, for the message that nothing here does."""
    limits: ClassVar[Limits] = Limits()

    @abstractmethod
    def open(self, path: Path, threads: int, record: Artifact | None) -> Runner:
        """A file of this target in its own runtime. Raises ExportError for a damaged file."""

    def reading(self, path: Path) -> Reading | None:
        """What is in a file that its runtime can load; None for a format that nothing here can read."""
        return None

    def read_metadata_text(self, path: Path) -> str:
        """The metadata that `export` wrote into a file, JSON; empty where there is none."""
        return ""

    def told_by(self, path: Path) -> Told:
        """What a file that others made says of its input and labels. Raises ExportError for what cannot be done."""
        return Told()

    def require(self) -> None:
        """Raise MissingToolError unless the toolchain is installed."""
        for module in self.modules:
            require(module, self.extra)

    def unsupported_reason(self, model: "nn.Module", spec: ExportSpec) -> str | None:
        """Why this model cannot be exported as `spec` says, or None. Raises MissingToolError."""
        self.require()
        if spec.precision not in self.precisions:
            return f"{self.target} has no precision {spec.precision!r}: choose from {', '.join(self.precisions)}"
        return None

    @abstractmethod
    def export(
        self, model: "nn.Module", spec: ExportSpec, path: Path, calibration: Sequence["np.ndarray"] = ()
    ) -> list[str]:
        """Write the file; returns warnings. `model` is a traced, folded graph that takes `spec.shape`.

        `calibration` holds float32 NCHW batches for precisions named in `calibrated`. Raises ExportError.
        """

    def input_spec(self, spec: ExportSpec) -> InputSpec:
        """The input the written file takes."""
        return InputSpec(shape=spec.shape, dtype=spec.dtype)

    def borders(self, path: Path) -> Borders:
        """Scales and zero points that the written file declares for its input and output."""
        return Borders()

    def why_not_runnable(self, spec: ExportSpec) -> str | None:
        """Why a file of this target cannot be run on this machine, or None."""
        return None
