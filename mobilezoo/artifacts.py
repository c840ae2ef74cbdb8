"""The records of checkpoints and exported files.

A record is saved beside what it describes: `shvit_s1.fp32.tflite` has `shvit_s1.fp32.tflite.json`.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from pydantic import Field, model_validator

from mobilezoo.config import Record
from mobilezoo.errors import MobilezooError, existing_path, wrong_kind
from mobilezoo.files import at_rest, finish, sha256_of, write_text, write_together
from mobilezoo.preprocessing import Preprocessing as Preprocessing
from mobilezoo.reading import read_json
from mobilezoo.resolution import Resolution

if TYPE_CHECKING:
    import numpy as np

D = TypeVar("D", bound="Described")
FOLDERS = (".mlpackage", ".ncnn", ".aimodel")
"""Suffixes of exported files that are folders."""

Output = Literal["logits", "probabilities", "percent", "sigmoid"]
"""Meaning of the output values; sigmoid: independent probabilities per class, in files that others made."""
Task = Literal["classify", "detect", "segment"]
"""What a network answers: a score per class, boxes, or the class of every pixel (`mobilezoo.dense.reading`)."""

MOST_POINTS = 1.0
"""A file of a trained network that costs more top-1 than this, in percentage points, is warned of."""
CHANCE = 0.01
"""Largest chance of a warning about a file that is as good as PyTorch."""


class Quantization(Record):
    """Affine quantization of a tensor: real value = scale * (integer - zero_point)."""

    dtype: Literal["int8", "uint8", "int16"]
    scale: float
    zero_point: int


class InputSpec(Record):
    """The input tensor of a model or file."""

    shape: tuple[int, ...]
    """Tensor shape in the order of `layout`, batch included."""
    layout: Literal["NCHW", "NHWC", "none"] = "NCHW"
    """none: the input is no image, in a file that others made."""
    dtype: Literal["float32", "float16", "float64", "int8", "uint8", "int16", "int32", "int64", "bool"] = "float32"
    quantization: Quantization | None = None
    """Where the file takes integers for the normalized values; uint8 without it are pixels 0..255."""
    colors: Literal["RGB", "BGR"] = "RGB"
    """Order of three channels; BGR in files that others made."""

    @property
    def resolution(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        h, w = self.shape[2:4] if self.layout == "NCHW" else self.shape[1:3]
        return h, w

    def resized(self, size: tuple[int, int]) -> "InputSpec":
        """Returns the same input for images of another (height, width)."""
        first = 2 if self.layout == "NCHW" else 1
        return self.model_copy(update={"shape": (*self.shape[:first], *size, *self.shape[first + 2 :])})


class Parity(Record):
    """Numeric error of a file's logits against PyTorch's on the same inputs, and the tolerance it is judged by."""

    inputs: str
    """Where the inputs came from."""
    images: int
    max_abs: float
    relative: float
    """Maximum absolute difference over the standard deviation of PyTorch's logits."""
    snr_db: float
    top1_agreement: float
    """Share of images with the same top-1 class, 0..1."""
    tolerance: float
    """Largest accepted `relative`."""
    ran_in: str
    """Name and version of the runtime that computed the file's logits."""

    @property
    def passed(self) -> bool:
        """Whether the relative error is within the tolerance."""
        return self.relative <= self.tolerance


class BoxThresholds(Record):
    """Which boxes of a detector count."""

    score: float = Field(default=0.5, gt=0, lt=1)
    """Least probability of a box."""
    overlap: float = Field(default=0.5, gt=0, lt=1)
    """Intersection over union from which the less probable of two boxes of a class is left out."""


class Described(Record):
    """A record that lies beside the file it describes."""

    schema_version: Literal[1] = 1
    path: str
    """File name, relative to the record's folder."""
    sha256: str
    """Of the file, or of a folder's names and contents."""


class Origin(Record):
    """Weights of others that a file was made of."""

    name: str
    """Network and tag: shvit_s1.in1k."""
    address: str
    sha256: str | None
    """Of the published file."""
    license: str
    """Of the published weights; "none stated" where there is none."""


class Checkpoint(Described):
    """Trained weights (`path`, safetensors) and the network they belong to."""

    model: str
    """A model name, or the path its YAML had in training; a copy lies beside the weights, with their stem."""
    num_classes: int
    in_chans: int = 3
    resolution: Resolution
    """(height, width) in pixels."""
    preprocessing: Preprocessing
    labels: tuple[str, ...] = ()
    data: dict[str, Any] | None = None
    """The data config it was trained with (a DataConfig), its paths absolute; None if not recorded."""
    epoch: int | None = None
    top1: float | None = None
    """Validation top-1 in percent, of these very weights."""
    probe_queries: int = 0
    """Queries of an efficient-probing head in place of the network's own; 0 where it has its own."""
    origin: Origin | None = None
    """Published weights that these are, or were trained from."""
    model_args: dict[str, Any] = {}
    """timm arguments that shaped the network, besides classes and channels."""

    @property
    def dataset(self) -> str:
        """Source of the training data; empty if not recorded."""
        return str((self.data or {}).get("source", ""))

    def network_args(self) -> dict[str, Any]:
        """Returns the arguments of `create_model`, besides classes and channels, that rebuild this network."""
        return {**self.model_args, **({"probe_queries": self.probe_queries} if self.probe_queries else {})}


class Coverage(Record):
    """Operators of an exported file, and how many of them XNNPACK runs where the runtime reports it."""

    ops: dict[str, int]
    """Operator → number of occurrences; an ExecuTorch file lists its partitions, not the operators inside."""
    partitions: int | None
    """XNNPACK partitions; None where the format is not delegated before it reaches a phone."""
    outside: dict[str, int] | None
    """Operator → number of occurrences outside of all partitions; None where that is not reported."""
    warnings: tuple[str, ...] = ()
    """Operators known to be slow or unsupported on phones, each with the source of that."""


class UnitCheck(Record):
    """How a file computes on one unit of a phone, as far as an emulated or software unit shows; never a time."""

    unit: str
    """cpu (an ARM core), gpu or npu."""
    status: Literal["passed", "failed", "refused", "unavailable"]
    """failed: out of tolerance; refused: the unit does not take the file; unavailable: the unit is not set up here."""
    reason: str = ""
    """Why it did not pass."""
    parity: Parity | None = None
    partitions: int | None = None
    """Parts of the graph that the unit takes; None where its runtime does not report them."""
    outside: dict[str, int] | None = None
    """Operator → number of occurrences that fall back to the CPU; None where that is not reported."""
    notes: tuple[str, ...] = ()
    """Why operators fall back, and what the check does not show; a line each."""


class Top1Drop(Record):
    """Top-1 of a file beside PyTorch's on the same labelled images, none of which it was calibrated on."""

    inputs: str
    """Source of the images."""
    images: int
    top1_pytorch: float
    """Percent."""
    top1: float
    """Of the file, percent."""
    lost: int
    """Images that PyTorch classifies rightly and the file does not."""
    won: int
    """Images that the file classifies rightly and PyTorch does not."""

    @classmethod
    def of(cls, pytorch: "np.ndarray", file: "np.ndarray", inputs: str) -> "Top1Drop":
        """Counts what a file loses.

        Args:
            pytorch: (images,) whether PyTorch's top-1 is right.
            file: (images,) whether the file's is.
            inputs: source of the images.
        """
        return cls(
            inputs=inputs,
            images=len(file),
            top1_pytorch=100 * float(pytorch.mean()),
            top1=100 * float(file.mean()),
            lost=int((pytorch & ~file).sum()),
            won=int((file & ~pytorch).sum()),
        )

    @property
    def points(self) -> float:
        """By which the file is worse, in percentage points."""
        return 100 * (self.lost - self.won) / self.images

    @property
    def p_value(self) -> float:
        """McNemar's exact one-sided test: chance of so many lost among those that differ, were both equally good."""
        differing = self.lost + self.won
        return sum(math.comb(differing, lost) for lost in range(self.lost, differing + 1)) / 2**differing

    @property
    def too_large(self) -> bool:
        """Whether the file costs more than a point, and chance does not explain it: few images prove nothing."""
        return self.points > MOST_POINTS and self.p_value < CHANCE


class Form(Record):
    """How a file is written: of the equivalent forms that were tried, the one with the fewest cycles of a core."""

    device: str
    """The emulated core."""
    without: tuple[str, ...]
    """Graph passes of the target that were left out."""
    float_segments: tuple[int, ...]
    """Segments of an int8 file that stay float."""
    megacycles: float
    """Of one inference with this form, memory included where the core's calibration prices it."""
    plain_megacycles: float
    """Of the form that is written otherwise."""
    tried: dict[str, float]
    """Every form that was tried → its megacycles."""

    @property
    def gain(self) -> float:
        """Cycles of the plain form over those of this one."""
        return self.plain_megacycles / self.megacycles


class Artifact(Described):
    """One exported file (or `.mlpackage`, `.ncnn` or `.aimodel` folder) and its comparison with PyTorch."""

    target: str
    precision: str
    model: str
    input: InputSpec
    task: Task = "classify"
    boxes: BoxThresholds | None = None
    """Set where the task is detect."""
    output_shape: tuple[int, ...] = ()
    """Of one image's answer, [N, 4 + K] of a detector or [H, W, K] of a segmenter; () for a classifier."""
    output: Output = "logits"
    output_index: int = 0
    """Index of the file's output that holds the scores."""
    float_segments: tuple[int, ...] = ()
    """Segments (eighths) of an int8 file that stay float, counted from the input as 0."""
    form: Form | None = None
    """Set where the file's form was chosen by counting, `--optimize-for`."""
    preprocessing: Preprocessing
    labels: tuple[str, ...] = ()
    size_bytes: int
    parity: Parity | None
    """None where the file was not run; `why_not_runnable` then holds the reason."""
    why_not_runnable: str | None = None
    checks: tuple[UnitCheck, ...] = ()
    """Units of a phone that the file was also run on."""
    top1_drop: Top1Drop | None = None
    """Of a trained network, where labelled images were at hand; None: not measured."""
    zero_gammas: tuple[str, ...] = ()
    """Norm or LayerScale tensors that are all zero: converters fold their branches away, so latency is too low."""
    coverage: Coverage | None = None
    checkpoint: str | None = None
    """The PyTorch weights it was made of, relative to the record's folder; None for random ones."""
    checkpoint_sha256: str | None = None
    """Of that file when this one was made of it; None for random weights, and in records of older versions."""
    checkpoint_key: str | None = None
    """Key of the weights within that file, where one was given."""
    origin: Origin | None = None
    """Published weights that it was made of, or that those were trained from."""
    recipe_sha256: str = ""
    """Hash of the weights, options and images the file was made from; a file with another hash is exported again."""
    tools: dict[str, str]
    """Toolchain versions."""
    output_quantization: Quantization | None = None
    """Set where the file's output holds integers."""
    foreign: bool = False
    """True for a file that others made, described from the file alone and not compared with PyTorch."""
    undeclared: tuple[str, ...] = ()
    """What the file does not declare, so that this record holds a default: `preprocessing`, `resolution`, `output`,
    or `scores` (the index of the output that holds them)."""

    @model_validator(mode="after")
    def _layout_fits_task(self) -> Self:
        if self.task == "classify":
            if self.boxes is not None or self.output_shape:
                raise ValueError("boxes and output_shape belong to the tasks detect and segment, the task is classify")
            return self
        axes, first = (2, 4) if self.task == "detect" else (3, 0)
        shape = self.output_shape
        if len(shape) != axes or min(shape) < 1 or shape[-1] <= first:
            layout = "[places, 4 + classes]" if first else "[height, width, classes]"
            raise ValueError(f"task {self.task} has an output_shape of {layout}, got {list(shape)}")
        if (self.boxes is not None) != (self.task == "detect"):
            raise ValueError("boxes are set for the task detect, and only there")
        if self.labels and len(self.labels) != shape[-1] - first:
            raise ValueError(f"{shape[-1] - first} classes in output_shape and {len(self.labels)} labels")
        return self


def record_path(path: Path) -> Path:
    """Returns the path of a file's record: beside it, `.json` appended."""
    return path.with_name(path.name + ".json")


def has_record(path: Path) -> bool:
    """Whether a record lies beside a file, which need not be there itself. Raises MobilezooError."""
    finish(path)
    return record_path(path).is_file()


def load_record_of(cls: type[D], path: str | Path) -> D:
    """Loads the record beside a file, and checks that the file is still the one it describes.

    Args:
        cls: type of the record.
        path: the described file, not its record.

    Raises:
        MobilezooError: file or record is missing, the record is damaged, or the file's hash is another.
    """
    try:
        return _unchanged(cls, path)
    except MobilezooError:  # a writer may be replacing the two at this moment
        with at_rest(Path(path).expanduser()):
            return _unchanged(cls, path)


def _unchanged(cls: type[D], path: str | Path) -> D:
    record = read_record_of(cls, path)
    if reason := why_changed(path, record):
        raise MobilezooError(f"{reason}: export or train it again, or restore it")
    return record


def read_record_of(cls: type[D], path: str | Path) -> D:
    """Loads the record beside a file without comparing the file's hash.

    Args:
        cls: type of the record.
        path: the described file, not its record.

    Raises:
        MobilezooError: file or record is missing, or the record is damaged.
    """
    finish(Path(path).expanduser())
    beside = record_path(existing_path(path, "file"))
    if not beside.is_file():
        if beside.with_suffix("").is_dir() and beside.with_suffix("").suffix not in FOLDERS:
            raise MobilezooError(wrong_kind(path, "file"))
        raise MobilezooError(f"{str(path)!r} has no record {beside.name!r} beside it: export or train it again")
    return cls.parse(read_json(beside), str(beside))


def why_changed(path: str | Path, record: "Described") -> str | None:
    """Compares a file's hash with its record.

    Args:
        path: the described file.
        record: its record.

    Returns:
        The difference in words; None where the hashes are equal.
    """
    found = sha256_of(Path(path).expanduser())
    if found == record.sha256:
        return None
    return f"{str(path)!r} changed since its record was written (sha256 {found[:12]}…, recorded {record.sha256[:12]}…)"


def write_with_record(path: Path, write: Callable[[Path], None], describe: Callable[[Path], D]) -> D:
    """Writes a file and its record; both appear together or not at all.

    Args:
        path: the file; its record goes to `record_path(path)`.
        write: writes the file at the temporary path it is given; further files beside that path move along.
        describe: returns the record of the file at the temporary path; called after `write`.

    Returns:
        The record.

    Raises:
        MobilezooError: the folder cannot be written or the disk is full.
    """
    records: list[D] = []

    def fill(folder: Path) -> None:
        write(folder / path.name)
        records.append(describe(folder / path.name))
        record_path(folder / path.name).write_text(_as_text(records[0]), encoding="utf-8")

    write_together(path, fill)
    return records[0]


def _as_text(record: Record) -> str:
    return record.model_dump_json(indent=2) + "\n"


def save_record(path: Path, record: Record) -> Path:
    """Saves a record beside the existing file it describes, and returns the record's path.

    Args:
        path: the described file.
        record: its record.
    """
    return write_text(record_path(path), _as_text(record))


def save_json(path: Path, record: Record) -> Path:
    """Saves a record as a JSON file of its own, and returns its path.

    Args:
        path: the JSON file.
        record: any record.
    """
    return write_text(path, _as_text(record))


def file_stem(model: str) -> str:
    """Returns a network's name as the stem of file names: `timm:resnet18.a1_in1k` → `resnet18.a1_in1k`."""
    return model.rpartition(":")[2].replace("/", "_")
