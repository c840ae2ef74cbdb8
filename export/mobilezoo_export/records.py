"""Records that exporters and runners take and return."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from pydantic import Field, field_validator

from mobilezoo.artifacts import (
    Artifact,
    BoxThresholds,
    Form,
    Origin,
    Output,
    Preprocessing,
    Quantization,
    Task,
    UnitCheck,
)
from mobilezoo.config import Record, listed

if TYPE_CHECKING:
    import numpy as np


class ExportOptions(Record):
    """Choices that change the file but not what it computes."""

    layout: Literal["NHWC", "NCHW"] = Field(default="NHWC", description="input layout of LiteRT files")
    opset: int = Field(default=20, ge=18, le=23, description="ONNX operator set (w8a16: at least 21)")
    onnx_activations: Literal["int8", "uint8"] = Field(
        default="int8", description="activation type of int8 ONNX files; uint8 (u8s8) is faster on most x86 CPUs"
    )
    image: bool = Field(default=False, description="uint8 pixels as input (Core ML: an image), normalized in the file")
    softmax: bool = Field(default=False, description="probabilities instead of logits")
    int8_io: bool = Field(
        default=False,
        description="int8 LiteRT files take and give int8 (w8a16: int16); float only what integers cannot do",
    )
    classifier: bool = Field(
        default=False, description="Core ML files answer with the class's name and every name's probability"
    )
    flexible: Literal["none", "batch", "resolution", "both"] = Field(
        default="none", description="files that take other batch sizes (1 to 16), resolutions (half to double), or both"
    )
    coreml_target: str = Field(default="iOS16", description="oldest system a Core ML file must run on")
    htp_arch: Literal["73", "75", "79", "81"] = Field(
        default="75", description="Hexagon HTP of qnn files: 73 Snapdragon 8 Gen 2, 75 Gen 3, 79 Elite, 81 Elite Gen 5"
    )
    soc_model: int = Field(
        default=57, ge=0, le=100_000, description="Qualcomm's number of a qnn file's chip: 57 is SM8650; 0: any"
    )
    passes: tuple[str, ...] = Field(
        default=(),
        description="further graph passes, by name or package.module:function, after the common ones",
    )

    without: tuple[str, ...] = Field(
        default=(), description="graph passes of the target's own that are left out: another form of the same file"
    )

    @field_validator("passes", "without", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        return listed(value)

    @field_validator("passes", "without")
    @classmethod
    def _known_passes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            return value  # the table of passes imports torch
        from mobilezoo_export.passes import PASSES

        return tuple(PASSES.known(name) for name in value)


class ModelSpec(Record):
    """The network that is exported: name, input, class names, origin of its weights."""

    model: str
    """Name of the model, from which files are named."""
    resolution: tuple[int, int]
    """(height, width) in pixels."""
    preprocessing: Preprocessing
    in_chans: int = 3
    labels: tuple[str, ...] = ()
    task: Task = "classify"
    """What the network answers; layouts in `mobilezoo.dense.reading`."""
    boxes: BoxThresholds | None = None
    """Which boxes of a detector count; None for other tasks."""
    checkpoint: str | None = None
    """Path of the checkpoint with the weights, for the record."""
    checkpoint_key: str | None = None
    """Key of the weights in that file, if one was given."""
    origin: Origin | None = None
    """Published weights behind these, for the record."""


class ExportSpec(ModelSpec):
    """One file to be made: model, input, precision and options."""

    batch: int = Field(default=1, gt=0, description="fixed batch size of the file")
    precision: str = "fp32"
    float_segments: tuple[int, ...] = ()
    """Segments of an int8 file that stay float, see `quantize.mixed`."""
    form: Form | None = None
    """How the file's form was chosen, for its record."""
    beyond_half: tuple[str, ...] = ()
    """Layers whose values half precision cannot hold, see `half_precision`; found while the file is made."""
    options: ExportOptions = ExportOptions()

    @property
    def dtype(self) -> Literal["float32", "uint8"]:
        """Type of the input values before quantization."""
        return "uint8" if self.options.image else "float32"

    @property
    def answers(self) -> str:
        """What the output holds, in words."""
        if self.task == "detect":
            return "left, top, right, bottom in shares of the image, then a probability for each class, for each place"
        kind = "probability" if self.options.softmax else "logit"
        return f"a {kind} for each class" + (" of every pixel" if self.task == "segment" else "")

    @property
    def output(self) -> Output:
        """Meaning of the output values."""
        return "sigmoid" if self.task == "detect" else "probabilities" if self.options.softmax else "logits"

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of an input batch, NCHW."""
        return self.batch, self.in_chans, *self.resolution


@dataclass(frozen=True)
class ProofImages:
    """Preprocessed float32 NCHW images that files are compared with PyTorch on, and calibrated on."""

    parity: "np.ndarray | None" = None
    """Images (N, C, height, width); None: crops of sample photographs."""
    parity_name: str = "given images"
    """Source of the parity images, for the record."""
    calibration: "np.ndarray | None" = None
    """Images (N, C, height, width) for precisions that need them; None or empty: there are none."""


class UnitChecker(Protocol):
    """Runs a file on units of a phone."""

    units: tuple[str, ...]
    """Units that every file is run on."""

    def __call__(
        self, path: Path, record: Artifact, images: "np.ndarray", reference: "np.ndarray"
    ) -> tuple[UnitCheck, ...]:
        """Run one file.

        Args:
            path: the file, not yet under its own name.
            record: its record.
            images: (N, C, H, W) float32, preprocessed.
            reference: (N, classes) PyTorch's logits of `images`.

        Raises:
            ExportError: the file must not be kept.
        """


class MixedPrecision(Record):
    """Result of a search for a mixed int8 file."""

    float_segments: tuple[int, ...]
    top1_float: float
    top1_int8: float
    """Top-1 with everything in int8."""
    top1: float
    """Top-1 of the file that was kept."""
    gains_db: dict[int, float]
    """Segment → by how much it raises the signal-to-error ratio when it alone stays float; empty if none had to."""
    tried: int
    """Number of files made."""

    @property
    def drop(self) -> float:
        """Loss of top-1 against the float file, in percentage points."""
        return self.top1_float - self.top1


class ExportResult(Record):
    """Outcome of one target and precision."""

    target: str
    precision: str
    status: Literal["exported", "kept", "refused", "failed"]
    """kept: a file of that name exists; refused: the target cannot do it; failed: the toolchain or the parity did."""
    path: str | None = None
    artifact: Artifact | None = None
    reason: str = ""
    warnings: tuple[str, ...] = ()
    mixed: MixedPrecision | None = None
    """Result of the search for a mixed file, where there was one."""
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether there is a file."""
        return self.status in ("exported", "kept")


@dataclass(frozen=True)
class ExportHooks:
    """Callbacks of an export."""

    on_start: Callable[[str, str], None] | None = None
    """Called with (target, precision) before each file."""
    on_result: Callable[[ExportResult], None] | None = None
    """Called with each result as soon as it is known."""
    check: UnitChecker | None = None
    """Called with each file before it gets its name."""


class TensorSpec(Record):
    """An input or output as the file declares it."""

    name: str
    shape: tuple[int, ...]
    """Shape; open sizes have their usual value."""
    dtype: str
    """Type, by NumPy's name."""
    quantization: Quantization | None = None
    open_axes: tuple[int, ...] = ()
    """Axes whose size the file leaves open."""
    pixels: bool = False
    """Whether the format declares an image of pixels 0..255 (Core ML)."""


class Borders(NamedTuple):
    """Quantization of a file's integer input and output."""

    input: Quantization | None = None
    output: Quantization | None = None


class Runtime(NamedTuple):
    """The runtime that times a target's files on this machine."""

    title: str
    delegate: str
    """Delegate that the runner must report."""
    modules: tuple[str, ...]
    """Imported before a file is loaded, so that load times exclude Python imports; the first must be installed."""
    package: str
    """Distribution whose version latency results record."""
    extra: str


class FileMetadata(NamedTuple):
    """Preprocessing, labels and kind of output that a file itself declares."""

    preprocessing: Preprocessing | None = None
    labels: tuple[str, ...] = ()
    output: Output | None = None
    """None where the file does not declare it; `endings` derives it from the graph."""


class Reading(NamedTuple):
    """Operators of a file, as its runtime loads it."""

    ops: Counter[str]
    partitions: int | None = None
    """Parts that the delegate takes; None where the runtime does not report them."""
    outside: Counter[str] | None = None
    """Operators outside of the partitions."""
    ranks: Sequence[int | None] = ()
    """Ranks of all tensors; None for a tensor with a dynamic size."""
    notes: Sequence[str] = ()
    """Why operators are outside, and what this reading does not show; a line each."""


class Rule(NamedTuple):
    """Operators that accelerators of phones are known to refuse, or to run slowly."""

    ops: tuple[str, ...]
    why: str
    source: str


class Limits(NamedTuple):
    """Known limits of a format's delegates."""

    rules: tuple[Rule, ...] = ()
    deepest: int | None = None
    """Largest rank of a tensor that the delegates take."""
    too_deep: str = ""
    delegate: str = ""
    """Source of the list of operators that the delegate takes."""


class OperatorTime(NamedTuple):
    """Median time of one operator."""

    name: str
    """The node's name, or its index in the file."""
    type: str
    shape: str
    """Shape of its first output, `1×16×16×8`."""
    ms: float
    share: float
    """Share of the sum over all operators, 0..1."""


class OperatorProfile(NamedTuple):
    """Times of a network's operators, in the order they run."""

    runtime: str
    whole_ms: float
    """Median time of the whole network, measured in the same process."""
    operators: list[OperatorTime]
    how: str
    """Method by which single operators were timed."""
    left_out: tuple[str, ...] = ()
    """Operators that cannot run alone, each with the reason."""
    unproven: str | None = None
    """Why the file was not compared with PyTorch; None for a file that was."""

    @property
    def sum_ms(self) -> float:
        """Sum over all operators, in ms."""
        return sum(op.ms for op in self.operators)
