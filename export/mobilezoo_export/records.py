"""Records that go into an exporter and a runner, and that come out of them."""

from collections import Counter
from collections.abc import Sequence
from typing import Literal, NamedTuple

from pydantic import Field, field_validator

from mobilezoo.artifacts import Artifact, Output, Preprocessing, Quantization
from mobilezoo.config import Record, listed


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


class OperatorTime(NamedTuple):
    """Median time of one operator."""

    name: str
    """The node's name, or its number in the file."""
    type: str
    shape: str
    """Of its first output, `1×16×16×8`."""
    ms: float
    share: float
    """Of the sum over all operators, 0..1."""


class OperatorProfile(NamedTuple):
    """Times of a network's operators, in the order they run."""

    runtime: str
    whole_ms: float
    """The network as one, measured in the same process."""
    operators: list[OperatorTime]
    how: str
    """How single operators were timed."""
    left_out: tuple[str, ...] = ()
    """Operators that cannot run alone, each with the reason."""
    unproven: str | None = None
    """Why the file was not compared with PyTorch; None for a file that was."""

    @property
    def sum_ms(self) -> float:
        return sum(op.ms for op in self.operators)
